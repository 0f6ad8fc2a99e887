//! Listeners of an engine, and how a program stops one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream_delta::Timestamp;
use millstream_engine::{Batch, Engine, Listener, SinkDelivery};
use millstream_testkit::broker::Database;
use millstream_testkit::drive::{self, Result, ensure, expect, run, run_all, until, within_a_minute};
use millstream_testkit::parts::{Gate, Pushed};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_listener_hears_batches_and_sources", || drive::block_on(listening())),
    ("a_listener_hears_sinks_and_the_start", || drive::block_on(listening_to_sinks())),
    ("a_graceful_stop_takes_in_what_has_come", || drive::block_on(graceful_stop())),
    ("inserts_wait_for_a_sink_that_is_far_behind", || drive::block_on(full_buffer())),
];

/// Records its notifications.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listener for Heard {
    fn batch_submitted(&mut self, time: Timestamp) {
        self.note(format!("submitted {}", time.millis()));
    }
    fn batch_started(&mut self, batch: &Batch) {
        self.note(format!("started {} {:?}", batch.epoch, batch.inputs));
    }
    fn batch_completed(&mut self, batch: &Batch) {
        self.note(format!(
            "completed {}: {} rows in, {} out",
            batch.epoch,
            batch.input_rows(),
            batch.output_rows
        ));
    }
    fn source_started(&mut self, source: &str) {
        self.note(format!("{source} started"));
    }
    fn source_stopped(&mut self, source: &str) {
        self.note(format!("{source} stopped"));
    }
    fn engine_started(&mut self, time: Timestamp) {
        self.note(format!("engine started at {}", time.0 > 0));
    }
    fn source_error(&mut self, source: &str, error: &str) {
        self.note(format!("{source} failed: {error}"));
    }
    fn sink_started(&mut self, delivery: &SinkDelivery) {
        let SinkDelivery { sink, from, through, rows, .. } = delivery;
        self.note(format!("{sink} is handed {from} to {through}, {rows} rows"));
    }
    fn sink_completed(&mut self, delivery: &SinkDelivery) {
        let SinkDelivery { sink, from, through, rows, failure, is_lasting } = delivery;
        self.note(match failure {
            Some(reason) => format!("{sink} failed with {from} to {through} ({is_lasting}): {reason}"),
            None => format!("{sink} has delivered {from} to {through}, {rows} rows"),
        });
    }
}

async fn listening() -> Result<()> {
    let heard = Heard::default();
    let engine = Engine::builder().listener(heard.clone()).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 3, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW m AS SELECT n FROM n WHERE n > 0",
            "ADVANCE BATCH 2",
        ],
    )
    .await?;
    let expected = [
        "engine started at true",
        "n started",
        "n stopped",
        "submitted 1",
        "started 1 [(\"n\", 3)]",
        "completed 1: 3 rows in, 2 out",
        "submitted 2",
        "started 2 []",
        "completed 2: 0 rows in, 0 out",
    ];
    until("the listener to hear all", || heard.all().len() >= expected.len()).await?;
    ensure(heard.all() == expected, || format!("{:#?}\n  was heard, expected {expected:#?}", heard.all()))
}

/// A sink reports each epoch that it is handed and has delivered, and why it fails.
async fn listening_to_sinks() -> Result<()> {
    let folder = super::folder()?;
    let (heard, database) = (Heard::default(), Database::default());
    database.content().lose_answer_after = 1;
    let engine = Engine::builder()
        .listener(heard.clone())
        .connector(Arc::new(database.clone()))
        .data(folder.path())
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (n BIGINT) APPEND ONLY",
            "CREATE SINK k FROM t WITH (connector = 'database')",
            "INSERT INTO t VALUES (1), (2)",
            "ADVANCE BATCH",
        ],
    )
    .await?;
    let epochs =
        drive::lines(&mut session, "SELECT epoch FROM millstream.epochs WHERE input_rows = 2").await?;
    let [epoch] = &epochs[..] else { return Err(format!("{epochs:?}")) };
    let of_sink = || -> Vec<String> {
        let all = heard.all();
        all.into_iter().filter(|text| text.starts_with("k ") || text.starts_with("engine")).collect()
    };
    let failed = format!("k failed with {epoch} to {epoch} (false): the database did not answer");
    until("the sink to fail", || of_sink().contains(&failed)).await?;
    database.content().lose_answer_after = 0;
    let done = format!("k has delivered {epoch} to {epoch}, 2 rows");
    until("the sink to deliver", || of_sink().iter().any(|text| text.starts_with("k has"))).await?;
    let mut said = of_sink();
    said.retain(|text| *text != failed);
    let handed = format!("k is handed {epoch} to {epoch}, 0 rows");
    let expected = ["engine started at true", handed.as_str(), done.as_str()];
    ensure(said == expected, || format!("{said:#?}"))
}

fn numbers(values: std::ops::Range<i64>) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter_with_nullable([("x", column, true)]).map_err(|error| error.to_string())
}

async fn graceful_stop() -> Result<()> {
    let (pushed, gate) = (Pushed::default(), Gate::default());
    let engine = Engine::builder()
        .connector(Arc::new(pushed.clone()))
        .connector(Arc::new(gate.clone()))
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = engine.session();
    gate.open(1000);
    run_all(
        &mut session,
        &[
            "SET batch_interval = '1 hour'",
            "CREATE SOURCE s (x BIGINT) WITH (connector = 'pushed')",
            "CREATE SINK k FROM s WITH (connector = 'gate')",
        ],
    )
    .await?;
    pushed.push(numbers(0..10)?);
    let mut waiting = engine.session();
    for _ in 0..6000 {
        let lines = drive::lines(&mut waiting, "SELECT waiting_rows FROM millstream.sources").await?;
        if lines == ["10"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure(gate.delivered() == 0, || "an hour has not passed".into())?;
    within_a_minute("the engine to stop", run(&mut session, "STOP GRACEFULLY")).await??;
    ensure(gate.delivered() == 10, || format!("{} rows were delivered, expected 10", gate.delivered()))?;
    ensure(engine.has_stopped(), || "the engine knows that it has stopped".into())?;
    engine.stop().await.map_err(|error| format!("to stop it again is no failure: {error}"))
}

async fn full_buffer() -> Result<()> {
    let folder = super::folder()?;
    let path = folder.path().join("out");
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET sink_buffer_max = '64 KiB'",
            "CREATE TABLE t (a TEXT) APPEND ONLY",
            "CREATE TABLE other (a INT)",
            &format!(
                "CREATE SINK k FROM t WITH (connector = 'file', path = '{}', format = 'text')",
                path.display()
            ),
        ],
    )
    .await?;
    // A file replaces the sink's folder, so the sink can't deliver.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::write(&path, "in the way").map_err(|error| error.to_string())?;
    let mut failed = Ok(String::new());
    // The sink delivers when the first file is due, after ten seconds.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        failed =
            run(&mut session, "INSERT INTO t SELECT repeat('x', 10000) FROM generate_series(1, 2)").await;
        if failed.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = failed.err().unwrap_or_default();
    ensure(error.contains("sink \"k\" can't deliver"), || format!("an INSERT was to be refused: {error}"))?;
    run(&mut session, "INSERT INTO other VALUES (1)").await?;
    run(&mut session, "DROP SINK k").await?;
    run(&mut session, "INSERT INTO t VALUES ('y')").await?;
    expect(&mut session, "SELECT count(*) FROM t WHERE a = 'y'", &["1"]).await
}
