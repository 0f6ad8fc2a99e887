//! `millstream.problems`: objects that fail, wait or fall behind, each with the statement that explains or mends it.

use millstream_delta::Timestamp;
use millstream_sql::functions::quoted_ident;

use super::problem::{Level, Problem, literal};
use super::query::Status;
use super::query_names::query_called;
use super::read_view::ReadView;
use super::system::{Cell, Lines, NULL};
use crate::catalog::Definition;
use crate::event::ObjectStatus;

/// The statement that names the operators with most state.
const LARGEST: &str =
    "SELECT query, node, operator, state_bytes FROM millstream.operators ORDER BY state_bytes DESC LIMIT 10";

/// The statement that shows the newest checkpoints.
const CHECKPOINTS: &str = "SELECT * FROM millstream.checkpoints ORDER BY at DESC LIMIT 5";

impl ReadView<'_> {
    /// Returns the rows of `millstream.problems`, the worst first.
    pub(super) fn problem_lines(&self) -> Lines {
        let problems = problems(self);
        let since = self.measures.first_seen.of(&problems, self.clock.now(&self.setup.settings));
        let line = |(problem, since): (Problem, Timestamp)| {
            vec![
                problem.level.name().into(),
                problem.kind.into(),
                problem.object.map_or(NULL, Cell::from),
                since.into(),
                problem.message.into(),
                problem.statement.into(),
            ]
        };
        problems.into_iter().zip(since).map(line).collect()
    }

    /// Looks at the problems, so that their begin is known.
    pub(super) fn note_problems(&self) {
        self.measures.first_seen.of(&problems(self), self.clock.now(&self.setup.settings));
    }
}

/// Returns all problems, the worst first.
fn problems(view: &ReadView<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    engine_problems(view, &mut found);
    for object in view.setup.catalog.objects() {
        let definition = &object.definition;
        match definition {
            Definition::Source { .. } => source(&view.status_of(&object.name), &mut found),
            Definition::MaterializedView { .. } | Definition::Stream { .. } => {
                let status = view.status_of(&object.name);
                let behind = if status.status == "behind" { epochs_behind(view, &object.name) } else { 0 };
                query(definition.base_kind(), &status, behind, &mut found);
            }
            Definition::Sink { .. } | Definition::SinkInto { .. } => {
                sink(&view.status_of(&object.name), &mut found);
            }
            _ => {}
        }
    }
    found.sort_by_key(|problem| problem.level);
    found
}

/// Adds the problems of the engine, and the conditions that need attention.
fn engine_problems(view: &ReadView<'_>, found: &mut Vec<Problem>) {
    let mut add = |level, kind, condition, message: String, statement: &str| {
        found.push(Problem { level, kind, object: None, condition, message, statement: statement.into() });
    };
    if let Some(reason) = view.durability.trouble() {
        add(Level::Error, "journal", "trouble", reason, "EXPLAIN WHY");
    }
    if let Some(reason) = view.durability.checkpoint_failure() {
        let message = format!("the newest checkpoint could not be written: {reason}");
        add(Level::Error, "checkpoint", "failed", message, CHECKPOINTS);
    }
    if let Some(reason) = view.memory.trouble() {
        add(Level::Warning, "memory", "limit", reason, LARGEST);
    }
    for alert in view.measures.alerts.all() {
        found.push(Problem {
            level: Level::Warning,
            kind: alert.kind,
            object: alert.object.as_deref().map(str::to_owned),
            condition: alert.condition,
            message: alert.message.clone(),
            statement: alert.statement.clone(),
        });
    }
    for (name, _, waiting) in view.outputs.full_subscriptions() {
        found.push(Problem {
            level: Level::Warning,
            kind: "subscription",
            object: Some(name.to_string()),
            condition: "full",
            message: format!("is full: {}", waiting.refusal(name).message),
            statement: format!("SELECT * FROM millstream.subscriptions WHERE name = {}", literal(name)),
        });
    }
}

/// Returns the number of epochs that a query is behind.
fn epochs_behind(view: &ReadView<'_>, name: &str) -> u64 {
    match query_called(view.queries, name).map(|query| &query.status) {
        Some(Status::Lagging(lag)) => view.clock.epoch.0.saturating_sub(lag.through().0),
        _ => 0,
    }
}

/// Returns the reason of a status, or a text that says that there is none.
fn reason(status: &ObjectStatus) -> &str {
    status.reason.as_deref().unwrap_or("no reason is known")
}

/// Returns a problem of an object by its status.
fn of(
    level: Level,
    kind: &'static str,
    status: &ObjectStatus,
    message: String,
    statement: String,
) -> Problem {
    let (object, condition) = (Some(status.name.to_string()), status.status);
    Problem { level, kind, object, condition, message, statement }
}

/// Returns the problem of an object that a user has paused.
fn paused(kind: &'static str, status: &ObjectStatus) -> Problem {
    let resume = format!("RESUME {} {}", kind.to_uppercase(), quoted_ident(&status.name));
    of(Level::Note, kind, status, "is paused".into(), resume)
}

