//! Tests a fixed interval under overload: the engine must survive and must recover afterwards.
//!
//! ```text
//! cargo run --release --bin overload -- [OPTIONS]
//!
//!   --keys N       distinct keys of the query (default 100000)
//!   --seconds N    how long it is overloaded (default 10)
//!   --factor N     by how many times the rate that it sustains (default 3); afterwards by a third of it
//! ```
//!
//! First a source without a rate limit determines the sustained rate. Then the same query gets a third of
//! that rate, the overload, and a third again until no rows wait outside. The yardstick is the interval: 1
//! second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream::connect::{
    Arrival, Connector, Error, Limit, More, Result as ConnectResult, Sink, SinkSpec, Source, SourceSpec,
};
use millstream::delta::Span;
use millstream::{Batch, Engine, Listener, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "overload [--keys 100000] [--seconds 10] [--factor 3]
A fixed interval of 1 s under more than it sustains: processing times, backlog, memory, nothing lost.";

const INTERVAL: Duration = Duration::from_secs(1);
/// Time for measuring the sustained rate, and the part at its end that counts.
const CALIBRATION: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(5);
/// Maximum time to wait for the end of the backlog.
const PATIENCE: Duration = Duration::from_secs(120);

/// A source of rows at a variable rate. Rows that the engine doesn't take wait outside.
#[derive(Debug)]
struct Tap {
    keys: u64,
    taken: AtomicU64,
    /// Number of rows offered before the present rate was set, the time when it was set, and the rate in
    /// rows a second.
    flow: Mutex<(f64, Instant, f64)>,
    unbounded: AtomicBool,
}

impl Tap {
    fn new(keys: u64) -> Arc<Tap> {
        let flow = Mutex::new((0.0, Instant::now(), 0.0));
        Arc::new(Tap { keys, taken: AtomicU64::new(0), flow, unbounded: AtomicBool::new(false) })
    }

    fn set_rate(&self, rate: f64) {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, since, old) = *flow;
        *flow = (before + since.elapsed().as_secs_f64() * old, Instant::now(), rate);
    }

    fn offered(&self) -> u64 {
        let (before, since, rate) = *self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        (before + since.elapsed().as_secs_f64() * rate) as u64
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Returns the number of rows that wait outside.
    fn backlog(&self) -> u64 {
        self.offered().saturating_sub(self.taken())
    }
}

/// The connector of one tap.
#[derive(Clone, Debug)]
struct TapConnector(Arc<Tap>);

impl Connector for TapConnector {
    fn name(&self) -> &'static str {
        "tap"
    }
    fn summary(&self) -> &'static str {
        "Rows at a rate that the bench sets."
    }
    fn source(&self, _: &SourceSpec) -> ConnectResult<Box<dyn Source>> {
        let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, true));
        Ok(Box::new(TapSource { tap: self.0.clone(), schema: Arc::new(Schema::new(fields.to_vec())) }))
    }
    fn sink(&self, _: &SinkSpec) -> ConnectResult<Box<dyn Sink>> {
        Err(Error::Invalid("a tap is a source".into()))
    }
}

struct TapSource {
    tap: Arc<Tap>,
    schema: SchemaRef,
}

#[async_trait]
impl Source for TapSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    async fn next(&mut self, limit: Limit) -> ConnectResult<Arrival> {
        let from = self.tap.taken();
        let there = if self.tap.unbounded.load(Ordering::SeqCst) { u64::MAX } else { self.tap.backlog() };
        let count = there.min(limit.rows as u64);
        let mut arrival = Arrival::nothing(More::Later);
        if count == 0 {
            return Ok(arrival);
        }
        let to = from + count;
        let keys = self.tap.keys;
        let k: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (from..to).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as i64 % keys as i64),
        ));
        let v: ArrayRef = Arc::new(Int64Array::from_iter_values((from..to).map(|n| n as i64)));
        let rows = RecordBatch::try_new(self.schema.clone(), vec![k, v]);
        arrival.rows.push(rows.map_err(|error| Error::Bug(error.to_string()))?);
        arrival.spans.push(Span { split: "tap".into(), from, to, done: false });
        self.tap.taken.store(to, Ordering::SeqCst);
        Ok(arrival)
    }
    async fn ready(&mut self) -> ConnectResult<()> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(())
    }
}

/// Records each batch with the time when it was done.
#[derive(Clone, Default)]
struct Batches(Arc<Mutex<Vec<(Instant, Batch)>>>);

impl Batches {
    fn all(&self) -> Vec<(Instant, Batch)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listener for Batches {
    fn batch_completed(&mut self, batch: &Batch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), batch.clone()));
    }
}

