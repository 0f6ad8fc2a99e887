//! The pace of epochs, and backpressure.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream_engine::Engine;
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, run, run_all, until, within_a_minute,
};
use millstream_testkit::parts::{Gate, Numbers, Pushed};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_slow_sink_holds_the_source_back", || drive::block_on(backpressure())),
    ("a_stuck_sink_holds_back_what_only_feeds_it", || drive::block_on(independent_sinks())),
    ("a_stuck_sink_lets_a_table_keep_its_rows", || drive::block_on(sinks_of_tables())),
    ("a_fixed_pace_cuts_at_multiples_of_the_interval", || drive::block_on(fixed_pace())),
    ("a_manual_clock_moves_only_when_told", || drive::block_on(manual_clock())),
    ("rows_that_are_pushed_arrive_once", || drive::block_on(pushed_rows())),
    ("sources_share_the_room_of_a_batch", || drive::block_on(shared_room())),
    ("a_source_that_is_dropped_is_not_heard", || drive::block_on(dropped_source())),
];

/// Maximum number of batches that the engine may take from a source beyond its sink's deliveries: the epochs
/// kept for a sink, and batches in transit.
const BATCHES_AHEAD_MAX: u64 = 1024 + 128;
const BATCH_ROWS: u64 = 100;

async fn backpressure() -> Result<()> {
    let (source, gate) = (Numbers::default(), Gate::default());
    let engine = Engine::builder()
        .connector(Arc::new(source.clone()))
        .connector(Arc::new(gate.clone()))
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, &format!("SET max_batch_rows = {BATCH_ROWS}")).await?;
    run(&mut session, "CREATE SOURCE n WITH (connector = 'numbers')").await?;
    run(&mut session, "CREATE SINK k AS SELECT n FROM n WITH (connector = 'gate')").await?;
    until("the source to be read", || source.taken() > 0).await?;
    for _ in 0..100 {
        let delivered = gate.delivered();
        gate.open(1);
        until("a write to come through the gate", || gate.delivered() > delivered).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (taken, delivered) = (source.taken(), gate.delivered());
        let ahead = taken - delivered.min(taken);
        ensure(ahead <= BATCHES_AHEAD_MAX * BATCH_ROWS, || {
            format!(
                "{taken} rows were taken while {delivered} were delivered: the sink doesn't hold the source back"
            )
        })?;
    }
    gate.open(1_000_000);
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn independent_sinks() -> Result<()> {
    let gate = Gate::default();
    let engine = Engine::builder()
        .connector(Arc::new(Numbers::default()))
        .connector(Arc::new(gate.clone()))
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            &format!("SET max_batch_rows = {BATCH_ROWS}"),
            "CREATE SOURCE a WITH (connector = 'numbers')",
            "CREATE SOURCE b WITH (connector = 'numbers')",
            "CREATE SINK stuck AS SELECT n FROM a WITH (connector = 'gate')",
            "CREATE MATERIALIZED VIEW cb AS SELECT count(*) AS c FROM b",
        ],
    )
    .await?;
    let holds = |part: &str| format!("SELECT count(*) FROM millstream.sinks WHERE reason LIKE '%{part}%'");
    expect_soon(&mut session, &holds("it holds back source \"a\":%no other query needs it"), &["1"]).await?;
    let throttled = "SELECT status, reason FROM millstream.sources WHERE name = 'a'";
    expect_soon(&mut session, throttled, &["throttled|sink \"stuck\" has no room for its rows"]).await?;
    // Queries that don't read this source continue, far beyond the sink's deliveries.
    let beyond = BATCHES_AHEAD_MAX * BATCH_ROWS * 2;
    expect_soon(&mut session, &format!("SELECT c > {beyond} FROM cb"), &["true"]).await?;
    // Another query needs the source: the engine reads it until sink_buffer_max is reached.
    run(&mut session, "CREATE MATERIALIZED VIEW ca AS SELECT count(*) AS c FROM a").await?;
    expect_soon(&mut session, &holds("holds back"), &["0"]).await?;
    expect_soon(&mut session, &format!("SELECT c > {beyond} FROM ca"), &["true"]).await?;
    run(&mut session, "SET sink_buffer_max = '1 MiB'").await?;
    expect_soon(&mut session, &holds("it holds back source \"a\":%more than sink_buffer_max"), &["1"])
        .await?;
    gate.open(1_000_000);
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn sinks_of_tables() -> Result<()> {
    let gate = Gate::default();
    let engine = Engine::builder()
        .connector(Arc::new(Numbers::default()))
        .connector(Arc::new(gate.clone()))
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = engine.session();
    // The table keeps its rows for readers, so it is read on beside a sink that is full.
    let made = [
        &format!("SET max_batch_rows = {BATCH_ROWS}"),
        "CREATE TABLE a WITH (connector = 'numbers')",
        "CREATE SINK stuck AS SELECT n FROM a WITH (connector = 'gate')",
    ];
    run_all(&mut session, &made).await?;
    let beyond = BATCHES_AHEAD_MAX * BATCH_ROWS * 2;
    expect_soon(&mut session, &format!("SELECT count(*) > {beyond} FROM a"), &["true"]).await?;
    let holds = "SELECT count(*) FROM millstream.sinks WHERE reason LIKE '%it holds back source \"a\":%more than sink_buffer_max%'";
    run(&mut session, "SET sink_buffer_max = '1 MiB'").await?;
    expect_soon(&mut session, holds, &["1"]).await?;
    gate.open(1_000_000);
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn fixed_pace() -> Result<()> {
    let cuts = Arc::new(Mutex::new(Vec::new()));
    let seen = cuts.clone();
    let engine = Engine::builder()
        .connector(Arc::new(Numbers::default()))
        .recorder(move |record| {
            if let Ok(mut seen) = seen.lock() {
                seen.push(record.cut.clone());
            }
        })
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "SET batch_interval = '100 ms'",
            "SET max_batch_rows = 10",
            "CREATE SOURCE n WITH (connector = 'numbers')",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM n",
            "ADVANCE TIME TO '1970-01-01 00:00:01'",
        ],
    )
    .await?;
    let cuts = cuts.lock().map_err(|error| error.to_string())?.clone();
    let times: Vec<i64> = cuts.iter().map(|cut| cut.now.0).collect();
    ensure(!times.is_empty(), || "no batch in a second of batches every 100 ms".into())?;
    ensure(times.iter().all(|time| time % 100_000 == 0), || {
        format!("not at multiples of the interval: {times:?}")
    })?;
    ensure(times.windows(2).all(|pair| pair[0] < pair[1]), || format!("not increasing: {times:?}"))?;
    ensure(times.len() == 10, || format!("10 ticks were due: {times:?}"))?;
    expect(&mut session, "SELECT c <= 100, c > 0 FROM m", &["true|true"]).await?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn manual_clock() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (x INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM t",
            "INSERT INTO t VALUES (1), (2)",
        ],
    )
    .await?;
    expect(&mut session, "SELECT count(*) FROM t", &["0"]).await?;
    run(&mut session, "ADVANCE BATCH").await?;
    expect(&mut session, "SELECT count(*), max(c) FROM t, m", &["2|2"]).await?;
    run(&mut session, "INSERT INTO t VALUES (3)").await?;
    run(&mut session, "DELETE FROM t WHERE x >= 2").await?;
    expect(&mut session, "SELECT c FROM m", &["2"]).await?;
    run(&mut session, "FLUSH").await?;
    expect(&mut session, "SELECT c FROM m", &["1"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn pushed_rows() -> Result<()> {
    let pushed = Pushed::default();
    let engine =
        Engine::builder().connector(Arc::new(pushed.clone())).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "SET max_batch_rows = 3").await?;
    run(&mut session, "CREATE SOURCE s (x BIGINT) WITH (connector = 'pushed')").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c, sum(x) AS s FROM s").await?;
    for part in 0..10 {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(part * 10..(part + 1) * 10));
        let rows = RecordBatch::try_from_iter_with_nullable([("x", column, true)]);
        pushed.push(rows.map_err(|error| error.to_string())?);
    }
    expect_soon(&mut session, "SELECT c, s FROM m", &["100|4950"]).await?;
    pushed.end();
    within_a_minute("the ended source to count as done", engine.finished())
        .await?
        .map_err(|error| error.to_string())?;
    ensure(pushed.taken() == 100, || format!("{} rows were taken", pushed.taken()))?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn shared_room() -> Result<()> {
    let engine = counting_engine()?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "SET max_batch_rows = 10",
            "CREATE SOURCE a WITH (connector = 'numbers')",
            "CREATE SOURCE b WITH (connector = 'numbers')",
            "CREATE MATERIALIZED VIEW ca AS SELECT count(*) AS c FROM a",
            "CREATE MATERIALIZED VIEW cb AS SELECT count(*) AS c FROM b",
            "ADVANCE BATCH 10",
        ],
    )
    .await?;
    expect(&mut session, "SELECT ca.c, cb.c FROM ca, cb", &["50|50"]).await?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// A new source under the name of a dropped one must not get rows that the dropped one still produces.
async fn dropped_source() -> Result<()> {
    let engine = counting_engine()?;
    let mut session = engine.session();
    run(&mut session, "SET max_batch_rows = 7").await?;
    for _ in 0..20 {
        run_all(
            &mut session,
            &[
                "CREATE SOURCE n WITH (connector = 'numbers')",
                "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c, count(DISTINCT n) AS d, max(n) AS last FROM n",
            ],
        )
        .await?;
        expect_soon(&mut session, "SELECT c > 0, c = d, c = last + 1 FROM m", &["true|true|true"]).await?;
        run(&mut session, "DROP SOURCE n CASCADE").await?;
    }
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// Returns an engine with the connector `numbers`.
fn counting_engine() -> Result<Engine> {
    Engine::builder().connector(Arc::new(Numbers::default())).start().map_err(|error| error.to_string())
}
