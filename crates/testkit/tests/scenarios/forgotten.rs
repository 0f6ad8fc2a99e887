//! A query with a `state_ttl` forgets idle keys, even without new rows, and retracts their old rows when they
//! return.

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, lines, run_all};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("what_idle_keys_keep_is_freed", || drive::block_on(manual())),
    ("idle_keys_are_forgotten_without_rows", || drive::block_on(by_itself(&[]))),
    ("idle_keys_are_forgotten_between_ticks", || {
        drive::block_on(by_itself(&["SET batch_interval = '50 ms'"]))
    }),
];

const SETUP: &[&str] = &[
    "CREATE TABLE clicks (person INT, page INT, ms INT)",
    "CREATE TABLE pages (page INT, title TEXT)",
    "CREATE MATERIALIZED VIEW typical WITH (state_ttl = '1 hour') AS \
     SELECT person, median(ms) AS ms, count(DISTINCT page) AS pages FROM clicks GROUP BY person",
    "CREATE STREAM titled WITH (state_ttl = '1 hour') AS \
     SELECT c.person, p.title FROM clicks AS c JOIN pages AS p ON c.page = p.page",
];

async fn number(session: &mut Session, sql: &str) -> Result<i64> {
    let found = lines(session, sql).await?.concat();
    found.parse().map_err(|_| format!("{sql} gives {found}"))
}

const KEPT: &str = "SELECT sum(state_bytes) FROM millstream.operators WHERE forgotten_keys IS NOT NULL";

async fn manual() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, &["SET clock = 'manual'"]).await?;
    run_all(&mut session, SETUP).await?;
    run_all(
        &mut session,
        &[
            "INSERT INTO pages SELECT i, concat('page ', i) FROM generate_series(1, 100) AS g(i)",
            "INSERT INTO clicks SELECT i % 50, i % 100 + 1, i FROM generate_series(1, 20000) AS g(i)",
            "ADVANCE BATCH",
        ],
    )
    .await?;
    expect(&mut session, "SELECT count(*), sum(pages) FROM typical", &["50|100"]).await?;
    let before = number(&mut session, KEPT).await?;
    run_all(&mut session, &["ADVANCE TIME TO '1970-01-01 02:00:00'"]).await?;
    let after = number(&mut session, KEPT).await?;
    ensure(after * 4 < before, || format!("{before} bytes became {after}"))?;
    expect(&mut session, "SELECT count(*), sum(pages) FROM typical", &["50|100"]).await?;
    let forgotten = "SELECT query, forgotten_keys, forgotten_deletes FROM millstream.operators \
                     WHERE forgotten_keys > 0 ORDER BY query";
    expect(&mut session, forgotten, &["titled|100|0", "typical|50|0"]).await?;
    // One key returns: its row is the new one, and no other changes.
    run_all(&mut session, &["INSERT INTO clicks VALUES (7, 1, 3)", "ADVANCE BATCH"]).await?;
    expect(&mut session, "SELECT ms, pages FROM typical WHERE person = 7", &["3.0|1"]).await?;
    expect(&mut session, "SELECT count(*), sum(pages) FROM typical", &["50|99"]).await?;
    // All forgotten rows are deleted, and nothing fails.
    run_all(&mut session, &["DELETE FROM clicks", "DELETE FROM pages", "ADVANCE BATCH"]).await?;
    expect(&mut session, forgotten, &["titled|100|20100", "typical|50|20000"]).await?;
    expect(&mut session, "SELECT count(*) FROM typical", &["49"]).await?;
    expect(&mut session, "SELECT count(*) FROM titled", &["20000"]).await
}

/// Forgets keys by the machine's clock.
async fn by_itself(settings: &[&str]) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, settings).await?;
    run_all(
        &mut session,
        &[
            "CREATE TABLE clicks (person INT, ms INT)",
            "CREATE MATERIALIZED VIEW typical WITH (state_ttl = '200 ms') AS \
             SELECT person, median(ms) AS ms FROM clicks GROUP BY person",
            "INSERT INTO clicks VALUES (1, 2), (2, 3)",
        ],
    )
    .await?;
    let forgotten = "SELECT sum(forgotten_keys) FROM millstream.operators";
    expect_soon(&mut session, forgotten, &["2"]).await?;
    expect(&mut session, "SELECT count(*) FROM typical", &["2"]).await
}
