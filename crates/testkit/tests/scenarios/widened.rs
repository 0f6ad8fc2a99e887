//! Adding columns to tables while queries run: earlier queries continue as if nothing had changed, through
//! crashes.

use std::collections::BTreeMap;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, fetch, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::crashes::{difference, run_script};
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("what_was_made_before_a_column_goes_on_without_it", || drive::block_on(widened())),
    ("a_column_comes_in_its_place_among_what_is_made", || drive::block_on(places())),
    ("a_script_finds_the_column_that_it_added", || drive::block_on(script())),
    ("a_transaction_that_changed_a_table_can_not_commit_beside_a_new_column", || {
        drive::block_on(transactions())
    }),
    ("what_no_epoch_has_taken_in_has_the_default_of_a_new_column", || drive::block_on(staged())),
    ("a_query_over_a_table_with_a_new_column_is_not_computed_again", || drive::block_on(kept())),
    ("readers_of_a_table_go_on_with_the_columns_they_know", || drive::block_on(readers())),
    ("what_a_table_held_has_the_default_of_a_new_column", || drive::block_on(history())),
];

/// Objects created before any column is added.
const OBJECTS: &[&str] = &[
    "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
    "CREATE TABLE u (v INT)",
    "CREATE TABLE e (ts TIMESTAMP, v INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY",
    "CREATE TABLE copy (g INT PRIMARY KEY, n BIGINT)",
    "CREATE VIEW w AS SELECT * FROM t WHERE k > 2",
    "CREATE MATERIALIZED VIEW m AS SELECT v AS g, count(*) AS n FROM t GROUP BY v",
    "CREATE MATERIALIZED VIEW all_of AS SELECT * FROM t",
    "CREATE MATERIALIZED VIEW joined AS SELECT w.*, u.v AS uv FROM w JOIN u ON u.v = w.v",
    "CREATE MATERIALIZED VIEW joined_too AS SELECT t.k, u.v FROM t JOIN u ON u.v = t.v",
    "CREATE MATERIALIZED VIEW ranked AS SELECT *, rank() OVER (PARTITION BY v ORDER BY k) AS r FROM t",
    "CREATE STREAM closed AS SELECT window_start AS w, sum(v) AS s FROM TUMBLE(e, ts, INTERVAL '10 seconds') \
     GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    "CREATE SINK copying INTO copy FROM m",
];

/// Queries of their rows; of tables, the original columns.
const SHOWN: &[&str] = &[
    "SELECT k, v FROM t",
    "SELECT v FROM u",
    "SELECT ts, v FROM e",
    "SELECT g, n FROM copy",
    "SELECT * FROM w",
    "SELECT * FROM m",
    "SELECT * FROM all_of",
    "SELECT * FROM joined",
    "SELECT * FROM joined_too",
    "SELECT * FROM ranked",
    "SELECT * FROM closed",
];

const TABLES: &[&str] = &["t", "u", "e", "copy"];

/// Returns a change that uses the original columns only.
fn change(random: &mut SmallRng, second: &mut i64) -> String {
    let (k, v) = (random.random_range(0..12), random.random_range(0..4));
    match random.random_range(0..8) {
        0 => format!("DELETE FROM t WHERE k < {v}"),
        1 => format!("UPDATE t SET v = v + 1 WHERE k > {k}"),
        2 => format!("DELETE FROM u WHERE v = {v}"),
        3 => format!("INSERT INTO u (v) VALUES ({v}), ({})", v + 1),
        4 => {
            *second += random.random_range(0..8);
            let at = super::time(*second - random.random_range(0..12));
            format!("INSERT INTO e (ts, v) VALUES ({at}, {k})")
        }
        _ => format!("INSERT INTO t (k, v) VALUES ({k}, {v})"),
    }
}

async fn widened() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        widened_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Compares the earlier objects with an in-memory engine in which no column is added; later objects and the
/// tables with one in which they are.
struct Trial {
    random: SmallRng,
    machine: Machine,
    narrow: Session,
    wide: Session,
    /// The present event time.
    second: i64,
    /// The number of added columns.
    columns: usize,
    /// The objects created over them.
    made: Vec<String>,
}

