//! A day of event time: the state must be limited to open windows.

use std::sync::Arc;

use millstream::{Engine, Session};
use millstream_benches::{Result, yardstick};

use crate::clicks::{self, Clicks};

/// Number of keys.
const KEYS: usize = 1000;

/// Seconds of event time in an epoch.
const SECONDS: usize = 60;

/// Maximum growth of the state since the second hour: the number of active keys varies.
const MORE: f64 = 1.2;

const QUERIES: [(&str, &str); 3] = [
    (
        "tumbling",
        "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') \
         GROUP BY window_start, window_end, k",
    ),
    (
        "hopping",
        "SELECT window_start, window_end, k, count(*) AS n, max(v) AS most \
         FROM HOP(s, ts, INTERVAL '10 seconds', INTERVAL '5 minutes') GROUP BY window_start, window_end, k",
    ),
    (
        "sessions",
        "SELECT k, window_start, window_end, count(*) AS n FROM SESSION(s PARTITION BY k, ts, INTERVAL '10 seconds') \
         GROUP BY k, window_start, window_end",
    ),
];

/// Replays this number of hours and prints the state after each. Fails if the state grows.
pub async fn run(rows: usize, hours: usize) -> Result<()> {
    println!("{hours} hours of {rows} rows a second, of {KEYS} keys: rows kept, and KiB");
    let engine = Engine::builder().connector(Arc::new(Clicks)).start()?;
    let mut session = engine.session();
    for sql in [
        "SET clock = 'manual'",
        "SET max_batch_bytes = '1 GiB'",
        &format!("SET max_batch_rows = {}", rows * SECONDS),
        &clicks::source(KEYS, rows, 1),
    ] {
        session.execute(sql).await?;
    }
    for (name, sql) in QUERIES {
        let create = format!("CREATE STREAM {name} WITH (retention = '1 ms') AS {sql} EMIT ON WINDOW CLOSE");
        session.execute(&create).await?;
    }
    println!("  {:>4} {}", "hour", QUERIES.map(|(name, _)| format!("{name:>22}")).join(" "));
    let mut second = None;
    for hour in 1..=hours {
        session.execute(&format!("ADVANCE BATCH {}", 3600 / SECONDS)).await?;
        let mut all = Vec::new();
        for (name, _) in QUERIES {
            all.push(kept(&mut session, name).await?);
        }
        let shown = all.iter().map(|(rows, bytes)| format!("{rows:>12} {:>9}", bytes / 1024));
        println!("  {hour:>4} {}", shown.collect::<Vec<_>>().join(" "));
        let then = match hour {
            1 => continue,
            _ => second.get_or_insert_with(|| all.clone()),
        };
        for (((name, _), (rows, _)), (before, _)) in QUERIES.iter().zip(&all).zip(then) {
            if *rows as f64 > *before as f64 * MORE + 100.0 {
                return Err(format!("{name} keeps {rows} rows after {hour} hours, {before} after two").into());
            }
        }
    }
    engine.stop().await?;
    Ok(())
}

/// Returns the number of rows and bytes in a query's state.
async fn kept(session: &mut Session, query: &str) -> Result<(i64, i64)> {
    let mut of = Vec::new();
    for column in ["state_rows", "state_bytes"] {
        let sql =
            format!("SELECT CAST(sum({column}) AS BIGINT) FROM millstream.operators WHERE query = '{query}'");
        of.push(yardstick::number(&yardstick::rows(session, &sql).await?)?);
    }
    Ok((of[0], of[1]))
}