async fn start(tap: &Arc<Tap>, batches: &Batches) -> Result<(Engine, Session)> {
    let engine =
        Engine::builder().connector(Arc::new(TapConnector(tap.clone()))).listener(batches.clone()).start()?;
    let mut session = engine.session();
    for sql in [
        "SET batch_interval = '1 second'",
        "CREATE SOURCE tap WITH (connector = 'tap')",
        "CREATE MATERIALIZED VIEW m AS SELECT k, count(*) AS c, sum(v) AS s, max(v) AS x FROM tap GROUP BY k",
    ] {
        session.execute(sql).await?;
    }
    Ok((engine, session))
}

/// Returns the rows a second that the engine reads when there are always more.
async fn sustained(keys: u64) -> Result<f64> {
    let (tap, batches) = (Tap::new(keys), Batches::default());
    tap.unbounded.store(true, Ordering::SeqCst);
    let (engine, _session) = start(&tap, &batches).await?;
    tokio::time::sleep(CALIBRATION).await;
    let all = batches.all();
    let (end, _) = all.last().ok_or("no batch has run")?;
    let settled: Vec<_> = all.iter().filter(|(at, _)| *at + SETTLED >= *end).collect();
    let (first, _) = settled.first().ok_or("no batch has run")?;
    let rows: u64 = settled.iter().skip(1).map(|(_, batch)| batch.input_rows()).sum();
    engine.stop().await?;
    Ok(rows as f64 / (*end - *first).as_secs_f64().max(1.0))
}

async fn count(session: &mut Session, sql: &str) -> Result<i64> {
    yardstick::number(&yardstick::rows(session, sql).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("keys", "100000"), ("seconds", "10"), ("factor", "3")])?;
    let keys = options.number("keys")? as u64;
    let overload = Duration::from_secs(options.number("seconds")? as u64);
    let factor = options.number("factor")? as f64;
    let rate = sustained(keys).await?;
    println!("sustained: {:.2} M rows/s into {keys} keys, load average {}", rate / 1e6, load()?);

    let (tap, batches) = (Tap::new(keys), Batches::default());
    let (engine, mut session) = start(&tap, &batches).await?;
    tap.set_rate(rate / 3.0);
    tokio::time::sleep(WARM_UP).await;
    let before = measure::resident_mib()?;
    let begun = Instant::now();
    tap.set_rate(rate * factor);
    let (mut backlog_max, mut resident_max) = (0, before);
    let mut ended = None;
    let mut gone = None;
    while gone.is_none() && begun.elapsed() < overload + PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if ended.is_none() && begun.elapsed() >= overload {
            tap.set_rate(rate / 3.0);
            ended = Some(Instant::now());
        }
        backlog_max = backlog_max.max(tap.backlog());
        resident_max = f64::max(resident_max, measure::resident_mib()?);
        // Rows that arrive within one interval always wait.
        if let Some(end) = ended
            && (tap.backlog() as f64) < rate / 3.0 * INTERVAL.as_secs_f64()
        {
            gone = Some(end.elapsed());
        }
    }
    tap.set_rate(0.0);
    let offered = tap.offered();
    let mut counted = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        counted = count(&mut session, "SELECT CAST(sum(c) AS BIGINT) FROM m").await?;
        if counted as u64 == offered {
            break;
        }
    }
    report(&batches.all(), begun);
    println!("  backlog outside: {:.1} M rows at most", backlog_max as f64 / 1e6);
    match gone {
        Some(time) => println!("  gone {:.1} s after the overload's end", time.as_secs_f64()),
        None => println!("  NOT gone after {} s", PATIENCE.as_secs()),
    }
    println!("  resident memory: {before:.0} MiB before, {resident_max:.0} MiB at most");
    let merged = count(&mut session, "SELECT max(scheduling_delay_us) FROM millstream.epochs").await?;
    println!("  longest scheduling delay in millstream.epochs: {:.1} ms", merged as f64 / 1e3);
    println!(
        "  rows offered {offered}, counted {counted}{}",
        if counted as u64 == offered { "" } else { ": LOST" }
    );
    engine.stop().await?;
    Ok(())
}

/// Prints the statistics of the batches since the start of the overload.
fn report(batches: &[(Instant, Batch)], begun: Instant) {
    let during = batches.iter().filter(|(at, _)| *at >= begun);
    let seconds = |time: Duration| time.as_secs_f64();
    let mut longest = Duration::ZERO;
    let mut last_over = None;
    for (at, batch) in during {
        longest = longest.max(batch.processing_time);
        if batch.processing_time > INTERVAL {
            last_over = Some(*at - begun);
        }
    }
    println!("  longest processing time: {:.2} s", seconds(longest));
    match last_over {
        None => println!("  no batch needed more than the interval"),
        Some(at) => println!(
            "  the last batch that needed more than the interval ended {:.1} s after the start",
            seconds(at)
        ),
    }
}

fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
