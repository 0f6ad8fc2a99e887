//! The catalog in a checkpoint: the statements that created the existing objects, and nothing of dropped
//! ones.

use millstream_durable::Disk;
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::crashes::{difference, run_script};
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("what_is_dropped_leaves_the_catalog", || drive::block_on(dropped())),
    ("a_catalog_of_any_history_comes_back", || drive::block_on(histories())),
    ("a_script_knows_what_it_did_without_its_text", || drive::block_on(script())),
    ("a_script_sees_the_types_of_its_last_statement", || drive::block_on(types())),
];

/// Returns the size of the newest checkpoint's catalog.
pub(super) fn catalog_bytes(machine: &Machine) -> Result<usize> {
    let names = machine.disk.list().map_err(|error| error.to_string())?;
    let newest = names.iter().rfind(|name| name.ends_with("-catalog.entries")).ok_or("there is none")?;
    machine.disk.read(newest).map(|bytes| bytes.len()).map_err(|error| error.to_string())
}

async fn dropped() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (x INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t",
            "CHECKPOINT",
        ],
    )
    .await?;
    let before = catalog_bytes(&machine)?;
    let mut group = String::new();
    for n in 0..250 {
        group.push_str(&format!(
            "CREATE TABLE gone_{n} (x INT); CREATE MATERIALIZED VIEW of_{n} AS SELECT sum(x) AS s FROM gone_{n};
             DROP TABLE gone_{n} CASCADE; CREATE VIEW w_{n} AS SELECT x FROM t; DROP VIEW w_{n};"
        ));
        if n % 25 == 24 {
            run_script(&mut session, &group).await?;
            group.clear();
            run(&mut session, &format!("SET max_batch_rows = {}", n + 1)).await?;
            run(&mut session, "CREATE TABLE again (x INT)").await?;
            run_all(&mut session, &["PAUSE m", "RESUME m", "DROP TABLE again"]).await?;
        }
    }
    run_all(&mut session, &["INSERT INTO t VALUES (1), (2)", "CHECKPOINT"]).await?;
    let after = catalog_bytes(&machine)?;
    // Settings, and the paused state, take little space.
    ensure(after < before + 400, || format!("the catalog had {before} bytes and has {after}"))?;
    machine.crash(&mut random).await?;
    let mut session = machine.session();
    expect(&mut session, "SELECT n FROM m", &["2"]).await?;
    expect(&mut session, "SHOW max_batch_rows", &["250"]).await?;
    expect(&mut session, "SELECT name FROM millstream.tables", &["t"]).await
}

/// Returns statements on few names, so that many of them conflict.
fn statement(random: &mut SmallRng) -> String {
    let (a, b) = (random.random_range(0..3), random.random_range(0..3));
    let x = random.random_range(0..5);
    match random.random_range(0..31) {
        0 => format!("DROP TABLE t{a} CASCADE"),
        1 => format!("DROP MATERIALIZED VIEW IF EXISTS v{a} CASCADE"),
        2 => format!("DROP SINK k{a}"),
        3 => format!("CREATE OR REPLACE FUNCTION f{a}(x INT) RETURNS INT RETURN x + {x}"),
        4 | 5 => format!("CREATE TABLE IF NOT EXISTS t{a} (x INT, ts TIMESTAMP)"),
        6 => format!(
            "CREATE MATERIALIZED VIEW v{a} AS SELECT f{b}(x) AS y, count(*) AS n FROM t{b} GROUP BY f{b}(x)"
        ),
        7 => format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v{a} AS SELECT x % 2 AS y, count(*) AS n FROM t{b} GROUP BY x % 2"
        ),
        8 => format!("CREATE MATERIALIZED VIEW v{a} AS SELECT y, sum(n) AS n FROM v{b} GROUP BY y"),
        9 | 10 => format!("CREATE SINK k{a} INTO t{a} (x) AS SELECT x FROM t{b}"),
        11 => format!("ALTER TABLE t{a} SET WATERMARK FOR ts AS ts - INTERVAL '{x} seconds'"),
        12 => format!("ALTER TABLE t{a} DROP WATERMARK"),
        13 => format!("PAUSE v{a}"),
        14 => format!("RESUME {}", if x == 0 { "ALL".into() } else { format!("v{a}") }),
        15 => format!("SET on_error = '{}'", if x < 2 { "keep" } else { "fail" }),
        16 => format!("DELETE FROM t{a} WHERE x = {x}"),
        17 | 18 => format!(
            "ALTER MATERIALIZED VIEW v{a} AS SELECT x % {} AS y, count(*) AS n FROM t{b} GROUP BY x % {0}",
            x + 2
        ),
        19 => format!(
            "CREATE OR REPLACE MATERIALIZED VIEW v{a} WITH (on_error = 'keep') AS SELECT f{b}(x) AS y, count(*) AS n \
             FROM t{b} WHERE x > {x} GROUP BY f{b}(x)"
        ),
        20 => format!("ALTER TABLE t{a} RENAME TO t{b}"),
        21 => format!("ALTER MATERIALIZED VIEW v{a} RENAME TO v{b}"),
        22 => format!("ALTER SINK k{a} RENAME TO k{b}"),
        23 | 24 => format!("ALTER TABLE t{a} ADD COLUMN c{b} INT DEFAULT {x}"),
        25 => format!("CREATE VIEW p{a} AS SELECT * FROM t{b}"),
        26 => format!("CREATE MATERIALIZED VIEW IF NOT EXISTS w{a} AS SELECT * FROM p{b}"),
        27 => format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS w{a} AS SELECT t.*, v.n FROM t{b} t JOIN v{a} v ON t.x = v.y"
        ),
        _ => {
            format!("INSERT INTO t{a} (x, ts) VALUES ({x}, TIMESTAMP '2024-05-01' + INTERVAL '{x} minutes')")
        }
    }
}

