//! Runs one feed through an engine and compares every view with the one-shot query after every epoch.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_durable::simulated::SimulatedDisk;
use millstream_durable::{Checkpoints, DataDirectory, Entry};
use millstream_engine::{Engine, Session};

use super::compare::{self, WRAPPED_COLUMN};
use super::convert::{Case, Object, Query};
use super::feed::{Content, Feed, Op};
use crate::drive;
use crate::generate::counts::class;

/// The time in seconds after which a feed counts as hanging, unless MILLSTREAM_PATIENCE sets another.
const PATIENCE_SECONDS: u64 = 120;

fn patience() -> Duration {
    let wished = std::env::var("MILLSTREAM_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(wished.unwrap_or(PATIENCE_SECONDS))
}

/// The numbers of threads to run epochs on, in turn.
const THREADS: [usize; 3] = [1, 2, 16];

/// The mode of the engine that a feed runs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every operator at its fastest.
    Fast,
    /// Every operator is Whole.
    Whole,
    /// Tables are append-only, and every operator is at its fastest for that. Only for feeds without extra
    /// rows.
    AppendOnly,
    /// Every query that may lag does, and is compared after every third epoch.
    Apart,
    /// The engine stops after every third epoch, and another one restarts from its checkpoint.
    Restarted,
    /// Like `Restarted`, with all rows spilled.
    Spilled,
}

impl Mode {
    /// Returns true if engines are restarted.
    fn restarts(self) -> bool {
        matches!(self, Mode::Restarted | Mode::Spilled)
    }
}

/// Number of epochs that a lagging query takes in at once in `Apart` mode.
const APART_EPOCHS: usize = 3;

/// Number of epochs between restarts in the modes that restart.
const RESTART_EPOCHS: usize = 3;

/// Statistics of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Number of epochs run.
    pub epochs: usize,
    /// Number of times that a view equalled its query.
    pub comparisons: usize,
    /// Number of times that a query failed as a batch, so that no comparison was possible.
    pub failed_in_batch: usize,
    /// Number of times that a view reported errors when its query failed as a batch.
    pub failed_alike: usize,
    /// The maximum number of spilled bytes after an epoch.
    pub spilled_bytes: usize,
    /// Number of times that a view had errors for rows that the batch answered without evaluating: a part of
    /// the view's plan fails for them when it runs alone.
    pub unreached: usize,
}

/// A view that differs from its query, or any other violation.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The query, as an index; `None`: the tables or the engine.
    pub query: Option<usize>,
    /// True for the late view, false for the one created before the rows.
    pub late: bool,
    /// The epoch of the feed.
    pub epoch: usize,
    /// The result found and the result expected.
    pub what: String,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The statistics.
    pub tally: Tally,
    /// At most one failure per query.
    pub failures: Vec<Failure>,
    /// For each query, its failure as a batch in the last epoch, if any.
    pub unanswered: Vec<Option<String>>,
    /// For each query, true if it failed as a batch in some epoch.
    pub failed_in_batch: Vec<bool>,
    /// For each query, its batch answer in the last epoch, if it had one and nothing was wrong.
    pub answers: Vec<Option<RecordBatch>>,
}

/// Feeds the tables of `case` and compares `queries` after every epoch.
pub async fn run(case: &Case, queries: &[Query], feed: &Feed, mode: Mode) -> Outcome {
    let stage = Mutex::new(String::from("starting"));
    let run = async {
        let mut run = match Run::start(case, queries, mode).await {
            Ok(run) => run,
            Err(what) => return broken(0, what),
        };
        for epoch in 0..feed.epochs {
            if let Err(what) = run.epoch(feed, epoch, &stage).await {
                run.outcome.failures.push(Failure { query: None, late: false, epoch, what });
                break;
            }
        }
        note(&stage, "stopping the engine".into());
        if let Err(error) = run.engine.stop().await {
            let what = format!("the engine does not stop: {error}");
            run.outcome.failures.push(Failure { query: None, late: false, epoch: feed.epochs, what });
        }
        run.outcome
    };
    match tokio::time::timeout(patience(), run).await {
        Ok(outcome) => outcome,
        Err(_) => {
            broken(0, format!("hangs at: {}", stage.into_inner().unwrap_or_else(|stage| stage.into_inner())))
        }
    }
}

