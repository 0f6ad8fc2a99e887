//! Measures a maintained GROUP BY over many keys.
//!
//! ```text
//! cargo run --release --bin aggregate -- [OPTIONS]
//!
//!   --rows N         how many rows the Parquet file has (default 10000000)
//!   --keys N         of how many different keys (default 1000000)
//!   --epoch_rows N   how many rows an epoch takes (default 100000)
//!   --runs N         how often each side runs, in turn (default 3)
//!   --curve N        the curve goes up to so many keys; 0: no curve (default 10000000)
//! ```
//!
//! First it compares count and sum by key over one Parquet file, maintained in epochs, with DataFusion's
//! one-shot GROUP BY. Both read the same file through the same Parquet reader, and the results must be
//! equal. Then it measures the cost of an epoch of 1,000 rows, and the memory of a group, as the number of
//! keys grows.

mod input;
mod random_keys;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream::{Engine, Session};
use millstream_benches::measure::{self, Cost};
use millstream_benches::options::Options;
use millstream_benches::parquet_table::ParquetTable;
use millstream_benches::{Result, yardstick};
use random_keys::RandomKeys;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "aggregate [--rows 10000000] [--keys 1000000] [--epoch_rows 100000] [--runs 3] [--curve 10000000]
Running count and sum by key, beside DataFusion's one-shot GROUP BY over the same Parquet file; and what an epoch
costs as the number of keys grows.";

const SQL: &str = "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k";
/// Number of cores that DataFusion may use.
const PARTITIONS: usize = 2;
/// Rows of an epoch of the curve, and number of such epochs measured.
const SMALL_ROWS: usize = 1000;
const SMALL_EPOCHS: usize = 2000;

#[tokio::main]
async fn main() -> Result<()> {
    let known = [
        ("rows", "10000000"),
        ("keys", "1000000"),
        ("epoch_rows", "100000"),
        ("runs", "3"),
        ("curve", "10000000"),
    ];
    let options = Options::read(HELP, &known)?;
    let (rows, keys) = (options.number("rows")?, options.number("keys")?);
    if options.number("runs")? > 0 {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("rows.parquet");
        input::write(&path, rows, keys as i64)?;
        against_once(&path, &options).await?;
    }
    let mut keys = 10_000;
    while keys <= options.number("curve")? {
        let (microseconds, bytes) = small_epochs(keys).await?;
        println!(
            "  {keys:>9} keys: {microseconds:7.1} us of CPU an epoch of {SMALL_ROWS} rows, {bytes:5.1} bytes of state a group"
        );
        keys *= 10;
    }
    Ok(())
}

async fn against_once(path: &Path, options: &Options) -> Result<()> {
    let (mut ours, mut theirs): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    let epoch_rows = options.number("epoch_rows")?;
    let mut groups = 0;
    for _ in 0..options.number("runs")? {
        let (maintained, cost) = measure::measure(maintained(path, epoch_rows)).await?;
        ours.push(cost);
        let (batch, cost) = measure::measure(once(path)).await?;
        theirs.push(cost);
        let (maintained, batch) = (by_key(&maintained)?, by_key(&batch)?);
        if maintained != batch {
            return Err("the maintained groups differ from the batch answer".into());
        }
        groups = batch.len();
    }
    println!(
        "count and sum by key: {} rows of one Parquet file, {groups} groups, epochs of {epoch_rows} rows; results equal",
        options.number("rows")?
    );
    let (ours, theirs) = (measure::median_cost(&ours), measure::median_cost(&theirs));
    println!("  Millstream, running    {:6.2} s wall  {:6.2} s CPU", ours.wall_s, ours.cpu_s);
    println!("  DataFusion, one shot   {:6.2} s wall  {:6.2} s CPU", theirs.wall_s, theirs.cpu_s);
    println!(
        "  ratio                  {:6.2} wall    {:6.2} CPU",
        ours.wall_s / theirs.wall_s,
        ours.cpu_s / theirs.cpu_s
    );
    Ok(())
}

