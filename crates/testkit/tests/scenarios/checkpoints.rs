//! The content of checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::machine::Machine;
use super::{Scenario, folder};

pub const ALL: &[Scenario] = &[
    ("state_is_read_as_parquet", || drive::block_on(readable())),
    ("a_checkpoint_has_what_has_changed", || drive::block_on(what_has_changed())),
    ("a_checkpoint_has_what_has_changed_of_rows_in_order", || drive::block_on(rows_in_order())),
    ("later_changes_are_not_in_a_checkpoint", || drive::block_on(later_changes())),
    ("statements_that_overlap_put_no_checkpoint_off", || drive::block_on(beside_large_statements())),
];

/// If few of 100,000 rows and groups change, a checkpoint writes few, and recovery restores all of them.
async fn what_has_changed() -> Result<()> {
    let mut machine = Machine::start(Engine::builder)?;
    let all = "SELECT count(*), sum(n), sum(s), max(m) FROM sums";
    let joined = "SELECT count(*), sum(v) FROM pairs";
    run_all(
        &mut machine.session(),
        &[
            "SET checkpoint_interval = 'off'",
            "CREATE TABLE t (k INT PRIMARY KEY, g INT, v BIGINT)",
            "CREATE TABLE u (g INT, w INT)",
            "CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, sum(v) AS s, max(v) AS m FROM t GROUP BY g",
            "CREATE MATERIALIZED VIEW pairs AS SELECT k, v, w FROM t JOIN u ON t.g = u.g",
            "INSERT INTO t SELECT i, i * 7919 % 100003, i FROM generate_series(1, 100000) AS s(i)",
            "INSERT INTO u SELECT i, i FROM generate_series(1, 1000) AS s(i)",
            "CHECKPOINT",
            "UPDATE t SET v = v + 1 WHERE k % 100 = 7",
            "DELETE FROM t WHERE k % 10000 = 9",
            "CHECKPOINT",
        ],
    )
    .await?;
    let mut session = machine.session();
    let sizes = "SELECT bytes, named_bytes, reason FROM millstream.checkpoints ORDER BY entry";
    println!(
        "1,000 of 100,000 rows change, bytes written and named: {:?}",
        lines(&mut session, sizes).await?
    );
    let sizes = "SELECT bytes = named_bytes, bytes * 8 < named_bytes, reason FROM millstream.checkpoints";
    expect(&mut session, sizes, &["false|true|NULL", "true|false|NULL"]).await?;
    let before = (lines(&mut session, all).await?, lines(&mut session, joined).await?);
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(3)).await?;
    let mut session = machine.session();
    let after = (lines(&mut session, all).await?, lines(&mut session, joined).await?);
    ensure(before == after, || format!("{before:?} was there, {after:?} is"))?;
    // The engine continues as if nothing had happened, with a complete checkpoint.
    run_all(&mut session, &["DELETE FROM t WHERE k > 10", "CHECKPOINT"]).await?;
    expect(&mut session, "SELECT count(*), sum(n) FROM sums", &["9|9"]).await?;
    let whole = "SELECT bytes = named_bytes FROM millstream.checkpoints";
    expect(&mut session, whole, &["true"]).await
}

