//! A cut is a plain value: a second engine that replays the recorded cuts has the same views after each of
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use millstream_engine::{Engine, Record, Session};
use millstream_testkit::drive::{self, Result, ensure, run};
use millstream_testkit::oracle::compare;

use super::{Scenario, folder, write};

pub const ALL: &[Scenario] = &[
    ("cuts_of_tables_are_replayed", || drive::block_on(tables())),
    ("cuts_of_files_are_replayed", || drive::block_on(files())),
    ("cuts_of_files_and_tables_are_replayed", || drive::block_on(both())),
    ("cuts_of_feeds_are_replayed", || drive::block_on(feeds())),
];

/// A run to record: its DDL, then acts of one or more statements, each followed by a batch.
struct Play {
    ddl: Vec<String>,
    views: Vec<&'static str>,
    acts: Vec<&'static [&'static str]>,
    /// The number of batches at the end.
    batches_after: usize,
}

const TABLE_DDL: &[&str] = &[
    "CREATE TABLE t (id INT PRIMARY KEY, word TEXT, x DOUBLE)",
    "CREATE TABLE log (word TEXT, n INT)",
    "CREATE MATERIALIZED VIEW sums AS SELECT word, sum(x) AS s, count(*) AS c FROM t GROUP BY word",
    "CREATE MATERIALIZED VIEW pairs AS SELECT t.id, log.n FROM t LEFT JOIN log ON t.word = log.word",
    "CREATE MATERIALIZED VIEW top AS SELECT word, n FROM log ORDER BY n DESC LIMIT 2",
];

const TABLE_ACTS: &[&[&str]] = &[
    &["INSERT INTO t VALUES (1, 'be', 0.1), (2, 'to', 0.2), (3, 'be', 0.3)"],
    &["INSERT INTO log VALUES ('be', 1), ('be', 1), ('or', 5)"],
    &["UPDATE t SET x = x * 3, word = 'or' WHERE id = 3"],
    &["DELETE FROM log WHERE n = 1"],
    &["INSERT INTO t VALUES (1, 'not', 7)"],
    // Rows that are inserted and deleted within one epoch.
    &[
        "INSERT INTO t VALUES (4, 'be', 1)",
        "INSERT INTO t VALUES (4, 'to', 2)",
        "UPDATE t SET x = x + 1",
        "INSERT INTO log VALUES ('gone', 9), ('stays', 4)",
        "DELETE FROM log WHERE word = 'gone'",
    ],
    &[
        "INSERT INTO log SELECT word, id FROM t",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (2, 'again', 0)",
    ],
    &["DELETE FROM t"],
];

