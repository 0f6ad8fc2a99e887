//! What lies in a checkpoint.

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run_all};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::machine::Machine;
use super::{Scenario, folder};

pub const ALL: &[Scenario] = &[
    ("state_is_read_as_parquet", || drive::block_on(readable())),
    ("a_checkpoint_has_what_has_changed", || drive::block_on(what_has_changed())),
];

/// Of 100,000 rows and groups few change: a checkpoint writes few, and an engine goes on from all of them.
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
    // It goes on as if nothing had happened, with a checkpoint of everything.
    run_all(&mut session, &["DELETE FROM t WHERE k > 10", "CHECKPOINT"]).await?;
    expect(&mut session, "SELECT count(*), sum(n) FROM sums", &["9|9"]).await?;
    let whole = "SELECT bytes = named_bytes FROM millstream.checkpoints";
    expect(&mut session, whole, &["true"]).await
}

/// What a checkpoint holds is Parquet for everyone: here for another engine.
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
