//! The health of an engine: a list of problems, each with the statement that explains or mends it.

use millstream_engine::quoted_ident;
use serde_json::{Value, json};

use crate::reading::{Reading, Row, number, text};

/// The statement that names the operators with most state.
const LARGEST: &str =
    "SELECT query, node, operator, state_bytes FROM millstream.operators ORDER BY state_bytes DESC LIMIT 10";

/// Maximum number of problems that the page lists.
const PROBLEMS_MAX: usize = 20;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Something does not run.
    Error,
    /// Something is late, or fails in part.
    Warning,
    /// Something waits for the user.
    Note,
}

/// A problem of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) level: Level,
    /// The kind of the object and its name: `source "clicks"`.
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) statement: String,
}

impl Problem {
    pub(crate) fn json(&self) -> Value {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        json!({
            "level": level,
            "object": self.object,
            "reason": self.reason,
            "statement": self.statement,
        })
    }
}

/// Returns the problems, the worst first. `lateness` says why epochs don't keep up, if they don't; `warnings` are those of
/// the engine's progress.
pub(crate) fn problems(reading: &Reading, lateness: Option<String>, warnings: &[String]) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(reason) = lateness {
        found.push(problem(Level::Warning, "epochs".into(), &reason, "EXPLAIN WHY".into()));
    }
    reading.sources.iter().for_each(|row| source(row, &mut found));
    reading.queries.iter().for_each(|row| query(row, &mut found));
    reading.sinks.iter().for_each(|row| sink(row, &mut found));
    if let Some(reason) = text(&reading.memory, "reason") {
        found.push(problem(Level::Warning, "memory_limit".into(), reason, LARGEST.into()));
    }
    if let Some(reason) = reading.checkpoints.last().and_then(|row| text(row, "reason")) {
        let statement = "SELECT * FROM millstream.checkpoints ORDER BY at DESC LIMIT 5";
        found.push(problem(Level::Error, "checkpoint".into(), reason, statement.into()));
    }
    let memory = text(&reading.memory, "reason");
    let is_new = |warning: &&String| Some(warning.as_str()) != memory && !warning.starts_with("epochs ");
    found.extend(warnings.iter().filter(is_new).map(|warning| {
        let statement = "SELECT * FROM millstream.source_partitions".into();
        problem(Level::Warning, "engine:".into(), warning, statement)
    }));
    found.sort_by_key(|problem| problem.level);
    found
}

/// Returns the first problems; if there are too many, the last line says how many more.
pub(crate) fn shown(mut all: Vec<Problem>) -> Vec<Problem> {
    let more = all.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        let level = all[PROBLEMS_MAX].level;
        all.truncate(PROBLEMS_MAX);
        let statement =
            "SELECT name, status, reason FROM millstream.materialized_views WHERE status <> 'running'";
        all.push(problem(level, "engine".into(), &format!("has {more} more problems"), statement.into()));
    }
    all
}

fn problem(level: Level, object: String, reason: &str, statement: String) -> Problem {
    Problem { level, object, reason: reason.into(), statement }
}

fn name(row: &Row) -> &str {
    text(row, "name").unwrap_or_default()
}

/// Returns a text as an SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the reason of a row, or a text that says that there is none.
fn reason(row: &Row) -> &str {
    text(row, "reason").unwrap_or("no reason is known")
}

fn source(row: &Row, found: &mut Vec<Problem>) {
    let object = format!("source {}", quoted_ident(name(row)));
    let status = text(row, "status").unwrap_or_default();
    let look = format!("SELECT * FROM millstream.sources WHERE name = {}", literal(name(row)));
    match status {
        "failed" => {
            found.push(problem(Level::Error, object.clone(), &format!("failed: {}", reason(row)), look));
        }
        "restarting" => {
            let why = format!("is restarting: {}", reason(row));
            found.push(problem(Level::Warning, object.clone(), &why, look));
        }
        "paused" => {
            let resume = format!("RESUME SOURCE {}", quoted_ident(name(row)));
            found.push(problem(Level::Note, object.clone(), "is paused", resume));
        }
        _ => {}
    }
    if let Some(bad) = number(row, "bad_rows").filter(|bad| *bad > 0) {
        let look = format!("SELECT * FROM bad_rows({}) LIMIT 10", literal(name(row)));
        found.push(problem(Level::Note, object, &format!("{bad} records could not be decoded"), look));
    }
}

