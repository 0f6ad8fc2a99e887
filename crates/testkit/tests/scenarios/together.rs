//! Lagging queries that are read together show the same epoch to every reader, and checkpoints preserve that.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::behind::{Door, Gate};
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("what_reads_two_slow_views_finds_both_as_of_one_epoch", || drive::block_on(one_epoch())),
    ("a_resumed_query_finds_two_slow_views_as_of_one_epoch", || drive::block_on(resumed())),
    ("a_checkpoint_is_taken_while_a_view_is_behind", || drive::block_on(while_behind())),
    ("checkpoints_of_what_is_behind_survive_crashes", || drive::block_on(crashes())),
];

/// Returns two views that are slow by turns, a query that reads both, and a sink of all its changes. `d` is 0
/// if both views are as of one epoch.
fn objects(path: &Path) -> Vec<String> {
    let sum = |name: &str, gate: &str| {
        format!("CREATE MATERIALIZED VIEW {name} AS SELECT k, sum({gate}(v)) AS s FROM t GROUP BY k")
    };
    vec![
        "SET parallelism = 8".into(),
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)".into(),
        sum("a", "gate_a"),
        sum("b", "gate_b"),
        "CREATE MATERIALIZED VIEW again AS SELECT k, s FROM b".into(),
        "CREATE MATERIALIZED VIEW both AS SELECT k, a.s, a.s - again.s AS d FROM a JOIN again USING (k)"
            .into(),
        "CREATE TABLE u (k BIGINT, n BIGINT)".into(),
        "CREATE MATERIALIZED VIEW beside AS SELECT u.n, u.k, a.s FROM u LEFT JOIN a ON u.k = a.k".into(),
        sink("both", &path.join("both")),
        sink("beside", &path.join("beside")),
    ]
}

fn sink(view: &str, path: &Path) -> String {
    let path = path.display();
    format!(
        "CREATE SINK changes_of_{view} FROM {view} WITH (connector = 'file', path = '{path}', format = 'csv', \
         header = false, changelog = true)"
    )
}

/// Inserts a row, and deletes some earlier ones: at times all of a key.
async fn change(session: &mut Session, next: &mut i64, random: &mut SmallRng) -> Result<()> {
    let id = *next;
    *next += 1;
    let sql = match random.random_range(0..6) {
        0 => format!("DELETE FROM t WHERE k = {}", id % 3),
        1 => format!("DELETE FROM t WHERE id = {}", random.random_range(0..id.max(1))),
        2 => format!("INSERT INTO u VALUES ({}, {id})", id % 4),
        _ => format!("INSERT INTO t VALUES ({id}, {}, {})", id % 3, id * 10 + 1),
    };
    run(session, &sql).await.map(drop)
}

/// Inserts rows while the gates open and close.
async fn play(gates: &[Gate; 2], session: &mut Session, next: &mut i64, random: &mut SmallRng) -> Result<()> {
    for _ in 0..random.random_range(1..6) {
        let door = [Door::Open, Door::Closed, Door::Closed][random.random_range(0..3)];
        gates[random.random_range(0..2)].set(door);
        for _ in 0..random.random_range(0..3) {
            change(session, next, random).await?;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..6))).await;
    }
    Ok(())
}

/// Checks that every change the sinks got was as of one epoch, and that the changes add up to the content of
/// the views.
async fn check_sinks(session: &mut Session, out: &Path) -> Result<()> {
    run(session, "FLUSH").await?;
    for (view, columns) in [("both", "k, s, d"), ("beside", "n, k, s")] {
        let mut told = BTreeMap::<String, i64>::new();
        for line in lines_in(&out.join(view))? {
            let (op, row) = line.split_once(',').ok_or("a line without columns")?;
            let of_one = view != "both" || row.ends_with(",0");
            ensure(of_one, || format!("the sink was told {line}: its inputs were of two epochs"))?;
            *told.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
        }
        told.retain(|_, count| *count != 0);
        let held = lines(session, &format!("SELECT {columns} FROM {view}")).await?;
        let held: BTreeMap<String, i64> = held.into_iter().map(|row| (row.replace("NULL", ""), 1)).collect();
        ensure(told == held, || format!("the sink of {view} was told {told:?}, the view holds {held:?}"))?;
    }
    Ok(())
}

/// A table beside a view over it, as of one epoch.
const BESIDE: &str = "SELECT coalesce((SELECT sum(v) FROM t), 0) = coalesce((SELECT sum(s) FROM a), 0), \
                      coalesce((SELECT sum(v) FROM t), 0) = coalesce((SELECT sum(s) FROM again), 0)";