/// Limits that a query may exceed both as a batch and as a view.
const LIMITS: [&str; 2] = ["recursion_max", "output_rows_max"];

/// The prefix of a case's settings that belong to the planner: an engine gets them when it is created.
pub const PLANNER_SETTING: &str = "SET datafusion.";

/// Returns the planner context of an engine, if a case sets planner settings.
fn planner_context(settings: &[String]) -> drive::Result<Option<SessionContext>> {
    let mut config = SessionConfig::new();
    let mut any = false;
    for sql in settings.iter().filter(|sql| sql.starts_with(PLANNER_SETTING)) {
        let (name, value) = sql
            .trim_start_matches("SET ")
            .split_once(" = ")
            .ok_or_else(|| format!("{sql}: a setting of the planner's is written SET name = 'value'"))?;
        let set = config.options_mut().set(name, value.trim_matches('\''));
        set.map_err(|error| format!("{sql}: {error}"))?;
        any = true;
    }
    Ok(any.then(|| SessionContext::new_with_config(config)))
}

/// Creates an object by its DDL; a table without DDL from the columns of its rows.
async fn create(session: &mut Session, object: &Object) -> drive::Result<()> {
    match &object.table {
        Some(table) if object.ddl.is_empty() => {
            let schema = table.rows.schema();
            let made = session.create_table(&object.name, schema, &table.key).await;
            made.map(|_| ()).map_err(|error| format!("table {} can't be made: {error}", object.name))
        }
        _ => drive::run(session, &object.ddl).await.map(|_| ()),
    }
}

fn broken(epoch: usize, what: String) -> Outcome {
    Outcome { failures: vec![Failure { query: None, late: false, epoch, what }], ..Outcome::default() }
}

fn note(stage: &Mutex<String>, what: String) {
    if let Ok(mut stage) = stage.lock() {
        *stage = what;
    }
}

/// The state of a query in a run.
#[derive(Clone, Debug, Default)]
struct Watched {
    /// True if the early view exists: it was created before the rows.
    early: bool,
    /// True if the late view exists: it was created on the way.
    late: bool,
    /// True if a violation was found; nothing more is compared.
    done: bool,
}

/// Starts an engine for a mode. It uses the disk only if other engines restart after it.
fn engine(case: &Case, mode: Mode, disk: &SimulatedDisk) -> drive::Result<Engine> {
    // Several threads process small changes, if there are several; one processes smaller ones.
    let builder = Engine::builder().spread_from(12);
    let builder = match mode {
        // A view that reads a part of another one would hide what its own operators do.
        Mode::Fast => builder.separate_parts(),
        Mode::Whole => builder.whole_only().separate_parts(),
        Mode::AppendOnly => builder.append_only_tables().separate_parts(),
        Mode::Apart => builder.step_apart(APART_EPOCHS as u64),
        Mode::Restarted | Mode::Spilled => builder.data_directory(DataDirectory::on(Arc::new(disk.clone()))),
    };
    let builder = match planner_context(&case.settings)? {
        Some(context) => builder.session_context(context),
        None => builder,
    };
    builder.start().map_err(|error| error.to_string())
}

/// Runs the settings of a case in a session.
async fn set(session: &mut Session, case: &Case) -> drive::Result<()> {
    for sql in case.settings.iter().filter(|sql| !sql.starts_with(PLANNER_SETTING)) {
        drive::run(session, sql).await?;
    }
    Ok(())
}

/// Parts of a query that prevent its plan from being stored.
const NO_PLANS: &[&str] = &["a table function of the query engine's"];

