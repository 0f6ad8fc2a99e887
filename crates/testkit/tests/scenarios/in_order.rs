//! Lagging queries whose result depends on the split of their input: they delay nobody, and are stepped one
//! epoch at a time. Readers of their changes get those of each epoch, as from an engine without slow queries.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::behind::{Door, Gate};
use super::machine::Machine;
use super::{Scenario, folder, lines_in, time};

pub const ALL: &[Scenario] = &[
    ("what_depends_on_epochs_gets_each_of_them_when_it_is_slow", || drive::block_on(slow())),
    ("a_slow_query_over_event_time_keeps_nobody_waiting", || drive::block_on(others_go_on())),
];

/// Queries over event time, over batch time and over batches, with their readers and inputs.
const QUERIES: &[&str] = &[
    "SET parallelism = 8",
    "CREATE FUNCTION running(v BIGINT[], s BIGINT) RETURNS BIGINT RETURN coalesce(s, 0) + coalesce(array_sum(v)::BIGINT, 0)",
    "CREATE TABLE t (k BIGINT, v BIGINT, ts TIMESTAMP, at TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY",
    "CREATE STREAM closed AS SELECT window_start, k, count(*) AS n, sum(gate_a(v)) AS s \
     FROM TUMBLE(t, ts, INTERVAL '10 seconds') GROUP BY window_start, k EMIT ON WINDOW CLOSE",
    "CREATE STREAM rows AS SELECT k, gate_b(v) AS v FROM t WHERE v % 3 <> 0",
    "CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS n, sum(gate_b(v)) AS s FROM t GROUP BY k",
    "CREATE MATERIALIZED VIEW recent AS SELECT t.k, t.v, sums.s FROM sums JOIN t ON t.k = sums.k \
     WHERE t.at + INTERVAL '8 milliseconds' > now()",
    "CREATE MATERIALIZED VIEW states AS SELECT k, state FROM UPDATE_STATE(TABLE rows PARTITION BY k, value => v, \
     fn => 'running', timeout => INTERVAL '4 milliseconds')",
    "CREATE STREAM anew AS SELECT k, count(*) AS n, max(gate_a(v)) AS most FROM rows GROUP BY k ORDER BY k FOR EACH BATCH",
    "CREATE STREAM joined AS SELECT rows.k, sum(rows.v) AS v, max(sums.s) AS s FROM rows JOIN sums USING (k) \
     GROUP BY rows.k FOR EACH BATCH",
    "CREATE STREAM last AS SELECT k, count(*) AS n, sum(gate_b(v)) AS s \
     FROM LAST(rows, INTERVAL '4 milliseconds', INTERVAL '2 milliseconds') GROUP BY k FOR EACH BATCH",
    "CREATE STREAM over_last AS SELECT k, sum(n) AS n FROM LAST(last, INTERVAL '3 milliseconds') GROUP BY k FOR EACH BATCH",
    "CREATE MATERIALIZED VIEW over AS SELECT k, sum(s) AS s FROM closed GROUP BY k",
    "CREATE STREAM of_content AS SELECT recent.k, count(*) AS n, sum(gate_b(recent.v)) AS s, now() AS at \
     FROM recent JOIN sums USING (k) GROUP BY recent.k FOR EACH BATCH",
    "CREATE STREAM of_both AS SELECT rows.k, sums.n, sums.s, rows.v, now() AS at, (SELECT count(*) FROM t) AS c \
     FROM rows JOIN sums USING (k) FOR EACH BATCH",
    "CREATE MATERIALIZED VIEW late AS SELECT k, v, gate_b(v) AS w, sums.n FROM late_rows('closed') JOIN sums USING (k)",
    "CREATE MATERIALIZED VIEW by_window AS SELECT window_start, count(*) AS n, min(gate_a(v)) AS least \
     FROM HOP(t, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start EMIT ON WINDOW CLOSE",
    "CREATE MATERIALIZED VIEW all_late AS SELECT query, closed_window, count(*) AS n, max(gate_b(length(row))) AS longest \
     FROM millstream.late_rows GROUP BY query, closed_window",
    "CREATE STREAM late_batches AS SELECT count(*) AS n, sum(gate_b(v)) AS s FROM late_rows('by_window') FOR EACH BATCH",
];