fn source(status: &ObjectStatus, found: &mut Vec<Problem>) {
    let look = || format!("SELECT * FROM millstream.sources WHERE name = {}", literal(&status.name));
    match status.status {
        "failed" => {
            let message = format!("failed: {}", reason(status));
            found.push(of(Level::Error, "source", status, message, look()));
        }
        "restarting" => {
            let message = format!("is restarting: {}", reason(status));
            found.push(of(Level::Warning, "source", status, message, look()));
        }
        "paused" => found.push(paused("source", status)),
        _ => {}
    }
    if let Some(bad) = status.bad_rows.filter(|bad| *bad > 0) {
        let look = format!("SELECT * FROM bad_rows({}) LIMIT 10", literal(&status.name));
        let message = format!("has {bad} records that could not be decoded");
        found.push(Problem { condition: "bad rows", ..of(Level::Note, "source", status, message, look) });
    }
}

fn query(kind: &'static str, status: &ObjectStatus, behind: u64, found: &mut Vec<Problem>) {
    let why = || format!("EXPLAIN WHY {} {}", kind.to_uppercase(), quoted_ident(&status.name));
    match status.status {
        "suspended" => {
            let message = format!("is suspended: {}", reason(status));
            found.push(of(Level::Error, kind, status, message, why()));
            return;
        }
        "behind" => {
            found.push(of(Level::Warning, kind, status, format!("is {behind} epochs behind"), why()));
        }
        "starting" => {
            found.push(of(Level::Note, kind, status, "is starting".into(), "SHOW JOBS".into()));
        }
        "paused" => found.push(paused(kind, status)),
        _ => {}
    }
    if let Some(errors) = status.errors.filter(|errors| *errors > 0) {
        let look = format!("SELECT * FROM millstream.errors WHERE query = {}", literal(&status.name));
        let message = format!("fails for {errors} rows: {}", reason(status));
        found.push(Problem { condition: "errors", ..of(Level::Warning, kind, status, message, look) });
    }
}

fn sink(status: &ObjectStatus, found: &mut Vec<Problem>) {
    let (level, verb) = match status.status {
        "failed" => (Level::Error, "failed"),
        "suspended" => (Level::Error, "is suspended"),
        "retrying" => (Level::Warning, "is retried"),
        "paused" => {
            found.push(paused("sink", status));
            return;
        }
        _ => return,
    };
    let why = format!("EXPLAIN WHY SINK {}", quoted_ident(&status.name));
    found.push(of(level, "sink", status, format!("{verb}: {}", reason(status)), why));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, status: &'static str, reason: Option<&str>) -> ObjectStatus {
        ObjectStatus {
            name: name.into(),
            status,
            reason: reason.map(Into::into),
            rows: None,
            bad_rows: None,
            epoch: None,
            state_bytes: None,
            errors: None,
            on_error: None,
        }
    }

    fn texts(found: &[Problem]) -> Vec<String> {
        let text = |problem: &Problem| {
            let object = problem.object.as_deref().unwrap_or_default();
            format!("{} {object} {}; {}", problem.kind, problem.message, problem.statement)
        };
        found.iter().map(text).collect()
    }

    #[test]
    fn each_problem_names_its_object_and_a_statement() {
        let mut found = Vec::new();
        source(&ObjectStatus { bad_rows: Some(3), ..status("a'b", "restarting", Some("gone")) }, &mut found);
        query("materialized view", &status("a\"b", "suspended", Some("full")), 0, &mut found);
        let failing = ObjectStatus { errors: Some(1), ..status("r", "behind", Some("zero")) };
        query("stream", &failing, 7, &mut found);
        query("stream", &status("p", "paused", None), 0, &mut found);
        sink(&status("k", "failed", Some("refused (attempt 3)")), &mut found);
        assert_eq!(
            texts(&found),
            [
                "source a'b is restarting: gone; SELECT * FROM millstream.sources WHERE name = 'a''b'",
                "source a'b has 3 records that could not be decoded; SELECT * FROM bad_rows('a''b') LIMIT 10",
                "materialized view a\"b is suspended: full; EXPLAIN WHY MATERIALIZED VIEW \"a\"\"b\"",
                "stream r is 7 epochs behind; EXPLAIN WHY STREAM \"r\"",
                "stream r fails for 1 rows: zero; SELECT * FROM millstream.errors WHERE query = 'r'",
                "stream p is paused; RESUME STREAM \"p\"",
                "sink k failed: refused (attempt 3); EXPLAIN WHY SINK \"k\"",
            ]
        );
    }

    #[test]
    fn running_objects_have_no_problem() {
        let mut found = Vec::new();
        source(&ObjectStatus { bad_rows: Some(0), ..status("s", "running", None) }, &mut found);
        query("stream", &ObjectStatus { errors: Some(0), ..status("q", "running", None) }, 0, &mut found);
        sink(&status("k", "running", None), &mut found);
        assert_eq!(found, []);
    }
}
