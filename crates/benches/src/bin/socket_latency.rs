//! How long a line takes from a socket to its printed result, at auto pace.
//!
//! ```text
//! cargo run --release --bin socket_latency -- [OPTIONS]
//!
//!   --rates A,B  lines a second (default 10000,100000)
//!   --seconds N  how long each run sends (default 10); the first second isn't counted
//! ```
//!
//! A server sends the lines of each millisecond at once and notes when. A **filter** prints each line; a **running
//! count** prints a new count an epoch, which is the result of every line that it counts for the first time. The
//! yardstick is a loop written by hand that reads, filters and prints the same lines. What is printed goes to memory.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millstream::Engine;
use millstream::connect::connectors::Print;
use millstream_benches::Result;
use millstream_benches::options::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "socket_latency [--rates 10000,100000] [--seconds 10]
Milliseconds from a line's sending to its printed result: p50 and p99.";

/// The lines of so long are sent at once.
const TICK: Duration = Duration::from_millis(1);

/// What may still be on its way after the last line was sent.
const TIMEOUT: Duration = Duration::from_secs(60);

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

/// What is done with the lines.
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

/// When lines were sent, and how long they took.
struct Times {
    began: Instant,
    /// Nanoseconds since `began`, by the line's number.
    sent: Vec<AtomicU64>,
    printed: AtomicUsize,
    latencies: Mutex<Vec<u64>>,
}

impl Times {
    fn new(lines: usize) -> Times {
        Times {
            began: Instant::now(),
            sent: (0..lines).map(|_| AtomicU64::new(0)).collect(),
            printed: AtomicUsize::new(0),
            latencies: Mutex::new(Vec::with_capacity(lines)),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Notes that lines have their result now.
    fn arrived(&self, lines: impl Iterator<Item = usize>) {
        let now = self.now();
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            let sent = self.sent.get(line).map_or(now, |sent| sent.load(Ordering::Relaxed));
            latencies.push(now.saturating_sub(sent));
        }
        self.printed.store(latencies.len(), Ordering::Relaxed);
    }
}

/// Where results are printed.
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

/// The latencies of one run in nanoseconds, sorted.
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
    let began = Instant::now();
    while times.printed.load(Ordering::Relaxed) < times.sent.len() {
        if began.elapsed() > TIMEOUT {
            let printed = times.printed.load(Ordering::Relaxed);
            return Err(format!("{printed} of {} lines were printed", times.sent.len()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stream);
    if let Some(engine) = engine {
        engine.stop().await?;
    }
    let mut latencies = times.latencies.lock().unwrap_or_else(PoisonError::into_inner).split_off(
        // Lines come in their order; those of the first second are left out.
        if seconds > 1 { rate } else { 0 },
    );
    latencies.sort_unstable();
    Ok(latencies)
}

/// An engine that reads the socket and prints.
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

/// Sends `rate` lines a second, those of a tick at once.
fn send(mut stream: TcpStream, times: &Times, rate: usize) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let began = Instant::now();
    let mut text = Vec::new();
    let mut line = 0;
    while line < times.sent.len() {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
        text.clear();
        let now = times.now();
        while line < due.min(times.sent.len()) {
            times.sent[line].store(now, Ordering::Relaxed);
            writeln!(text, "line {line}")?;
            line += 1;
        }
        stream.write_all(&text)?;
        std::thread::sleep(TICK);
    }
    Ok(stream)
}

/// Reads, filters and prints.
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
