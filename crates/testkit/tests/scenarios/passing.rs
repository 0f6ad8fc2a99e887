//! Rows compared with the present time (temporal filters): at any time, the maintained result equals that of
//! a SELECT.

use millstream_engine::{Engine, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("rows_come_and_go_with_the_time", || drive::block_on(random())),
    ("rows_leave_by_the_machines_clock", || drive::block_on(by_the_machines_clock("auto"))),
    ("rows_leave_at_ticks", || drive::block_on(by_the_machines_clock("50 milliseconds"))),
];

/// Queries over `t` of id, k, ts and z, and `u` of k and until.
const QUERIES: &[&str] = &[
    "SELECT id FROM t WHERE ts > now() - INTERVAL '3 seconds'",
    "SELECT id FROM t WHERE ts >= now() - INTERVAL '3 seconds' AND k > 0",
    "SELECT id FROM t WHERE now() > ts",
    "SELECT id FROM t WHERE z <= now() + INTERVAL '1 second'",
    "SELECT id, k FROM t WHERE ts BETWEEN now() - INTERVAL '5 seconds' AND now() - INTERVAL '1 second'",
    "SELECT id FROM t WHERE now() - ts < INTERVAL '4 seconds'",
    "SELECT id FROM t WHERE ts - now() > INTERVAL '2 seconds'",
    "SELECT id FROM t WHERE date_trunc('second', ts) = date_trunc('second', now())",
    "SELECT id FROM t WHERE date_bin(INTERVAL '4 seconds', now()) <= ts",
    "SELECT id FROM t WHERE ts::date <= current_date",
    "SELECT k, count(*) AS n, min(id) AS least FROM t WHERE ts <= now() GROUP BY k",
    "SELECT t.id, u.until FROM t JOIN u ON t.k = u.k WHERE t.ts <= now() AND u.until > now()",
    "SELECT t.id, u.until FROM t LEFT JOIN u ON t.k = u.k AND u.until > now()",
    "SELECT id FROM t WHERE k IN (SELECT k FROM u WHERE until > now())",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND until > now())",
    "SELECT t.id FROM t JOIN u ON t.k = u.k WHERE greatest(t.ts, u.until) < now()",
    "SELECT k, max(ts) AS last FROM t GROUP BY k HAVING max(ts) < now() - INTERVAL '2 seconds'",
    "SELECT id FROM t WHERE ts <= now() ORDER BY ts DESC, id LIMIT 3",
    "SELECT id, row_number() OVER (PARTITION BY k ORDER BY ts, id) AS r FROM t WHERE ts > now() - INTERVAL '6 seconds'",
    "SELECT a.id, b.id AS other FROM recent a JOIN recent b ON a.k = b.k AND a.id < b.id",
    "SELECT n FROM (SELECT count(*) AS n, max(ts) AS last FROM t) WHERE last < now() - INTERVAL '1 second'",
];

/// Returns a time in milliseconds, and now and then NULL.
fn time(milliseconds: i64, random: &mut Random) -> String {
    match random.number(12) {
        0 => "NULL".into(),
        _ => format!("TIMESTAMP '1970-01-01 00:00:00' + INTERVAL '{milliseconds} milliseconds'"),
    }
}

async fn random() -> Result<()> {
    for seed in seeds(&[1, 2], 0..4) {
        run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn run_seed(seed: u64) -> Result<()> {
    let builder = Engine::builder();
    let builder = if seed % 2 == 1 { builder.whole_only() } else { builder };
    let engine = builder.start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let mut random = Random(seed);
    let fixed = seed == 2;
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            if fixed { "SET batch_interval = '500 milliseconds'" } else { "SET batch_interval = 'auto'" },
            "CREATE TABLE t (id INT, k INT, ts TIMESTAMP, z TIMESTAMPTZ)",
            "CREATE TABLE u (k INT, until TIMESTAMP)",
            "CREATE VIEW recent AS SELECT * FROM t WHERE ts > now() - INTERVAL '4 seconds'",
        ],
    )
    .await?;
    create(&mut session, "early").await?;
    let mut clock = 0;
    for round in 0..25 {
        if round == 8 {
            create(&mut session, "late").await?;
        }
        for _ in 0..random.number(4) {
            let change = change(clock, &mut random);
            run(&mut session, &change).await?;
        }
        // Under a fixed interval rows pass at ticks, so the comparison happens at ticks.
        clock += if fixed { 500 * (1 + random.number(4)) } else { [1, 400, 1_000, 2_345][random.index(4)] };
        let (seconds, rest) = (clock / 1_000, clock % 1_000);
        let to = format!(
            "ADVANCE TIME TO TIMESTAMP '1970-01-01 00:{:02}:{:02}.{rest:03}'",
            seconds / 60,
            seconds % 60
        );
        run(&mut session, &to).await?;
        for when in ["early", "late"].iter().take(if round < 8 { 1 } else { 2 }) {
            check(&mut session, when).await.map_err(|error| format!("at {clock} ms: {error}"))?;
        }
    }
    engine.stop().await.map_err(|error| error.to_string())
}

fn change(clock: i64, random: &mut Random) -> String {
    let about = clock - 3_000 + random.number(8_000);
    let (id, k) = (random.number(40), random.number(3));
    match random.number(6) {
        0 => format!("DELETE FROM t WHERE id % 4 = {}", id % 4),
        1 => format!("DELETE FROM u WHERE k = {k}"),
        2 => format!("INSERT INTO u VALUES ({k}, {})", time(about, random)),
        _ => {
            let (ts, z) = (time(about, random), time(about + random.number(3_000), random));
            format!("INSERT INTO t VALUES ({id}, {k}, {ts}, ({z})::timestamptz)")
        }
    }
}

async fn create(session: &mut Session, when: &str) -> Result<()> {
    for (at, query) in QUERIES.iter().enumerate() {
        run(session, &format!("CREATE MATERIALIZED VIEW {when}_{at} AS {query}")).await?;
    }
    Ok(())
}

async fn check(session: &mut Session, when: &str) -> Result<()> {
    for (at, query) in QUERIES.iter().enumerate() {
        let found = lines(session, &format!("SELECT * FROM {when}_{at}")).await?;
        let expected = lines(session, query).await?;
        ensure(found == expected, || format!("{when}_{at}, {query}: {found:?} is not {expected:?}"))?;
        let differs = lines(session, &format!("VERIFY {when}_{at}")).await?;
        ensure(differs.is_empty(), || format!("{query} is not as a batch: {differs:?}"))?;
    }
    Ok(())
}

/// Without new rows, existing rows leave and enter in time.
async fn by_the_machines_clock(interval: &str) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            &format!("SET batch_interval = '{interval}'"),
            "CREATE TABLE t (id INT, ts TIMESTAMPTZ)",
            "CREATE MATERIALIZED VIEW recent AS SELECT id FROM t WHERE ts > now() - INTERVAL '1 second'",
            "CREATE MATERIALIZED VIEW due AS SELECT id FROM t WHERE ts + INTERVAL '1 second' <= now()",
            "INSERT INTO t SELECT 1, now()",
        ],
    )
    .await?;
    drive::expect_soon(&mut session, "SELECT * FROM recent", &["1"]).await?;
    drive::expect_soon(&mut session, "SELECT * FROM recent", &[]).await?;
    drive::expect_soon(&mut session, "SELECT * FROM due", &["1"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