/// The sinks by name; append-only ones deliver the epoch of each row.
const DELIVERED: &[(&str, &str)] = &[
    ("closed", "AS SELECT _batch_id, * FROM closed"),
    ("rows", "AS SELECT _batch_id, * FROM rows"),
    ("recent", "FROM recent"),
    ("states", "FROM states"),
    ("anew", "AS SELECT _batch_id, * FROM anew"),
    ("joined", "AS SELECT _batch_id, * FROM joined"),
    ("last", "AS SELECT _batch_id, _batch_time, * FROM last"),
    ("over_last", "AS SELECT _batch_id, * FROM over_last"),
    ("of_content", "AS SELECT _batch_id, * FROM of_content"),
    ("of_both", "AS SELECT _batch_id, * FROM of_both"),
    ("late_batches", "AS SELECT _batch_id, * FROM late_batches"),
];

async fn set_up(session: &mut Session, out: &Path) -> Result<()> {
    run(session, "SET clock = 'manual'").await?;
    run_all(session, QUERIES).await?;
    for (name, delivers) in DELIVERED {
        let path = out.join(name);
        let with = format!(
            "connector = 'file', path = '{}', format = 'csv', header = false, changelog = true",
            path.display()
        );
        run(session, &format!("CREATE SINK of_{name} {delivers} WITH ({with})")).await?;
    }
    Ok(())
}

/// Returns the input of an epoch: some rows, or none.
fn batch(number: i64, random: &mut SmallRng) -> Option<String> {
    let rows: Vec<String> = (0..random.random_range(0..4))
        .map(|_| {
            let seconds = number + random.random_range(-14..6);
            let (k, v) = (random.random_range(0..3), random.random_range(0..99));
            format!("({k}, {v}, {}, '1970-01-01 00:00:00.{number:03}Z')", time(seconds))
        })
        .collect();
    (!rows.is_empty()).then(|| format!("INSERT INTO t VALUES {}", rows.join(", ")))
}

async fn advance(session: &mut Session, number: i64, random: &mut SmallRng) -> Result<()> {
    if let Some(insert) = batch(number, random) {
        run(session, &insert).await?;
    }
    run(session, "ADVANCE BATCH").await.map(drop)
}

const ROUNDS: i64 = 8;
const BATCHES: i64 = 9;

/// Returns the delivered lines of each relation, sorted.
fn delivered(out: &Path) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let of = |(name, _): &(&'static str, &str)| {
        let mut lines = lines_in(&out.join(name))?;
        lines.sort();
        Ok((*name, lines))
    };
    DELIVERED.iter().map(of).collect()
}

const HELD: &[&str] = &[
    "SELECT * FROM recent ORDER BY k, v",
    "SELECT * FROM states ORDER BY k",
    "SELECT * FROM over ORDER BY k",
    "SELECT * FROM sums ORDER BY k",
    "SELECT * FROM late ORDER BY k, v, n",
    "SELECT * FROM by_window ORDER BY window_start",
    "SELECT * FROM all_late ORDER BY query, closed_window",
    "SELECT count(*) FROM late_rows('closed')",
];

async fn held(session: &mut Session) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for sql in HELD {
        all.push(lines(session, sql).await?);
    }
    Ok(all)
}

