//! The engine reports on itself: the work of its operators, and the reasons for which it is slow, late or large.

use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::{StreamExt, stream};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{Result, block_on, ensure, expect_soon, lines, run, run_all, until};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::server::{said, serve, text};
use super::{Scenario, folder, write};

pub const ALL: &[Scenario] = &[
    ("watching_names_the_slow_operator_of_a_query", || block_on(slow())),
    ("watching_says_that_epochs_fall_behind", || block_on(behind())),
    ("watching_says_that_a_source_is_silent", || block_on(silent())),
    ("watching_says_that_the_state_of_a_query_is_large", || block_on(above())),
    ("watching_shows_the_batch_that_runs_and_those_that_wait", || block_on(active())),
    ("watching_names_the_largest_state", || block_on(large())),
    ("watching_follows_renamed_and_dropped_queries", || block_on(renamed())),
    ("watching_lists_problems", || block_on(problems())),
    ("watching_sends_warnings_to_clients_once", || serve(notices)),
];

/// A join that compares all pairs of rows.
const PAIRS: &str =
    "CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n FROM a JOIN b ON a.x + b.x < a.x * b.x";

async fn with_pairs(session: &mut Session) -> Result<()> {
    run_all(
        session,
        &[
            "CREATE TABLE a (x BIGINT)",
            "CREATE TABLE b (x BIGINT)",
            PAIRS,
            "INSERT INTO b SELECT g FROM generate_series(1, 3000) AS t(g)",
        ],
    )
    .await
}

async fn slow() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    with_pairs(&mut session).await?;
    let mut said = String::new();
    for round in 0..60 {
        run(&mut session, "INSERT INTO a SELECT g FROM generate_series(1, 1000) AS t(g)").await?;
        run(&mut session, "SELECT n FROM pairs").await?;
        said = lines(&mut session, "EXPLAIN WHY pairs").await?.join("\n");
        if said.contains("it took") {
            break;
        }
        ensure(round < 59, || said.clone())?;
    }
    for part in ["% of it in Join", "cost delta times the other side", "an equality between the two sides"] {
        ensure(said.contains(part), || format!("{part} in {said}"))?;
    }
    let engine_wide = lines(&mut session, "EXPLAIN WHY").await?.join("\n");
    for part in ["slow|epochs took", "slow|pairs took", "late|an epoch waited", "large|operators keep"] {
        ensure(engine_wide.contains(part), || format!("{part} in {engine_wide}"))?;
    }
    let busiest = "SELECT query FROM millstream.operator_history WHERE node IS NULL GROUP BY query \
                   ORDER BY sum(time_us) DESC LIMIT 1";
    expect_soon(&mut session, busiest, &["pairs"]).await?;
    let slowest = "SELECT operator FROM millstream.epoch_operators ORDER BY time_us DESC LIMIT 1";
    expect_soon(&mut session, slowest, &["Join"]).await?;
    let both = "SELECT (SELECT value > 0 FROM millstream.metrics WHERE name = 'millstream_query_busy_seconds_total')";
    expect_soon(&mut session, both, &["true"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn behind() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "SET batch_interval = '1 ms'").await?;
    // Each row makes a view of a million rows, in the loop.
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id BIGINT)",
            "CREATE MATERIALIZED VIEW m AS SELECT count(DISTINCT g.value * t.id) AS n FROM t, generate_series(1, 20000) AS g",
        ],
    )
    .await?;
    let warns = || engine.progress().warnings.iter().any(|text| text.starts_with("epochs fall behind"));
    for id in 0..400 {
        run(&mut session, &format!("INSERT INTO t VALUES ({id})")).await?;
        if warns() {
            let said = lines(&mut session, "EXPLAIN WHY").await?.join("\n");
            ensure(
                said.contains("longer than batch_interval, 1 millisecond: SET batch_interval = '"),
                || said,
            )?;
            // It is over once epochs keep up again.
            run(&mut session, "SET batch_interval = 'auto'").await?;
            return until("the warning to be over", || !warns()).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("no warning: {:?}", engine.progress()))
}

async fn silent() -> Result<()> {
    let folder = folder()?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    run_all(
        &mut session,
        &[
            "SET warn_stalled_after = '1 second'",
            &source,
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM s",
        ],
    )
    .await?;
    write(folder.path(), "1.csv", "1\n2\n")?;
    expect_soon(&mut session, "SELECT n FROM m", &["2"]).await?;
    let warns =
        || engine.progress().warnings.iter().any(|text| text.starts_with("source \"s\" has had no rows"));
    ensure(!warns(), || "it has just had rows".into())?;
    until("the warning", warns).await?;
    write(folder.path(), "2.csv", "3\n")?;
    expect_soon(&mut session, "SELECT n FROM m", &["3"]).await?;
    until("the warning to be over", || !warns()).await?;
    run(&mut session, "SET warn_stalled_after = 'none'").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure(!warns(), || "warn_stalled_after is none".into())
}

