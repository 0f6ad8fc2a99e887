//! Measures the cost per second of an hour's window that slides by a second.
//!
//! ```text
//! cargo run --release --bin last_window -- [OPTIONS]
//!
//!   --rows N      rows a second (default 100000)
//!   --keys N      how many keys (default 10000)
//!   --length N    how long the window is, in seconds (default 3600)
//!   --seconds N   how many seconds are measured, once it is full (default 300)
//! ```
//!
//! `sum` and `max` by key over `LAST(s, 1 hour, 1 second)`, under a manual clock with batches of a second.
//! The yardstick is the same query over each second's rows alone, in the same engine. The cost of
//! generating the rows is subtracted from both. The window may cost at most three times as much.

use millstream::{Engine, Session};
use millstream_benches::measure::{measure, resident_mib};
use millstream_benches::options::Options;
use millstream_benches::{Result, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "last_window [--rows 100000] [--keys 10000] [--length 3600] [--seconds 300]
Milliseconds a second of sum and max by key over a window that slides by a second.";

/// The parameters of a run.
struct Run {
    rows: usize,
    keys: usize,
    seconds: usize,
}

/// The cost of a second.
struct Taken {
    wall_ms: f64,
    cpu_ms: f64,
    resident_mib: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(
        HELP,
        &[("rows", "100000"), ("keys", "10000"), ("length", "3600"), ("seconds", "300")],
    )?;
    let run = Run {
        rows: options.number("rows")?,
        keys: options.number("keys")?,
        seconds: options.number("seconds")?,
    };
    let length = options.number("length")?;
    let made = run.query("SELECT count(*) AS c FROM s", 10).await?;
    let batch = run.query("SELECT k, sum(v) AS s, max(v) AS m FROM s GROUP BY k", 10).await?;
    let window = format!("LAST(s, INTERVAL '{length} seconds', INTERVAL '1 second')");
    let sql = format!("SELECT k, sum(v) AS s, max(v) AS m FROM {window} GROUP BY k");
    let window = run.query(&sql, length + 10).await?;
    println!("{} rows a second, {} keys, {} seconds measured", run.rows, run.keys, run.seconds);
    for (what, taken) in [
        ("rows made up and counted", &made),
        ("sum and max of a second's rows", &batch),
        (&format!("of the last {length} seconds"), &window),
    ] {
        println!(
            "  {what:32} {:8.1} ms wall, {:8.1} ms CPU a second, {:6.0} MiB",
            taken.wall_ms, taken.cpu_ms, taken.resident_mib
        );
    }
    let ratio = |part: fn(&Taken) -> f64| (part(&window) - part(&made)) / (part(&batch) - part(&made));
    println!(
        "  the window costs {:.2} times its rows (wall), {:.2} (CPU)",
        ratio(|t| t.wall_ms),
        ratio(|t| t.cpu_ms)
    );
    Ok(())
}

impl Run {
    /// Runs a query once per batch, first for `before` seconds that aren't measured.
    async fn query(&self, sql: &str, before: usize) -> Result<Taken> {
        let engine = Engine::start()?;
        let mut session = engine.session();
        let last_key = self.keys.saturating_sub(1);
        for sql in [
            "SET clock = 'manual'",
            "SET batch_interval = '1 second'",
            &format!("SET max_batch_rows = {}", self.rows),
            "SET max_batch_bytes = '1 GiB'",
            &format!(
                "CREATE SOURCE s (k BIGINT, v BIGINT) WITH (connector = 'datagen', seed = 1, fields.k.min = 0, \
                 rows = 1000000000000, \
                 fields.k.max = {last_key}, fields.v.min = 0, fields.v.max = 1000000)"
            ),
            &format!("CREATE STREAM w WITH (retention = '1 second') AS {sql} FOR EACH BATCH"),
            &format!("ADVANCE BATCH {before}"),
        ] {
            session.execute(sql).await?;
        }
        let advance = format!("ADVANCE BATCH {}", self.seconds);
        let advance = async { Ok(session.execute(&advance).await?) };
        let (_, cost) = measure(advance).await?;
        let taken = Taken {
            wall_ms: cost.wall_s * 1e3 / self.seconds as f64,
            cpu_ms: cost.cpu_s * 1e3 / self.seconds as f64,
            resident_mib: resident_mib()?,
        };
        self.check(&mut session).await?;
        engine.stop().await?;
        Ok(taken)
    }

    /// Fails unless the last second has results.
    async fn check(&self, session: &mut Session) -> Result<()> {
        let rows = yardstick::rows(session, "SELECT count(*) FROM w").await?;
        match yardstick::number(&rows)? {
            0 => Err("the query gave no rows".into()),
            _ => Ok(()),
        }
    }
}
