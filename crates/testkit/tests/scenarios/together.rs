//! Queries behind that others read together are as of one epoch wherever anyone sees them, and checkpoints have them as
//! they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::behind::{Door, Gate};
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("what_reads_two_slow_views_finds_both_as_of_one_epoch", || drive::block_on(one_epoch())),
    ("a_checkpoint_is_taken_while_a_view_is_behind", || drive::block_on(while_behind())),
    ("checkpoints_of_what_is_behind_survive_crashes", || drive::block_on(crashes())),
];

/// Two views that are slow by turns, what reads both, and a sink that has all its changes: `d` is 0 whenever both are as
/// of one epoch.
fn objects(out: &Path) -> Vec<String> {
    let sum = |name: &str, gate: &str| {
        format!("CREATE MATERIALIZED VIEW {name} AS SELECT k, sum({gate}(v)) AS s FROM t GROUP BY k")
    };
    let path = out.display();
    vec![
        "SET parallelism = 8".into(),
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)".into(),
        sum("a", "gate_a"),
        sum("b", "gate_b"),
        "CREATE MATERIALIZED VIEW again AS SELECT k, s FROM b".into(),
        "CREATE MATERIALIZED VIEW both AS SELECT k, a.s, a.s - again.s AS d FROM a JOIN again USING (k)"
            .into(),
        format!(
            "CREATE SINK changes FROM both WITH (connector = 'file', path = '{path}', format = 'csv', header = false, \
             changelog = true)"
        ),
    ]
}

async fn insert(session: &mut Session, next: &mut i64) -> Result<()> {
    let id = *next;
    *next += 1;
    run(session, &format!("INSERT INTO t VALUES ({id}, {}, {})", id % 3, id * 10 + 1)).await.map(drop)
}

/// Rows come while the gates open and close.
async fn play(gates: &[Gate; 2], session: &mut Session, next: &mut i64, random: &mut SmallRng) -> Result<()> {
    for _ in 0..random.random_range(1..6) {
        let door = [Door::Open, Door::Closed, Door::Closed][random.random_range(0..3)];
        gates[random.random_range(0..2)].set(door);
        for _ in 0..random.random_range(0..3) {
            insert(session, next).await?;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..6))).await;
    }
    Ok(())
}

/// All that the sink was told was as of one epoch, and comes to what the view holds.
async fn check_sink(session: &mut Session, out: &Path) -> Result<()> {
    run(session, "FLUSH").await?;
    let mut told = BTreeMap::<String, i64>::new();
    for line in lines_in(out)? {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        ensure(row.ends_with(",0"), || format!("the sink was told {line}: its inputs were of two epochs"))?;
        *told.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
    }
    told.retain(|_, count| *count != 0);
    let held = lines(session, "SELECT k, s, d FROM both").await?;
    let held: BTreeMap<String, i64> = held.into_iter().map(|row| (row, 1)).collect();
    ensure(told == held, || format!("the sink was told {told:?}, the view holds {held:?}"))
}

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
    for round in 0..100 {
        play(&gates, &mut session, &mut next, &mut random).await?;
        if round % 10 == 9 {
            gates.iter().for_each(|gate| gate.set(Door::Open));
            expect(&mut session, "SELECT count(*) FROM both WHERE d <> 0", &["0"]).await?;
        }
    }
    gates.iter().for_each(|gate| gate.set(Door::Open));
    check_sink(&mut session, &out).await?;
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
    let mut next = 0;
    insert(&mut session, &mut next).await?;
    gate.set(Door::Closed);
    insert(&mut session, &mut next).await?;
    insert(&mut session, &mut next).await?;
    let mut other = machine.session();
    let asked = tokio::spawn(async move { run(&mut other, "CHECKPOINT").await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Nothing else happens than that the step ends.
    gate.set(Door::Open);
    within_a_minute("CHECKPOINT", asked).await?.map_err(|error| error.to_string())??;
    expect(&mut session, "SELECT s FROM slow", &["33"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn crashes() -> Result<()> {
    for seed in 0..4 {
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
            let sum = lines(&mut machine.session(), "SELECT sum(v) FROM t").await?;
            let sum: Vec<&str> = sum.iter().map(String::as_str).collect();
            expect(&mut machine.session(), "SELECT sum(s) FROM both WHERE d = 0", &sum).await?;
        }
        check_sink(&mut machine.session(), &out).await?;
        for view in ["a", "b", "both"] {
            expect(&mut machine.session(), &format!("VERIFY {view}"), &[]).await?;
        }
        machine.engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
