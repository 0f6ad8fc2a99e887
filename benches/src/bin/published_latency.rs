//! Measures the time from a line's arrival at a socket to its exactly-once publication, with a data
//! directory.
//!
//! ```text
//! cargo run --release --bin published_latency -- [OPTIONS]
//!
//!   --rate N       lines a second (default 10000)
//!   --seconds N    how long each run sends (default 10); the first second isn't counted
//!   --interval T   every how long a batch is run (default '10 ms'; 'auto': as soon as something is there)
//!   --folder PATH  where the data directory and the files are made, on the disk to be measured (default: a temporary one)
//! ```
//!
//! A server sends the lines of each millisecond at once and records the time. A **file** sink publishes one
//! file an epoch; a line is published when its file has its final name. A sink into a **table** is followed
//! by a durable subscription, which delivers only durable rows. Neither sink rolls. Checkpoints are taken
//! each second meanwhile.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use futures::StreamExt;
use millstream::{Engine, Session};
use millstream_benches::Result;
use millstream_benches::options::Options;
use millstream_benches::sent_lines::{Times, send};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "published_latency [--rate 10000] [--seconds 10] [--interval '10 ms'] [--folder PATH]
Milliseconds from a line's sending until it is published exactly once: p50 and p99.";

/// Interval of the checks of the sink's directory.
const LOOK: Duration = Duration::from_micros(500);

#[tokio::main]
async fn main() -> Result<()> {
    let known = [("rate", "10000"), ("seconds", "10"), ("interval", "10 ms"), ("folder", "")];
    let options = Options::read(HELP, &known)?;
    let (rate, seconds) = (options.number("rate")?, options.number("seconds")?);
    let temporary = tempfile::tempdir()?;
    let folder = match options.text("folder") {
        "" => temporary.path().to_path_buf(),
        named => PathBuf::from(named),
    };
    let interval = options.text("interval");
    println!("{rate} lines a second for {seconds} s, a batch each {interval}, with a data directory");
    for what in [What::File, What::Table] {
        let times = Arc::new(Times::new(rate * seconds));
        run(what, &folder.join(what.name()), interval, rate, &times).await?;
        // Lines arrive in order; those of the first second are left out.
        let latencies = times.latencies(if seconds > 1 { rate } else { 0 });
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e6;
        println!(
            "  {:<6} p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms",
            what.name(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}

/// The target of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    File,
    Table,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::File => "file",
            What::Table => "table",
        }
    }
}

async fn run(what: What, folder: &Path, interval: &str, rate: usize, times: &Arc<Times>) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let engine = Engine::builder().data(folder.join("data")).start()?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE lines WITH (connector = 'socket', host = '127.0.0.1', port = {})",
        listener.local_addr()?.port()
    );
    if interval != "auto" {
        session.execute(&format!("SET batch_interval = '{interval}'")).await?;
    }
    session.execute("SET checkpoint_interval = '1 second'").await?;
    session.execute(&source).await?;
    let ended = Arc::new(AtomicBool::new(false));
    match what {
        What::File => {
            let files = folder.join("files");
            let sink = format!(
                "CREATE SINK k AS SELECT line FROM lines WHERE line LIKE 'line %' \
                 WITH (connector = 'file', path = '{}/', format = 'text')",
                files.display()
            );
            session.execute(&sink).await?;
            let (times, ended) = (times.clone(), ended.clone());
            std::thread::spawn(move || watch(&files, &times, &ended));
        }
        What::Table => follow(&mut session, times.clone()).await?,
    }
    let (stream, _) = listener.accept()?;
    let sending = times.clone();
    let stream = tokio::task::spawn_blocking(move || send(stream, &sending, rate)).await??;
    times.all_arrived().await?;
    ended.store(true, Ordering::Relaxed);
    drop(stream);
    engine.stop().await?;
    Ok(())
}

/// Records the lines of each file that gets its final name.
fn watch(files: &Path, times: &Times, ended: &AtomicBool) {
    let mut seen = HashSet::new();
    while !ended.load(Ordering::Relaxed) {
        for entry in std::fs::read_dir(files).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_hidden = name.to_string_lossy().starts_with('.');
            if !is_hidden && seen.insert(name) {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                times.arrived(text.lines().filter_map(number));
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Creates a table for the lines, and a reader that records the durable ones.
async fn follow(session: &mut Session, times: Arc<Times>) -> Result<()> {
    for sql in [
        "CREATE TABLE t (line TEXT)",
        "CREATE SUBSCRIPTION reader FROM t",
        "CREATE SINK k INTO t AS SELECT line FROM lines WHERE line LIKE 'line %'",
    ] {
        session.execute(sql).await?;
    }
    let mut changes = session.changes("reader").await?;
    tokio::spawn(async move {
        while let Some(Ok(change)) = changes.next().await {
            for rows in change.inserted().unwrap_or_default() {
                times.arrived(rows.column(0).as_string_view().iter().flatten().filter_map(number));
            }
        }
    });
    Ok(())
}

fn number(line: &str) -> Option<usize> {
    line.strip_prefix("line ")?.parse().ok()
}
