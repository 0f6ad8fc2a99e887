//! Large backfills on a thread, in parts: the result equals that of a query that begins at once. Recovery
//! produces the same, including the batches of rows.

use std::path::Path;
use std::time::Duration;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, seeds, within_a_minute,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::behind::{self, Door, Gate};
use super::machine::Machine;
use super::{Scenario, folder, lines_in, write};

pub const ALL: &[Scenario] = &[
    ("what_depends_on_epochs_begins_as_a_whole", || drive::block_on(whole())),
    ("rows_of_the_past_keep_their_batch_through_crashes", || drive::block_on(batches())),
    ("a_query_begins_with_the_present_of_what_is_behind", || drive::block_on(present())),
    ("rows_of_a_sources_past_are_of_one_batch", || drive::block_on(past())),
    ("what_resumes_over_a_slow_view_is_delivered_once", || drive::block_on(resumed())),
    ("what_is_resumed_apart_is_the_same_after_crashes", || drive::block_on(resumed_with_crashes())),
    ("if_not_exists_waits_for_who_makes_it", || drive::block_on(existing())),
    ("a_flush_waits_for_no_subscriber", || drive::block_on(flushed())),
    ("a_query_for_each_batch_begins_beside_others", || drive::block_on(each_batch())),
    ("a_query_that_is_recomputed_for_each_batch_lags", || drive::block_on(recomputed())),
    ("a_resumed_batch_has_the_content_as_of_its_end", || drive::block_on(resumed_with_contents())),
];

/// More rows than the first parts of a backfill take.
const ROWS: i64 = 3000;

/// Returns an engine whose queries lag, some of them behind a gate.
fn gated() -> Result<(Gate, Machine)> {
    let gate = Gate::default();
    let of_engine = gate.clone();
    let machine =
        Machine::start(move || Engine::builder().step_apart(1).scalar_function(of_engine.function("gate")))?;
    Ok((gate, machine))
}

async fn filled(machine: &Machine) -> Result<()> {
    let fill = format!("INSERT INTO t SELECT g, g % 7 FROM generate_series(1, {ROWS}) x(g)");
    let tables = [
        "CREATE FUNCTION calls(v BIGINT[], s BIGINT) RETURNS BIGINT RETURN coalesce(s, 0) + 1",
        "CREATE TABLE t (id BIGINT, k BIGINT) APPEND ONLY",
        "CREATE TABLE u (k BIGINT PRIMARY KEY, w TEXT)",
        "CREATE TABLE other (n BIGINT)",
        "INSERT INTO u SELECT g, 'w' || g FROM generate_series(0, 6) x(g)",
        &fill,
    ];
    run_all(&mut machine.session(), &tables).await
}

