//! Measures the cost of maintaining Nexmark's queries, beside DataFusion computing each answer once.
//!
//! ```text
//! cargo run --profile dist --bin nexmark -- [OPTIONS]
//!
//!   --events N        how many events of all three tables (default 1000000)
//!   --epoch-rows N    rows of a table that one epoch takes (default 100000)
//!   --queries LIST    which queries, such as q0,q5_hop (default all)
//!   --rounds N        how many times each is run; the medians are printed (default 1)
//!   --folder PATH     where the events are, or are written to and stay (default: a folder that is removed)
//! ```
//!
//! The events are written to Parquet files beforehand. Millstream reads them as sources, epoch by epoch,
//! into a materialized view. DataFusion runs the query over the same files, and decodes only the columns
//! that it needs. Both count CPU seconds of all threads, and both answers must have the same number of
//! rows. Window queries exist in several forms: with window functions (`q5_hop`), without, and by arrival
//! time (`q12_proctime`). DataFusion has no such windows and runs the plain form for all of them.

mod events;
mod once;
mod queries;

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use millstream::Engine;
use millstream_benches::measure::{Cost, measure, median, median_cost};
use millstream_benches::options::Options;
use millstream_benches::{Result, yardstick};
use queries::Query;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str =
    "nexmark [--events 1000000] [--epoch-rows 100000] [--queries all] [--rounds 1] [--folder PATH]
CPU seconds of Nexmark's queries: maintained by Millstream, and computed once by DataFusion.";

/// Number of cores that the figures are stated for.
const PARTITIONS: usize = 2;

/// Generates the table with the side input of q13.
const SIDE_INPUT: &str = "SELECT v AS key, 'value ' || v AS value FROM generate_series(0, 9999) AS g(v)";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(
        HELP,
        &[
            ("events", "1000000"),
            ("epoch-rows", "100000"),
            ("queries", "all"),
            ("rounds", "1"),
            ("folder", ""),
        ],
    )?;
    let (events, rounds) = (options.number("events")?, options.number("rounds")?.max(1));
    let queries = queries::read(options.text("queries"))?;
    let temporary = tempfile::tempdir()?;
    let folder = match options.text("folder") {
        "" => temporary.path().to_path_buf(),
        given => Path::new(given).join(events.to_string()),
    };
    std::fs::create_dir_all(&folder)?;
    events::write(&folder, events).await?;
    let bench = Bench { folder: &folder, events, epoch_rows: options.number("epoch-rows")?, rounds };
    println!(
        "{events} events, {} rows an epoch: CPU seconds, and events a second and core",
        bench.epoch_rows
    );
    println!(
        "  {:<11} {:>9}  {:>10} {:>10} {:>7} {:>11}  plan",
        "", "rows", "Millstream", "DataFusion", "ratio", "events"
    );
    let mut ratios = Vec::new();
    for query in &queries {
        match bench.run(query).await {
            Ok(figures) => {
                println!("  {:<11} {figures}", query.name);
                ratios.extend(figures.plan.starts_with(APPEND_ONLY).then_some(figures.ratio()));
            }
            Err(error) => println!("  {:<11} {error}", query.name),
        }
    }
    let worst = ratios.iter().copied().fold(f64::NAN, f64::max);
    println!(
        "append-only plans: {}, median ratio {:.2}, worst {worst:.2}",
        ratios.len(),
        median(ratios.clone())
    );
    Ok(())
}

/// The word in EXPLAIN for results without retractions.
const APPEND_ONLY: &str = "append-only";

struct Bench<'a> {
    folder: &'a Path,
    events: usize,
    epoch_rows: usize,
    rounds: usize,
}

/// The figures printed for a query.
struct Figures {
    rows: i64,
    millstream: Cost,
    datafusion: Cost,
    events: usize,
    plan: String,
}

impl Figures {
    fn ratio(&self) -> f64 {
        self.millstream.cpu_s / self.datafusion.cpu_s.max(0.01)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ours, theirs) = (self.millstream.cpu_s, self.datafusion.cpu_s);
        let rate = self.events as f64 / ours.max(0.01);
        write!(
            f,
            "{:>9}  {ours:>10.2} {theirs:>10.2} {:>7.2} {rate:>11.0}  {}",
            self.rows,
            self.ratio(),
            self.plan
        )
    }
}

impl Bench<'_> {
    async fn run(&self, query: &Query) -> Result<Figures> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut rows, mut plan) = (0, String::new());
        for _ in 0..self.rounds {
            let (expected, cost) = measure(once::counted(self.folder, query)).await?;
            theirs.push(cost);
            let ((found, explained), cost) = measure(self.millstream(query)).await?;
            ours.push(cost);
            if found != expected {
                let counted = query.counted;
                return Err(
                    format!("{counted} is {found} in the view, {expected} in DataFusion's answer").into()
                );
            }
            (rows, plan) = (found, explained);
        }
        let events = self.events;
        Ok(Figures { rows, millstream: median_cost(&ours), datafusion: median_cost(&theirs), events, plan })
    }

    /// Maintains the query until all events are read. Returns the number of rows, and how the query was
    /// maintained.
    async fn millstream(&self, query: &Query) -> Result<(i64, String)> {
        let engine = Engine::start()?;
        let mut session = engine.session();
        session.execute(&format!("SET max_batch_rows = {}", self.epoch_rows)).await?;
        for table in query.tables() {
            let path = self.folder.join(format!("{table}.parquet"));
            let source = format!(
                "CREATE SOURCE {table} WITH (connector = 'file', path = '{}', format = 'parquet', bounded = true)",
                path.display()
            );
            session.execute(&source).await?;
        }
        if query.reads_side_input() {
            session.execute("CREATE TABLE side_input (key BIGINT PRIMARY KEY, value TEXT)").await?;
            session.execute(&format!("INSERT INTO side_input {SIDE_INPUT}")).await?;
        }
        let explained = yardstick::rows(&mut session, &format!("EXPLAIN {}", query.sql)).await?;
        session.execute(&format!("CREATE MATERIALIZED VIEW answer AS {}", query.sql)).await?;
        engine.finished().await?;
        let counted = format!("SELECT {} FROM answer", query.counted);
        let counted = yardstick::rows(&mut session, &counted).await?;
        engine.stop().await?;
        Ok((yardstick::number(&counted)?, plan(&explained)?))
    }
}

/// Returns the kind of the answer, append-only or updating, and the highest cost of an operator.
fn plan(explained: &[RecordBatch]) -> Result<String> {
    let mut lines = Vec::new();
    for batch in explained {
        let column = cast(batch.column(batch.num_columns() - 1), &DataType::Utf8)?;
        lines.extend(column.as_string::<i32>().iter().flatten().flat_map(str::lines).map(str::to_string));
    }
    let first = lines.first().ok_or("EXPLAIN says nothing")?;
    let kind = if first.contains(APPEND_ONLY) { APPEND_ONLY } else { "updating" };
    let costs = ["cost whole", "or whole", "cost touched keys", "cost delta"];
    let cost = costs.iter().find(|cost| lines.iter().any(|line| line.contains(**cost)));
    Ok(format!("{kind}, {}", cost.unwrap_or(&"cost unknown")))
}