/// The same for sorted rows, and for arrangements that several queries share, which are saved once.
async fn rows_in_order() -> Result<()> {
    let mut machine = Machine::start(Engine::builder)?;
    let views = ["least", "before", "pairs", "more"];
    let answers = |view: &&str| format!("SELECT count(*), sum(a), sum(b) FROM {view}");
    run_all(
        &mut machine.session(),
        &[
            "SET checkpoint_interval = 'off'",
            "CREATE TABLE t (k INT PRIMARY KEY, g INT, v BIGINT)",
            "CREATE TABLE u (g INT, w INT)",
            "CREATE MATERIALIZED VIEW least AS SELECT k AS a, r AS b FROM \
             (SELECT k, row_number() OVER (PARTITION BY g ORDER BY v, k) AS r FROM t) WHERE r <= 2",
            "CREATE MATERIALIZED VIEW before AS \
             SELECT k AS a, lag(v) OVER (PARTITION BY g ORDER BY v, k) AS b FROM t",
            "CREATE MATERIALIZED VIEW pairs AS SELECT v AS a, w AS b FROM t JOIN u ON t.g = u.g",
            "CREATE MATERIALIZED VIEW more AS SELECT v AS a, w AS b FROM t JOIN u ON t.g = u.g WHERE t.v > u.w",
            "INSERT INTO t SELECT i, i * 7919 % 4001, i * 104729 % 1000003 FROM generate_series(1, 20000) AS s(i)",
            "INSERT INTO u SELECT i, i FROM generate_series(1, 100) AS s(i)",
            "CHECKPOINT",
            "UPDATE t SET v = v + 1 WHERE k % 100 = 7",
            "DELETE FROM t WHERE k % 5000 = 9",
            "CHECKPOINT",
        ],
    )
    .await?;
    let mut session = machine.session();
    let sizes = "SELECT bytes, named_bytes, reason FROM millstream.checkpoints ORDER BY entry";
    println!("200 of 20,000 rows change, bytes written and named: {:?}", lines(&mut session, sizes).await?);
    let sizes = "SELECT bytes = named_bytes, bytes * 8 < named_bytes, reason FROM millstream.checkpoints";
    expect(&mut session, sizes, &["false|true|NULL", "true|false|NULL"]).await?;
    let explained = lines(&mut session, "EXPLAIN more").await?.join("\n");
    ensure(explained.contains("shared by"), || format!("nothing is shared: {explained}"))?;
    let mut before = Vec::new();
    for view in &views {
        before.push(lines(&mut session, &answers(view)).await?);
    }
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(3)).await?;
    let mut session = machine.session();
    for (view, before) in views.iter().zip(before) {
        let after = lines(&mut session, &answers(view)).await?;
        ensure(before == after, || format!("{view}: {before:?} was there, {after:?} is"))?;
    }
    run_all(&mut session, &["DELETE FROM t WHERE k > 3", "UPDATE u SET w = 0", "CHECKPOINT"]).await?;
    expect(&mut session, &answers(&"least"), &["3|6|3"]).await
}

/// A checkpoint is Parquet that others can read: here another engine.
async fn readable() -> Result<()> {
    let folder = folder()?;
    let data = folder.path().join("data");
    let engine = Engine::builder().data(&data).start().map_err(|error| error.to_string())?;
    run_all(
        &mut engine.session(),
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, s TEXT, d NUMERIC(10, 2))",
            "CREATE MATERIALIZED VIEW m AS SELECT s, count(*) AS n, sum(d) AS sum FROM t GROUP BY s",
            "INSERT INTO t VALUES (1, 'a', 1.5), (2, 'a', 2), (3, NULL, 7)",
            "DELETE FROM t WHERE k = 2",
            "CHECKPOINT",
        ],
    )
    .await?;
    let reader = Engine::start().map_err(|error| error.to_string())?;
    let mut session = reader.session();
    for (name, file) in [("kept", "table0.t.rows"), ("keys", "query0.m.flow.*.keys")] {
        let path = data.join(format!("checkpoints/*-{file}.parquet"));
        let source = format!(
            "CREATE SOURCE {name} WITH (connector = 'file', path = '{}', format = 'parquet')",
            path.display()
        );
        let view = format!("CREATE MATERIALIZED VIEW all_{name} AS SELECT * FROM {name}");
        run_all(&mut session, &[&source, &view]).await?;
    }
    let rows = "SELECT k, s, d, _weight FROM all_kept";
    drive::expect_soon(&mut session, rows, &["1|a|1.50|1", "3|NULL|7.00|1"]).await?;
    drive::expect_soon(&mut session, "SELECT count(*) FROM all_keys", &["2"]).await?;
    let told = "SELECT bytes > 1000, reason, epoch > 0 FROM millstream.checkpoints";
    expect(&mut engine.session(), told, &["true|NULL|true"]).await
}