async fn once(path: &Path) -> Result<Vec<RecordBatch>> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(PARTITIONS));
    context.register_table("t", Arc::new(ParquetTable::open(path, PARTITIONS)?))?;
    Ok(millstream_batch::answer(&context, SQL).await?)
}

async fn maintained(path: &Path, epoch_rows: usize) -> Result<Vec<RecordBatch>> {
    let engine = Engine::start()?;
    let mut session = engine.session();
    for sql in [
        &format!("SET max_batch_rows = {epoch_rows}"),
        &format!(
            "CREATE SOURCE t WITH (connector = 'file', path = '{}', format = 'parquet', bounded = true)",
            path.display()
        ),
        &format!("CREATE MATERIALIZED VIEW answer AS {SQL}"),
    ] {
        session.execute(sql).await?;
    }
    engine.finished().await?;
    let rows = yardstick::rows(&mut session, "SELECT * FROM answer").await?;
    engine.stop().await?;
    Ok(rows)
}

/// Returns the rows of (key, count, sum) batches by key.
fn by_key(batches: &[RecordBatch]) -> Result<HashMap<i64, (i64, i64)>> {
    let mut groups = HashMap::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| cast(column, &DataType::Int64));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let [keys, counts, sums] = [0, 1, 2].map(|at| columns[at].as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            if groups.insert(keys.value(row), (counts.value(row), sums.value(row))).is_some() {
                return Err(format!("key {} is there twice", keys.value(row)).into());
            }
        }
    }
    Ok(groups)
}

/// Returns the CPU microseconds of a small epoch once all keys exist, and the bytes of state for each
/// group.
async fn small_epochs(keys: usize) -> Result<(f64, f64)> {
    let engine = Engine::builder().connector(Arc::new(RandomKeys)).start()?;
    let mut session = engine.session();
    let filled = keys.div_ceil(100_000).max(1);
    for sql in [
        "SET clock = 'manual'",
        &format!("SET max_batch_rows = {}", keys.div_ceil(filled)),
        &format!("CREATE SOURCE t WITH (connector = 'random_keys', keys = {keys})"),
        &format!("CREATE MATERIALIZED VIEW answer AS {SQL}"),
        &format!("ADVANCE BATCH {filled}"),
        &format!("SET max_batch_rows = {SMALL_ROWS}"),
        "ADVANCE BATCH 50",
    ] {
        session.execute(sql).await?;
    }
    let timed = async { Ok(session.execute(&format!("ADVANCE BATCH {SMALL_EPOCHS}")).await.map(|_| ())?) };
    let ((), cost) = measure::measure(timed).await?;
    let microseconds = cost.cpu_s * 1e6 / SMALL_EPOCHS as f64;
    let bytes = state_bytes(&mut session).await? / keys as f64;
    let found = yardstick::number(&yardstick::rows(&mut session, "SELECT sum(n) FROM answer").await?)?;
    let expected = keys.div_ceil(filled) * filled + SMALL_ROWS * (SMALL_EPOCHS + 50);
    if found != expected as i64 {
        return Err(format!("{found} rows were counted, not {expected}").into());
    }
    engine.stop().await?;
    Ok((microseconds, bytes))
}

/// Returns the column `state_bytes` of SHOW MATERIALIZED VIEWS.
async fn state_bytes(session: &mut Session) -> Result<f64> {
    let shown = yardstick::rows(session, "SHOW MATERIALIZED VIEWS").await?;
    let batch = shown.iter().find(|batch| batch.num_rows() > 0).ok_or("no view is shown")?;
    let place = batch.schema().index_of("state_bytes")?;
    let bytes = cast(batch.column(place), &DataType::Int64)?;
    Ok(bytes.as_primitive::<Int64Type>().value(0) as f64)
}