async fn above() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET warn_state_above = '1 MB'",
            "CREATE TABLE t (id BIGINT)",
            "CREATE MATERIALIZED VIEW small AS SELECT count(*) AS n FROM t",
            "CREATE MATERIALIZED VIEW \"the keys\" AS SELECT id, count(*) AS n FROM t GROUP BY id",
            "INSERT INTO t SELECT g FROM generate_series(1, 100000) AS t(g)",
        ],
    )
    .await?;
    let warns =
        || engine.progress().warnings.iter().any(|text| text.starts_with("query \"the keys\" keeps "));
    until("the warning", warns).await?;
    let all = "SELECT kind, object, message LIKE 'keeps % of state: warn_state_above is 1.0 MB', statement \
               FROM millstream.problems";
    expect_soon(&mut session, all, &["query|the keys|true|EXPLAIN WHY \"the keys\""]).await?;
    let why = lines(&mut session, "EXPLAIN WHY \"the keys\"").await?.join("\n");
    ensure(why.contains("the keys"), || why)?;
    run(&mut session, "SET warn_state_above = '1 GB'").await?;
    until("the warning to be over", || !warns()).await?;
    run(&mut session, "SET warn_state_above = '1 MB'").await?;
    until("the warning once more", warns).await?;
    run(&mut session, "SET warn_state_above = 'none'").await?;
    until("no warning without a limit", || !warns()).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn active() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let history = engine.history();
    run_all(
        &mut session,
        &[
            "SET batch_interval = '10 ms'",
            "SET max_queued_batches = 5",
            "CREATE TABLE t (id BIGINT)",
            "CREATE MATERIALIZED VIEW m AS SELECT count(DISTINCT g.value * t.id) AS n FROM t, generate_series(1, 20000) AS g",
        ],
    )
    .await?;
    // A query that asks for each batch, so that they queue up.
    run(&mut session, "CREATE STREAM each AS SELECT count(*) AS n FROM t FOR EACH BATCH").await?;
    let rows = (1..=400).map(|id| format!("({id})")).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO t VALUES {rows}");
    let inserted = run(&mut session, &insert);
    let watched = async {
        for _ in 0..60_000 {
            if let Some(active) =
                history.active().filter(|active| active.queued_count == 5 && active.merging > 0)
            {
                return Ok(active);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err("no batch was seen with others behind it".to_string())
    };
    let (active, inserted) = tokio::join!(watched, inserted);
    let (active, _) = (active?, inserted?);
    ensure(active.queued.len() == 5 && active.queued.is_sorted(), || format!("{active:?}"))?;
    ensure(active.queued[0] > active.batch.time, || format!("{active:?}"))?;
    ensure(active.running > Duration::from_millis(50), || format!("{active:?}"))?;
    let number = active.batch.epoch;
    // Once it has completed, it is among the others.
    run(&mut session, "DROP STREAM each").await?;
    expect_soon(
        &mut session,
        &format!("SELECT count(*) FROM millstream.epochs WHERE epoch = {}", number.0),
        &["1"],
    )
    .await?;
    until("no batch to run", || history.active().is_none()).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn problems() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id BIGINT)",
            "CREATE TABLE copy (id BIGINT)",
            "CREATE MATERIALIZED VIEW \"it's\" AS SELECT 1 / id AS x FROM t",
            "CREATE SINK k INTO copy AS SELECT id FROM t",
            "INSERT INTO t VALUES (0)",
            "PAUSE SINK k",
        ],
    )
    .await?;
    let all = "SELECT level, kind, object, message, statement FROM millstream.problems";
    let expected = [
        "note|sink|k|is paused|RESUME SINK \"k\"",
        "warning|materialized view|it's|fails for 1 rows: division by zero for (0)|SELECT * FROM millstream.errors WHERE \
         query = 'it''s'",
    ];
    expect_soon(&mut session, all, &expected).await?;
    // A problem keeps its begin while it lasts.
    let since = "SELECT since FROM millstream.problems WHERE object = 'k'";
    let first = lines(&mut session, since).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = lines(&mut session, since).await?;
    ensure(first == second && first.len() == 1, || format!("{first:?}, then {second:?}"))?;
    // Each statement runs, and the one of a paused object ends the problem.
    for problem in expected {
        let (_, statement) = problem.rsplit_once('|').ok_or("no statement")?;
        run(&mut session, statement).await?;
    }
    run(&mut session, "DELETE FROM t").await?;
    expect_soon(&mut session, all, &[]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Connects a client, and returns the notices that it receives.
async fn with_notices(port: u16) -> Result<(Client, UnboundedReceiver<String>)> {
    let config = format!("host=127.0.0.1 port={port} user=tester");
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.map_err(text)?;
    let (sender, notices) = unbounded();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.unbounded_send(format!("{}: {}", notice.severity(), notice.message()));
            }
        }
    });
    Ok((client, notices))
}