async fn each_batch() -> Result<()> {
    let (gate, mut machine) = gated()?;
    filled(&machine).await?;
    gate.set(Door::Closed);
    let made = "CREATE STREAM of_all WITH (retention = '1 hour') AS SELECT count(*) AS n, max(gate(id)) AS m FROM t \
                FOR EACH BATCH";
    within_a_minute("CREATE", run(&mut machine.session(), made)).await??;
    for sql in
        ["INSERT INTO other VALUES (1)", "INSERT INTO t VALUES (5000, 0)", "INSERT INTO t VALUES (5001, 0)"]
    {
        within_a_minute(sql, run(&mut machine.session(), sql)).await??;
    }
    expect(&mut machine.session(), "SELECT count(*) FROM other", &["1"]).await?;
    drive::until("the step at the gate", || gate.waiting() == 1).await?;
    gate.set(Door::Open);
    let batches = "SELECT n, m FROM of_all ORDER BY n";
    run(&mut machine.session(), "FLUSH").await?;
    expect(&mut machine.session(), batches, &["3001|5000", "3002|5001"]).await?;
    machine.crash(&mut SmallRng::seed_from_u64(1)).await?;
    run_all(&mut machine.session(), &["INSERT INTO t VALUES (5002, 0)", "FLUSH"]).await?;
    expect(&mut machine.session(), batches, &["3001|5000", "3002|5001", "3003|5002"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// Each batch has the content as of its end, though later changes are in the table when it is run.
async fn recomputed() -> Result<()> {
    let (gate, mut machine) = gated()?;
    let made = [
        "CREATE TABLE v (id BIGINT PRIMARY KEY, k BIGINT)",
        "CREATE TABLE other (n BIGINT)",
        "INSERT INTO v SELECT g, g % 3 FROM generate_series(1, 9) x(g)",
        "CREATE MATERIALIZED VIEW groups AS SELECT k, sum(id) AS s FROM v GROUP BY k",
        "CREATE MATERIALIZED VIEW kept AS SELECT id, k FROM v WHERE id <> 5",
        "CREATE STREAM of_all WITH (retention = '1 hour') AS SELECT count(*) AS n, max(gate(id)) AS m, \
         max(now()) > TIMESTAMP '2000-01-01 00:00:00' AS late FROM v FOR EACH BATCH",
        "CREATE STREAM of_views WITH (retention = '1 hour') AS SELECT count(*) AS n, sum(s) AS s, \
         max(now()) > TIMESTAMP '2000-01-01 00:00:00' AS late FROM groups JOIN kept USING (k) FOR EACH BATCH",
        "INSERT INTO v VALUES (10, 1)",
    ];
    run_all(&mut machine.session(), &made).await?;
    run(&mut machine.session(), "FLUSH").await?;
    let (of_all, of_views) = ("SELECT n, m, late FROM of_all", "SELECT n, s, late FROM of_views");
    expect(&mut machine.session(), of_all, &["10|10|true"]).await?;
    // The sums of the three groups are 18, 22 and 15; of the second two rows are kept less, of the third one.
    expect(&mut machine.session(), of_views, &["9|172|true"]).await?;
    gate.set(Door::Closed);
    for sql in [
        "INSERT INTO v VALUES (11, 2)",
        "INSERT INTO other VALUES (1)",
        "DELETE FROM v WHERE id <= 3",
        "UPDATE v SET id = 20 WHERE id = 11",
    ] {
        within_a_minute(sql, run(&mut machine.session(), sql)).await??;
    }
    expect(&mut machine.session(), "SELECT count(*) FROM other", &["1"]).await?;
    drive::until("the step at the gate", || gate.waiting() == 1).await?;
    gate.set(Door::Open);
    run(&mut machine.session(), "FLUSH").await?;
    let each = ["10|10|true", "11|11|true", "8|11|true", "8|20|true"];
    expect(&mut machine.session(), of_all, &each).await?;
    let each_of_views = ["10|220|true", "7|141|true", "7|159|true", "9|172|true"];
    expect(&mut machine.session(), of_views, &each_of_views).await?;
    machine.crash(&mut SmallRng::seed_from_u64(1)).await?;
    run_all(&mut machine.session(), &["DELETE FROM v", "FLUSH"]).await?;
    expect(&mut machine.session(), of_all, &[&["0|NULL|NULL"], &each[..]].concat()).await?;
    expect(&mut machine.session(), of_views, &[&["0|NULL|NULL"], &each_of_views[..]].concat()).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn whole() -> Result<()> {
    let mut machine = Machine::start(|| Engine::builder().step_apart(1))?;
    filled(&machine).await?;
    let made = [
        "CREATE MATERIALIZED VIEW joined AS SELECT id, w FROM t LEFT JOIN u FOR SYSTEM_TIME AS OF PROCTIME() USING (k)",
        "CREATE STREAM told AS SELECT id, w FROM t JOIN u FOR SYSTEM_TIME AS OF PROCTIME() USING (k)",
        "CREATE MATERIALIZED VIEW states AS SELECT k, state FROM UPDATE_STATE(TABLE t PARTITION BY k, value => id, fn => 'calls')",
    ];
    run_all(&mut machine.session(), &made).await?;
    run_all(
        &mut machine.session(),
        &["INSERT INTO t VALUES (0, 0)", "INSERT INTO t VALUES (-1, 0)", "FLUSH"],
    )
    .await?;
    for crash in [true, false] {
        let mut session = machine.session();
        let all = format!("{}|{}|{}", ROWS + 2, ROWS + 2, ROWS + 2);
        let counts = "SELECT (SELECT count(*) FROM joined) AS a, (SELECT count(w) FROM joined) AS b, (SELECT count(*) FROM told) AS c";
        expect(&mut session, counts, &[&all]).await?;
        expect(&mut session, "SELECT state, count(*) FROM states GROUP BY state", &["1|6", "3|1"]).await?;
        if crash {
            machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(5)).await?;
        }
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn batches() -> Result<()> {
    let mut machine = Machine::start(|| Engine::builder().step_apart(1))?;
    filled(&machine).await?;
    let (mut session, mut other) = (machine.session(), machine.session());
    let writing = tokio::spawn(async move {
        for n in 0..40 {
            run(&mut other, &format!("INSERT INTO other VALUES ({n})")).await?;
            run(&mut other, &format!("INSERT INTO t VALUES ({}, 1)", ROWS + n)).await?;
        }
        Ok::<(), String>(())
    });
    run(&mut session, "CREATE STREAM s AS SELECT id FROM t WHERE id > 10").await?;
    run(
        &mut session,
        "CREATE MATERIALIZED VIEW of_batches AS SELECT _batch_id, count(*) AS n FROM s GROUP BY _batch_id",
    )
    .await?;
    within_a_minute("the writer", writing).await?.map_err(|error| error.to_string())??;
    run(&mut session, "FLUSH").await?;
    let by_row = "SELECT _batch_id, count(*) FROM s GROUP BY _batch_id ORDER BY _batch_id";
    let told = "SELECT _batch_id, n FROM of_batches ORDER BY _batch_id";
    let before = lines(&mut session, by_row).await?;
    expect(&mut session, told, &before.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(6)).await?;
    let after: Vec<&str> = before.iter().map(String::as_str).collect();
    expect(&mut machine.session(), by_row, &after).await?;
    expect(&mut machine.session(), told, &after).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn present() -> Result<()> {
    let (gate, mut machine) = gated()?;
    let mut session = machine.session();
    let made = [
        "SET parallelism = 8",
        "CREATE TABLE t (id BIGINT, k BIGINT)",
        "CREATE TABLE into (k BIGINT, n BIGINT)",
        "CREATE MATERIALIZED VIEW a AS SELECT k, count(*) AS n, max(gate(id)) AS m FROM t GROUP BY k",
        "CREATE VIEW shown AS SELECT k, n FROM a",
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO t VALUES (2, 2)",
    ];
    run_all(&mut session, &made).await?;
    gate.set(Door::Closed);
    for id in 3..6 {
        run(&mut session, &format!("INSERT INTO t VALUES ({id}, {})", id % 2)).await?;
    }
    let mut other = machine.session();
    let making =
        tokio::spawn(
            async move { run(&mut other, "CREATE SINK s INTO into AS SELECT k, n FROM shown").await },
        );
    tokio::time::sleep(Duration::from_millis(20)).await;
    run(&mut session, "INSERT INTO t VALUES (6, 0)").await?;
    gate.set(Door::Open);
    within_a_minute("CREATE SINK", making).await?.map_err(|error| error.to_string())??;
    run_all(&mut session, &["INSERT INTO t VALUES (7, 1)", "FLUSH"]).await?;
    for crash in [true, false] {
        let mut session = machine.session();
        let held = lines(&mut session, "SELECT k, n FROM a ORDER BY k").await?;
        let into = lines(&mut session, "SELECT k, n FROM into ORDER BY k").await?;
        ensure(held == into, || format!("crashed {}: the view has {held:?}, the table {into:?}", !crash))?;
        if crash {
            machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(7)).await?;
        }
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// A query FOR EACH BATCH over a source read before, while epochs continue and rows of a table arrive.
async fn past() -> Result<()> {
    let folder = folder()?;
    for file in 0..40 {
        let rows: String = (0..200).map(|n| format!("{}\n", file * 200 + n)).collect();
        write(folder.path(), &format!("{file}.csv"), &rows)?;
    }
    let mut machine = Machine::start(|| Engine::builder().step_apart(1))?;
    let mut session = machine.session();
    let source = format!(
        "CREATE SOURCE f (n BIGINT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let made = [
        "SET max_batch_rows = 300",
        "CREATE TABLE o (n BIGINT) APPEND ONLY",
        &source,
        "CREATE MATERIALIZED VIEW before AS SELECT count(*) AS n FROM f",
        "FLUSH",
    ];
    run_all(&mut session, &made).await?;
    expect(&mut session, "SELECT n FROM before", &["8000"]).await?;
    let mut other = machine.session();
    let writing = tokio::spawn(async move {
        for n in 0..40 {
            run(&mut other, &format!("INSERT INTO o VALUES ({n})")).await?;
        }
        Ok::<(), String>(())
    });
    let batches = "CREATE MATERIALIZED VIEW b AS SELECT _batch_id, _batch_time, _batch_start, count(*) AS n FROM f \
                   GROUP BY 1, 2, 3 UNION ALL SELECT 0, NULL, NULL, sum(n) FROM o";
    run(&mut session, batches).await?;
    within_a_minute("the writer", writing).await?.map_err(|error| error.to_string())??;
    run(&mut session, "FLUSH").await?;
    let content = "SELECT * FROM b ORDER BY _batch_id";
    let before = lines(&mut session, content).await?;
    ensure(before.len() == 2, || format!("the past is of several batches: {before:?}"))?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(8)).await?;
    let after: Vec<&str> = before.iter().map(String::as_str).collect();
    expect(&mut machine.session(), content, &after).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn resumed() -> Result<()> {
    let ((gate, mut machine), out) = (gated()?, folder()?);
    let mut session = machine.session();
    let sink = format!(
        "CREATE SINK told FROM r WITH (connector = 'file', path = '{}', format = 'csv', header = false, changelog = true)",
        out.path().display()
    );
    let made = [
        "SET parallelism = 8",
        "SET checkpoint_interval = 'off'",
        "CREATE TABLE t (id BIGINT, k BIGINT)",
        "CREATE MATERIALIZED VIEW q AS SELECT k, count(*) AS n, max(gate(id)) AS m FROM t GROUP BY k",
        "CREATE MATERIALIZED VIEW r AS SELECT k % 2 AS odd, sum(n) AS n FROM q GROUP BY k % 2",
        &sink,
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO t VALUES (2, 2)",
        "PAUSE r",
    ];
    run_all(&mut session, &made).await?;
    for id in 3..30 {
        gate.set(if id % 5 == 0 { Door::Open } else { Door::Closed });
        run(&mut session, &format!("INSERT INTO t VALUES ({id}, {})", id % 4)).await?;
    }
    gate.set(Door::Open);
    run_all(
        &mut session,
        &["RESUME r", "INSERT INTO t VALUES (30, 1)", "INSERT INTO t VALUES (31, 2)", "FLUSH"],
    )
    .await?;
    for crash in [true, true, false] {
        let mut session = machine.session();
        run_all(&mut session, &["INSERT INTO t VALUES (40, 3)", "FLUSH"]).await?;
        let mut told = std::collections::BTreeMap::<String, i64>::new();
        for line in lines_in(out.path())? {
            let (op, row) = line.split_once(',').ok_or("a line without columns")?;
            *told.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
        }
        told.retain(|_, count| *count != 0);
        let held = lines(&mut session, "SELECT odd, n FROM r").await?;
        let held = held.into_iter().map(|row| (row, 1)).collect();
        ensure(told == held, || format!("the sink was told {told:?}, the view holds {held:?}"))?;
        if crash {
            machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(9)).await?;
        }
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// A query that is recomputed over a table is paused; beside others and on the loop, it then runs each batch with the rows
/// that the table had at its end.
async fn resumed_with_contents() -> Result<()> {
    for (apart, crashes) in [(false, false), (true, false), (false, true), (true, true)] {
        let out = folder()?;
        let mut machine = Machine::start(move || match apart {
            true => Engine::builder().step_apart(1),
            false => Engine::builder(),
        })?;
        let sink = format!(
            "CREATE SINK told AS SELECT id, n, s FROM each WITH (connector = 'file', path = '{}', format = 'csv', \
             header = false)",
            out.path().display()
        );
        let made = [
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)",
            "CREATE TABLE arrivals (id BIGINT) APPEND ONLY",
            "CREATE STREAM rows AS SELECT id FROM arrivals",
            "CREATE MATERIALIZED VIEW sums AS SELECT sum(v) AS s FROM t",
            "CREATE STREAM each AS SELECT rows.id, (SELECT count(*) FROM t) AS n, (SELECT max(s) FROM sums) AS s, \
             now() AS at FROM rows FOR EACH BATCH",
            &sink,
        ];
        let mut session = machine.session();
        run_all(&mut session, &made).await?;
        let mut expected = Vec::new();
        for id in 1..12 {
            let first = match id {
                3 => "PAUSE each",
                6 => "DELETE FROM t WHERE id = 2",
                9 => "RESUME each",
                _ => "FLUSH",
            };
            run(&mut session, first).await?;
            if crashes && id == 10 {
                machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(10)).await?;
                session = machine.session();
            }
            run(&mut session, &format!("INSERT INTO t VALUES ({id}, {id} * 10)")).await?;
            run(&mut session, &format!("INSERT INTO arrivals VALUES ({id})")).await?;
            run(&mut session, "FLUSH").await?;
            let present = (1..=id).filter(|other| id < 6 || *other != 2);
            expected.push(format!("{id}|{}|{}", present.clone().count(), present.sum::<i64>() * 10));
        }
        expected.sort();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        let case = |error: String| format!("apart {apart}, crashes {crashes}: {error}");
        expect(&mut session, "SELECT id, n, s FROM each", &expected).await.map_err(case)?;
        let mut told: Vec<String> = lines_in(out.path())?.iter().map(|line| line.replace(',', "|")).collect();
        told.sort();
        ensure(told == expected, || case(format!("the sink was told {told:?}")))?;
        machine.engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Pauses and resumes queries, those that take sums and those that take one epoch after the other, and reads of
/// both, while the machine crashes.
async fn resumed_with_crashes() -> Result<()> {
    for seed in seeds(&[0, 1, 2], 0..6) {
        resumed_with_crashes_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn resumed_with_crashes_of(seed: u64) -> Result<()> {
    let (mut random, out) = (SmallRng::seed_from_u64(seed), folder()?);
    let mut machine = Machine::start(move || Engine::builder().step_apart(1 + seed % 3))?;
    let sink = |name: &str, from: &str, more: &str| {
        format!(
            "CREATE SINK {name} FROM {from} WITH (connector = 'file', path = '{}/{name}', format = 'csv', header = false{more})",
            out.path().display()
        )
    };
    let made = [
        "SET checkpoint_interval = 'off'",
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT)",
        "CREATE TABLE arrivals (id BIGINT, k BIGINT) APPEND ONLY",
        "CREATE TABLE u (k BIGINT PRIMARY KEY, w TEXT)",
        "CREATE MATERIALIZED VIEW sums AS SELECT t.k, count(*) AS n, max(w) AS w FROM t LEFT JOIN u ON t.k = u.k GROUP BY t.k",
        "CREATE MATERIALIZED VIEW of_sums AS SELECT n, count(*) AS c FROM sums LEFT JOIN u ON sums.k = u.k GROUP BY n",
        "CREATE STREAM told AS SELECT id, w FROM arrivals LEFT JOIN u FOR SYSTEM_TIME AS OF PROCTIME() ON arrivals.k = u.k",
        "CREATE STREAM batches AS SELECT count(*) AS n, min(id) AS id FROM told FOR EACH BATCH",
        "CREATE MATERIALIZED VIEW total AS SELECT sum(n) AS n FROM batches",
        "CREATE MATERIALIZED VIEW by_batch AS SELECT _batch_id AS batch, count(*) AS n FROM told GROUP BY 1",
        "CREATE TABLE copy (k BIGINT PRIMARY KEY, n BIGINT)",
        "CREATE TABLE all_batches (n BIGINT, id BIGINT)",
        "CREATE SINK copying INTO copy AS SELECT k, n FROM sums",
        "CREATE SINK of_batches INTO all_batches AS SELECT n, id FROM batches",
        &sink("of_view", "sums", ", changelog = true"),
        &sink("of_stream", "told", ""),
    ];
    run_all(&mut machine.session(), &made).await?;
    let queries = ["sums", "of_sums", "told", "batches", "total", "by_batch", "copying", "of_batches"];
    let mut arrivals = 0;
    for _ in 0..90 {
        let (id, k) = (random.random_range(0..20), random.random_range(0..4));
        let query = queries[random.random_range(0..queries.len())];
        let sql = match random.random_range(0..12) {
            0 => format!("PAUSE {query}"),
            1 => format!("PAUSE {}", if random.random_range(0..2) == 0 { "ALL" } else { query }),
            2..4 => format!("RESUME {}", if random.random_range(0..2) == 0 { "ALL" } else { query }),
            4 => format!("INSERT INTO u VALUES ({k}, 'w{id}') ON CONFLICT (k) DO UPDATE SET w = excluded.w"),
            5 => format!("DELETE FROM t WHERE id = {id}"),
            6 => "CHECKPOINT".into(),
            7 => {
                machine.crash_at(|| {}, &mut random).await?;
                continue;
            }
            8 | 9 => {
                arrivals += 1;
                format!("INSERT INTO arrivals VALUES ({arrivals}, {k})")
            }
            _ => format!("INSERT INTO t VALUES ({id}, {k}) ON CONFLICT (id) DO UPDATE SET k = excluded.k"),
        };
        run(&mut machine.session(), &sql).await.map_err(|error| format!("{sql}: {error}"))?;
    }
    run_all(&mut machine.session(), &["RESUME ALL", "FLUSH"]).await?;
    machine.crash_at(|| {}, &mut random).await?;
    let mut session = machine.session();
    run_all(&mut session, &["INSERT INTO t VALUES (1000, 1)", "FLUSH"]).await?;
    resumed_are_equal(&mut session).await?;
    let mut told = std::collections::BTreeMap::<String, i64>::new();
    for line in lines_in(&out.path().join("of_view"))? {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        *told.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
    }
    told.retain(|_, count| *count != 0);
    let held = lines(&mut session, "SELECT k, n, coalesce(w, '') FROM sums").await?;
    let held = held.into_iter().map(|row| (row, 1)).collect();
    ensure(told == held, || format!("the sink was told {told:?}, the view holds {held:?}"))?;
    let ids = ids_in(&out.path().join("of_stream"))?;
    ensure(ids.iter().copied().eq(1..=arrivals), || format!("of {arrivals} rows the stream gave {ids:?}"))?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// Returns the numbers at the beginning of the lines of some files, in order.
fn ids_in(folder: &Path) -> Result<Vec<i64>> {
    let lines = lines_in(folder)?;
    let mut ids: Vec<i64> = lines.iter().filter_map(|line| line.split(',').next()?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Each view is its batch answer, and each table holds what its sink brings.
async fn resumed_are_equal(session: &mut Session) -> Result<()> {
    for view in ["sums", "of_sums"] {
        expect(session, &format!("VERIFY {view}"), &[] as &[&str]).await?;
    }
    for (one, other) in [
        ("SELECT k, n FROM copy ORDER BY k", "SELECT k, n FROM sums ORDER BY k"),
        ("SELECT n FROM total", "SELECT nullif(count(*), 0) FROM arrivals"),
        ("SELECT n, id FROM all_batches ORDER BY id", "SELECT n, id FROM batches ORDER BY id"),
        ("SELECT sum(n) FROM by_batch", "SELECT sum(n) FROM batches"),
    ] {
        let found = (lines(session, one).await?, lines(session, other).await?);
        ensure(found.0 == found.1, || format!("{one} gives {:?}, {other} gives {:?}", found.0, found.1))?;
    }
    Ok(())
}

async fn existing() -> Result<()> {
    let folder = folder()?;
    write(folder.path(), "1.csv", "1\n2\n3\n")?;
    let (gate, engine, mut session) = behind::started(Engine::builder()).await?;
    let source = format!(
        "CREATE SOURCE f (n BIGINT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    run_all(&mut session, &[&source, "CREATE MATERIALIZED VIEW before AS SELECT n FROM f", "FLUSH"]).await?;
    gate.set(Door::Closed);
    let (mut one, mut other) = (engine.session(), engine.session());
    let making = tokio::spawn(async move {
        run(&mut one, "CREATE MATERIALIZED VIEW v AS SELECT max(gate(n)) AS m FROM f").await
    });
    let status = "SELECT status FROM millstream.materialized_views WHERE name = 'v'";
    expect_soon(&mut session, status, &["starting"]).await?;
    let again = "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT count(*) AS c FROM f";
    let asking = tokio::spawn(async move { run(&mut other, again).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure(!asking.is_finished(), || "it is told of what may still be undone".into())?;
    making.abort();
    within_a_minute("IF NOT EXISTS", asking).await?.map_err(|error| error.to_string())??;
    gate.set(Door::Open);
    expect(&mut session, "SELECT c FROM v", &["3"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn flushed() -> Result<()> {
    let gate = Gate::default();
    let engine = Engine::builder().step_apart(1).scalar_function(gate.function("gate")).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let (mut session, mut other) = (engine.session(), engine.session());
    run_all(&mut session, &["SET parallelism = 8", "CREATE TABLE t (id BIGINT)", "INSERT INTO t VALUES (1)"])
        .await?;
    gate.set(Door::Closed);
    let following = tokio::spawn(async move {
        let changes = other.changes("SELECT max(gate(id)) AS m FROM t").await;
        changes.map(drop).map_err(|error| error.to_string())
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    within_a_minute("FLUSH", run(&mut session, "FLUSH")).await??;
    gate.set(Door::Open);
    within_a_minute("a subscription", following).await?.map_err(|error| error.to_string())??;
    engine.stop().await.map_err(|error| error.to_string())
}
