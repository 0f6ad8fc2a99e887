//! Tests that memory stays flat over an hour of one-second batches, run under a manual clock.
//!
//! ```text
//! cargo run --release --bin fixed_flat -- [OPTIONS]
//!
//!   --batches N    batches of a second (default 3600)
//!   --rows N       rows a batch (default 20000)
//!   --words N      distinct words (default 10000)
//! ```
//!
//! The yardstick is the run itself: memory after a tenth of it, compared with memory at its end.

use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "fixed_flat [--batches 3600] [--rows 20000] [--words 10000]
A word count per batch under a fixed interval of 1 s and a manual clock: resident memory over time.";

/// Number of memory measurements.
const LOOKS: usize = 12;

/// The count of each batch, or the total count where FOR EACH BATCH isn't available.
const COUNTS: [&str; 2] = [
    "CREATE STREAM counts WITH (retention = '10 seconds') AS \
     SELECT word, count(*) AS c FROM words GROUP BY word FOR EACH BATCH",
    "CREATE MATERIALIZED VIEW counts AS SELECT word, count(*) AS c FROM words GROUP BY word",
];

async fn counts(session: &mut Session) -> Result<()> {
    for sql in COUNTS {
        match session.execute(sql).await {
            Ok(_) => {
                println!("{sql}");
                return Ok(());
            }
            Err(error) if error.message.contains("not supported yet") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err("neither kind of count is there".into())
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("batches", "3600"), ("rows", "20000"), ("words", "10000")])?;
    let (batches, rows) = (options.number("batches")?, options.number("rows")?);
    let words = options.number("words")?;
    let engine = Engine::start()?;
    let mut session = engine.session();
    for sql in [
        "SET clock = 'manual'".to_string(),
        "SET batch_interval = '1 second'".to_string(),
        format!("SET max_batch_rows = {rows}"),
        format!(
            "CREATE SOURCE numbers (n BIGINT) WITH (connector = 'datagen', rows = {}, fields.n.kind = 'random', \
             fields.n.min = 0, fields.n.max = {words})",
            batches * rows
        ),
        "CREATE VIEW words AS SELECT concat('word', n) AS word FROM numbers".to_string(),
    ] {
        session.execute(&sql).await?;
    }
    counts(&mut session).await?;
    session.execute("CREATE SINK out FROM counts WITH (connector = 'blackhole')").await?;
    let step = (batches / LOOKS).max(1);
    let begun = std::time::Instant::now();
    let mut looks = Vec::new();
    let mut done = 0;
    while done < batches {
        session.execute(&format!("ADVANCE BATCH {step}")).await?;
        session.execute("FLUSH").await?;
        done += step;
        let resident = measure::resident_mib()?;
        println!("  after {done:5} batches {resident:8.1} MiB  {:6.1} s", begun.elapsed().as_secs_f64());
        looks.push(resident);
    }
    let kept = yardstick::rows(&mut session, "SELECT count(*) FROM millstream.epochs").await?;
    drop(kept);
    if let (Some(early), Some(last)) = (looks.get(1), looks.last()) {
        println!("memory at the end over memory after a sixth of it: {:.2}", last / early);
    }
    engine.stop().await?;
    Ok(())
}