async fn one_epoch() -> Result<()> {
    let (gates, folder) = ([Gate::default(), Gate::default()], folder()?);
    let out = folder.path().join("out");
    let builder = Engine::builder().step_apart(1).scalar_function(gates[0].function("gate_a"));
    let engine = builder.scalar_function(gates[1].function("gate_b")).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let mut session = engine.session();
    for sql in objects(&out) {
        run(&mut session, &sql).await?;
    }
    let (mut next, mut random) = (0, SmallRng::seed_from_u64(11));
    let mut reads = Vec::new();
    for round in 0..100 {
        play(&gates, &mut session, &mut next, &mut random).await?;
        let mut other = engine.session();
        reads.push(tokio::spawn(async move {
            if round % 2 == 0 {
                return lines(&mut other, BESIDE).await;
            }
            run(&mut other, "BEGIN").await?;
            tokio::time::sleep(Duration::from_millis(round % 7)).await;
            lines(&mut other, BESIDE).await
        }));
        if round == 50 {
            gates.iter().for_each(|gate| gate.set(Door::Open));
            let late = "CREATE MATERIALIZED VIEW late AS SELECT a.s - sum(gate_b(t.v)) AS d FROM a JOIN t USING (k) GROUP BY k, a.s";
            run(&mut session, late).await?;
        }
        if round % 10 == 9 {
            gates.iter().for_each(|gate| gate.set(Door::Open));
            expect(&mut session, "SELECT count(*) FROM both WHERE d <> 0", &["0"]).await?;
        }
    }
    gates.iter().for_each(|gate| gate.set(Door::Open));
    for read in reads {
        let read = within_a_minute("a read", read).await?.map_err(|error| error.to_string())??;
        ensure(read == ["true|true"], || format!("a read found two epochs: {read:?}"))?;
    }
    check_sinks(&mut session, &out).await?;
    expect(&mut session, "SELECT count(*) FROM late WHERE d <> 0", &["0"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// A query over two slow views is paused while these take in several epochs at once, by turns, and is
/// resumed.
async fn resumed() -> Result<()> {
    let (gates, folder) = ([Gate::default(), Gate::default()], folder()?);
    let out = folder.path().join("out");
    let builder = Engine::builder().step_apart(1).scalar_function(gates[0].function("gate_a"));
    let engine = builder.scalar_function(gates[1].function("gate_b")).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let mut session = engine.session();
    for sql in objects(&out) {
        run(&mut session, &sql).await?;
    }
    let (mut next, mut random) = (0, SmallRng::seed_from_u64(12));
    for round in 0..30 {
        gates.iter().for_each(|gate| gate.set(Door::Open));
        run_all(&mut session, &["PAUSE both", "PAUSE beside"]).await?;
        for _ in 0..3 {
            play(&gates, &mut session, &mut next, &mut random).await?;
        }
        gates.iter().for_each(|gate| gate.set(Door::Open));
        if round % 3 == 0 {
            run(&mut session, "RESUME ALL").await?;
        } else {
            run_all(&mut session, &["RESUME both", "RESUME beside"]).await?;
        }
        expect(&mut session, "SELECT count(*) FROM both WHERE d <> 0", &["0"]).await?;
    }
    check_sinks(&mut session, &out).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn while_behind() -> Result<()> {
    let gate = Gate::default();
    let of_engine = gate.clone();
    let machine = Machine::start(move || {
        let gate = of_engine.function("gate");
        Engine::builder().step_apart(1).scalar_function(gate)
    })?;
    let mut session = machine.session();
    let view = "CREATE MATERIALIZED VIEW slow AS SELECT sum(gate(v)) AS s FROM t";
    let objects = ["SET checkpoint_interval = 'off'", "CREATE TABLE t (id BIGINT, k BIGINT, v BIGINT)", view];
    run_all(&mut session, &objects).await?;
    run(&mut session, "INSERT INTO t VALUES (0, 0, 1)").await?;
    gate.set(Door::Closed);
    run_all(&mut session, &["INSERT INTO t VALUES (1, 1, 11)", "INSERT INTO t VALUES (2, 2, 21)"]).await?;
    let mut other = machine.session();
    let asked = tokio::spawn(async move { run(&mut other, "CHECKPOINT").await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Only the end of the step happens.
    gate.set(Door::Open);
    within_a_minute("CHECKPOINT", asked).await?.map_err(|error| error.to_string())??;
    expect(&mut session, "SELECT s FROM slow", &["33"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn crashes() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        let (gates, folder) = ([Gate::default(), Gate::default()], folder()?);
        let out = folder.path().join("out");
        let of_engine = gates.clone();
        let mut machine = Machine::start(move || {
            let [a, b] = [of_engine[0].function("gate_a"), of_engine[1].function("gate_b")];
            Engine::builder().step_apart(1 + seed).scalar_function(a).scalar_function(b)
        })?;
        for sql in objects(&out) {
            run(&mut machine.session(), &sql).await?;
        }
        let (mut next, mut random) = (0, SmallRng::seed_from_u64(seed));
        for _ in 0..6 {
            machine.set_interval(&mut random).await?;
            let mut session = machine.session();
            play(&gates, &mut session, &mut next, &mut random).await?;
            let mut other = machine.session();
            let asked = tokio::spawn(async move { run(&mut other, "CHECKPOINT").await });
            play(&gates, &mut session, &mut next, &mut random).await?;
            gates.iter().for_each(|gate| gate.set(Door::Open));
            within_a_minute("CHECKPOINT", asked).await?.map_err(|error| error.to_string())??;
            play(&gates, &mut session, &mut next, &mut random).await?;
            gates.iter().for_each(|gate| gate.set(Door::Open));
            machine.crash_at(|| {}, &mut random).await?;
            expect(&mut machine.session(), BESIDE, &["true|true"]).await?;
        }
        check_sinks(&mut machine.session(), &out).await?;
        for view in ["a", "b", "both", "beside"] {
            expect(&mut machine.session(), &format!("VERIFY {view}"), &[]).await?;
        }
        machine.engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
