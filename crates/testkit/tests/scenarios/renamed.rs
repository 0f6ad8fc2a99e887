//! Renaming objects while they run: everything equals an engine without renames, through crashes.

use std::collections::BTreeMap;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::crashes::run_script;
use super::machine::Machine;
use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("renamed_objects_go_on_as_if_nothing_had_happened", || drive::block_on(renamed())),
    ("a_renamed_object_and_another_of_its_name_are_two", || drive::block_on(two())),
    ("exchanged_names_hold_through_crashes", || drive::block_on(swapped())),
    ("a_script_finds_what_it_renamed", || drive::block_on(script())),
    ("names_given_again_and_again_leave_a_small_catalog", || drive::block_on(small())),
];

/// The kind, the original name and the definition of each object; `{name}` is replaced by the object's
/// present name.
const OBJECTS: &[(&str, &str, &str)] = &[
    ("TABLE", "t", "(k INT PRIMARY KEY, v INT)"),
    ("TABLE", "u", "(v INT)"),
    ("TABLE", "e", "(ts TIMESTAMP, v INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')"),
    ("SOURCE", "q", "(v INT) WITH (connector = 'queue')"),
    ("VIEW", "w", "AS SELECT t.k, t.v FROM t WHERE t.k > 2"),
    ("MATERIALIZED VIEW", "m", "AS SELECT v AS g, count(*) AS n, sum(k) AS s FROM t GROUP BY v"),
    (
        "MATERIALIZED VIEW",
        "joined",
        "AS SELECT w.k, m.n, u.v FROM w JOIN m ON w.v = m.g LEFT JOIN u ON u.v = w.v",
    ),
    ("MATERIALIZED VIEW", "looked", "AS SELECT t.k, x.v FROM t JOIN u AS x ON t.v = x.v"),
    ("MATERIALIZED VIEW", "of_q", "AS SELECT v % 3 AS g, count(*) AS n FROM q GROUP BY v % 3"),
    (
        "STREAM",
        "closed",
        "AS SELECT window_start AS w, sum(v) AS s FROM TUMBLE(e, ts, INTERVAL '10 seconds') \
         GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    ),
    ("TABLE", "copy", "(g INT, n BIGINT, s BIGINT)"),
    ("SINK", "copying", "INTO copy FROM m"),
];

/// The objects that have rows to compare.
const SHOWN: &[&str] = &["t", "u", "e", "w", "m", "joined", "looked", "of_q", "closed", "copy"];

/// The present names of objects, by their original names.
type Names = BTreeMap<&'static str, String>;

/// Returns a free name; at times the original name of another object.
fn free(random: &mut SmallRng, names: &Names) -> String {
    loop {
        let name = match random.random_range(0..2) {
            0 => OBJECTS[random.random_range(0..OBJECTS.len())].1.to_string(),
            _ => format!("Name {}", random.random_range(0..6)),
        };
        if !names.values().any(|taken| *taken == name) {
            return name;
        }
    }
}

fn rename(random: &mut SmallRng, names: &mut Names) -> String {
    let (kind, made_as, _) = OBJECTS[random.random_range(0..OBJECTS.len())];
    let to = free(random, names);
    let from = names.insert(made_as, to.clone()).unwrap_or_default();
    format!("ALTER {kind} \"{from}\" RENAME TO \"{to}\"")
}

/// Returns a change of an object, and the object's original name.
fn change(random: &mut SmallRng, second: &mut i64) -> (&'static str, String) {
    let (k, v) = (random.random_range(0..12), random.random_range(0..4));
    match random.random_range(0..8) {
        0 => ("t", format!("DELETE FROM {{}} WHERE k < {v}")),
        1 => ("t", format!("UPDATE {{}} SET v = v + 1 WHERE k > {k}")),
        2 => ("u", format!("DELETE FROM {{}} WHERE v = {v}")),
        3 => ("u", format!("INSERT INTO {{}} VALUES ({v}), ({})", v + 1)),
        4 => ("q", format!("INSERT INTO {{}} VALUES ({k}), ({v})")),
        5 => {
            *second += random.random_range(0..8);
            let at = super::time(*second - random.random_range(0..12));
            ("e", format!("INSERT INTO {{}} VALUES ({at}, {k})"))
        }
        _ => ("t", format!("INSERT INTO {{}} VALUES ({k}, {v})")),
    }
}

async fn make(session: &mut Session) -> Result<()> {
    for (kind, name, rest) in OBJECTS {
        run(session, &format!("CREATE {kind} {name} {rest}")).await?;
    }
    Ok(())
}

async fn renamed() -> Result<()> {
    for seed in seeds(&[0, 1], 0..6) {
        renamed_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Compares renamed objects with an in-memory engine without renames.
async fn renamed_seed(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let out = folder()?;
    let mut machine = Machine::start(Engine::builder)?;
    machine.set_interval(&mut random).await?;
    let memory = Engine::start().map_err(|error| error.to_string())?;
    let mut model = memory.session();
    make(&mut machine.session()).await?;
    make(&mut model).await?;
    let path = out.path().join("k");
    let sink = format!(
        "CREATE SINK \"to file\" FROM m WITH (connector = 'file', path = '{}', format = 'csv', header = false, \
         changelog = true)",
        path.display()
    );
    run(&mut machine.session(), &sink).await?;
    let mut names: Names = OBJECTS.iter().map(|(_, name, _)| (*name, (*name).to_string())).collect();
    let mut second = 0;
    for round in 0..8 {
        let mut session = machine.session();
        for _ in 0..random.random_range(2..12) {
            if random.random_range(0..3) == 0 {
                let text = rename(&mut random, &mut names);
                run(&mut session, &text).await.map_err(|error| format!("round {round}, {text}: {error}"))?;
                continue;
            }
            let (of, text) = change(&mut random, &mut second);
            run(&mut session, &text.replace("{}", &format!("\"{}\"", names[of]))).await?;
            run(&mut model, &text.replace("{}", of)).await?;
        }
        if random.random_range(0..3) == 0 {
            // A paused object resumes under its new name.
            let of_q = names["of_q"].clone();
            let to = free(&mut random, &names);
            names.insert("of_q", to.clone());
            run(&mut session, &format!("PAUSE \"{of_q}\"")).await?;
            let rename = format!("ALTER MATERIALIZED VIEW \"{of_q}\" RENAME TO \"{to}\"");
            run(&mut session, &rename).await?;
            run(&mut session, &format!("INSERT INTO \"{}\" VALUES (1)", names["q"])).await?;
            run(&mut model, "INSERT INTO q VALUES (1)").await?;
            run(&mut session, "FLUSH").await?;
            machine.crash(&mut random).await?;
            session = machine.session();
            run(&mut session, &format!("RESUME \"{to}\"")).await?;
        }
        run(&mut session, "FLUSH").await?;
        run(&mut model, "FLUSH").await?;
        compare(&mut session, &mut model, &names)
            .await
            .map_err(|error| format!("round {round}, {names:?}: {error}"))?;
        machine.crash(&mut random).await?;
        compare(&mut machine.session(), &mut model, &names)
            .await
            .map_err(|error| format!("round {round}, after a crash, {names:?}: {error}"))?;
    }
    let mut session = machine.session();
    run_all(&mut session, &["FLUSH", "STOP"]).await?;
    let expected = lines(&mut model, "SELECT g, n, s FROM m").await?;
    let mut left = BTreeMap::<String, i64>::new();
    for line in lines_in(&path).unwrap_or_default() {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        *left.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
    }
    left.retain(|_, count| *count != 0);
    ensure(left.values().all(|count| *count == 1) && left.keys().eq(expected.iter()), || {
        format!("the changes in the file come to {left:?}\n  expected {expected:?}")
    })
}

async fn compare(session: &mut Session, model: &mut Session, names: &Names) -> Result<()> {
    for made_as in SHOWN {
        let name = &names[made_as];
        let expected = lines(model, &format!("SELECT * FROM {made_as}")).await?;
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expect(session, &format!("SELECT * FROM \"{name}\""), &expected).await?;
    }
    for made_as in ["m", "joined", "looked"] {
        expect(session, &format!("VERIFY \"{}\"", names[made_as]), &[]).await?;
    }
    Ok(())
}

/// The free name is given to another object; all structures distinguish it from the first one.
async fn two() -> Result<()> {
    for checkpoint in [None, Some(0), Some(1), Some(2)] {
        let mut random = SmallRng::seed_from_u64(3);
        let mut machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        let groups: &[&[&str]] = &[
            &[
                "SET checkpoint_interval = 'off'",
                "CREATE TABLE t (x INT)",
                "CREATE VIEW v AS SELECT x FROM t",
                "CREATE MATERIALIZED VIEW m AS SELECT sum(t.x) AS s FROM t",
                "CREATE SUBSCRIPTION r FROM m",
                "INSERT INTO t VALUES (1), (2)",
                "ALTER TABLE t RENAME TO u",
            ],
            &[
                "CREATE TABLE t (x INT)",
                "CREATE MATERIALIZED VIEW both AS SELECT v.x, t.x AS y FROM v, t",
                "INSERT INTO t VALUES (7)",
                "INSERT INTO u VALUES (3)",
                "PAUSE m",
                "ALTER MATERIALIZED VIEW m RENAME TO sums",
            ],
            &[
                "ALTER TABLE t RENAME TO w",
                "ALTER TABLE u RENAME TO t",
                "INSERT INTO t VALUES (4)",
                "RESUME sums",
            ],
        ];
        for (place, group) in groups.iter().enumerate() {
            run_all(&mut session, group).await?;
            if checkpoint == Some(place) {
                run(&mut session, "CHECKPOINT").await?;
            }
        }
        let shown: &[(&str, &[&str])] = &[
            ("SELECT * FROM t", &["1", "2", "3", "4"]),
            ("SELECT * FROM w", &["7"]),
            ("SELECT * FROM v", &["1", "2", "3", "4"]),
            ("SELECT * FROM sums", &["10"]),
            ("SELECT * FROM both", &["1|7", "2|7", "3|7", "4|7"]),
            ("VERIFY both", &[]),
            ("VERIFY sums", &[]),
        ];
        for crash in [false, true, true] {
            if crash {
                machine.crash_at(|| {}, &mut random).await?;
            }
            let mut session = machine.session();
            for (sql, expected) in shown {
                expect(&mut session, sql, expected)
                    .await
                    .map_err(|error| format!("checkpoint {checkpoint:?}, crash {crash}: {error}"))?;
            }
        }
        // Its input is dropped, and with it all structures that stand for it.
        let mut session = machine.session();
        run_all(&mut session, &["DROP TABLE t CASCADE", "CREATE TABLE t (x INT)", "CHECKPOINT"]).await?;
        machine.crash_at(|| {}, &mut random).await?;
        expect(&mut machine.session(), "SELECT name FROM millstream.tables", &["t", "w"]).await?;
    }
    Ok(())
}

/// Objects exchange their names: their readers continue, and a start from the journal or a checkpoint does the same.
async fn swapped() -> Result<()> {
    for checkpoint in [None, Some(0), Some(1)] {
        let mut random = SmallRng::seed_from_u64(11);
        let mut machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        let groups: &[&[&str]] = &[
            &[
                "SET checkpoint_interval = 'off'",
                "CREATE TABLE blue (x INT PRIMARY KEY)",
                "CREATE TABLE green (x INT PRIMARY KEY, y INT)",
                "CREATE MATERIALIZED VIEW of_blue AS SELECT count(*) AS n FROM blue",
                "CREATE MATERIALIZED VIEW of_green AS SELECT sum(y) AS s FROM green",
                "CREATE MATERIALIZED VIEW both AS SELECT blue.x, y FROM blue JOIN green ON blue.x = green.x",
                "INSERT INTO blue VALUES (1), (2)",
                "INSERT INTO green VALUES (1, 10)",
                "ALTER TABLE green SWAP WITH blue",
            ],
            &[
                "INSERT INTO blue VALUES (2, 20)",
                "INSERT INTO green VALUES (3)",
                "ALTER MATERIALIZED VIEW of_blue SWAP WITH of_green",
                "INSERT INTO blue VALUES (3, 30)",
            ],
        ];
        for (place, group) in groups.iter().enumerate() {
            run_all(&mut session, group).await?;
            if checkpoint == Some(place) {
                run(&mut session, "CHECKPOINT").await?;
            }
        }
        let shown: &[(&str, &[&str])] = &[
            ("SELECT * FROM blue", &["1|10", "2|20", "3|30"]),
            ("SELECT * FROM green", &["1", "2", "3"]),
            ("SELECT s FROM of_blue", &["60"]),
            ("SELECT n FROM of_green", &["3"]),
            ("SELECT * FROM both", &["1|10", "2|20", "3|30"]),
            ("VERIFY both", &[]),
        ];
        for crash in [false, true, true] {
            if crash {
                machine.crash_at(|| {}, &mut random).await?;
            }
            let mut session = machine.session();
            for (sql, expected) in shown {
                expect(&mut session, sql, expected)
                    .await
                    .map_err(|error| format!("checkpoint {checkpoint:?}, crash {crash}: {error}"))?;
            }
        }
        swapped_back(&mut machine, &mut random).await?;
    }
    Ok(())
}

/// The names are exchanged again, and the two exchanges cancel out.
async fn swapped_back(machine: &mut Machine, random: &mut SmallRng) -> Result<()> {
    let mut session = machine.session();
    run_all(&mut session, &["ALTER TABLE blue SWAP WITH green", "INSERT INTO blue VALUES (4)", "CHECKPOINT"])
        .await?;
    machine.crash_at(|| {}, random).await?;
    let mut session = machine.session();
    expect(&mut session, "SELECT * FROM blue", &["1", "2", "3", "4"]).await?;
    expect(&mut session, "SELECT n FROM of_green", &["4"]).await?;
    expect(&mut session, "SELECT * FROM both", &["1|10", "2|20", "3|30"]).await?;
    // One of the two goes, and the other keeps its new name.
    run_all(
        &mut session,
        &[
            "ALTER TABLE blue SWAP WITH green",
            "DROP TABLE blue CASCADE",
            "INSERT INTO green VALUES (5)",
            "CHECKPOINT",
        ],
    )
    .await?;
    machine.crash_at(|| {}, random).await?;
    expect(&mut machine.session(), "SELECT n FROM of_green", &["5"]).await?;
    Ok(())
}

/// A script that is run again leaves the objects it created unchanged, under the names that it gave them.
async fn script() -> Result<()> {
    const SCRIPT: &str = "CREATE TABLE t (x INT);
        CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS s FROM t;
        INSERT INTO t VALUES (1), (2);
        ALTER TABLE t RENAME TO u;
        INSERT INTO u VALUES (4);";
    let mut random = SmallRng::seed_from_u64(5);
    let mut machine = Machine::start(Engine::builder)?;
    for _ in 0..3 {
        run_script(&mut machine.session(), SCRIPT).await?;
        expect(&mut machine.session(), "SELECT s FROM m", &["7"]).await?;
        expect(&mut machine.session(), "SELECT name FROM millstream.tables", &["u"]).await?;
        machine.crash(&mut random).await?;
    }
    Ok(())
}

/// Intermediate names leave nothing behind.
async fn small() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(9);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    let made =
        ["CREATE TABLE t (x INT)", "CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS s FROM t", "CHECKPOINT"];
    run_all(&mut session, &made).await?;
    let before = super::catalogs::catalog_bytes(&machine)?;
    for n in 0..50 {
        run_all(&mut session, &[&format!("ALTER TABLE t RENAME TO t_{n}"), "SET max_batch_rows = 7"]).await?;
        run(&mut session, &format!("ALTER TABLE t_{n} RENAME TO t")).await?;
    }
    run_all(&mut session, &["ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES (3)", "CHECKPOINT"]).await?;
    let after = super::catalogs::catalog_bytes(&machine)?;
    ensure(after < before + 600, || format!("the catalog had {before} bytes and has {after}"))?;
    machine.crash_at(|| {}, &mut random).await?;
    expect(&mut machine.session(), "SELECT s FROM m", &["3"]).await
}
