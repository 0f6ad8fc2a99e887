//! Measures the cost of a data directory: rows a second and the latency of statements, with it, with
//! checkpoints in it, and without it. Also measures a start that replays the journal. Over a large state,
//! it measures the latency of statements during a checkpoint, and a start from that checkpoint.
//!
//! ```text
//! cargo run --release --bin durability -- [OPTIONS]
//!
//!   --rows N       rows of each large INSERT (default 1000)
//!   --inserts N    how many of them each client sends (default 250)
//!   --clients N    clients that send them side by side (default 8)
//!   --events N     rows that a source brings, which can be read again (default 20000000)
//!   --groups N     groups of the large state (default 5000000)
//!   --folder PATH  where the data directory is made, on the disk to be measured (default: a temporary one)
//! ```
//!
//! A view counts and sums the rows by key. The yardstick is the same engine in memory, run alternately in
//! one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream::{Engine, Session};
use millstream_benches::measure::{Cost, measure};
use millstream_benches::options::Options;
use millstream_benches::{Result, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str =
    "durability [--rows 1000] [--inserts 250] [--clients 8] [--events 20000000] [--groups 5000000] [--folder PATH]
Rows a second and the time of statements with a data directory and without, and the time of a start.";

/// Number of one-row statements, run one after the other.
const SINGLE: usize = 500;

/// The amount of work.
#[derive(Clone, Copy)]
struct Load {
    rows: usize,
    inserts: usize,
    clients: usize,
    events: usize,
}

/// The costs.
struct Taken {
    inserts: Cost,
    source: Cost,
    /// Milliseconds of one-row statements.
    single: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(
        HELP,
        &[
            ("rows", "1000"),
            ("inserts", "250"),
            ("clients", "8"),
            ("events", "20000000"),
            ("groups", "5000000"),
            ("folder", ""),
        ],
    )?;
    let load = Load {
        rows: options.number("rows")?,
        inserts: options.number("inserts")?,
        clients: options.number("clients")?,
        events: options.number("events")?,
    };
    let temporary = tempfile::tempdir()?;
    let folder = match options.text("folder") {
        "" => temporary.path().to_path_buf(),
        named => PathBuf::from(named),
    };
    let data = folder.join("data");
    if data.exists() || unstopped(&data).exists() {
        return Err(format!("'{}' is there already", data.display()).into());
    }
    let memory = run(load, None, "off").await?;
    let durable = run(load, Some(&data), "off").await?;
    let checkpoints = run(load, Some(&folder.join("checkpoints")), "1 second").await?;
    let rows = (load.rows * load.inserts * load.clients) as f64;
    println!(
        "{} clients, {} INSERTs each of {} rows; a source of {} rows",
        load.clients, load.inserts, load.rows, load.events
    );
    let all = [("in memory", &memory), ("data directory", &durable), ("and checkpoints", &checkpoints)];
    for (name, taken) in all {
        println!(
            "  {name:<16} INSERT {:>8.0} rows/s, {:>6.2} s CPU; source {:>10.0} rows/s, {:>6.2} s CPU; one row p50 {:.2} ms, p99 {:.2} ms",
            rows / taken.inserts.wall_s,
            taken.inserts.cpu_s,
            load.events as f64 / taken.source.wall_s,
            taken.source.cpu_s,
            quantile(&taken.single, 0.5),
            quantile(&taken.single, 0.99),
        );
    }
    println!(
        "  with it, INSERTs take {:.2} times as long, the source {:.2} times; with a checkpoint a second {:.2} and {:.2} times",
        durable.inserts.wall_s / memory.inserts.wall_s,
        durable.source.wall_s / memory.source.wall_s,
        checkpoints.inserts.wall_s / memory.inserts.wall_s,
        checkpoints.source.wall_s / memory.source.wall_s,
    );
    let (engine, start) = measure(async { Ok(Engine::builder().data(unstopped(&data)).start()?) }).await?;
    let counted = count(&mut engine.session(), "m").await?;
    if counted != rows as i64 + SINGLE as i64 {
        return Err(format!("{counted} rows are there after the start").into());
    }
    println!(
        "  a start does it all again in {:.2} s, {:.2} s CPU; the journal has {:.1} MiB",
        start.wall_s,
        start.cpu_s,
        journal_mib(&data)?
    );
    engine.stop().await?;
    large_state(&folder.join("large"), options.number("groups")?).await
}

/// Measures the latency of statements during a checkpoint of many groups, and a start from that checkpoint.
async fn large_state(data: &Path, groups: usize) -> Result<()> {
    let engine = Engine::builder().data(data).start()?;
    let mut session = engine.session();
    for sql in [
        "SET checkpoint_interval = 'off'",
        "CREATE TABLE t (k BIGINT, v BIGINT)",
        "CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS c, sum(v) AS s FROM t GROUP BY k",
        &format!(
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = {groups}, fields.n.kind = 'sequence')"
        ),
        "CREATE MATERIALIZED VIEW g AS SELECT n AS k, count(*) AS c, sum(n) AS s FROM n GROUP BY n",
    ] {
        session.execute(sql).await?;
    }
    engine.finished().await?;
    let quiet = waits(&mut session, |number| number >= SINGLE).await?;
    let taking = tokio::spawn({
        let mut session = engine.session();
        async move { session.execute("CHECKPOINT").await.map(drop) }
    });
    let busy = waits(&mut session, |_| taking.is_finished()).await?;
    taking.await??;
    let told = |column: &str| format!("SELECT max({column}) FROM millstream.checkpoints");
    let mut number = [0; 3];
    for (number, column) in number.iter_mut().zip(["bytes", "stopped_us", "duration_us"]) {
        *number = yardstick::number(&yardstick::rows(&mut session, &told(column)).await?)?;
    }
    println!(
        "a checkpoint of {groups} groups: {:.0} MiB in {:.2} s, of which no epoch ran for {:.0} ms",
        number[0] as f64 / (1 << 20) as f64,
        number[2] as f64 / 1e6,
        number[1] as f64 / 1e3
    );
    println!(
        "  one row p50 {:.2} ms, p99 {:.2} ms; meanwhile p50 {:.2} ms, p99 {:.2} ms, at most {:.1} ms ({} statements)",
        quantile(&quiet, 0.5),
        quantile(&quiet, 0.99),
        quantile(&busy, 0.5),
        quantile(&busy, 0.99),
        busy.last().copied().unwrap_or(f64::NAN),
        busy.len(),
    );
    let expected = count(&mut session, "g").await?;
    engine.stop().await?;
    let (engine, start) = measure(async { Ok(Engine::builder().data(data).start()?) }).await?;
    let (_, first) = measure(async { Ok(engine.session().insert("t", rows(0, 1)?).await?) }).await?;
    if count(&mut engine.session(), "g").await? != expected {
        return Err("another number of rows is there after the start".into());
    }
    println!(
        "  a start that begins with it: {:.2} s, {:.2} s CPU; its first statement takes {:.2} ms",
        start.wall_s,
        start.cpu_s,
        first.wall_s * 1e3
    );
    engine.stop().await?;
    Ok(())
}