/// Runs the play, records it, and runs the record through a second engine.
async fn replayed(play: &Play) -> Result<()> {
    let records: Arc<Mutex<Vec<Record>>> = Arc::default();
    let seen = records.clone();
    let first = Engine::builder()
        .recorder(move |record| {
            if let Ok(mut seen) = seen.lock() {
                seen.push(record.clone());
            }
        })
        .start()
        .map_err(|error| error.to_string())?;
    let mut session = first.session();
    prepare(&mut session, play).await?;
    let count = || records.lock().map(|records| records.len()).map_err(|error| error.to_string());
    // The content of the views, by the number of epochs.
    let mut history: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
    history.insert(count()?, contents(&mut session, play).await?);
    for act in play.acts.iter().map(Some).chain((0..play.batches_after).map(|_| None)) {
        for sql in act.copied().unwrap_or_default() {
            run(&mut session, sql).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        history.insert(count()?, contents(&mut session, play).await?);
    }
    first.stop().await.map_err(|error| error.to_string())?;
    let records = records.lock().map_err(|error| error.to_string())?.clone();
    ensure(records.len() >= play.acts.len(), || format!("only {} epochs were recorded", records.len()))?;

    let second = Engine::start().map_err(|error| error.to_string())?;
    let mut session = second.session();
    prepare(&mut session, play).await?;
    for (number, record) in records.into_iter().enumerate() {
        second
            .replay(record)
            .await
            .map_err(|error| format!("epoch {} can't be replayed: {error}", number + 1))?;
        let Some(expected) = history.get(&(number + 1)) else { continue };
        let found = contents(&mut session, play).await?;
        for ((view, found), expected) in play.views.iter().zip(&found).zip(expected) {
            if let Some(difference) = compare::difference(found, expected)? {
                let difference = difference.replace("the batch answer", "the first run");
                return Err(format!("{view} after epoch {} of the replay:\n{difference}", number + 1));
            }
        }
    }
    let last = history.values().last().cloned().unwrap_or_default();
    ensure(last.iter().any(|view| view.num_rows() > 0), || "nothing was in any view at the end".into())?;
    second.stop().await.map_err(|error| error.to_string())
}

async fn prepare(session: &mut Session, play: &Play) -> Result<()> {
    run(session, "SET clock = 'manual'").await?;
    run(session, "SET max_batch_rows = 3").await?;
    for sql in &play.ddl {
        run(session, sql).await?;
    }
    Ok(())
}

async fn contents(session: &mut Session, play: &Play) -> Result<Vec<RecordBatch>> {
    let mut contents = Vec::new();
    for view in &play.views {
        contents.push(drive::rows(session, &format!("SELECT * FROM {view}")).await?);
    }
    Ok(contents)
}

async fn tables() -> Result<()> {
    let ddl = TABLE_DDL.iter().map(|sql| (*sql).to_string()).collect();
    // The last act empties t; without it there is something to compare at the end.
    let acts = TABLE_ACTS[..TABLE_ACTS.len() - 1].to_vec();
    replayed(&Play { ddl, views: vec!["sums", "pairs", "top", "t", "log"], acts, batches_after: 1 }).await
}

fn file_ddl(folder: &std::path::Path) -> Vec<String> {
    vec![
        format!(
            "CREATE SOURCE lines WITH (connector = 'file', path = '{}', format = 'text', bounded = true)",
            folder.display()
        ),
        "CREATE MATERIALIZED VIEW counts AS
         SELECT word, count(*) AS n FROM lines, UNNEST(string_to_array(line, ' ')) AS u(word) GROUP BY word"
            .into(),
        "CREATE MATERIALIZED VIEW longest AS SELECT max(length(line)) AS l, min(line) AS first FROM lines"
            .into(),
        "CREATE STREAM per_batch AS SELECT now() AS at, count(*) AS n FROM lines FOR EACH BATCH".into(),
        "CREATE STREAM windowed AS SELECT word, count(*) AS n, max(_batch_id) AS newest
         FROM LAST(lines, INTERVAL '6 ms', INTERVAL '2 ms'), UNNEST(string_to_array(line, ' ')) AS u(word)
         GROUP BY word FOR EACH BATCH"
            .into(),
    ]
}

fn write_lines(folder: &std::path::Path) -> Result<()> {
    write(folder, "a.txt", "to be or not to be\nthat is\nthe question\nwhether\n")?;
    write(folder, "b.txt", "tis nobler\nin the mind\nto suffer\nthe slings and arrows\n")
}

async fn files() -> Result<()> {
    let folder = folder()?;
    write_lines(folder.path())?;
    let ddl = file_ddl(folder.path());
    replayed(&Play {
        ddl,
        views: vec!["counts", "longest", "per_batch", "windowed"],
        acts: vec![],
        batches_after: 20,
    })
    .await
}

async fn both() -> Result<()> {
    let folder = folder()?;
    write_lines(folder.path())?;
    let mut ddl = file_ddl(folder.path());
    ddl.extend(TABLE_DDL.iter().map(|sql| (*sql).to_string()));
    ddl.push("CREATE MATERIALIZED VIEW joined AS SELECT l.line, t.x FROM lines AS l, t WHERE l.line LIKE '%' || t.word || '%'".into());
    ddl.push(
        "CREATE STREAM changed AS SELECT _op, id, word, now() AS at FROM CHANGES(t) FOR EACH BATCH".into(),
    );
    let views =
        vec!["counts", "longest", "sums", "pairs", "top", "joined", "per_batch", "windowed", "changed"];
    replayed(&Play { ddl, views, acts: TABLE_ACTS.to_vec(), batches_after: 10 }).await
}

/// The content of a change feed is a function of the cuts, too.
async fn feeds() -> Result<()> {
    let folder = folder()?;
    write(
        folder.path(),
        "a.json",
        "{\"id\": 1, \"x\": 1}\n{\"id\": 2, \"x\": 2}\n{\"_op\": \"delete\", \"id\": 3}\n{\"id\": 1}\n",
    )?;
    write(
        folder.path(),
        "b.json",
        "{\"_op\": \"delete\", \"id\": 1}\n{\"id\": 3, \"x\": 3}\n{\"id\": 4, \"x\": 3}\n{\"id\": 3}\n",
    )?;
    let source = format!(
        "CREATE SOURCE f (id INT PRIMARY KEY, x INT)
         WITH (connector = 'file', path = '{}', format = 'upsert_json', bounded = true)",
        folder.path().display()
    );
    let ddl = vec![
        source,
        "CREATE MATERIALIZED VIEW sums AS SELECT x, count(*) AS c, sum(id) AS s FROM f GROUP BY x".into(),
        "CREATE STREAM changed AS SELECT _op, id, x, now() AS at FROM CHANGES(f) FOR EACH BATCH".into(),
    ];
    let acts: Vec<&'static [&'static str]> =
        vec![&[], &["INSERT INTO f VALUES (2, 20), (9, 90)"], &[], &["INSERT INTO f VALUES (9, 91)"]];
    replayed(&Play { ddl, views: vec!["f", "sums", "changed"], acts, batches_after: 4 }).await
}