fn query(row: &Row, found: &mut Vec<Problem>) {
    let kind = text(row, "kind").unwrap_or("query");
    let object = format!("{kind} {}", quoted_ident(name(row)));
    let why = format!("EXPLAIN WHY {} {}", kind.to_uppercase(), quoted_ident(name(row)));
    match text(row, "status").unwrap_or_default() {
        "suspended" => {
            found.push(problem(Level::Error, object.clone(), &format!("is suspended: {}", reason(row)), why));
            return;
        }
        "behind" => found.push(problem(Level::Warning, object.clone(), &format!("is {}", behind(row)), why)),
        "starting" => found.push(problem(Level::Note, object.clone(), "is starting", "SHOW JOBS".into())),
        "paused" => {
            let resume = format!("RESUME {} {}", kind.to_uppercase(), quoted_ident(name(row)));
            found.push(problem(Level::Note, object.clone(), "is paused", resume));
        }
        _ => {}
    }
    if let Some(errors) = number(row, "errors").filter(|errors| *errors > 0) {
        let look = format!("SELECT * FROM millstream.errors WHERE query = {}", literal(name(row)));
        let text = format!("fails for {errors} rows: {}", reason(row));
        found.push(problem(Level::Warning, object, &text, look));
    }
}

/// Returns how far a query is behind.
fn behind(row: &Row) -> String {
    match behind_epochs(row) {
        Some(epochs) => format!("{epochs} epochs behind"),
        None => "behind".into(),
    }
}

/// Returns the number of epochs that a query is behind; `None` if its reason names an error instead.
fn behind_epochs(row: &Row) -> Option<u64> {
    if text(row, "status") != Some("behind") {
        return Some(0);
    }
    text(row, "reason").and_then(|reason| reason.strip_suffix(" epochs behind")?.parse().ok())
}

fn sink(row: &Row, found: &mut Vec<Problem>) {
    let object = format!("sink {}", quoted_ident(name(row)));
    let why = format!("EXPLAIN WHY SINK {}", quoted_ident(name(row)));
    let (level, verb) = match text(row, "status").unwrap_or_default() {
        "failed" => (Level::Error, "failed"),
        "suspended" => (Level::Error, "is suspended"),
        "retrying" => (Level::Warning, "is retried"),
        "paused" => {
            let resume = format!("RESUME SINK {}", quoted_ident(name(row)));
            found.push(problem(Level::Note, object, "is paused", resume));
            return;
        }
        _ => return,
    };
    found.push(problem(level, object, &format!("{verb}: {}", reason(row)), why));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_engine_without_trouble_has_no_problem() {
        let reading = Reading {
            sources: vec![row(json!({"name": "s", "status": "running", "bad_rows": 0}))],
            queries: vec![row(json!({"name": "q", "kind": "stream", "status": "running", "errors": 0}))],
            sinks: vec![row(json!({"name": "k", "status": "running"}))],
            ..Reading::default()
        };
        assert_eq!(problems(&reading, None, &[]), []);
    }

    #[test]
    fn each_problem_names_its_object_and_a_statement() {
        let reading = Reading {
            sources: vec![row(
                json!({"name": "a\"b", "status": "restarting", "reason": "gone", "bad_rows": 3}),
            )],
            queries: vec![
                row(
                    json!({"name": "q", "kind": "materialized view", "status": "suspended", "reason": "full"}),
                ),
                row(
                    json!({"name": "r", "kind": "stream", "status": "behind", "reason": "7 epochs behind", "errors": 1}),
                ),
            ],
            sinks: vec![row(json!({"name": "k", "status": "failed", "reason": "refused (attempt 3)"}))],
            memory: row(json!({"reason": "too much"})),
            checkpoints: vec![row(json!({"reason": "disk full"}))],
            ..Reading::default()
        };
        let found: Vec<String> =
            problems(&reading, Some("they wait".into()), &["a is silent".into(), "too much".into()])
                .iter()
                .map(|problem| format!("{}: {}; {}", problem.object, problem.reason, problem.statement))
                .collect();
        for expected in [
            "materialized view \"q\": is suspended: full; EXPLAIN WHY MATERIALIZED VIEW \"q\"",
            "sink \"k\": failed: refused (attempt 3); EXPLAIN WHY SINK \"k\"",
            "source \"a\"\"b\": is restarting: gone; SELECT * FROM millstream.sources WHERE name = 'a\"b'",
            "source \"a\"\"b\": 3 records could not be decoded; SELECT * FROM bad_rows('a\"b') LIMIT 10",
            "epochs: they wait; EXPLAIN WHY",
            "engine:: a is silent; SELECT * FROM millstream.source_partitions",
            "stream \"r\": is 7 epochs behind; EXPLAIN WHY STREAM \"r\"",
        ] {
            assert!(found.iter().any(|found| found == expected), "{expected} in {found:#?}");
        }
        assert_eq!(found.len(), 10);
        assert!(found[0].starts_with("materialized view") && found[9].contains("could not be decoded"));
    }

    #[test]
    fn many_problems_are_cut() {
        let one = problem(Level::Note, "a".into(), "is paused", String::new());
        assert_eq!(shown(vec![one.clone(); PROBLEMS_MAX]).len(), PROBLEMS_MAX);
        let all = shown(vec![one; PROBLEMS_MAX + 480]);
        assert_eq!(
            (all.len(), all[PROBLEMS_MAX].reason.as_str()),
            (PROBLEMS_MAX + 1, "has 480 more problems")
        );
    }
}
