//! No visible result depends on the number of threads.

use futures::StreamExt;
use millstream_engine::{Engine, Following};
use millstream_testkit::drive::{self, Result, ensure, run, run_all, within_a_minute};

use super::Scenario;

pub const ALL: &[Scenario] =
    &[("changes_are_the_same_for_any_number_of_threads", || drive::block_on(threads()))];

/// Queries that don't read one another, and two that do.
const VIEWS: [(&str, &str); 21] = [
    ("sums", "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k"),
    ("some", "SELECT k, v * 2 AS w FROM t WHERE v % 7 = 0"),
    ("pairs", "SELECT t.k, u.w FROM t JOIN u ON t.v = u.v"),
    ("of_sums", "SELECT n, count(*) AS c FROM sums GROUP BY n"),
    ("ratios", "SELECT k, 100 / (v - 5) AS r FROM t WHERE v < 6"),
    ("lowest", "SELECT k, min(v) AS v FROM t GROUP BY k"),
    ("each", "SELECT v, count(*) AS n, sum(k) AS s, max(k) AS most FROM t GROUP BY v"),
    (
        "words",
        "SELECT k, w, count(*) AS n FROM (SELECT k, unnest([v % 10, 100 / (v - 5)]) AS w FROM t) GROUP BY k, w",
    ),
    ("kinds", "SELECT DISTINCT k, v % 3 AS m FROM t"),
    (
        "sets",
        "SELECT k, v % 500 AS m, count(DISTINCT v), avg(v::NUMERIC(12, 2)) FROM t GROUP BY GROUPING SETS ((k), (m), ())",
    ),
    ("outer_pairs", "SELECT t.k, t.v, u.w FROM t LEFT JOIN u ON t.v = u.v AND t.k < u.w"),
    ("full_pairs", "SELECT t.k, t.v, u.w FROM t FULL JOIN u ON t.v = u.v"),
    ("matched", "SELECT k, v FROM t WHERE v IN (SELECT v FROM u)"),
    ("neighbours", "SELECT a.k, b.v FROM t a JOIN t b ON a.v = b.v + 1 WHERE a.k < 9"),
    (
        "ratios_of_pairs",
        "SELECT a.k, b.v FROM t a JOIN t b ON a.v = b.v AND 100 / (a.v - 60) <= b.v WHERE a.v % 20 = 0",
    ),
    (
        "sides",
        "SELECT a.v, a.n, b.s FROM (SELECT v, count(*) AS n FROM t GROUP BY v) a \
         JOIN (SELECT v, sum(k) AS s FROM t WHERE v % 3 = 0 GROUP BY v) b ON a.v = b.v \
         UNION ALL SELECT v, k, 100 / (v - 30) FROM t WHERE v < 50",
    ),
    (
        "first_three",
        "SELECT k, v, n FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) WHERE n <= 3",
    ),
    ("least", "SELECT k, v FROM t ORDER BY v, k LIMIT 9000"),
    (
        "moving",
        "SELECT k, v, lag(v) OVER w, sum(v) OVER (w ROWS 3 PRECEDING), sum(v) OVER w, row_number() OVER w \
         FROM t WINDOW w AS (PARTITION BY k ORDER BY v)",
    ),
    ("quarters", "SELECT k, v, ntile(4) OVER (PARTITION BY v % 400 ORDER BY v, k) FROM t"),
    ("lists", "SELECT v % 900 AS m, array_agg(k ORDER BY k, v) AS all_k FROM t GROUP BY m"),
];

/// A query without readers of its changes.
const QUIET: &str = "CREATE MATERIALIZED VIEW quiet AS SELECT v % 9000 AS m, sum(k) AS s FROM t GROUP BY m";

async fn threads() -> Result<()> {
    let one = changes(1).await?;
    ensure(one.len() > 10 * VIEWS.len(), || format!("only {} changes are told", one.len()))?;
    for threads in [2, 16] {
        let several = changes(threads).await?;
        let other = one.iter().zip(&several).find(|(one, several)| one != several);
        ensure(one == several, || {
            format!("with {threads} threads other changes come than with one, first {other:?}")
        })?;
    }
    Ok(())
}

/// Returns all changes of the views, row by row in order, over several epochs of many rows.
async fn changes(threads: usize) -> Result<Vec<String>> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, &format!("SET parallelism = {threads}")).await?;
    // Under a manual clock no query lags, however long its steps take.
    run(&mut session, "SET clock = 'manual'").await?;
    run_all(&mut session, &["CREATE TABLE t (k BIGINT, v BIGINT)", "CREATE TABLE u (v BIGINT, w BIGINT)"])
        .await?;
    run(&mut session, "INSERT INTO u SELECT value * 50, value FROM generate_series(1, 300)").await?;
    run(&mut session, "ADVANCE BATCH").await?;
    let fail = |error: millstream_engine::Error| error.to_string();
    run(&mut session, QUIET).await?;
    let mut followed = Vec::new();
    for (name, select) in VIEWS {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} WITH (on_error = 'keep') AS {select}"))
            .await?;
        let told = Following { snapshot: false, progress: true };
        followed.push((name, session.changes_with(name, told).await.map_err(fail)?));
    }
    let mut told = Vec::new();
    let statements = [
        "INSERT INTO t SELECT value % 100, value FROM generate_series(1, 20000)",
        "INSERT INTO t SELECT value % 30, value * 3 FROM generate_series(1, 9000)",
        "DELETE FROM t WHERE v % 2 = 0",
        "UPDATE t SET v = v + 1",
        "DELETE FROM t",
    ];
    for statement in statements {
        run(&mut session, statement).await?;
        run(&mut session, "ADVANCE BATCH").await?;
        let counted =
            drive::lines(&mut session, "SELECT query, count(*) FROM millstream.errors GROUP BY query")
                .await?;
        told.push(format!("errors {counted:?}"));
        told.extend(drive::lines(&mut session, "SELECT * FROM quiet ORDER BY m").await?);
        // Twice the threads, or one: a change doesn't disturb running work.
        let other = if told.len() % 2 == 0 { threads * 2 } else { 1 };
        run(&mut session, &format!("SET parallelism = {other}")).await?;
        for (name, changes) in &mut followed {
            let change =
                within_a_minute("a change", changes.next()).await?.ok_or("the changes end")?.map_err(fail)?;
            for chunk in &change.delta.chunks {
                let weights = chunk.weights_or_ones();
                let rows = drive::text(&chunk.rows)?;
                told.extend(
                    rows.iter().zip(weights.values()).map(|(row, weight)| format!("{name} {weight:+} {row}")),
                );
            }
        }
    }
    let rows = "SELECT epoch, output_rows FROM millstream.epochs ORDER BY epoch";
    told.extend(drive::lines(&mut session, rows).await?);
    engine.stop().await.map_err(|error| error.to_string())?;
    Ok(told)
}
