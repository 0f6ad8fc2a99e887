//! Measures the time from a line's arrival at a socket to its printed result, at auto pace.
//!
//! ```text
//! cargo run --release --bin socket_latency -- [OPTIONS]
//!
//!   --rates A,B  lines a second (default 10000,100000)
//!   --seconds N  how long each run sends (default 10); the first second isn't counted
//! ```
//!
//! A server sends the lines of each millisecond at once and records the time. A **filter** prints each
//! line. A **running count** prints a new count an epoch: the result of every line counted for the first
//! time. The yardstick is a hand-written loop that reads, filters and prints the same lines. Results are
//! printed to memory.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use millstream::Engine;
use millstream::connect::connectors::Print;
use millstream_benches::Result;
use millstream_benches::options::Options;
use millstream_benches::sent_lines::{Times, send};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "socket_latency [--rates 10000,100000] [--seconds 10]
Milliseconds from a line's sending to its printed result: p50 and p99.";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("rates", "10000,100000"), ("seconds", "10")])?;
    let seconds = options.number("seconds")?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("a socket's line to its printed result, {seconds} s a run, load average {}", load.trim());
    println!("  {:>10} {:<24} {:>9} {:>9} {:>9}", "lines/s", "", "p50 ms", "p99 ms", "max ms");
    for rate in options.text("rates").split(',') {
        let rate: usize = rate.trim().parse().map_err(|_| format!("'{rate}' is no number of lines"))?;
        for what in [What::Filter, What::Count, What::ByHand] {
            let latencies = run(what, rate, seconds).await?;
            let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e6;
            let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
            println!("  {rate:>10} {:<24} {p50:>9.2} {p99:>9.2} {max:>9.2}", what.name());
        }
    }
    Ok(())
}

/// The processing of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Filter,
    Count,
    ByHand,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Filter => "filter",
            What::Count => "running count",
            What::ByHand => "filter, written by hand",
        }
    }
}

/// The output for printed results.
struct Page {
    what: What,
    times: Arc<Times>,
    counted: usize,
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if self.what == What::Count {
            let counts = text.lines().filter_map(|line| line.strip_prefix('+')?.parse::<usize>().ok());
            if let Some(count) = counts.max().filter(|count| *count > self.counted) {
                self.times.arrived(self.counted..count);
                self.counted = count;
            }
        } else {
            self.times.arrived(text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the latencies of one run in nanoseconds, sorted.
async fn run(what: What, rate: usize, seconds: usize) -> Result<Vec<u64>> {
    let times = Arc::new(Times::new(rate * seconds));
    let page = Page { what, times: times.clone(), counted: 0 };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut engine = None;
    if what == What::ByHand {
        let stream = TcpStream::connect(address)?;
        std::thread::spawn(move || by_hand(stream, page));
    } else {
        engine = Some(start(what, address.port(), page).await?);
    }
    let (stream, _) = listener.accept()?;
    let sending = times.clone();
    let sent = tokio::task::spawn_blocking(move || send(stream, &sending, rate)).await?;
    let stream = sent?;
    times.all_arrived().await?;
    drop(stream);
    if let Some(engine) = engine {
        engine.stop().await?;
    }
    // Lines arrive in order; those of the first second are left out.
    Ok(times.latencies(if seconds > 1 { rate } else { 0 }))
}

/// Starts an engine that reads the socket and prints.
async fn start(what: What, port: u16, page: Page) -> Result<Engine> {
    let engine = Engine::builder().connector(Arc::new(Print::to(page))).start()?;
    let mut session = engine.session();
    let source =
        format!("CREATE SOURCE lines WITH (connector = 'socket', host = '127.0.0.1', port = {port})");
    session.execute(&source).await?;
    if what == What::Count {
        session.execute("CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM lines").await?;
        session.execute("CREATE SINK k FROM counted WITH (connector = 'print')").await?;
    } else {
        let sink = "CREATE SINK k AS SELECT line FROM lines WHERE line LIKE 'line %' \
                    WITH (connector = 'print', limit = 1000000000)";
        session.execute(sink).await?;
    }
    Ok(engine)
}

/// Reads, filters and prints by hand.
fn by_hand(stream: TcpStream, mut page: Page) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.starts_with("line ") {
            page.write_all(line.as_bytes())?;
        }
    }
}