impl Trial {
    async fn begin(mut random: SmallRng, engines: &[Engine; 2]) -> Result<Trial> {
        let machine = Machine::start(Engine::builder)?;
        machine.set_interval(&mut random).await?;
        let [mut narrow, mut wide] = [engines[0].session(), engines[1].session()];
        for session in [&mut machine.session(), &mut narrow, &mut wide] {
            run_all(session, OBJECTS).await?;
        }
        Ok(Trial { random, machine, narrow, wide, second: 0, columns: 0, made: Vec::new() })
    }

    /// Runs a statement that needs the original columns only.
    async fn all(&mut self, text: &str) -> Result<()> {
        run(&mut self.narrow, text).await?;
        self.widely(text).await
    }

    async fn widely(&mut self, text: &str) -> Result<()> {
        run(&mut self.machine.session(), text).await?;
        run(&mut self.wide, text).await.map(drop)
    }

    async fn step(&mut self) -> Result<()> {
        if self.random.random_range(0..5) > 0 {
            let text = change(&mut self.random, &mut self.second);
            return self.all(&text).await;
        }
        self.columns += 1;
        let n = self.columns;
        let table = TABLES[self.random.random_range(0..TABLES.len())];
        let kind = self.random.random_range(0..3);
        let declared = ["BIGINT[]", "INT DEFAULT 3 NOT NULL", "TEXT DEFAULT 'x'"][kind];
        self.widely(&format!("ALTER TABLE {table} ADD COLUMN c{n} {declared}")).await?;
        if self.random.random_range(0..2) == 0 {
            let queries = [
                format!("SELECT * FROM {table}"),
                format!("SELECT w.k AS wk, t.* FROM w JOIN t ON w.v = t.v WHERE t.k > {n}"),
                format!("SELECT c{n} AS c, count(*) AS n FROM {table} GROUP BY c{n}"),
            ];
            let query = &queries[self.random.random_range(0..3)];
            self.widely(&format!("CREATE MATERIALIZED VIEW made_{n} AS {query}")).await?;
            self.made.push(format!("made_{n}"));
        }
        if kind == 1 && ["t", "u"].contains(&table) {
            self.widely(&format!("UPDATE {table} SET c{n} = 4 WHERE v = 1")).await?;
        }
        Ok(())
    }

    /// A paused query gets whole rows when it is resumed.
    async fn pause(&mut self) -> Result<()> {
        self.columns += 1;
        let column = format!("ALTER TABLE t ADD COLUMN c{} INT", self.columns);
        run(&mut self.machine.session(), "PAUSE all_of").await?;
        self.all("INSERT INTO t (k, v) VALUES (100, 1)").await?;
        self.widely(&column).await?;
        self.machine.crash(&mut self.random).await?;
        run(&mut self.machine.session(), "RESUME all_of").await.map(drop)
    }

