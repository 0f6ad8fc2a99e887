//! Starts of engines with slow queries: they serve everybody before the steps that these queries had left are done.

use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, within_a_minute};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Scenario;
use super::behind::{Door, Gate};
use super::machine::Machine;

pub const ALL: &[Scenario] = &[("a_start_leaves_long_steps_for_later", || drive::block_on(left()))];

/// Returns an engine whose queries lag, some of them behind a gate.
fn gated() -> Result<(Gate, Machine)> {
    let gate = Gate::default();
    let of_engine = gate.clone();
    let machine =
        Machine::start(move || Engine::builder().step_apart(1).scalar_function(of_engine.function("gate")))?;
    Ok((gate, machine))
}

/// Restarts the engine while the gate is closed. The old one ends once it is open.
async fn crash(machine: &mut Machine, gate: &Gate, random: &mut SmallRng) -> Result<()> {
    let opened = gate.clone();
    let opens = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        opened.set(Door::Open);
    });
    machine.crash_at(|| gate.set(Door::Closed), random).await?;
    opens.await.map_err(|error| error.to_string())?;
    Ok(())
}

/// Checks that other statements are served, and that a step waits at the closed gate.
async fn others_are_served(machine: &Machine, gate: &Gate, rows: i64) -> Result<()> {
    let insert = format!("INSERT INTO other VALUES ({rows})");
    for sql in [insert.as_str(), "SELECT count(*) FROM other"] {
        within_a_minute(sql, run(&mut machine.session(), sql)).await??;
    }
    expect(&mut machine.session(), "SELECT max(n) FROM other", &[&rows.to_string()]).await?;
    drive::until("a step at the gate", || gate.waiting() > 0).await
}

async fn left() -> Result<()> {
    let (gate, mut machine) = gated()?;
    let made = [
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT)",
        "CREATE TABLE other (n BIGINT)",
        "INSERT INTO t SELECT g, g % 3 FROM generate_series(1, 9) x(g)",
        "CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS n, max(gate(id)) AS m FROM t GROUP BY k",
        "CREATE MATERIALIZED VIEW over AS SELECT sum(n) AS n, max(m) AS m FROM sums",
        "CREATE STREAM of_all WITH (retention = '1 hour') AS SELECT count(*) AS n, max(gate(id)) AS m, \
         max(now()) > TIMESTAMP '2000-01-01 00:00:00' AS late FROM t FOR EACH BATCH",
        "CREATE STREAM changes WITH (retention = '1 hour') AS SELECT count(*) AS n, sum(s.m) AS m \
         FROM CHANGES(t) c JOIN sums s ON s.k = c.k FOR EACH BATCH",
        // A statement that reads a slow query was answered once its steps were done, and is again.
        "CHECKPOINT",
        "CREATE MATERIALIZED VIEW last AS SELECT max(gate(id)) AS m FROM t",
    ];
    run_all(&mut machine.session(), &made).await?;
    let mut random = SmallRng::seed_from_u64(3);
    let (mut batches, mut changes) = (Vec::new(), Vec::new());
    for round in 0..4_i64 {
        gate.set(Door::Closed);
        let first = 100 + 10 * round;
        for sql in [
            format!("INSERT INTO t VALUES ({first}, 1)"),
            format!("CREATE TABLE extra_{round} (n BIGINT)"),
            format!("INSERT INTO t VALUES ({}, 1)", first + 1),
            format!("DELETE FROM t WHERE id = {}", first + 1),
        ] {
            within_a_minute(&sql, run(&mut machine.session(), &sql)).await??;
        }
        let n = 9 + round;
        batches.extend(
            [(n + 1, first), (n + 2, first + 1), (n + 1, first)].map(|(n, m)| format!("{n}|{m}|true")),
        );
        changes.extend([first, first + 1, first].map(|m| format!("1|{m}")));
        crash(&mut machine, &gate, &mut random).await?;
        others_are_served(&machine, &gate, round).await?;
        gate.set(Door::Open);
        if round % 2 == 0 {
            run_all(&mut machine.session(), &["FLUSH", "CHECKPOINT"]).await?;
        }
        let session = &mut machine.session();
        let sums = format!("1|{}|{first}", 4 + round);
        expect(session, "SELECT * FROM sums", &["0|3|9", &sums, "2|3|8"]).await?;
        expect(session, "SELECT * FROM last", &[&first.to_string()]).await?;
        expect(session, "SELECT * FROM over", &[&format!("{}|{first}", n + 1)]).await?;
        for (sql, expected) in
            [("SELECT * FROM of_all", &mut batches), ("SELECT * FROM changes", &mut changes)]
        {
            expected.sort();
            let mut found = lines(session, sql).await?;
            found.sort();
            ensure(found == *expected, || {
                format!("round {round}: {sql}\n{found:?}\nexpected\n{expected:?}")
            })?;
        }
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}
