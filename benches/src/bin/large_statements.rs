//! Measures for how long one large statement of a session holds up the short statements of others.
//!
//! ```text
//! cargo build --release --bin millstream
//! cargo run --release --bin large_statements -- [OPTIONS]
//!
//!   --rows N   rows of each table (default 3000000)
//! ```
//!
//! Starts the program `millstream` that lies beside this one as a server with a data directory. One session runs a
//! statement after the other, each over tables of `rows` rows. Another one repeats a read of a small table, and an INSERT of a
//! row, which also waits until the journal has what came before.

#[path = "../../../crates/cli/tests/isolation/hostile.rs"]
#[allow(dead_code)]
mod hostile;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hostile::Server;
use millstream_benches::Result;
use millstream_benches::options::Options;

const HELP: &str = "large_statements [--rows 3000000]
Milliseconds of short statements beside one large statement.";

/// The statements, in order. `{rows}` is the number of rows.
const STATEMENTS: &[&str] = &[
    "INSERT INTO keyed SELECT i, 1 FROM generate_series(1, {rows}) g(i)",
    "INSERT INTO bag SELECT i, 1 FROM generate_series(1, {rows}) g(i)",
    "DELETE FROM bag WHERE id = 7",
    "CREATE MATERIALIZED VIEW rows_of AS SELECT id, v + 1 AS w FROM keyed",
    "CREATE MATERIALIZED VIEW groups AS SELECT id, sum(v) AS w FROM bag GROUP BY id",
    "CREATE STREAM batches AS SELECT id, count(*) AS n FROM bag GROUP BY id FOR EACH BATCH",
    "INSERT INTO bag VALUES (1, 1)",
    "DROP STREAM batches",
    "DELETE FROM keyed WHERE id = 7",
    "CHECKPOINT",
    "UPDATE keyed SET v = v + 1",
    "UPDATE bag SET v = v + 1",
    "CREATE SINK filling INTO copy AS SELECT id, v FROM keyed",
    "UPDATE keyed SET v = v + 1",
    "SELECT count(*), sum(v) FROM copy",
    "CREATE SINK by_key INTO copy_by_key AS SELECT id, v FROM keyed",
    "UPDATE keyed SET v = v + 1",
    "SELECT count(*), sum(v) FROM copy_by_key",
    "SELECT count(*), sum(w) FROM rows_of",
    "SELECT count(*), sum(w) FROM groups",
    "CHECKPOINT",
    "PAUSE filling",
    "PAUSE groups",
    "UPDATE keyed SET v = v + 1",
    "UPDATE bag SET v = v + 1",
    "RESUME filling",
    "RESUME groups",
    "SELECT count(*), sum(v) FROM copy",
    "SELECT count(*), sum(w) FROM groups",
    "ALTER MATERIALIZED VIEW groups AS SELECT id, sum(v) AS w FROM bag WHERE id % 2 = 0 GROUP BY id",
    "DROP SINK filling",
    "CREATE SUBSCRIPTION of_groups FROM groups",
    "CREATE SUBSCRIPTION of_rows FROM rows_of",
    "DROP SUBSCRIPTION of_groups",
    "DROP SUBSCRIPTION of_rows",
    "BEGIN",
    "INSERT INTO keyed SELECT {rows} + i, 1 FROM generate_series(1, {rows}) g(i)",
    "UPDATE keyed SET v = v + 1 WHERE id % 2 = 0",
    "DELETE FROM keyed WHERE id % 3 = 0",
    "INSERT INTO bag SELECT {rows} + i, 1 FROM generate_series(1, {rows}) g(i)",
    "DELETE FROM bag WHERE id % 3 = 0",
    "COMMIT",
    "ALTER TABLE bag ADD COLUMN more BIGINT DEFAULT 5",
    "DELETE FROM bag",
    "DROP SINK by_key",
    "DROP MATERIALIZED VIEW groups",
    "DROP MATERIALIZED VIEW rows_of",
    "DROP TABLE keyed",
    "CHECKPOINT",
];

/// A read and an INSERT of the other session.
const SHORT: [&str; 2] = ["SELECT v FROM little", "INSERT INTO short VALUES (1)"];

const TABLES: &[&str] = &[
    "CREATE TABLE little (v BIGINT)",
    "CREATE TABLE short (v BIGINT)",
    "CREATE TABLE keyed (id BIGINT PRIMARY KEY, v BIGINT)",
    "CREATE TABLE bag (id BIGINT, v BIGINT)",
    "CREATE TABLE copy (id BIGINT, v BIGINT)",
    "CREATE TABLE copy_by_key (id BIGINT PRIMARY KEY, v BIGINT)",
];

/// The time between two short statements, and after a large one, whose changes may still be taken in.
const PAUSE: Duration = Duration::from_millis(5);
const REST: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("rows", "3000000")])?;
    let rows = options.number("rows")?.to_string();
    let program = std::env::current_exe()?.with_file_name("millstream");
    let place = std::env::temp_dir().join(format!("millstream-large-{}", std::process::id()));
    std::fs::create_dir_all(&place)?;
    let mut server = Server::start_with(&program, &place, |command| {
        command.args(["--data", "data"]);
    });
    let large = server.client().await;
    for sql in TABLES {
        large.batch_execute(sql).await?;
    }
    println!("{:70} {:>9} {:>20} {:>20}", "", "took, s", "read: p50, most, ms", "INSERT: p50, most");
    for sql in STATEMENTS {
        let sql = sql.replace("{rows}", &rows);
        let (client, over) = (server.client().await, Arc::new(AtomicBool::new(false)));
        let (is_over, begun) = (over.clone(), Instant::now());
        let short = tokio::spawn(async move {
            let mut times = [Vec::new(), Vec::new()];
            while !is_over.load(Ordering::Relaxed) {
                for (sql, times) in SHORT.iter().zip(&mut times) {
                    let begun = Instant::now();
                    client.simple_query(sql).await?;
                    times.push(begun.elapsed());
                }
                tokio::time::sleep(PAUSE).await;
            }
            times.iter_mut().for_each(|times| times.sort());
            Ok::<_, tokio_postgres::Error>(times)
        });
        large.simple_query(&sql).await?;
        let took = begun.elapsed();
        tokio::time::sleep(REST).await;
        over.store(true, Ordering::Relaxed);
        let times = short.await??;
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let shown: String = sql.chars().take(70).collect();
        println!(
            "{shown:70} {:9.2} {:10.1} {:9.1} {:10.1} {:9.1}",
            took.as_secs_f64(),
            ms(times[0].get(times[0].len() / 2)),
            ms(times[0].last()),
            ms(times[1].get(times[1].len() / 2)),
            ms(times[1].last())
        );
    }
    let running = server.is_running();
    drop(server);
    std::fs::remove_dir_all(&place)?;
    if running { Ok(()) } else { Err("the server has ended".into()) }
}
