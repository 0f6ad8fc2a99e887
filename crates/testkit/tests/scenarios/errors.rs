//! Failing rows, EXPLAIN ANALYZE of running queries, and objects that can't be verified.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use millstream_engine::{Engine, Kind, Response};
use millstream_testkit::drive::{self, Result, ensure, expect, run, run_all, within_a_minute};
use millstream_testkit::parts::Pushed;

use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("sinks_take_the_rows_that_have_an_answer", || drive::block_on(sinks())),
    ("a_bounded_run_with_errors_fails_unless_they_are_kept", || drive::block_on(bounded_run())),
    ("explain_analyze_watches_the_next_epochs", || drive::block_on(watching())),
    ("explain_analyze_can_be_given_up", || drive::block_on(given_up())),
    ("explain_analyze_of_what_is_dropped", || drive::block_on(dropped())),
    ("verify_says_what_it_cant", || drive::block_on(not_verified())),
    ("verify_tells_how_far_it_went", || drive::block_on(verified())),
];

async fn sinks() -> Result<()> {
    let folder = folder()?;
    let path = folder.path().join("out").display().to_string();
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (x INT)",
            "INSERT INTO t VALUES (1), (0)",
            "CREATE MATERIALIZED VIEW ratio AS SELECT 10 / x AS r FROM t",
            &format!(
                "CREATE SINK changes FROM ratio WITH (connector = 'file', path = '{path}', format = 'csv', \
                 changelog = true)"
            ),
        ],
    )
    .await?;
    run_all(&mut session, &["INSERT INTO t VALUES (2), (0)", "FLUSH"]).await?;
    let shown = drive::lines(&mut session, "SHOW SINKS").await?;
    ensure(shown[0].contains("division by zero"), || format!("SHOW SINKS doesn't say why: {shown:?}"))?;
    let lines = lines_in(&folder.path().join("out"))?;
    let has = |value: &str| lines.iter().any(|line| line.contains(value));
    ensure(has("10") && has("5"), || format!("rows are missing: {lines:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn bounded_run() -> Result<()> {
    for (on_error, fails) in [("fail", true), ("keep", false)] {
        let engine = Engine::start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        run_all(
            &mut session,
            &[
                "CREATE SOURCE s (n BIGINT) WITH (connector = 'datagen', rows = 10, fields.n.kind = 'sequence', \
                 fields.n.start = 0)",
                &format!(
                    "CREATE MATERIALIZED VIEW ratio WITH (on_error = '{on_error}') AS SELECT 10 / n AS r FROM s"
                ),
            ],
        )
        .await?;
        let finished = within_a_minute("the end of the run", engine.finished()).await?;
        match (finished, fails) {
            (Ok(()), false) => expect(&mut session, "SELECT count(*) FROM ratio", &["9"]).await?,
            (Err(error), true) => {
                ensure(error.kind == Kind::Invalid, || format!("is it the user's? {error:?}"))?;
                ensure(error.message.contains("division by zero"), || format!("no reason: {error}"))?;
            }
            (finished, _) => return Err(format!("on_error = {on_error}: the run ends with {finished:?}")),
        }
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn watching() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &["CREATE TABLE t (x INT)", "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t WHERE x > 1"],
    )
    .await?;
    let mut other = engine.session();
    let watch = tokio::spawn(async move { drive::rows(&mut other, "EXPLAIN ANALYZE m FOR 3 EPOCHS").await });
    let mut written = 0;
    while !watch.is_finished() {
        run(&mut session, &format!("INSERT INTO t VALUES ({written})")).await?;
        written += 1;
        ensure(written < 10_000, || "it doesn't end".into())?;
    }
    let seen = watch.await.map_err(|error| error.to_string())??;
    // The last line is the input; the operators above it don't run for rows that are filtered out.
    let epochs = seen.column(1).as_primitive::<Int64Type>();
    ensure(epochs.values().last() == Some(&3), || format!("epochs seen: {epochs:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn given_up() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &["CREATE TABLE t (x INT)", "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t"],
    )
    .await?;
    let watch = session.execute("EXPLAIN ANALYZE m FOR 1000 EPOCHS");
    let waited = tokio::time::timeout(Duration::from_millis(50), watch).await;
    ensure(waited.is_err(), || "it answered although nothing came".into())?;
    run(&mut session, "INSERT INTO t VALUES (1)").await?;
    expect(&mut session, "SELECT n FROM m", &["1"]).await?;
    within_a_minute("the engine's end", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn dropped() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &["CREATE TABLE t (x INT)", "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t"],
    )
    .await?;
    let mut other = engine.session();
    let watch =
        tokio::spawn(async move { drive::rows(&mut other, "EXPLAIN ANALYZE m FOR 1000 EPOCHS").await });
    // A new view under the same name is not the one being watched.
    tokio::time::sleep(Duration::from_millis(50)).await;
    run_all(
        &mut session,
        &["DROP MATERIALIZED VIEW m", "CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS n FROM t"],
    )
    .await?;
    let answer = within_a_minute("the answer", watch).await?.map_err(|error| error.to_string())?;
    let error = answer.err().unwrap_or_default();
    ensure(error.contains("\"m\" was dropped meanwhile"), || format!("it ends with {error:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn not_verified() -> Result<()> {
    let pushed = Pushed::default();
    let engine = Engine::builder().connector(Arc::new(pushed.clone())).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE SOURCE s (n BIGINT) WITH (connector = 'pushed')",
            "CREATE MATERIALIZED VIEW m AS SELECT sum(n) AS n FROM s",
            "CREATE MATERIALIZED VIEW above AS SELECT n + 1 AS n FROM m",
            "VERIFY m",
        ],
    )
    .await?;
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    pushed.push(RecordBatch::try_from_iter([("n", column)]).map_err(|error| error.to_string())?);
    run(&mut session, "FLUSH").await?;
    let refused = run(&mut session, "VERIFY m").await.err().unwrap_or_default();
    ensure(refused.contains("source \"s\" keeps no rows and can't be read again"), || refused.clone())?;
    // The view above it has its input.
    expect(&mut session, "VERIFY above", &[]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn verified() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (x INT)",
            "CREATE SOURCE s (n BIGINT) WITH (connector = 'datagen', rows = 10, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM t RIGHT JOIN s ON t.x = s.n",
            "INSERT INTO t VALUES (1), (1)",
            "FLUSH",
        ],
    )
    .await?;
    let answer = session.execute("VERIFY m").await.map_err(|error| error.to_string())?;
    let notice = answer.notices().join("\n");
    let parts = ["complete", "all that \"t\" held", "all rows of \"s\", read again from the start"];
    for part in parts {
        ensure(notice.contains(part), || format!("the notice lacks {part:?}: {notice}"))?;
    }
    ensure(matches!(answer, Response::Rows(_)), || "no rows".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}