/// Rows that change while a checkpoint is written are in the journal alone: recovery applies each change once.
async fn later_changes() -> Result<()> {
    let mut machine = Machine::start(Engine::builder)?;
    run_all(
        &mut machine.session(),
        &[
            "SET checkpoint_interval = 'off'",
            "CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT)",
            "CREATE TABLE u (k BIGINT, v BIGINT)",
            "CREATE MATERIALIZED VIEW large AS SELECT k, v + 1 AS w FROM u WHERE v >= 0",
            "CREATE MATERIALIZED VIEW sums AS SELECT k % 500 AS g, count(*) AS n, sum(v) AS s FROM u GROUP BY 1",
            "CREATE MATERIALIZED VIEW pairs AS SELECT t.k, t.v, u.v AS w FROM t JOIN u ON t.k = u.k",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 20000) AS s(i)",
            "INSERT INTO u SELECT i, i FROM generate_series(1, 20000) AS s(i)",
        ],
    )
    .await?;
    let all = [
        "SELECT count(*), sum(v), sum(k * v) FROM t",
        "SELECT count(*), sum(v), sum(k * v) FROM u",
        "SELECT count(*), sum(w), sum(k * w) FROM large",
        "SELECT count(*), sum(n), sum(g * s) FROM sums",
        "SELECT count(*), sum(v), sum(k * w) FROM pairs",
    ];
    for round in 0..4 {
        let mut session = machine.session();
        let checkpoint = tokio::spawn(async move { run(&mut session, "CHECKPOINT").await });
        let mut session = machine.session();
        let first = 30_000 + 1000 * round;
        let changes = [
            format!("UPDATE t SET v = v + 1 WHERE k % 3 = {}", round % 3),
            format!("DELETE FROM u WHERE k % 40 = {round}"),
            format!("INSERT INTO t SELECT i, {round} FROM generate_series({first}, {first} + 499) AS s(i)"),
            format!("UPDATE u SET v = v + 2 WHERE k % 7 = {round}"),
            format!("INSERT INTO u SELECT i, {round} FROM generate_series({first}, {first} + 499) AS s(i)"),
            format!("DELETE FROM t WHERE k % 50 = {round}"),
        ];
        for change in &changes {
            run(&mut session, change).await?;
        }
        checkpoint.await.map_err(|error| error.to_string())??;
        let mut before = Vec::new();
        for sql in all {
            before.push(lines(&mut session, sql).await?);
        }
        drop(session);
        machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(round)).await?;
        let mut session = machine.session();
        for (sql, before) in all.iter().zip(before) {
            let after = lines(&mut session, sql).await?;
            ensure(before == after, || format!("{sql}: {before:?} was there, {after:?} is"))?;
        }
        // The setting is the process's.
        run(&mut session, "SET checkpoint_interval = 'off'").await?;
    }
    Ok(())
}

/// Overlapping statements without end, each applied in pieces, delay no checkpoint.
async fn beside_large_statements() -> Result<()> {
    const ROWS: usize = 40_000;
    let machine = Machine::start(Engine::builder)?;
    run(&mut machine.session(), "SET checkpoint_interval = 'off'").await?;
    let end = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 0..4 {
        let table = format!("CREATE TABLE t{number} (k BIGINT PRIMARY KEY, v BIGINT)");
        let rows = format!("INSERT INTO t{number} SELECT i, 0 FROM generate_series(1, {ROWS}) g(i)");
        run_all(&mut machine.session(), &[&table, &rows]).await?;
        let (mut session, end) = (machine.session(), end.clone());
        writers.push(tokio::spawn(async move {
            let mut rounds: usize = 0;
            while !end.load(Ordering::SeqCst) {
                run(&mut session, &format!("UPDATE t{number} SET v = v + 1")).await?;
                rounds += 1;
            }
            Ok::<_, String>(rounds)
        }));
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut session = machine.session();
        let checkpoint = run(&mut session, "CHECKPOINT");
        taken.push(tokio::time::timeout(Duration::from_secs(20), checkpoint).await);
    }
    end.store(true, Ordering::SeqCst);
    let mut all = 0;
    for (number, writer) in writers.into_iter().enumerate() {
        let rounds = writer.await.map_err(|error| error.to_string())??;
        expect(
            &mut machine.session(),
            &format!("SELECT sum(v) FROM t{number}"),
            &[&(rounds * ROWS).to_string()],
        )
        .await?;
        all += rounds;
    }
    ensure(all >= 8, || format!("only {all} statements were done"))?;
    let taken: Result<Vec<_>, _> = taken.into_iter().collect();
    for checkpoint in taken.map_err(|_| "a checkpoint is put off by statements".to_string())? {
        checkpoint?;
    }
    Ok(())
}
