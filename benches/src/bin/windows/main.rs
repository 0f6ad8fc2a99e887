//! Measures windows of event time that close.
//!
//! ```text
//! cargo run --release --bin windows -- [OPTIONS]
//!
//!   --rows N      rows an epoch, which is a second of event time (default 100000)
//!   --keys N      how many keys (default 10000)
//!   --late N      how many of a hundred rows are late (default 1)
//!   --epochs N    how many epochs are measured (default 120)
//!   --session-rows N  rows an epoch where they are put into sessions (default 10000)
//!   --session-keys N  the most keys that have sessions (default 1000000)
//!   --day-rows N  rows a second of the day that is replayed (default 100)
//!   --hours N     how many hours of it (default 24)
//! ```
//!
//! A count by key and window, `TUMBLE` of ten seconds, may cost at most half as much again as the same
//! GROUP BY without windows. `HOP` of a minute by a second with EMIT ON WINDOW CLOSE is compared with
//! `TUMBLE` of a minute. It may cost at most three times as much, though each row is in sixty windows. The
//! cost of generating the rows is subtracted from all.
//!
//! Then the same rows in the sessions of few keys and of many: the cost of an epoch must depend on its rows
//! only. And a day of event time: the state after each hour must be that of the windows and sessions still
//! open.

mod clicks;
mod day;
mod sessions;

use std::sync::Arc;

use clicks::Clicks;
use millstream::Engine;
use millstream_benches::measure::{measure, resident_mib};
use millstream_benches::options::Options;
use millstream_benches::{Result, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "windows [--rows 100000] [--keys 10000] [--late 1] [--epochs 120] [--session-rows 10000] \
[--session-keys 1000000] [--day-rows 100] [--hours 24]
Milliseconds an epoch of counts by windows of event time that close, beside the same without windows; what sessions of
many keys cost, and what is kept of a day.";

/// Number of epochs before the measurement, until windows of a minute close as fast as they open.
const BEFORE: usize = 70;

/// The parameters of a run.
#[derive(Clone, Copy)]
struct Run {
    rows: usize,
    keys: usize,
    late: usize,
    /// Number of epochs before the measurement.
    before: usize,
    epochs: usize,
}

/// The cost of an epoch.
struct Taken {
    wall_ms: f64,
    cpu_ms: f64,
    resident_mib: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(
        HELP,
        &[
            ("rows", "100000"),
            ("keys", "10000"),
            ("late", "1"),
            ("epochs", "120"),
            ("session-rows", "10000"),
            ("session-keys", "1000000"),
            ("day-rows", "100"),
            ("hours", "24"),
        ],
    )?;
    let run = Run {
        rows: options.number("rows")?,
        keys: options.number("keys")?,
        late: options.number("late")?,
        before: BEFORE,
        epochs: options.number("epochs")?,
    };
    counts(run).await?;
    sessions::run(options.number("session-rows")?, options.number("session-keys")?).await?;
    day::run(options.number("day-rows")?, options.number("hours")?).await
}

/// Compares counts by windows with those without.
async fn counts(run: Run) -> Result<()> {
    let windows = |of: &str, emit: &str| {
        format!(
            "SELECT window_start, window_end, k, count(*) AS n FROM {of} GROUP BY window_start, window_end, k {emit}"
        )
    };
    let tumble = |seconds: u32| format!("TUMBLE(s, ts, INTERVAL '{seconds} seconds')");
    let hop = "HOP(s, ts, INTERVAL '1 second', INTERVAL '60 seconds')";
    let on_close = "EMIT ON WINDOW CLOSE";
    println!("{} rows an epoch, {} keys, {} epochs measured", run.rows, run.keys, run.epochs);
    let made = run.query("rows made up and counted", "SELECT count(*) AS n FROM s").await?;
    let groups = run.query("count by key", "SELECT k, count(*) AS n FROM s GROUP BY k").await?;
    let tens = run.query("by key and ten seconds", &windows(&tumble(10), "")).await?;
    let minutes = run.query("by key and minute, when it closes", &windows(&tumble(60), on_close)).await?;
    let hops = run.query("by key and minute, by seconds", &windows(hop, on_close)).await?;
    let ratio = |what: &Taken, than: &Taken| {
        let of = |part: fn(&Taken) -> f64| (part(what) - part(&made)) / (part(than) - part(&made));
        format!("{:.2} times (wall), {:.2} (CPU)", of(|taken| taken.wall_ms), of(|taken| taken.cpu_ms))
    };
    println!("  windows of ten seconds cost what groups do {}", ratio(&tens, &groups));
    println!("  sixty windows a row cost what one does {}", ratio(&hops, &minutes));
    Ok(())
}

impl Run {
    async fn query(&self, what: &str, sql: &str) -> Result<Taken> {
        let engine = Engine::builder().connector(Arc::new(Clicks)).start()?;
        let mut session = engine.session();
        let Run { rows, keys, late, before, epochs } = self;
        for sql in [
            "SET clock = 'manual'",
            "SET max_batch_bytes = '1 GiB'",
            &format!("SET max_batch_rows = {rows}"),
            &clicks::source(*keys, *rows, *late),
            &format!("CREATE STREAM answer WITH (retention = '1 ms') AS {sql}"),
            &format!("ADVANCE BATCH {before}"),
        ] {
            session.execute(sql).await?;
        }
        let advance = format!("ADVANCE BATCH {epochs}");
        let (_, cost) = measure(async { Ok(session.execute(&advance).await?) }).await?;
        let taken = Taken {
            wall_ms: cost.wall_s * 1e3 / *epochs as f64,
            cpu_ms: cost.cpu_s * 1e3 / *epochs as f64,
            resident_mib: resident_mib()?,
        };
        let stepped = yardstick::rows(&mut session, "SELECT max(rows_out) FROM millstream.operators").await?;
        if yardstick::number(&stepped)? == 0 {
            return Err(format!("{what}: the query gave no rows").into());
        }
        engine.stop().await?;
        println!(
            "  {what:36} {:8.1} ms wall, {:8.1} ms CPU an epoch, {:6.0} MiB",
            taken.wall_ms, taken.cpu_ms, taken.resident_mib
        );
        Ok(taken)
    }
}