    async fn compare(&mut self) -> Result<()> {
        let mut session = self.machine.session();
        run(&mut session, "FLUSH").await?;
        let names = TABLES.iter().map(ToString::to_string).chain(self.made.iter().cloned());
        let all: Vec<String> = names.map(|name| format!("SELECT * FROM {name}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for (model, shown) in [(&mut self.narrow, SHOWN), (&mut self.wide, &all)] {
            if let Some(wrong) = difference(&mut session, model, shown).await? {
                return Err(wrong);
            }
        }
        let views = ["m", "all_of", "joined", "joined_too", "ranked"].into_iter();
        for name in views.chain(self.made.iter().map(String::as_str)) {
            expect(&mut session, &format!("VERIFY {name}"), &[]).await?;
        }
        Ok(())
    }
}

async fn widened_seed(seed: u64) -> Result<()> {
    let out = folder()?;
    let start = || Engine::start().map_err(|error| error.to_string());
    let engines = [start()?, start()?];
    let mut trial = Trial::begin(SmallRng::seed_from_u64(seed), &engines).await?;
    let path = out.path().join("k");
    let sink = format!(
        "CREATE SINK to_file FROM t WITH (connector = 'file', path = '{}', format = 'csv', header = false, \
         changelog = true)",
        path.display()
    );
    run(&mut trial.machine.session(), &sink).await?;
    for round in 0..6 {
        for _ in 0..trial.random.random_range(2..12) {
            trial.step().await.map_err(|error| format!("round {round}: {error}"))?;
        }
        if trial.random.random_range(0..3) == 0 {
            trial.pause().await?;
        }
        trial.compare().await.map_err(|error| format!("round {round}: {error}"))?;
        trial.machine.crash(&mut trial.random).await?;
        trial.compare().await.map_err(|error| format!("round {round}, after a crash: {error}"))?;
    }
    let mut session = trial.machine.session();
    run(&mut session, "FLUSH").await?;
    let status = lines(&mut session, "SELECT * FROM millstream.sinks WHERE name = 'to_file'").await?;
    run(&mut session, "STOP").await?;
    let expected = lines(&mut trial.narrow, "SELECT k, v FROM t").await?;
    let mut left = BTreeMap::<String, i64>::new();
    for line in lines_in(&path).unwrap_or_default() {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        *left.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
    }
    left.retain(|_, count| *count != 0);
    ensure(left.values().all(|count| *count == 1) && left.keys().eq(expected.iter()), || {
        format!("the changes in the file come to {left:?}\n  expected {expected:?}\n  {status:?}")
    })
}

/// With a checkpoint before, between or after, and with none.
async fn places() -> Result<()> {
    for checkpoint in [None, Some(0), Some(1), Some(2)] {
        let mut random = SmallRng::seed_from_u64(3);
        let mut machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        let groups: &[&[&str]] = &[
            &[
                "SET checkpoint_interval = 'off'",
                "CREATE TABLE t (x INT)",
                "CREATE VIEW v AS SELECT * FROM t",
                "CREATE MATERIALIZED VIEW a AS SELECT * FROM v",
                "INSERT INTO t VALUES (1), (2)",
                "ALTER TABLE t ADD COLUMN y INT DEFAULT 5 NOT NULL",
            ],
            &[
                "CREATE VIEW w AS SELECT * FROM t",
                "CREATE MATERIALIZED VIEW b AS SELECT v.x, w.y FROM v JOIN w ON v.x = w.x",
                "INSERT INTO t VALUES (3, 6)",
                "ALTER TABLE t RENAME TO u",
                "ALTER TABLE u ADD COLUMN z TEXT",
                "ALTER MATERIALIZED VIEW a AS SELECT x, x + 1 AS n FROM v",
            ],
            &["INSERT INTO u (x, z) VALUES (4, 'z')", "UPDATE u SET y = y + 1 WHERE x = 1"],
        ];
        for (place, group) in groups.iter().enumerate() {
            run_all(&mut session, group).await?;
            if checkpoint == Some(place) {
                run(&mut session, "CHECKPOINT").await?;
            }
        }
        let shown: &[(&str, &[&str])] = &[
            ("SELECT * FROM u", &["1|6|NULL", "2|5|NULL", "3|6|NULL", "4|5|z"]),
            ("SELECT * FROM v", &["1", "2", "3", "4"]),
            ("SELECT * FROM w", &["1|6", "2|5", "3|6", "4|5"]),
            ("SELECT * FROM a", &["1|2", "2|3", "3|4", "4|5"]),
            ("SELECT * FROM b", &["1|6", "2|5", "3|6", "4|5"]),
            ("VERIFY a", &[]),
            ("VERIFY b", &[]),
        ];
        for crash in [false, true, true] {
            if crash {
                machine.crash_at(|| {}, &mut random).await?;
            }
            for (sql, expected) in shown {
                expect(&mut machine.session(), sql, expected)
                    .await
                    .map_err(|error| format!("checkpoint {checkpoint:?}, crash {crash}: {error}"))?;
            }
        }
        // Each start plans the view `over` again. It can't move behind the added column, which its `u.*`
        // would then include.
        let mut session = machine.session();
        run_all(
            &mut session,
            &[
                "CREATE MATERIALIZED VIEW s AS SELECT sum(x) AS s FROM u",
                "CREATE VIEW over AS SELECT s.s, u.* FROM s, u",
                "ALTER TABLE u ADD COLUMN last INT",
            ],
        )
        .await?;
        let refused = run(&mut session, "ALTER MATERIALIZED VIEW s AS SELECT sum(y) AS s FROM u").await;
        let error = refused.err().unwrap_or_default();
        ensure(error.contains("DROP \"over\" and create it again"), || format!("it says {error}"))?;
    }
    Ok(())
}

/// A script that is run again finds the objects it created, and adds no column a second time.
async fn script() -> Result<()> {
    const SCRIPT: &str = "CREATE TABLE t (x INT);
        CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS s FROM t;
        INSERT INTO t VALUES (1), (2);
        ALTER TABLE t ADD COLUMN y INT DEFAULT 7;
        INSERT INTO t VALUES (4, 8);
        CREATE MATERIALIZED VIEW n AS SELECT sum(y) AS s FROM t;";
    let mut random = SmallRng::seed_from_u64(5);
    let mut machine = Machine::start(Engine::builder)?;
    for _ in 0..3 {
        run_script(&mut machine.session(), SCRIPT).await?;
        expect(&mut machine.session(), "SELECT s FROM m", &["7"]).await?;
        expect(&mut machine.session(), "SELECT s FROM n", &["22"]).await?;
        machine.crash(&mut random).await?;
    }
    Ok(())
}

/// The transaction's rows lack the column that the table has by now.
async fn transactions() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let (mut writes, mut reads, mut begun) = (engine.session(), engine.session(), engine.session());
    let mut alters = engine.session();
    let made = [
        "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
        "CREATE TABLE bag (v INT)",
        "INSERT INTO t VALUES (1, 2)",
    ];
    run_all(&mut alters, &made).await?;
    run_all(&mut writes, &["BEGIN", "INSERT INTO t VALUES (2, 3)", "INSERT INTO bag VALUES (1)"]).await?;
    run_all(&mut reads, &["BEGIN", "SELECT * FROM t"]).await?;
    run_all(&mut begun, &["BEGIN", "SELECT * FROM bag"]).await?;
    run_all(&mut alters, &["INSERT INTO t VALUES (3, 4)", "ALTER TABLE t ADD COLUMN c INT DEFAULT 9"])
        .await?;
    // A reading transaction sees its snapshot, with the default.
    expect(&mut reads, "SELECT * FROM t", &["1|2|9"]).await?;
    run(&mut reads, "COMMIT").await?;
    expect(&mut writes, "SELECT * FROM t", &["1|2|9", "2|3|9"]).await?;
    let failed = run(&mut writes, "COMMIT").await.err().unwrap_or_default();
    ensure(failed.contains("table \"t\" was altered"), || format!("COMMIT says {failed}"))?;
    let failed = run(&mut begun, "INSERT INTO t VALUES (5, 6, 7)").await.err().unwrap_or_default();
    ensure(failed.contains("table \"t\" was altered"), || format!("INSERT says {failed}"))?;
    run(&mut begun, "ROLLBACK").await?;
    run_all(&mut begun, &["BEGIN", "INSERT INTO t VALUES (5, 6, 7)", "COMMIT"]).await?;
    expect(&mut alters, "SELECT * FROM t", &["1|2|9", "3|4|9", "5|6|7"]).await?;
    expect(&mut alters, "SELECT * FROM bag", &[]).await?;
    Ok(())
}

