//! Measures all-time word counts over text files, beside DataFusion's one-shot GROUP BY over the same
//! files.
//!
//! ```text
//! cargo run --release --bin word_count -- [OPTIONS]
//!
//!   --megabytes N   how much text (default 400)
//!   --files N       in how many files (default 8)
//!   --words N       how many different words at most (default 100000)
//!   --runs N        how often each side runs, in turn (default 3)
//! ```
//!
//! Millstream reads the files as a bounded source and maintains the counts of every word; DataFusion reads them once
//! with its CSV reader. Both run the same SELECT. The results must be equal.

use millstream_benches::measure::{self, Cost};
use millstream_benches::options::Options;
use millstream_benches::text::{self, Words};
use millstream_benches::{Result, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "word_count [--megabytes 400] [--files 8] [--words 100000] [--runs 3]
Running word counts over text files, beside DataFusion's one-shot GROUP BY over the same files.";

const SQL: &str = "SELECT word, count(*) AS n FROM (SELECT unnest(string_to_array(line, ' ')) AS word FROM lines) \
                   GROUP BY word";

#[tokio::main]
async fn main() -> Result<()> {
    let options =
        Options::read(HELP, &[("megabytes", "400"), ("files", "8"), ("words", "100000"), ("runs", "3")])?;
    let folder = tempfile::tempdir()?;
    let mut words = Words::new(options.number("words")?, 1);
    let bytes =
        text::write_words(folder.path(), options.number("files")?, options.number("megabytes")?, &mut words)?;
    let megabytes = bytes as f64 / 1e6;
    let (mut ours, mut theirs): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    let mut different = 0;
    let mut total = 0;
    for _ in 0..options.number("runs")? {
        let (maintained, cost) = measure::measure(yardstick::millstream(folder.path(), SQL)).await?;
        ours.push(cost);
        let (batch, cost) = measure::measure(yardstick::datafusion(folder.path(), SQL)).await?;
        theirs.push(cost);
        let (maintained, batch) = (yardstick::counts(&maintained)?, yardstick::counts(&batch)?);
        if maintained != batch {
            return Err("the maintained counts differ from the batch answer".into());
        }
        different = batch.len();
        total = batch.values().sum::<i64>();
    }
    println!("word count: {megabytes:.0} MB, {total} words, {different} different; results equal");
    let print = |name: &str, cost: Cost| {
        println!(
            "  {name:<22} {:6.2} s wall  {:6.2} s CPU  {:6.1} MB/s",
            cost.wall_s,
            cost.cpu_s,
            megabytes / cost.wall_s
        );
    };
    let (ours, theirs) = (measure::median_cost(&ours), measure::median_cost(&theirs));
    print("Millstream, running", ours);
    print("DataFusion, one shot", theirs);
    println!(
        "  ratio                  {:6.2} wall    {:6.2} CPU",
        ours.wall_s / theirs.wall_s,
        ours.cpu_s / theirs.cpu_s
    );
    Ok(())
}