type Told = (BTreeMap<&'static str, Vec<String>>, Vec<Vec<String>>);

/// Returns the results of an engine without slow queries that doesn't crash.
async fn reference(seed: u64) -> Result<Told> {
    let folder = folder()?;
    let machine = Machine::start(|| {
        let builder = Engine::builder().scalar_function(Gate::default().function("gate_a"));
        builder.scalar_function(Gate::default().function("gate_b"))
    })?;
    let mut session = machine.session();
    set_up(&mut session, folder.path()).await?;
    let mut random = SmallRng::seed_from_u64(seed);
    for number in 0..ROUNDS * BATCHES {
        advance(&mut session, number, &mut random).await?;
    }
    run(&mut session, "FLUSH").await?;
    let held = held(&mut session).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    Ok((delivered(folder.path())?, held))
}

async fn slow() -> Result<()> {
    for seed in seeds(&[0, 1], 0..3) {
        let one = reference(seed).await?;
        ensure(one.0.values().all(|lines| lines.len() >= 15), || {
            format!("too little is delivered: {one:?}")
        })?;
        for crashes in [false, true] {
            let other = slowly(seed, crashes).await?;
            for (name, told) in &one.0 {
                let other = &other.0[name];
                let differ =
                    || format!("seed {seed}, crashes {crashes}: {name}:\n{told:?}\nslow:\n{other:?}");
                ensure(told == other, differ)?;
            }
            ensure(one.1 == other.1, || format!("seed {seed}, {crashes}: {:?}, slow {:?}", one.1, other.1))?;
        }
    }
    Ok(())
}

/// Returns the results of an engine with lagging queries, at gates that open and close, which may crash in
/// between.
async fn slowly(seed: u64, crashes: bool) -> Result<Told> {
    let (gates, folder) = ([Gate::default(), Gate::default()], folder()?);
    let of_engine = gates.clone();
    let mut machine = Machine::start(move || {
        let [a, b] = [of_engine[0].function("gate_a"), of_engine[1].function("gate_b")];
        Engine::builder().step_apart(1 + seed % 3).scalar_function(a).scalar_function(b)
    })?;
    set_up(&mut machine.session(), folder.path()).await?;
    // The rows are those of the reference; other random choices differ.
    let (mut random, mut doors) = (SmallRng::seed_from_u64(seed), SmallRng::seed_from_u64(seed + 1000));
    for round in 0..ROUNDS {
        let mut session = machine.session();
        for number in 0..BATCHES {
            let door = [Door::Open, Door::Closed, Door::Closed][doors.random_range(0..3)];
            gates[doors.random_range(0..2)].set(door);
            advance(&mut session, round * BATCHES + number, &mut random).await?;
            if doors.random_range(0..3) == 0 {
                tokio::time::sleep(Duration::from_millis(doors.random_range(0..4))).await;
            }
        }
        let mut other = machine.session();
        let asked = tokio::spawn(async move { run(&mut other, "CHECKPOINT").await });
        gates.iter().for_each(|gate| gate.set(Door::Open));
        if round % 3 == 1 {
            within_a_minute("FLUSH", run(&mut session, "FLUSH")).await??;
        }
        if doors.random() {
            within_a_minute("CHECKPOINT", asked).await?.map_err(|error| error.to_string())??;
        }
        if crashes {
            machine.crash_at(|| {}, &mut doors).await?;
        }
    }
    run(&mut machine.session(), "FLUSH").await?;
    let held = held(&mut machine.session()).await?;
    for view in ["sums", "over", "late", "all_late"] {
        expect(&mut machine.session(), &format!("VERIFY {view}"), &[]).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    Ok((delivered(folder.path())?, held))
}

/// With the machine's clock: a long step over event time moves to a thread, and returns.
async fn others_go_on() -> Result<()> {
    let gates = [Gate::default(), Gate::default()];
    let folder = folder()?;
    let builder = Engine::builder().scalar_function(gates[0].function("gate_a"));
    let engine = builder.scalar_function(gates[1].function("gate_b")).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, QUERIES).await?;
    let path = folder.path().display();
    let with =
        format!("connector = 'file', path = '{path}', format = 'csv', header = false, changelog = true");
    let sink = format!("CREATE SINK of_closed AS SELECT _batch_id, * FROM closed WITH ({with})");
    run(&mut session, &sink).await?;
    run(&mut session, "CREATE TABLE other (v BIGINT)").await?;
    run(&mut session, "CREATE MATERIALIZED VIEW fast AS SELECT count(*) AS n FROM other").await?;
    gates[0].set(Door::Slow);
    for second in 0..4 {
        let row = format!("INSERT INTO t VALUES (1, {}, {}, now())", second * 3 + 1, time(second));
        within_a_minute("a slow insert", run(&mut session, &row)).await??;
    }
    let behind = "SELECT name FROM millstream.streams WHERE status = 'behind' ORDER BY name";
    expect(&mut session, behind, &["anew", "closed", "late_batches"]).await?;
    gates[0].set(Door::Closed);
    for second in [20, 21, 40] {
        let row = format!("INSERT INTO t VALUES (1, {}, {}, now())", second * 3 + 1, time(second));
        within_a_minute("an insert", run(&mut session, &row)).await??;
    }
    run(&mut session, "INSERT INTO other VALUES (1)").await?;
    within_a_minute("a read", expect(&mut session, "SELECT n FROM fast", &["1"])).await??;
    gates[0].set(Door::Open);
    expect(&mut session, "SELECT n, s FROM closed ORDER BY window_start", &["2|125", "4|22"]).await?;
    run(&mut session, "FLUSH").await?;
    let count = lines_in(folder.path())?.len();
    ensure(count == 2, || format!("the sink was told {count} rows"))?;
    engine.stop().await.map_err(|error| error.to_string())
}