/// Rows of the current batch have the default, too, before its end and after.
async fn staged() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE TABLE bag (v INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT t.*, bag.v AS bv FROM t LEFT JOIN bag ON bag.v = t.v",
            "INSERT INTO t VALUES (1, 2), (2, 3)",
            "INSERT INTO bag VALUES (2), (3)",
            "ADVANCE BATCH",
            "INSERT INTO t VALUES (6, 7)",
            "DELETE FROM t WHERE k = 1",
            "UPDATE t SET v = 2 WHERE k = 2",
            "DELETE FROM bag WHERE v = 3",
            "INSERT INTO bag VALUES (7)",
            "ALTER TABLE t ADD COLUMN d TEXT DEFAULT 'd'",
            "ALTER TABLE bag ADD COLUMN d TEXT",
        ],
    )
    .await?;
    expect(&mut session, "SELECT * FROM t", &["1|2|d", "2|3|d"]).await?;
    expect(&mut session, "SELECT * FROM bag", &["2|NULL", "3|NULL"]).await?;
    run_all(&mut session, &["INSERT INTO bag VALUES (2, 'x')", "ADVANCE BATCH"]).await?;
    expect(&mut session, "SELECT * FROM t", &["2|2|d", "6|7|d"]).await?;
    expect(&mut session, "SELECT * FROM bag", &["2|NULL", "2|x", "7|NULL"]).await?;
    expect(&mut session, "SELECT * FROM m", &["2|2|2", "2|2|2", "6|7|7"]).await?;
    expect(&mut session, "VERIFY m", &[]).await
}