/// Returns the objects as a session sees them.
async fn shown(session: &mut Session) -> Result<Vec<String>> {
    let mut shown = vec!["SHOW VIEWS".to_string(), "SELECT name, target FROM millstream.sinks".to_string()];
    for names in ["SELECT name FROM millstream.tables", "SHOW VIEWS", "SHOW MATERIALIZED VIEWS"] {
        let names = lines(session, names).await?;
        let names = names.iter().filter_map(|line| line.split('|').next());
        shown.extend(names.map(|name| format!("SELECT * FROM {name}")));
    }
    Ok(shown)
}

async fn histories() -> Result<()> {
    for seed in seeds(&[0, 1, 2], 0..10) {
        history(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Compares the result of many statements with an in-memory engine that ran the same ones.
async fn history(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start(Engine::builder)?;
    let memory = Engine::start().map_err(|error| error.to_string())?;
    let mut model = memory.session();
    for round in 0..6 {
        let mut told = Vec::new();
        for _ in 0..random.random_range(5..40) {
            let sql = statement(&mut random);
            let mine = run(&mut machine.session(), &sql).await;
            let expected = run(&mut model, &sql).await;
            ensure(mine.is_ok() == expected.is_ok(), || format!("{sql}: {mine:?}, but {expected:?}"))?;
            if mine.is_ok() {
                told.push(sql);
            }
        }
        let numbers = "SELECT relname, oid FROM pg_catalog.pg_class";
        let before = lines(&mut machine.session(), numbers).await?;
        run(&mut machine.session(), "CHECKPOINT").await?;
        let bytes = catalog_bytes(&machine)?;
        // At most nine queries, each with a plan of up to four kilobytes.
        ensure(bytes < 45_000, || format!("round {round}: the catalog has {bytes} bytes"))?;
        machine.crash(&mut random).await?;
        expect(&mut machine.session(), numbers, &before.iter().map(String::as_str).collect::<Vec<_>>())
            .await?;
        let shown = shown(&mut model).await?;
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        if let Some(wrong) = difference(&mut machine.session(), &mut model, &shown).await? {
            return Err(format!("round {round}, after {told:#?}: {wrong}"));
        }
    }
    Ok(())
}

/// The recorded names of script statements are short, whatever their texts.
async fn script() -> Result<()> {
    let rows: Vec<String> = (0..500).map(|x| format!("({x})")).collect();
    let script = format!(
        "CREATE TABLE t (x INT); CREATE TABLE old (x INT);
         INSERT INTO t VALUES {0}; INSERT INTO t VALUES {0};
         DROP TABLE old;",
        rows.join(", ")
    );
    let mut random = SmallRng::seed_from_u64(2);
    let mut machine = Machine::start(Engine::builder)?;
    run_script(&mut machine.session(), &script).await?;
    for checkpoint in [true, false, true] {
        if checkpoint {
            run(&mut machine.session(), "CHECKPOINT").await?;
            let names = machine.disk.list().map_err(|error| error.to_string())?;
            let newest = names.iter().rfind(|name| name.ends_with(".checkpoint")).ok_or("there is none")?;
            let bytes = machine.disk.read(newest).map_err(|error| error.to_string())?;
            ensure(!String::from_utf8_lossy(&bytes).contains("INSERT"), || "it holds a statement".into())?;
        }
        machine.crash(&mut random).await?;
        let answers = run_script(&mut machine.session(), &script).await?;
        let again = answers.iter().filter(|answer| answer.contains("is not run again")).count();
        ensure(again == 2, || format!("{answers:#?}"))?;
        expect(&mut machine.session(), "SELECT count(*) FROM t", &["1000"]).await?;
    }
    Ok(())
}

/// A dropped type, or one whose creation failed, is gone for the next statement; a created one is there.
async fn types() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(3);
    for (script, expected) in [
        ("DROP TYPE mood; CREATE TABLE gone (m mood)", "not found"),
        ("CREATE SCHEMA s; DROP TYPE mood; CREATE TABLE s.gone (m mood)", "not found"),
        (
            "CREATE SCHEMA s; CREATE TYPE s.hue AS ENUM ('red'); DROP SCHEMA s CASCADE;
             CREATE TABLE gone (m s.hue)",
            "not found",
        ),
        ("CREATE TABLE odd (x INT); CREATE TYPE odd AS ENUM ('a')", "already exists"),
    ] {
        for crashes in [false, true] {
            let mut machine = Machine::start(Engine::builder)?;
            let before = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (m mood); DROP TABLE t";
            run_script(&mut machine.session(), before).await?;
            if crashes {
                machine.crash(&mut random).await?;
            }
            let mut session = machine.session();
            let error = run_script(&mut session, script).await.err().unwrap_or_default();
            ensure(error.contains(expected), || format!("{script}: {error}"))?;
            let error = run(&mut session, "CREATE TABLE gone (m odd)").await.err().unwrap_or_default();
            ensure(error.contains("not found"), || error)?;
        }
    }
    Ok(())
}
