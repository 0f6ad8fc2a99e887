//! Measures what it costs to be watched: the CPU time of an engine with 1,000 epochs a second, with its web page open and
//! without, and the time of a statement while many pages are open.
//!
//! ```text
//! cargo run --release --bin watching -- [OPTIONS]
//!
//!   --rate N     epochs a second (default 1000)
//!   --seconds N  how long each run takes (default 10)
//!   --rounds N   runs with and without a page, in turn (default 6)
//!   --pages N    pages that are open while statements are timed (default 50)
//! ```
//!
//! An open page asks `/api/overview` once a second for what is new, and `/metrics` is read as often. The CPU time is that
//! of the whole process, the client included.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream::{Engine, Session};
use millstream_benches::Result;
use millstream_benches::measure::{cpu_seconds, median};
use millstream_benches::options::Options;
use millstream_web::Page;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "watching [--rate 1000] [--seconds 10] [--rounds 6] [--pages 50]
CPU time of an engine with and without an open web page, and p99 of statements with many pages.";

const OBJECTS: [&str; 6] = [
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer BIGINT, amount BIGINT)",
    "CREATE TABLE customers (id BIGINT PRIMARY KEY, region BIGINT)",
    "INSERT INTO customers SELECT g, g % 10 FROM generate_series(0, 999) AS t(g)",
    "CREATE MATERIALIZED VIEW per_customer AS SELECT customer, count(*) AS n, sum(amount) AS sum FROM orders GROUP BY customer",
    "CREATE MATERIALIZED VIEW per_region AS SELECT c.region, count(*) AS n FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.region",
    "CREATE MATERIALIZED VIEW largest AS SELECT id, amount FROM orders ORDER BY amount DESC LIMIT 10",
];

/// Pages that ask once a second, until this is dropped.
struct Open {
    ended: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Open {
    fn pages(address: SocketAddr, count: usize) -> Open {
        let ended = Arc::new(AtomicBool::new(false));
        let page = |number: usize| tokio::spawn(follow(address, number, ended.clone()));
        Open { tasks: (0..count).map(page).collect(), ended }
    }

    /// Ends the pages, and fails if one of them failed.
    async fn end(self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let known = [("rate", "1000"), ("seconds", "10"), ("rounds", "6"), ("pages", "50")];
    let options = Options::read(HELP, &known)?;
    let (rate, seconds) = (options.number("rate")?, options.number("seconds")?);
    let page = Page::bind("127.0.0.1:0").await?;
    let engine = Engine::start()?;
    page.attach(engine.clone());
    let mut session = engine.session();
    for sql in OBJECTS {
        session.execute(sql).await?;
    }
    let mut orders = 0;
    // The first run is not counted.
    run(&mut session, &mut orders, rate, 2).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..options.number("rounds")? {
        // The tables grow, so each comes first as often as the other.
        for is_open in [round % 2 == 1, round % 2 == 0] {
            if is_open {
                let open = Open::pages(page.address(), 1);
                with.push(run(&mut session, &mut orders, rate, seconds).await?);
                open.end().await?;
            } else {
                without.push(run(&mut session, &mut orders, rate, seconds).await?);
            }
        }
    }
    let (without, with) = (median(without), median(with));
    println!(
        "{rate} epochs a second: {without:.1} us of CPU an epoch without a page, {with:.1} us with one: {:.3} times",
        with / without
    );
    let pages = options.number("pages")?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..options.number("rounds")? {
        for is_open in [round % 2 == 1, round % 2 == 0] {
            if is_open {
                let open = Open::pages(page.address(), pages);
                beside.push(statements(&mut session, seconds).await?);
                open.end().await?;
            } else {
                alone.push(statements(&mut session, seconds).await?);
            }
        }
    }
    let of = |times: &[(f64, f64)]| {
        (median(times.iter().map(|(p50, _)| *p50)), median(times.iter().map(|(_, p99)| *p99)))
    };
    let (alone, beside) = (of(&alone), of(&beside));
    println!(
        "p99 of a SELECT by key: {:.0} us, with {pages} pages {:.0} us: {:.3} times (p50 {:.0} us and {:.0} us)",
        alone.1,
        beside.1,
        beside.1 / alone.1,
        alone.0,
        beside.0
    );
    engine.stop().await?;
    Ok(())
}

/// Runs epochs at a rate. Returns the microseconds of CPU time that each took.
async fn run(session: &mut Session, orders: &mut usize, rate: usize, seconds: usize) -> Result<f64> {
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    for number in 0..rate * seconds {
        let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
        tokio::time::sleep_until(due.into()).await;
        *orders += 1;
        let (id, customer) = (*orders, *orders % 1000);
        session
            .execute(&format!("INSERT INTO orders VALUES ({id}, {customer}, {})", id * 7919 % 1000))
            .await?;
    }
    Ok((cpu_seconds()? - cpu) * 1e6 / (rate * seconds) as f64)
}

/// Times statements for some seconds. Returns the median and the 99th percentile in microseconds.
async fn statements(session: &mut Session, seconds: usize) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds as u64) {
        let at = Instant::now();
        let key = times.len() % 1000;
        session.execute(&format!("SELECT n FROM per_customer WHERE customer = {key}")).await?;
        times.push(at.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok((at(0.5), at(0.99)))
}

/// Asks for what is new once a second, as a page does; pages don't ask all at once.
async fn follow(address: SocketAddr, number: usize, ended: Arc<AtomicBool>) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(number as u64 * 20 % 1000)).await;
    let (mut since, mut after) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        let body = get(address, &format!("/api/overview?since={since}&after={after}")).await?;
        since = number_after(&body, "\"next\":").unwrap_or(since);
        after = number_after(&body, "\"epoch\":").unwrap_or(after);
        if number == 0 {
            get(address, "/metrics").await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Returns the first number behind a name in JSON.
fn number_after(json: &str, name: &str) -> Option<u64> {
    let rest = &json[json.find(name)? + name.len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(format!("{path}: {answer}").into()) }
}
