//! Measures an epoch of a million rows for operators whose state is several times `memory_limit`: a join,
//! an aggregate of many groups, and one that keeps rows ordered.
//!
//! ```text
//! cargo run --release --bin beyond_memory -- [OPTIONS]
//!
//!   --rows N      rows that are kept: of the join's larger input, of orders, or groups of the aggregate (default 4000000)
//!   --epoch N     rows that an epoch brings (default 1000000)
//!   --epochs N    how many epochs are measured of each kind (default 3)
//!   --times N     how many times the limit the state is (default 4)
//!   --spill DIR   where rows go that memory has no room for (default: the system's directory for temporary files)
//! ```
//!
//! The yardstick is the same engine without a limit, which runs first. Its state size divided by `times` is
//! the limit of the second run. Rows are loaded until the state has its size. Then epochs are measured
//! whose rows each match a row anywhere in the state, change a group, or fall between kept rows; and epochs
//! that retract these rows. Both answers must be equal.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::Int64Type;
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str =
    "beyond_memory [--rows 4000000] [--epoch 1000000] [--epochs 3] [--times 4] [--spill DIR]
Seconds an epoch takes that looks up rows of a join, or groups, or adds to an order, whose state is larger than memory_limit, and without a limit.";

/// A query whose state is measured.
struct Case {
    name: &'static str,
    objects: [&'static str; 3],
    /// A query that returns a number and a sum.
    answer: &'static str,
    /// Generates the rows of `kept`.
    kept: fn(std::ops::Range<u64>) -> Result<RecordBatch>,
}

const CASES: [Case; 4] = [
    Case {
        name: "a join",
        objects: [
            "CREATE TABLE kept (k BIGINT, text VARCHAR)",
            "CREATE TABLE came (k BIGINT, w BIGINT)",
            "CREATE MATERIALIZED VIEW found AS SELECT count(*) AS n, sum(length(text) + w) AS s FROM kept JOIN came \
             ON kept.k = came.k",
        ],
        answer: "SELECT n, coalesce(s, 0) FROM found",
        kept,
    },
    Case {
        name: "an aggregate, a row a group",
        objects: [
            "CREATE TABLE kept (k BIGINT, w BIGINT)",
            "CREATE TABLE came (k BIGINT, w BIGINT)",
            "CREATE MATERIALIZED VIEW found AS SELECT k, count(*) AS n, sum(w) AS s FROM \
             (SELECT k, w FROM kept UNION ALL SELECT k, w FROM came) AS x GROUP BY k",
        ],
        answer: "SELECT sum(n), coalesce(sum(s + n * (k % 100)), 0) FROM found",
        kept: groups,
    },
    Case {
        name: "the first three of each partition",
        objects: [
            "CREATE TABLE kept (k BIGINT, w BIGINT)",
            "CREATE TABLE came (k BIGINT, w BIGINT)",
            "CREATE MATERIALIZED VIEW found AS SELECT k, w FROM (SELECT k, w, row_number() OVER \
             (PARTITION BY k % 100000 ORDER BY w, k) AS n FROM (SELECT k, w FROM kept UNION ALL SELECT k, w FROM came) AS x) \
             AS y WHERE n <= 3",
        ],
        answer: "SELECT count(*), coalesce(sum(k + w), 0) FROM found",
        kept: groups,
    },
    Case {
        name: "a row and the one before it",
        objects: [
            "CREATE TABLE kept (k BIGINT, w BIGINT)",
            "CREATE TABLE came (k BIGINT, w BIGINT)",
            "CREATE MATERIALIZED VIEW found AS SELECT count(*) AS n, sum(k % 100 * (w - coalesce(before, 0))) AS s FROM \
             (SELECT k, w, lag(w) OVER (PARTITION BY k % 100000 ORDER BY w, k) AS before FROM \
             (SELECT k, w FROM kept UNION ALL SELECT k, w FROM came) AS x) AS y",
        ],
        answer: "SELECT n, coalesce(s, 0) FROM found",
        kept: groups,
    },
];

/// The figures of a run.
struct Measured {
    /// Seconds of the epochs that loaded the kept rows.
    load: Vec<f64>,
    /// Seconds of the epochs that looked them up.
    look_up: Vec<f64>,
    /// Seconds of the epochs that retracted the lookups.
    take_back: Vec<f64>,
    state_bytes: i64,
    spilled_bytes: i64,
    resident_mib: f64,
    answers: Vec<(i64, i64)>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let known = [("rows", "4000000"), ("epoch", "1000000"), ("epochs", "3"), ("times", "4"), ("spill", "")];
    let options = Options::read(HELP, &known)?;
    for case in &CASES {
        compare(&options, case).await?;
    }
    Ok(())
}

async fn compare(options: &Options, case: &Case) -> Result<()> {
    let plain = run(options, case, None).await?;
    let limit = plain.state_bytes / options.number("times")? as i64;
    let spilled = run(options, case, Some(limit)).await?;
    if plain.answers != spilled.answers {
        return Err(format!("answers differ: {:?} and {:?}", plain.answers, spilled.answers).into());
    }
    println!(
        "{}: {} rows are kept, an epoch has {}; state of {} MiB, memory_limit {} MiB",
        case.name,
        options.number("rows")?,
        options.number("epoch")?,
        plain.state_bytes >> 20,
        limit >> 20
    );
    println!("  {:>12} {:>10} {:>10} {:>8}", "epochs", "memory", "beyond it", "ratio");
    let kinds = [
        ("load", &plain.load, &spilled.load),
        ("look up", &plain.look_up, &spilled.look_up),
        ("take back", &plain.take_back, &spilled.take_back),
    ];
    for (name, memory, beyond) in kinds {
        let [memory, beyond] = [memory, beyond].map(|seconds| measure::median(seconds.iter().copied()));
        println!("  {name:>12} {memory:>8.3} s {beyond:>8.3} s {:>8.2}", beyond / memory);
    }
    for (name, measured) in [("memory", &plain), ("beyond it", &spilled)] {
        println!(
            "  {name:>12}: state {} MiB in memory, {} MiB in files; resident {:.0} MiB, mapped pages included",
            measured.state_bytes >> 20,
            measured.spilled_bytes >> 20,
            measured.resident_mib
        );
    }
    Ok(())
}

async fn run(options: &Options, case: &Case, limit: Option<i64>) -> Result<Measured> {
    let (rows, epoch) = (options.number("rows")? as u64, options.number("epoch")?.max(1) as u64);
    let mut builder = Engine::builder();
    if !options.text("spill").is_empty() {
        builder = builder.spill_directory(options.text("spill"));
    }
    let engine = builder.start()?;
    let mut session = engine.session();
    let limit = limit.map_or("none".to_string(), |bytes| bytes.to_string());
    session.execute(&format!("SET memory_limit = '{limit}'")).await?;
    for object in case.objects {
        session.execute(object).await?;
    }
    let mut load = Vec::new();
    for from in (0..rows).step_by(epoch as usize) {
        let batch = (case.kept)(from..rows.min(from + epoch))?;
        load.push(timed(session.insert("kept", batch)).await?);
    }
    let (mut look_up, mut take_back, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.number("epochs")? as u64 {
        let batch = came(round * epoch..(round + 1) * epoch, rows)?;
        look_up.push(timed(session.insert("came", batch.clone())).await?);
        answers.push(answer(&mut session, case).await?);
        take_back.push(timed(session.delete_rows("came", batch)).await?);
        answers.push(answer(&mut session, case).await?);
    }
    let memory =
        yardstick::rows(&mut session, "SELECT state_bytes, spilled_bytes FROM millstream.memory").await?;
    let [state_bytes, spilled_bytes] = numbers(&memory)?;
    let resident_mib = measure::resident_mib()?;
    engine.stop().await?;
    Ok(Measured { load, look_up, take_back, state_bytes, spilled_bytes, resident_mib, answers })
}

async fn timed<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    work: impl Future<Output = std::result::Result<T, E>>,
) -> Result<f64> {
    let start = Instant::now();
    work.await.map_err(Into::into)?;
    Ok(start.elapsed().as_secs_f64())
}

async fn answer(session: &mut Session, case: &Case) -> Result<(i64, i64)> {
    let rows = yardstick::rows(session, case.answer).await?;
    let [count, sum] = numbers(&rows)?;
    Ok((count, sum))
}

/// Returns the two numbers of one row.
fn numbers(rows: &[RecordBatch]) -> Result<[i64; 2]> {
    let row = rows.iter().find(|batch| batch.num_rows() == 1).ok_or("there isn't one row")?;
    let number = |at: usize| -> Result<i64> {
        let numbers = row.column(at).as_primitive_opt::<Int64Type>().ok_or("a number isn't one")?;
        if numbers.is_null(0) { Err("a number is missing".into()) } else { Ok(numbers.value(0)) }
    };
    Ok([number(0)?, number(1)?])
}

fn kept(numbers: std::ops::Range<u64>) -> Result<RecordBatch> {
    let keys = Int64Array::from_iter_values(numbers.clone().map(|n| n as i64));
    let texts = numbers.map(|n| {
        let n = mixed(n);
        format!("{n:020} is what is kept of it, and some more text so that a row has the width of a usual one {n:x}")
    });
    let texts = StringViewArray::from_iter_values(texts);
    Ok(RecordBatch::try_from_iter([("k", Arc::new(keys) as ArrayRef), ("text", Arc::new(texts))])?)
}

/// Returns a row for each of these groups.
fn groups(numbers: std::ops::Range<u64>) -> Result<RecordBatch> {
    let k = Int64Array::from_iter_values(numbers.clone().map(|n| n as i64));
    let w = Int64Array::from_iter_values(numbers.map(|n| (n % 1000) as i64));
    Ok(RecordBatch::try_from_iter([("k", Arc::new(k) as ArrayRef), ("w", Arc::new(w))])?)
}

/// Returns rows whose keys are spread over `keys` keys.
fn came(numbers: std::ops::Range<u64>, keys: u64) -> Result<RecordBatch> {
    let k = Int64Array::from_iter_values(numbers.clone().map(|n| (mixed(n) % keys.max(1)) as i64));
    let w = Int64Array::from_iter_values(numbers.map(|n| (n % 1000) as i64));
    Ok(RecordBatch::try_from_iter([("k", Arc::new(k) as ArrayRef), ("w", Arc::new(w))])?)
}

/// Returns a pseudorandom number: the finalizer of SplitMix64.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
