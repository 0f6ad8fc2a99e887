//! Change feeds: with any split into files, a source of changes holds what a map would, and so do the queries
//! over it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{
    self, Result, ensure, expect_soon, lines, run, run_all, seeds, within_a_minute,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Scenario, folder, write};

pub const ALL: &[Scenario] = &[
    ("a_feed_of_upserts_is_as_a_map", || drive::block_on(as_a_map(Format::Upsert))),
    ("a_feed_of_debezium_is_as_a_map", || drive::block_on(as_a_map(Format::Debezium))),
    ("what_sinks_write_as_feeds_is_read_back", || drive::block_on(round_trip())),
    ("a_feed_over_a_connection", || drive::block_on(connection())),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Upsert,
    Debezium,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Upsert => "upsert_json",
            Format::Debezium => "debezium_json",
        }
    }
}

/// An action of a feed, and its effect on a map.
#[derive(Clone, Debug)]
enum Act {
    Put(i64, String, Option<i64>),
    Delete(i64),
    Garbage(&'static str),
}

/// The rows by key, and the number of bad records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    rows: BTreeMap<i64, (String, Option<i64>)>,
    bad: usize,
}

impl Model {
    fn apply(&mut self, act: &Act) {
        match act {
            Act::Put(key, name, n) => drop(self.rows.insert(*key, (name.clone(), *n))),
            Act::Delete(key) => self.bad += usize::from(self.rows.remove(key).is_none()),
            Act::Garbage(_) => self.bad += 1,
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = |n: &Option<i64>| n.map_or("NULL".to_string(), |n| n.to_string());
        let mut lines: Vec<String> =
            self.rows.iter().map(|(key, (name, n))| format!("{key}|{name}|{}", text(n))).collect();
        lines.sort();
        lines
    }
}

fn act(random: &mut SmallRng) -> Act {
    let key = random.random_range(0..10);
    match random.random_range(0..20) {
        0..=11 => Act::Put(
            key,
            ["a", "b", "c"][random.random_range(0..3)].to_string(),
            (random.random_range(0..4) > 0).then(|| random.random_range(-3..3)),
        ),
        12..=18 => Act::Delete(key),
        _ => Act::Garbage(
            [
                "nonsense",
                r#"{"_op": "delete", "op": "d", "before": {"id": null}}"#,
                r#"{"_op": "put", "op": "x", "id": 1, "name": "a", "after": {"id": 1, "name": "a"}}"#,
                r#"{"id": "one", "name": "a", "op": "c", "after": {"id": "one", "name": "a"}}"#,
                r#"{"id": 1, "name": null, "op": "u", "after": {"id": 1}}"#,
            ][random.random_range(0..5)],
        ),
    }
}

/// Returns a record of the action, in one of its possible forms.
fn record(act: &Act, format: Format, random: &mut SmallRng) -> String {
    let row = |key: &i64, name: &str, n: &Option<i64>| match n {
        Some(n) => format!(r#"{{"id": {key}, "name": "{name}", "n": {n}, "more": [1]}}"#),
        None => format!(r#"{{"name": "{name}", "id": {key}}}"#),
    };
    let event = match (act, format) {
        (Act::Garbage(text), _) => return (*text).to_string(),
        (Act::Delete(key), Format::Upsert) => {
            return format!(
                r#"{{"id": {key}, "_op": "{}"}}"#,
                ["delete", "d", "DELETE"][random.random_range(0..3)]
            );
        }
        (Act::Put(key, name, n), Format::Upsert) => {
            let row = row(key, name, n);
            let op = ["", r#""_op": null, "#, r#""_op": "upsert", "#, r#""_op": "insert", "#];
            return row.replacen('{', &format!("{{{}", op[random.random_range(0..4)]), 1);
        }
        (Act::Delete(key), Format::Debezium) => {
            format!(r#"{{"before": {{"id": {key}, "name": 7}}, "after": null, "op": "d"}}"#)
        }
        // The `before` of a record is ignored.
        (Act::Put(key, name, n), Format::Debezium) => {
            let op = ["c", "r", "u"][random.random_range(0..3)];
            let before = ["null", r#"{"id": 3, "n": 9}"#][random.random_range(0..2)];
            format!(r#"{{"before": {before}, "after": {}, "op": "{op}"}}"#, row(key, name, n))
        }
    };
    match random.random_range(0..2) {
        0 => event,
        _ => format!(r#"{{"schema": {{"type": "struct", "fields": []}}, "payload": {event}}}"#),
    }
}

const VIEWS: [(&str, &str); 6] = [
    ("groups", "SELECT name, count(*) AS c, sum(n) AS s, min(n) AS lo, max(id) AS hi FROM f GROUP BY name"),
    ("total", "SELECT count(*) AS c, count(n) AS n, sum(n) AS s FROM f"),
    ("pairs", "SELECT a.id, b.id AS other FROM f AS a LEFT JOIN f AS b ON a.n = b.id"),
    ("top", "SELECT id, name FROM f ORDER BY n DESC NULLS LAST, id LIMIT 3"),
    ("ranked", "SELECT id, row_number() OVER (PARTITION BY name ORDER BY n, id) AS place FROM f"),
    ("known", "SELECT f.id, t.extra FROM f JOIN t ON f.id = t.id WHERE f.n IS NOT NULL"),
];

async fn as_a_map(format: Format) -> Result<()> {
    for seed in seeds(&[0], 0..3) {
        one_feed(format, seed).await.map_err(|error| format!("{format:?}, seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn one_feed(format: Format, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = folder()?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "SET clock = 'manual'").await?;
    run(&mut session, &format!("SET max_batch_rows = {}", random.random_range(1..30))).await?;
    let source = format!(
        "CREATE SOURCE f (id BIGINT PRIMARY KEY, name TEXT NOT NULL, n BIGINT)
         WITH (connector = 'file', path = '{}', format = '{}')",
        folder.path().display(),
        format.name()
    );
    run(&mut session, &source).await?;
    run(&mut session, "CREATE TABLE t (id BIGINT PRIMARY KEY, extra TEXT)").await?;
    run(&mut session, "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (5, 'z')").await?;
    let late = random.random_range(0..VIEWS.len());
    for (name, sql) in &VIEWS[late..] {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await?;
    }
    // The content of a map after each record.
    let mut models = vec![Model::default()];
    for file in 0..random.random_range(3..8) {
        let mut text = String::new();
        for _ in 0..random.random_range(0..40) {
            let act = act(&mut random);
            let mut model = models.last().cloned().unwrap_or_default();
            model.apply(&act);
            models.push(model);
            let _ = writeln!(text, "{}", record(&act, format, &mut random));
            if format == Format::Debezium && random.random_range(0..8) == 0 {
                text.push_str("null\n");
            }
        }
        write(folder.path(), &format!("{file:03}.json"), &text)?;
        for _ in 0..random.random_range(1..5) {
            run(&mut session, "ADVANCE BATCH").await?;
            // Queries cost more than batches, so only some views are checked after each.
            let some = random.random_range(late..VIEWS.len());
            check(&mut session, &models, &VIEWS[some..=some]).await?;
        }
    }
    for (name, sql) in &VIEWS[..late] {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await?;
    }
    while check(&mut session, &models, &[]).await? + 1 < models.len() {
        run(&mut session, "ADVANCE BATCH").await?;
    }
    check(&mut session, &models, &VIEWS).await?;
    for (name, _) in VIEWS {
        let wrong = lines(&mut session, &format!("VERIFY {name}")).await?;
        ensure(wrong.is_empty(), || format!("{name} at the end: {wrong:?}"))?;
    }
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// Compares the source and the views with the map after the same number of records; returns that number.
async fn check(session: &mut Session, models: &[Model], views: &[(&str, &str)]) -> Result<usize> {
    let taken = lines(session, "SELECT rows, bad_rows FROM millstream.sources WHERE name = 'f'").await?;
    let taken: Vec<usize> = taken.iter().flat_map(|line| line.split('|')).flat_map(str::parse).collect();
    let [rows, bad] = taken[..] else { return Err(format!("there is one source: {taken:?}")) };
    let model = models.get(rows + bad).ok_or_else(|| format!("{rows} rows and {bad} bad rows were taken"))?;
    ensure(bad == model.bad, || format!("{bad} bad rows after {} records, not {}", rows + bad, model.bad))?;
    let held = lines(session, "SELECT id, name, n FROM f").await?;
    ensure(held == model.lines(), || format!("after {} records: {held:?}, not {model:?}", rows + bad))?;
    for (name, sql) in views {
        let (kept, once) =
            (lines(session, &format!("SELECT * FROM {name}")).await?, lines(session, sql).await?);
        ensure(kept == once, || format!("{name} after {} records: {kept:?}, not {once:?}", rows + bad))?;
    }
    Ok(rows + bad)
}

fn read_back(name: &str, path: &Path, format: &str) -> String {
    format!(
        "CREATE SOURCE {name} (id BIGINT PRIMARY KEY, name TEXT, n BIGINT)
         WITH (connector = 'file', path = '{}', format = '{format}')",
        path.display()
    )
}

/// Two sinks write the changes of a table, and two sources read them back while the table changes.
async fn round_trip() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(7);
    let folder = folder()?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, n BIGINT)").await?;
    run(&mut session, "INSERT INTO t VALUES (100, 'there before', 1)").await?;
    for (name, format) in [("u", "upsert_json"), ("d", "debezium_json")] {
        let path = folder.path().join(name);
        let sink = format!(
            "CREATE SINK {name} FROM t WITH (connector = 'file', path = '{}', format = '{format}')",
            path.display()
        );
        run_all(&mut session, &[&sink, &read_back(&format!("{name}_back"), &path, format)]).await?;
    }
    for _ in 0..60 {
        let key = random.random_range(0..8);
        let sql = match random.random_range(0..4) {
            0 => format!("DELETE FROM t WHERE id % 5 = {}", key % 5),
            1 => format!("UPDATE t SET n = n + 1 WHERE id >= {key}"),
            _ => format!("INSERT INTO t VALUES ({key}, 'x{}', {key}), ({}, NULL, NULL)", key % 3, key + 1),
        };
        run(&mut session, &sql).await?;
    }
    run(&mut session, "INSERT INTO t VALUES (200, 'the end', 2)").await?;
    let all = lines(&mut session, "SELECT * FROM t").await?;
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for back in ["u_back", "d_back"] {
        expect_soon(&mut session, &format!("SELECT * FROM {back}"), &all).await?;
        let bad = lines(&mut session, &format!("SELECT * FROM bad_rows('{back}')")).await?;
        ensure(bad.is_empty(), || format!("{back} has bad rows: {bad:?}"))?;
    }
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// A feed that is not replayable: a query created later has its current rows all the same.
async fn connection() -> Result<()> {
    let io = |error: std::io::Error| error.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io)?;
    let port = listener.local_addr().map_err(io)?.port();
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE f (id INT PRIMARY KEY, name TEXT)
         WITH (connector = 'socket', host = '127.0.0.1', port = {port}, format = 'upsert_json')"
    );
    run(&mut session, &source).await?;
    // The source keeps rows, so the engine reads it even though nothing depends on it.
    let (mut stream, _) = listener.accept().map_err(io)?;
    stream
        .write_all(b"{\"id\": 1, \"name\": \"a\"}\n{\"id\": 2, \"name\": \"b\"}\n{\"_op\": \"del")
        .map_err(io)?;
    expect_soon(&mut session, "SELECT * FROM f", &["1|a", "2|b"]).await?;
    stream.write_all(b"ete\", \"id\": 1}\n{\"_op\": \"delete\", \"id\": 9}\n").map_err(io)?;
    expect_soon(&mut session, "SELECT * FROM f", &["2|b"]).await?;
    run(&mut session, "CREATE MATERIALIZED VIEW late AS SELECT count(*) AS c, max(name) AS m FROM f").await?;
    expect_soon(&mut session, "SELECT * FROM late", &["1|b"]).await?;
    let bad = "SELECT split LIKE '127.0.0.1:%', position, reason, CAST(bytes AS STRING) FROM bad_rows('f')";
    let expected = "true|73|there is no row to delete with the key id = 9|{\"_op\": \"delete\", \"id\": 9}";
    expect_soon(&mut session, bad, &[expected]).await?;
    stream.write_all(b"{\"id\": 2, \"name\": \"c\"}\n").map_err(io)?;
    expect_soon(&mut session, "SELECT * FROM late", &["1|c"]).await?;
    let verified = lines(&mut session, "VERIFY late").await?;
    ensure(verified.is_empty(), || format!("{verified:?}"))?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}
