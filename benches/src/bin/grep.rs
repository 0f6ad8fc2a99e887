//! Measures how many 100-byte lines a second match a pattern, beside DataFusion's one-shot query and
//! ripgrep (or grep).
//!
//! ```text
//! cargo run --release --bin grep -- [OPTIONS]
//!
//!   --lines N    how many lines of 100 bytes (default 8000000)
//!   --files N    in how many files (default 8)
//!   --runs N     how often each side runs, in turn (default 3)
//! ```
//!
//! Millstream maintains `count(*) … WHERE line LIKE '%needle%'` over a bounded source. All three counts
//! must be equal.

use millstream_benches::measure::{self, Cost};
use millstream_benches::options::Options;
use millstream_benches::{Result, text, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "grep [--lines 8000000] [--files 8] [--runs 3]
Counts of matching 100-byte lines, beside DataFusion's one-shot query and ripgrep (or grep).";

const PATTERN: &str = "needle";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("lines", "8000000"), ("files", "8"), ("runs", "3")])?;
    let folder = tempfile::tempdir()?;
    let lines =
        text::write_lines(folder.path(), options.number("files")?, options.number("lines")?, PATTERN, 1000)?;
    let sql = format!("SELECT count(*) AS n FROM lines WHERE line LIKE '%{PATTERN}%'");
    let (mut ours, mut theirs, mut tools): (Vec<Cost>, Vec<Cost>, Vec<Cost>) =
        (Vec::new(), Vec::new(), Vec::new());
    let (mut tool, mut found) = ("", 0);
    for _ in 0..options.number("runs")? {
        let (maintained, cost) = measure::measure(yardstick::millstream(folder.path(), &sql)).await?;
        ours.push(cost);
        let (batch, cost) = measure::measure(yardstick::datafusion(folder.path(), &sql)).await?;
        theirs.push(cost);
        let (name, cost, counted) = yardstick::searched(folder.path(), PATTERN)?;
        tools.push(cost);
        tool = name;
        found = yardstick::number(&batch)?;
        let maintained = yardstick::number(&maintained)?;
        if maintained != found || counted != found as u64 {
            return Err(
                format!("Millstream counts {maintained}, DataFusion {found}, {tool} {counted}").into()
            );
        }
    }
    println!("grep: {lines} lines of 100 bytes, {found} match; counts equal");
    let print = |name: &str, cost: Cost| {
        let rate = lines as f64 / cost.wall_s / 1e6;
        println!("  {name:<22} {:6.2} s wall  {:6.2} s CPU  {rate:6.1} M lines/s", cost.wall_s, cost.cpu_s);
    };
    let (ours, theirs) = (measure::median_cost(&ours), measure::median_cost(&theirs));
    print("Millstream, running", ours);
    print("DataFusion, one shot", theirs);
    print(tool, measure::median_cost(&tools));
    println!(
        "  ratio to DataFusion    {:6.2} wall    {:6.2} CPU",
        ours.wall_s / theirs.wall_s,
        ours.cpu_s / theirs.cpu_s
    );
    Ok(())
}