async fn notices(port: u16) -> Result<()> {
    let folder = folder()?;
    let ((first, mut of_first), (second, mut of_second)) =
        (with_notices(port).await?, with_notices(port).await?);
    let (quiet, mut of_quiet) = with_notices(port).await?;
    quiet.batch_execute("SET client_min_messages = 'warning'").await.map_err(|error| said(&error))?;
    let source = format!(
        "SET warn_stalled_after = '1 second';
         CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false);
         CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM s",
        folder.path().display()
    );
    first.batch_execute(&source).await.map_err(|error| said(&error))?;
    let mut told = 0;
    // A warning that is over is sent again once it comes back.
    for round in 1..=2 {
        write(folder.path(), &format!("{round}.csv"), "1\n")?;
        let mut rounds = 0;
        while told < round {
            // The extended protocol sends them, too.
            first.query("SELECT n FROM m", &[]).await.map_err(|error| said(&error))?;
            while let Ok(notice) = of_first.try_recv() {
                let is_warning =
                    notice.starts_with("NOTICE: source \"s\" has had no rows for more than 1 second");
                ensure(is_warning || told == 0, || notice)?;
                told += usize::from(is_warning);
            }
            ensure(told <= round, || "a warning was sent twice".into())?;
            rounds += 1;
            ensure(rounds < 1000, || format!("no warning in round {round}"))?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    second.batch_execute("SELECT 1").await.map_err(|error| said(&error))?;
    second.batch_execute("SELECT 1").await.map_err(|error| said(&error))?;
    quiet.batch_execute("SELECT 1").await.map_err(|error| said(&error))?;
    drop((first, second, quiet));
    let of_second: Vec<String> = of_second.by_ref().collect().await;
    let is_one = of_second.len() == 1 && of_second[0].contains("source \"s\" has had no rows");
    ensure(is_one, || format!("{of_second:?}"))?;
    let of_quiet: Vec<String> = of_quiet.by_ref().collect().await;
    ensure(of_quiet.is_empty(), || format!("{of_quiet:?}"))
}

async fn large() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k BIGINT)",
            "CREATE MATERIALIZED VIEW small AS SELECT count(*) AS n FROM t",
            "CREATE MATERIALIZED VIEW by_key AS SELECT k, count(*) AS n FROM t GROUP BY k",
            "INSERT INTO t SELECT g FROM generate_series(1, 5000) AS x(g)",
        ],
    )
    .await?;
    let said = lines(&mut session, "EXPLAIN WHY").await?.join("\n");
    for part in ["large|by_key keeps most: Aggregate", "grows with the distinct values of k", "state_ttl"] {
        ensure(said.contains(part), || format!("{part} in {said}"))?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn renamed() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (id BIGINT)",
            "CREATE TABLE copy (id BIGINT)",
            "CREATE MATERIALIZED VIEW \"old <name>\" AS SELECT id, count(*) AS n FROM t GROUP BY id",
            "CREATE SINK k INTO copy AS SELECT id + 1 AS id FROM t",
            "INSERT INTO t VALUES (1)",
            "ADVANCE BATCH",
            "ALTER MATERIALIZED VIEW \"old <name>\" RENAME TO named",
            "INSERT INTO t VALUES (2)",
            "ADVANCE BATCH",
        ],
    )
    .await?;
    let queries = "SELECT DISTINCT query FROM millstream.epoch_operators ORDER BY query";
    // The first epoch keeps the name that the query had; a sink has its own.
    let found = lines(&mut session, queries).await?;
    ensure(found == ["k", "named", "old <name>"], || format!("{found:?}"))?;
    run_all(&mut session, &["DROP SINK k", "DROP MATERIALIZED VIEW named"]).await?;
    let found = lines(&mut session, queries).await?;
    ensure(found == ["k", "named", "old <name>"], || format!("{found:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}