/// Fails if a start would have to plan a query again, other than one with those parts.
fn plans_are_kept(disk: &SimulatedDisk) -> drive::Result<()> {
    let directory = DataDirectory::on(Arc::new(disk.clone()));
    let found = Checkpoints::of(&directory).newest().map_err(|error| error.to_string())?;
    let entries = found.checkpoint.map(|checkpoint| checkpoint.catalog).unwrap_or_default();
    for entry in entries {
        let Entry::Changed { statements, plans, .. } = entry else { continue };
        for plan in plans {
            match plan.plan {
                Err(reason) if !NO_PLANS.contains(&reason.as_str()) => {
                    let text = statements.join("; ");
                    return Err(format!(
                        "the plan of {} isn't kept since {reason} can't be: {text}",
                        plan.object
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

struct Run<'a> {
    case: &'a Case,
    /// The disk that a restarted engine reads.
    disk: SimulatedDisk,
    engine: Engine,
    restarted: bool,
    session: Session,
    queries: &'a [Query],
    mode: Mode,
    watched: Vec<Watched>,
    content: Option<Content>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    async fn start(case: &'a Case, queries: &'a [Query], mode: Mode) -> drive::Result<Run<'a>> {
        let disk = SimulatedDisk::default();
        let engine = engine(case, mode, &disk)?;
        let mut session = engine.session();
        drive::run(&mut session, "SET clock = 'manual'").await?;
        if mode == Mode::Spilled {
            drive::run(&mut session, "SET memory_limit = 1").await?;
        }
        set(&mut session, case).await?;
        for object in &case.objects {
            create(&mut session, object).await?;
        }
        let outcome = Outcome {
            unanswered: vec![None; queries.len()],
            failed_in_batch: vec![false; queries.len()],
            answers: vec![None; queries.len()],
            ..Outcome::default()
        };
        let watched = vec![Watched::default(); queries.len()];
        let restarted = false;
        Ok(Run { case, disk, engine, restarted, session, queries, mode, watched, content: None, outcome })
    }

    /// Stops the engine and starts another one from its checkpoint.
    async fn restart(&mut self) -> drive::Result<()> {
        drive::run(&mut self.session, "CHECKPOINT").await?;
        self.engine.stop().await.map_err(|error| error.to_string())?;
        if !self.restarted {
            self.restarted = true;
            plans_are_kept(&self.disk)?;
        }
        self.engine = engine(self.case, self.mode, &self.disk)?;
        self.session = self.engine.session();
        set(&mut self.session, self.case).await
    }

    /// Records the number of spilled bytes.
    async fn note_spilled(&mut self) -> drive::Result<()> {
        let rows = drive::rows(&mut self.session, "SELECT spilled_bytes FROM millstream.memory").await?;
        let bytes = rows.column(0).as_primitive_opt::<Int64Type>().filter(|bytes| bytes.len() == 1);
        let bytes = bytes.ok_or("millstream.memory hasn't one row")?.value(0) as usize;
        self.outcome.tally.spilled_bytes = self.outcome.tally.spilled_bytes.max(bytes);
        Ok(())
    }

    /// Runs one epoch: creates the views that are due, inserts and deletes rows, runs the batch, compares.
    async fn epoch(&mut self, feed: &Feed, epoch: usize, stage: &Mutex<String>) -> drive::Result<()> {
        if epoch == 0 {
            note(stage, "creating the views".into());
            self.create_views(false, epoch).await;
        }
        if epoch == feed.late {
            note(stage, format!("creating the late views before epoch {epoch}"));
            self.create_views(true, epoch).await;
        }
        let mut content = self.content.take().unwrap_or_else(|| Content::new(feed));
        for call in feed.calls(epoch) {
            let name = &feed.pools[call.table].table;
            note(
                stage,
                format!("epoch {epoch}: {} rows of {name}, put in: {}", call.rows.len(), call.insert),
            );
            let rows = call.batch(feed).map_err(|error| error.to_string())?;
            let done = if call.insert {
                self.session.insert(name, rows).await
            } else {
                self.session.delete_rows(name, rows).await
            };
            let verb = if call.insert { "put into" } else { "taken out of" };
            done.map_err(|error| format!("{} rows can't be {verb} {name}: {error}", call.rows.len()))?;
            for row in call.rows {
                content.apply(feed, &Op { epoch, table: call.table, row, insert: call.insert });
            }
        }
        let threads = THREADS[(epoch + feed.ops.len()) % THREADS.len()];
        note(stage, format!("epoch {epoch}: ADVANCE BATCH on {threads} threads"));
        drive::run(&mut self.session, &format!("SET parallelism = {threads}")).await?;
        drive::run(&mut self.session, "ADVANCE BATCH").await?;
        self.outcome.tally.epochs += 1;
        for table in 0..feed.pools.len() {
            self.check_table(feed, &content, table).await?;
        }
        self.content = Some(content);
        let last = epoch + 1 == feed.epochs;
        if self.mode == Mode::Apart && !last && epoch % APART_EPOCHS != APART_EPOCHS - 1 {
            return Ok(());
        }
        if self.mode == Mode::Spilled {
            self.note_spilled().await?;
        }
        if self.mode.restarts() && epoch % RESTART_EPOCHS == RESTART_EPOCHS - 1 {
            note(stage, format!("epoch {epoch}: another engine goes on"));
            self.restart().await?;
        }
        // The checkpoint of the next restart holds the changes since this one.
        if self.mode == Mode::Restarted && epoch.is_multiple_of(RESTART_EPOCHS) {
            note(stage, format!("epoch {epoch}: a checkpoint"));
            drive::run(&mut self.session, "CHECKPOINT").await?;
        }
        for query in 0..self.queries.len() {
            note(stage, format!("epoch {epoch}: comparing {}", self.queries[query].sql));
            if !self.watched[query].done {
                self.check_query(query, epoch).await;
            }
        }
        Ok(())
    }

    /// Fails unless a table holds exactly the rows inserted and not deleted.
    async fn check_table(&mut self, feed: &Feed, content: &Content, table: usize) -> drive::Result<()> {
        let name = &feed.pools[table].table;
        let found = drive::rows(&mut self.session, &format!("SELECT * FROM \"{name}\"")).await?;
        let expected = content.batch(feed, table).map_err(|error| error.to_string())?;
        match compare::difference(&found, &expected)? {
            None => Ok(()),
            Some(difference) => {
                let what = difference
                    .replace("the batch answer", "what was put in")
                    .replace("what is maintained", "the table");
                Err(format!("table {name} does not hold what was put in:\n{what}"))
            }
        }
    }

    async fn create_views(&mut self, late: bool, epoch: usize) {
        for query in 0..self.queries.len() {
            if self.watched[query].done {
                continue;
            }
            match self.create_view(query, late).await {
                Ok(()) if late => self.watched[query].late = true,
                Ok(()) => self.watched[query].early = true,
                Err(what) => self.fail(query, late, epoch, format!("can't be maintained: {what}")),
            }
        }
    }

    async fn create_view(&mut self, query: usize, late: bool) -> drive::Result<()> {
        let (name, sql) = (view_name(query, late), &self.queries[query].sql);
        let Err(error) =
            drive::run(&mut self.session, &format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await
        else {
            return Ok(());
        };
        // A query may give two columns one name, a relation may not: rename them.
        let Ok(shape) = drive::rows(&mut self.session, sql).await else { return Err(error) };
        let mut names: Vec<&str> =
            shape.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        names.sort_unstable();
        if names.windows(2).all(|pair| pair[0] != pair[1]) {
            return Err(error);
        }
        let columns: Vec<String> =
            (0..shape.num_columns()).map(|at| format!("{WRAPPED_COLUMN}{at}")).collect();
        let wrapped = format!(
            "CREATE MATERIALIZED VIEW {name} AS SELECT * FROM ({sql}\n) AS q({})",
            columns.join(", ")
        );
        drive::run(&mut self.session, &wrapped).await.map(|_| ())
    }

    async fn check_query(&mut self, query: usize, epoch: usize) {
        let batch = match drive::rows(&mut self.session, &self.queries[query].sql).await {
            Ok(batch) => {
                self.outcome.unanswered[query] = None;
                self.outcome.answers[query] = Some(batch.clone());
                batch
            }
            Err(error) if error.contains("panicked") || error.contains("JoinError") => {
                return self.fail(query, false, epoch, format!("the batch panics: {error}"));
            }
            Err(error) => {
                self.outcome.tally.failed_in_batch += 1;
                self.outcome.unanswered[query] = Some(error.clone());
                self.outcome.answers[query] = None;
                self.outcome.failed_in_batch[query] = true;
                self.check_errors(query, epoch, &error).await;
                return;
            }
        };
        for late in self.views(query) {
            self.check_view(query, late, epoch, &batch).await;
        }
    }

    /// Returns the views of a query to compare.
    fn views(&self, query: usize) -> Vec<bool> {
        let watched = &self.watched[query];
        let views = [(watched.early, false), (watched.late, true)];
        views.into_iter().filter(|(there, _)| *there && !watched.done).map(|(_, late)| late).collect()
    }

    /// Checks that the views of a query that fails as a batch report errors. A view may not see some failing
    /// row, but data never suspends a view, so it continues when the rows are gone. A limit that the batch
    /// exceeds may suspend the views, and ends the comparison.
    async fn check_errors(&mut self, query: usize, epoch: usize, batch: &str) {
        for late in self.views(query) {
            let name = view_name(query, late);
            match drive::rows(&mut self.session, &format!("SELECT * FROM {name}")).await {
                Err(error) if error.contains("has errors") => self.outcome.tally.failed_alike += 1,
                Err(error) if LIMITS.iter().any(|limit| batch.contains(limit) && error.contains(limit)) => {
                    self.outcome.tally.failed_alike += 1;
                    self.watched[query].done = true;
                    return;
                }
                Err(error) => {
                    return self.fail(
                        query,
                        late,
                        epoch,
                        format!("the view has no errors, but fails: {error}"),
                    );
                }
                Ok(_) => {}
            }
        }
    }

    /// Compares one view.
    async fn check_view(&mut self, query: usize, late: bool, epoch: usize, batch: &RecordBatch) {
        if self.watched[query].done {
            return;
        }
        let name = view_name(query, late);
        let found = match drive::rows(&mut self.session, &format!("SELECT * FROM {name}")).await {
            Ok(found) => found,
            Err(error) => {
                match self.is_unreached(query, &name).await {
                    Ok(true) => self.outcome.tally.unreached += 1,
                    Ok(false) => {
                        let what = format!("the view fails where the batch answers: {error}");
                        self.fail(query, late, epoch, what);
                    }
                    Err(what) => {
                        let what = format!("the view fails where the batch answers: {error}\n{what}");
                        self.fail(query, late, epoch, what);
                    }
                }
                return;
            }
        };
        match compare::difference(&found, batch) {
            Ok(None) => self.outcome.tally.comparisons += 1,
            Ok(Some(difference)) => self.fail(query, late, epoch, difference),
            Err(error) => self.fail(query, late, epoch, format!("can't be compared: {error}")),
        }
    }

    /// Returns true if a view fails only for rows that the batch never evaluates (the other side of a join is
    /// empty, a LIMIT is reached): parts of its plan fail in the same way when they run alone. An empty list
    /// of errors means false: the view is suspended, or another one fails.
    async fn is_unreached(&mut self, query: usize, view: &str) -> drive::Result<bool> {
        let errors = format!("SELECT message FROM millstream.errors WHERE query = '{view}'");
        let errors = drive::text(&drive::rows(&mut self.session, &errors).await?)?;
        let failing = self.session.failing_parts(&self.queries[query].sql).await;
        let failing = failing.map_err(|error| format!("its parts can't be run: {error}"))?;
        let failing: Vec<String> = failing.iter().map(|message| class(message)).collect();
        Ok(!errors.is_empty() && errors.iter().all(|error| failing.contains(&class(error))))
    }

    fn fail(&mut self, query: usize, late: bool, epoch: usize, what: String) {
        self.watched[query].done = true;
        self.outcome.answers[query] = None;
        self.outcome.failures.push(Failure { query: Some(query), late, epoch, what });
    }
}

/// Returns the name of the view of a query.
pub fn view_name(query: usize, late: bool) -> String {
    if late { format!("oracle_late_{query}") } else { format!("oracle_{query}") }
}