/// The operators keep their state and take in no row again, before and after a restart.
async fn kept() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM t GROUP BY v",
            "INSERT INTO t SELECT value, value % 10 FROM generate_series(1, 1000)",
            "CHECKPOINT",
        ],
    )
    .await?;
    let taken = "SELECT operator, rows_in FROM millstream.operators WHERE query = 'm' AND rows_in > 0";
    let before = lines(&mut session, taken).await?;
    ensure(before.iter().any(|line| line.ends_with("|1000")), || format!("{before:?}"))?;
    run(&mut session, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'x'").await?;
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    expect(&mut session, taken, &before).await?;
    // After a restart they take in only the one new row, and the count continues.
    run(&mut session, "CHECKPOINT").await?;
    machine.crash_at(|| {}, &mut random).await?;
    let mut session = machine.session();
    run(&mut session, "INSERT INTO t VALUES (2000, 3, 'y')").await?;
    let after = lines(&mut session, taken).await?;
    ensure(after.contains(&"Aggregate|1001".to_string()), || {
        format!("after a start they have taken in {after:?}")
    })?;
    expect(&mut session, "SELECT n FROM m WHERE v = 3", &["101"]).await?;
    expect(&mut session, "VERIFY m", &[]).await
}

/// Cursors and durable subscriptions that began before, and one that begins then.
async fn readers() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(11);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "INSERT INTO t VALUES (1, 2)",
            "CREATE SUBSCRIPTION r FROM t",
            "DECLARE c CURSOR FOR SUBSCRIBE t",
            "INSERT INTO t VALUES (2, 3)",
            "ALTER TABLE t ADD COLUMN c INT DEFAULT 9",
            "CREATE SUBSCRIPTION later FROM t",
            "UPDATE t SET c = 10 WHERE k = 1",
            "INSERT INTO t VALUES (3, 4, 5)",
        ],
    )
    .await?;
    let fetched = fetch(&mut session, "c", 3).await?;
    ensure(fetched == ["insert|1|2", "insert|2|3", "insert|3|4"], || format!("the cursor has {fetched:?}"))?;
    for crash in [false, true] {
        if crash {
            machine.crash(&mut random).await?;
        }
        let mut session = machine.session();
        for (name, count, expected) in [
            ("r", 3, &["insert|1|2", "insert|2|3", "insert|3|4"][..]),
            (
                "later",
                5,
                &[
                    "insert|1|2|9",
                    "insert|2|3|9",
                    "insert|3|4|5",
                    "update_delete|1|2|9",
                    "update_insert|1|2|10",
                ][..],
            ),
        ] {
            run(&mut session, &format!("DECLARE d SUBSCRIPTION CURSOR FOR {name}")).await?;
            let mut fetched = fetch(&mut session, "d", count).await?;
            fetched.sort();
            ensure(fetched == expected, || format!("crash {crash}: {name} has {fetched:?}"))?;
            run(&mut session, "CLOSE d").await?;
        }
    }
    Ok(())
}

/// Also in a restarted engine.
async fn history() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(13);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "SET history_retention = '1 hour'",
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
            "INSERT INTO t VALUES (1, 2)",
        ],
    )
    .await?;
    let epoch = lines(&mut session, "SELECT max(epoch) FROM millstream.epochs").await?.concat();
    run_all(
        &mut session,
        &["UPDATE t SET v = 3", "INSERT INTO t VALUES (2, 2)", "ALTER TABLE t ADD COLUMN c INT DEFAULT 9"],
    )
    .await?;
    run(&mut session, "INSERT INTO t VALUES (3, 4, 5)").await?;
    for crash in [false, true, true] {
        if crash {
            machine.crash(&mut random).await?;
        }
        let mut session = machine.session();
        let then = |name: &str| format!("SELECT * FROM {name} FOR SYSTEM_TIME AS OF {epoch}");
        expect(&mut session, &then("t"), &["1|2|9"]).await?;
        expect(&mut session, &then("m"), &["1|2"]).await?;
        expect(&mut session, "SELECT * FROM t", &["1|3|9", "2|2|9", "3|4|5"]).await?;
    }
    Ok(())
}
