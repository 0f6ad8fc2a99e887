//! One session's statements must not block another's: the program as a server, twenty hostile statements at
//! once, and measuring clients. The limits here are wide, since tests run in parallel in an unoptimized
//! build; `cargo run --release --bin isolation` measures precisely.

mod begun;
mod hostile;
mod large;
mod steps;

use std::path::Path;
use std::time::{Duration, Instant};

use hostile::{PATIENCE, Scale, Server, measure, prepare};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

/// Maximum time of a short statement beside the hostile ones.
const MOST: Duration = Duration::from_secs(10);

/// Maximum time until a cancelled statement has ended.
const CANCELLED: Duration = Duration::from_secs(5);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_millstream"))
}

#[test]
fn short_statements_go_on_beside_hostile_ones_and_these_can_be_cancelled() {
    let place = tempfile::tempdir().unwrap();
    let mut server = Server::start(program(), place.path());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let first = server.client().await;
        prepare(&first, Scale { pairs: 4_000, rows: 20_000 }).await;
        let mut running = Vec::new();
        for sql in hostile::hostile() {
            let client = server.client().await;
            let token = client.cancel_token();
            running.push((tokio::spawn(async move { (client.simple_query(&sql).await.err(), sql) }), token));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let seen = measure(&server, Duration::from_secs(8), 1_000_000).await;
        for (what, times) in seen.all() {
            assert!(times.count() > 3, "{what}: {} in 8 s", times.count());
            assert!(times.at(1.0) < MOST, "{what}: {:?} at most", times.at(1.0));
        }
        let cancelled = Instant::now();
        for (_, token) in &running {
            token.cancel_query(NoTls).await.unwrap();
        }
        for (task, _) in running {
            let (error, sql) = tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
            let sql: String = sql.chars().take(100).collect();
            let code = error.as_ref().and_then(|error| error.code());
            // Some have ended or reached a limit before.
            let ended = code.is_none_or(|code| *code == SqlState::QUERY_CANCELED || code.code() < "57");
            assert!(ended, "{sql}: {error:?}");
        }
        assert!(cancelled.elapsed() < CANCELLED, "{:?} until all had ended", cancelled.elapsed());
        let views = first.query("SHOW MATERIALIZED VIEWS", &[]).await.unwrap();
        let names: Vec<String> = views.iter().map(|row| row.get::<_, String>(0)).collect();
        assert_eq!(names, ["unrelated"], "a view whose CREATE was cancelled isn't there");
        let rows = first.query_one("SELECT count(*) FROM o", &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 0, "an INSERT that was cancelled has put nothing");
    });
    assert!(server.is_running(), "the server lives");
}