/// Returns the milliseconds of one-row statements, run until `is_enough` returns true.
async fn waits(session: &mut Session, mut is_enough: impl FnMut(usize) -> bool) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    while !is_enough(waits.len()) {
        let rows = rows(waits.len(), 1)?;
        let begun = Instant::now();
        session.insert("t", rows).await?;
        waits.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}

async fn run(load: Load, data: Option<&Path>, checkpoint_interval: &str) -> Result<Taken> {
    let engine = match data {
        Some(data) => Engine::builder().data(data).start()?,
        None => Engine::start()?,
    };
    let mut session = engine.session();
    session.execute(&format!("SET checkpoint_interval = '{checkpoint_interval}'")).await?;
    for sql in [
        "CREATE TABLE t (k BIGINT, v BIGINT)",
        "CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS c, sum(v) AS s FROM t GROUP BY k",
    ] {
        session.execute(sql).await?;
    }
    let (_, inserts) = measure(insert(&engine, load)).await?;
    let mut single = Vec::with_capacity(SINGLE);
    for row in 0..SINGLE {
        let rows = rows(row, 1)?;
        let begun = Instant::now();
        session.insert("t", rows).await?;
        single.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    single.sort_by(f64::total_cmp);
    let source = format!(
        "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = {}, fields.n.kind = 'sequence')",
        load.events
    );
    session.execute(&source).await?;
    let (_, source) = measure(async {
        session.execute("CREATE MATERIALIZED VIEW g AS SELECT n % 10000 AS k, count(*) AS c FROM n GROUP BY n % 10000").await?;
        engine.finished().await?;
        Ok(())
    })
    .await?;
    let counted = count(&mut session, "g").await?;
    if counted != load.events as i64 {
        return Err(format!("{counted} of {} rows were counted", load.events).into());
    }
    // A copy from before the stop, because stopping takes a checkpoint.
    if let Some(data) = data {
        copy(data, &unstopped(data))?;
    }
    engine.stop().await?;
    Ok(Taken { inserts, source, single })
}

async fn count(session: &mut Session, view: &str) -> Result<i64> {
    yardstick::number(&yardstick::rows(session, &format!("SELECT sum(c) FROM {view}")).await?)
}

/// Inserts the rows of all clients, each of which waits for a statement's answer before the next.
async fn insert(engine: &Engine, load: Load) -> Result<()> {
    let clients = (0..load.clients).map(|client| {
        let mut session = engine.session();
        tokio::spawn(async move {
            for number in 0..load.inserts {
                session.insert("t", rows(client * load.inserts + number, load.rows)?).await?;
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(())
}

fn rows(from: usize, count: usize) -> Result<RecordBatch> {
    let keys: ArrayRef =
        Arc::new(Int64Array::from_iter_values((from..from + count).map(|row| (row * 7919 % 10_000) as i64)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values((from..from + count).map(|row| row as i64)));
    Ok(RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)])?)
}

/// Returns the path of the copy of a data directory made before its engine was stopped.
fn unstopped(data: &Path) -> PathBuf {
    data.with_extension("unstopped")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

fn journal_mib(data: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(data.join("journal"))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64 / (1 << 20) as f64)
}
