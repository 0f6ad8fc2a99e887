//! Replacing running queries: the result is that of the new query, all readers look as if it had always been
//! there, and sinks converge to it, also through crashes.

use std::collections::BTreeMap;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::machine::Machine;
use super::{Scenario, folder, lines_in, write};

pub const ALL: &[Scenario] = &[
    ("altered_queries_have_the_answer_of_the_new_one", || drive::block_on(tables())),
    ("readers_of_altered_queries_get_what_changes_meanwhile", || drive::block_on(meanwhile())),
    ("altered_queries_over_files_put_out_what_differs_once", || drive::block_on(files())),
    ("an_alteration_that_is_given_up_changes_nothing", || drive::block_on(given_up())),
    ("an_alteration_is_done_or_not_wherever_the_disk_fails", || drive::block_on(failing())),
    ("altered_queries_that_are_behind_come_to_the_present", || drive::block_on(behind())),
    ("altered_windows_are_those_of_a_query_made_then", || drive::block_on(windows())),
    ("what_an_altered_query_keeps_survives_crashes", || drive::block_on(kept())),
];

/// Queries for `m`: their columns and their key are the same.
const QUERIES: &[&str] = &[
    "SELECT v AS g, sum(k) AS n FROM t GROUP BY v",
    "SELECT v AS g, sum(k) AS n FROM t GROUP BY v HAVING sum(k) > 10",
    "SELECT v AS g, max(k)::BIGINT AS n FROM t WHERE k > 3 GROUP BY v",
    "SELECT (v % 2)::INT AS g, sum(k) + 1 AS n FROM t GROUP BY (v % 2)::INT",
    "SELECT t.v AS g, sum(k) AS n FROM t JOIN u ON t.v = u.v GROUP BY t.v",
    "SELECT t.v AS g, sum(u.v) AS n FROM t JOIN u ON t.v = u.v WHERE k < 9 GROUP BY t.v",
    "SELECT v AS g, sum(v) AS n FROM u WHERE v IN (SELECT v FROM t) GROUP BY v",
    "SELECT v AS g, sum(k) AS n FROM (SELECT v, k FROM t UNION ALL SELECT v, 1 FROM u) AS both_ GROUP BY v",
];

/// The readers of `m`, and the queries that they stand for.
const READERS: &[(&str, &str)] = &[
    ("m", "SELECT * FROM m"),
    ("over_m", "SELECT n, count(*) AS c, sum(g) AS g FROM m GROUP BY n"),
    ("joined", "SELECT k, n FROM t LEFT JOIN m ON t.v = m.g"),
    ("top", "SELECT g, n FROM m ORDER BY n DESC, g LIMIT 2"),
    (
        "over_joined",
        "SELECT n, max(k) AS k FROM (SELECT k, n FROM t LEFT JOIN m ON t.v = m.g) AS j GROUP BY n",
    ),
];

fn change(random: &mut SmallRng) -> String {
    let (k, v) = (random.random_range(0..12), random.random_range(0..4));
    match random.random_range(0..7) {
        0 => format!("DELETE FROM t WHERE k < {v}"),
        1 => format!("UPDATE t SET v = v + 1 WHERE k > {k}"),
        2 => format!("DELETE FROM u WHERE v = {v}"),
        3 | 4 => format!("INSERT INTO u VALUES ({v}), ({v}), (NULL)"),
        _ => format!("INSERT INTO t VALUES ({k}, {v})"),
    }
}

fn alteration(random: &mut SmallRng, query: &str) -> String {
    match random.random_range(0..2) {
        0 => format!("ALTER MATERIALIZED VIEW m AS {query}"),
        _ => format!("CREATE OR REPLACE MATERIALIZED VIEW m AS {query}"),
    }
}

/// Compares all objects with the batch answer, with `query` as the query of `m`.
async fn check(session: &mut Session, query: &str) -> Result<()> {
    for (name, reader) in READERS {
        let batch = lines(
            session,
            &reader
                .replace("FROM m", &format!("FROM ({query}) AS m"))
                .replace("JOIN m", &format!("JOIN ({query}) AS m")),
        )
        .await?;
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        let wrong = |error: String| format!("as {query}: {error}");
        expect(session, &format!("SELECT * FROM {name}"), &batch).await.map_err(wrong)?;
        expect(session, &format!("VERIFY {name}"), &[]).await?;
        if *name == "m" {
            expect(session, "SELECT * FROM copy", &batch).await.map_err(wrong)?;
        }
    }
    Ok(())
}

/// Creates tables, `m` with this query, and its readers.
async fn make(session: &mut Session, query: &str) -> Result<()> {
    run_all(
        session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE TABLE u (v INT)",
            "CREATE TABLE copy (g INT, n BIGINT)",
        ],
    )
    .await?;
    run(session, &format!("CREATE MATERIALIZED VIEW m AS {query}")).await?;
    for (name, reader) in &READERS[1..] {
        run(session, &format!("CREATE MATERIALIZED VIEW {name} AS {reader}")).await?;
    }
    run(session, "CREATE SINK copying INTO copy FROM m").await.map(drop)
}

/// Alters lagging queries, which become current, and queries whose readers may lag.
async fn behind() -> Result<()> {
    for seed in seeds(&[0], 0..2) {
        let mut random = SmallRng::seed_from_u64(seed);
        let engine = Engine::builder().step_apart(2).start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        let mut query = QUERIES[random.random_range(0..QUERIES.len())];
        make(&mut session, query).await?;
        for _ in 0..4 {
            if random.random_range(0..2) == 0 {
                query = QUERIES[random.random_range(0..QUERIES.len())];
                run(&mut session, &alteration(&mut random, query)).await?;
            } else {
                run(&mut session, &change(&mut random)).await?;
            }
            check(&mut session, query).await.map_err(|error| format!("seed {seed}: {error}"))?;
        }
    }
    Ok(())
}

/// Alters a query again and again, while another session changes what it reads, pauses and resumes.
async fn meanwhile() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        let mut random = SmallRng::seed_from_u64(seed);
        let engine = Engine::builder().step_apart(1 + seed % 2).start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        let mut query = QUERIES[0];
        make(&mut session, query).await?;
        run(&mut session, "INSERT INTO t SELECT 100 + i, i FROM generate_series(1, 30000) AS s(i)").await?;
        for _ in 0..8 {
            let before = query;
            query = QUERIES[random.random_range(0..QUERIES.len())];
            let (mut other, sql) = (engine.session(), alteration(&mut random, query));
            let altered = tokio::spawn(async move { run(&mut other, &sql).await });
            let mut changes = 0;
            while !altered.is_finished() {
                let sql = match random.random_range(0..12) {
                    0 | 1 => format!("PAUSE {}", ["over_m", "joined", "top"][random.random_range(0..3)]),
                    2 | 3 => "RESUME ALL".into(),
                    _ => change(&mut random),
                };
                run(&mut session, &sql).await?;
                changes += 1;
            }
            let wrong = |error: String| format!("seed {seed}, {changes} changes: {error}");
            match altered.await.map_err(|error| error.to_string())? {
                Err(error) if error.contains("is paused") => query = before,
                altered => drop(altered.map_err(wrong)?),
            }
            run(&mut session, "RESUME ALL").await?;
            check(&mut session, query).await.map_err(wrong)?;
        }
    }
    Ok(())
}

async fn tables() -> Result<()> {
    for seed in seeds(&[0, 4, 5], 0..8) {
        tables_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn tables_seed(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let apart = move || if seed < 4 { Engine::builder() } else { Engine::builder().step_apart(seed % 3 + 1) };
    let mut machine = Machine::start(apart)?;
    machine.set_interval(&mut random).await?;
    let mut query = QUERIES[random.random_range(0..QUERIES.len())];
    make(&mut machine.session(), query).await?;
    for round in 0..6 {
        for _ in 0..random.random_range(2..8) {
            if random.random_range(0..3) == 0 {
                query = QUERIES[random.random_range(0..QUERIES.len())];
                run(&mut machine.session(), &alteration(&mut random, query)).await?;
            } else {
                run(&mut machine.session(), &change(&mut random)).await?;
            }
            check(&mut machine.session(), query).await.map_err(|error| format!("round {round}: {error}"))?;
        }
        // The outcome of this statement is unknown.
        let next = QUERIES[random.random_range(0..QUERIES.len())];
        let asked = tokio::spawn({
            let (mut session, sql) = (machine.session(), alteration(&mut random, next));
            async move { run(&mut session, &sql).await.is_ok() }
        });
        if random.random_range(0..2) == 0 {
            tokio::time::sleep(std::time::Duration::from_micros(random.random_range(0..5000))).await;
        }
        machine.crash(&mut random).await?;
        let told = asked.await.map_err(|error| error.to_string())?;
        query = match check(&mut machine.session(), query).await {
            Ok(()) if !told => query,
            _ => next,
        };
        check(&mut machine.session(), query)
            .await
            .map_err(|error| format!("round {round}, after a crash: {error}"))?;
    }
    Ok(())
}

/// Queries for `m` over files.
const OF_FILES: &[&str] = &[
    "SELECT n % 5 AS g, sum(1) AS c FROM s GROUP BY n % 5",
    "SELECT n % 5 AS g, sum(n) AS c FROM s GROUP BY n % 5",
    "SELECT n % 3 AS g, sum(n) AS c FROM s WHERE n > 20 GROUP BY n % 3",
    "SELECT n % 5 AS g, sum(1) AS c FROM s GROUP BY n % 5 HAVING sum(1) > 4",
];

async fn files() -> Result<()> {
    for seed in seeds(&[0, 1], 0..6) {
        files_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn files_seed(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (folder, out) = (folder()?, folder()?);
    let mut machine = Machine::start(Engine::builder)?;
    machine.set_interval(&mut random).await?;
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let view = format!("CREATE MATERIALIZED VIEW m AS {}", OF_FILES[0]);
    let sink = format!(
        "CREATE SINK k FROM m WITH (connector = 'file', path = '{}', format = 'csv', header = false, changelog = true)",
        out.path().join("k").display()
    );
    run_all(&mut machine.session(), &[&source, &view, &sink]).await?;
    let (mut n, mut query) = (0, OF_FILES[0]);
    for _ in 0..6 {
        for _ in 0..random.random_range(0..3) {
            let numbers: Vec<String> = (n..n + random.random_range(1..30)).map(|n| n.to_string()).collect();
            n += numbers.len() as i64;
            write(folder.path(), &format!("{n:05}.csv"), &(numbers.join("\n") + "\n"))?;
            tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..30))).await;
            if random.random_range(0..2) == 0 {
                query = OF_FILES[random.random_range(0..OF_FILES.len())];
                run(&mut machine.session(), &alteration(&mut random, query)).await?;
            }
        }
        machine.crash(&mut random).await?;
    }
    let mut session = machine.session();
    run(&mut session, "FLUSH").await?;
    expect(&mut session, "VERIFY m", &[]).await?;
    let table = format!(
        "CREATE TABLE all_of (n INT); INSERT INTO all_of SELECT i FROM generate_series(0, {}) AS u(i)",
        n - 1
    );
    for statement in table.split("; ").take(if n > 0 { 2 } else { 1 }) {
        run(&mut session, statement).await?;
    }
    let expected = lines(&mut session, &query.replace("FROM s", "FROM all_of AS s")).await?;
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect(&mut session, "SELECT * FROM m", &expected).await?;
    run(&mut session, "STOP").await?;
    // Inserts minus deletes are the last answer.
    let mut left = BTreeMap::<String, i64>::new();
    for line in lines_in(&out.path().join("k")).unwrap_or_default() {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        *left.entry(row.replace(',', "|")).or_default() += if op == "insert" { 1 } else { -1 };
    }
    left.retain(|_, count| *count != 0);
    ensure(left.values().all(|count| *count == 1) && left.keys().eq(expected.iter()), || {
        format!("the changes come to {left:?}\n  expected {expected:?}")
    })
}

/// Statements that are cancelled, and statements that fail over the content of their inputs.
async fn given_up() -> Result<()> {
    let folder = folder()?;
    write(folder.path(), "1.csv", "1\n2\n3\n")?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut machine = Machine::start(Engine::builder)?;
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let mut session = machine.session();
    run_all(&mut session, &[&source, "CREATE MATERIALIZED VIEW m AS SELECT sum(n) AS n FROM s", "FLUSH"])
        .await?;
    for pause in [0, 50, 200, 1000, 5000] {
        let mut other = machine.session();
        let asked = tokio::spawn(async move {
            run(&mut other, "ALTER MATERIALIZED VIEW m AS SELECT max(n)::BIGINT AS n FROM s").await
        });
        tokio::time::sleep(std::time::Duration::from_micros(pause)).await;
        asked.abort();
        let done = asked.await.is_ok_and(|done| done.is_ok());
        run(&mut session, "FLUSH").await?;
        let found = lines(&mut session, "SELECT n FROM m").await?;
        ensure(found == ["6"] && !done || found == ["3"], || format!("after {pause} us: {found:?}"))?;
        // The engine may still be at the statement that was given up.
        let back = "ALTER MATERIALIZED VIEW m AS SELECT sum(n) AS n FROM s";
        while let Err(error) = run(&mut session, back).await {
            ensure(error.contains("is being altered"), || error)?;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    // A removed file can't be read again.
    std::fs::remove_file(folder.path().join("1.csv")).map_err(|error| error.to_string())?;
    let failed = run(&mut session, "ALTER MATERIALIZED VIEW m AS SELECT min(n)::BIGINT AS n FROM s").await;
    ensure(failed.as_ref().is_err_and(|error| error.contains("\"m\" is unchanged")), || {
        format!("{failed:?}")
    })?;
    expect(&mut session, "SELECT n FROM m", &["6"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    machine.crash_at(|| {}, &mut random).await?;
    expect(&mut machine.session(), "SELECT n FROM m", &["6"]).await
}

/// The disk fails at each of its calls while a query is altered, followed by a crash.
async fn failing() -> Result<()> {
    let (old, new) = (QUERIES[0], QUERIES[1]);
    let mut random = SmallRng::seed_from_u64(7);
    for n in 1..40 {
        let mut machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        run_all(
            &mut session,
            &[
                "SET checkpoint_interval = 'off'",
                "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
                "CREATE TABLE copy (g INT, n BIGINT)",
                "INSERT INTO t VALUES (1, 1), (2, 2), (9, 2)",
                &format!("CREATE MATERIALIZED VIEW m AS {old}"),
                "CREATE SINK copying INTO copy FROM m",
            ],
        )
        .await?;
        machine.disk.fail_at(n);
        let before = machine.disk.calls();
        let told = run(&mut session, &format!("ALTER MATERIALIZED VIEW m AS {new}")).await.is_ok();
        let _ = run(&mut session, "CHECKPOINT").await;
        let calls = machine.disk.calls() - before;
        machine.crash_at(|| {}, &mut random).await?;
        let mut session = machine.session();
        for query in ["SELECT * FROM m", "SELECT * FROM copy"] {
            let found = lines(&mut session, query).await?;
            let fits = found == ["2|11"] || !told && found == ["1|1", "2|11"];
            ensure(fits, || format!("call {n}, told {told}: {query} gives {found:?}"))?;
        }
        expect(&mut session, "VERIFY m", &[]).await?;
        let m = lines(&mut session, "SELECT * FROM m").await?;
        expect(&mut session, "SELECT * FROM copy", &m.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        if calls < n {
            return Ok(());
        }
    }
    Err("the disk never came to the end of its calls".into())
}

/// A source that is not replayable: groups, and a join with a table, keep their state while the queries over
/// them change.
async fn kept() -> Result<()> {
    let groups = "SELECT v % 3 AS g, count(*) AS n, sum(v) AS s FROM q GROUP BY v % 3";
    let queries = [
        format!("SELECT g, n, s FROM ({groups}) AS x WHERE n > 1"),
        format!("SELECT g, n, s FROM ({groups}) AS x WHERE s % 2 = 0"),
        format!("SELECT g, n + 1 AS n, s FROM ({groups}) AS x"),
        groups.to_string(),
    ];
    for seed in seeds(&[0, 1], 0..4) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut machine = Machine::start(Engine::builder)?;
        machine.set_interval(&mut random).await?;
        let view = format!("CREATE MATERIALIZED VIEW m AS {groups}");
        let source = "CREATE SOURCE q (v INT) WITH (connector = 'queue')";
        let model = "CREATE TABLE same (v INT)";
        let copy = ["CREATE TABLE copy (g INT, n BIGINT, s BIGINT)", "CREATE SINK copying INTO copy FROM m"];
        run_all(&mut machine.session(), &[source, model, &view, copy[0], copy[1]]).await?;
        let mut query = groups;
        for round in 0..12 {
            let mut session = machine.session();
            for _ in 0..random.random_range(0..3) {
                let v = random.random_range(0..50);
                run(&mut session, &format!("INSERT INTO q VALUES ({v}), ({})", v + 1)).await?;
                run(&mut session, &format!("INSERT INTO same VALUES ({v}), ({})", v + 1)).await?;
            }
            run(&mut session, "FLUSH").await?;
            if random.random_range(0..2) == 0 {
                query = &queries[random.random_range(0..queries.len())];
                run(&mut session, &format!("ALTER MATERIALIZED VIEW m AS {query}")).await?;
            }
            if random.random_range(0..2) == 0 {
                machine.crash(&mut random).await?;
            }
            let mut session = machine.session();
            let expected = lines(&mut session, &query.replace("FROM q", "FROM same AS q")).await?;
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            let wrong = |error: String| format!("seed {seed}, round {round}, as {query}: {error}");
            expect(&mut session, "SELECT * FROM m", &expected).await.map_err(wrong)?;
            expect(&mut session, "SELECT * FROM copy", &expected).await.map_err(wrong)?;
        }
    }
    Ok(())
}

/// Windows of event time, some of them closed, compared with those of a query that is created at the same
/// moment.
async fn windows() -> Result<()> {
    let of = "FROM TUMBLE(e, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end";
    let queries = [
        format!("SELECT window_start AS w, count(*) AS n {of}"),
        format!("SELECT window_start AS w, sum(v) AS n {of}"),
        format!("SELECT window_start AS w, max(v)::BIGINT AS n {of} HAVING count(*) > 1"),
    ];
    for seed in seeds(&[0, 1], 0..4) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut machine = Machine::start(Engine::builder)?;
        machine.set_interval(&mut random).await?;
        let table = "CREATE TABLE e (ts TIMESTAMP, v INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')";
        let made = |name: &str, query: &str| format!("CREATE MATERIALIZED VIEW {name} AS {query}");
        run_all(&mut machine.session(), &[table, &made("m", &queries[0]), &made("fresh", &queries[0])])
            .await?;
        let mut now = 0;
        for round in 0..30 {
            let mut session = machine.session();
            now += random.random_range(0..8);
            let at = now - random.random_range(0..12);
            let v = random.random_range(0..20);
            run(&mut session, &format!("INSERT INTO e VALUES ({}, {v})", super::time(at))).await?;
            if random.random_range(0..4) == 0 {
                let query = &queries[random.random_range(0..queries.len())];
                let alter = format!("ALTER MATERIALIZED VIEW m AS {query}");
                run_all(&mut session, &[&alter, "DROP MATERIALIZED VIEW fresh", &made("fresh", query)])
                    .await?;
            }
            if random.random_range(0..8) == 0 {
                machine.crash(&mut random).await?;
            }
            let mut session = machine.session();
            for shown in [
                "SELECT * FROM {}",
                "SELECT w, n FROM late_rows('{}')",
                "SELECT count(*) FROM late_rows('{}')",
            ] {
                let Ok(expected) = lines(&mut session, &shown.replace("{}", "fresh")).await else { continue };
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                let wrong = |error: String| format!("seed {seed}, round {round}: {error}");
                expect(&mut session, &shown.replace("{}", "m"), &expected).await.map_err(wrong)?;
            }
        }
    }
    Ok(())
}
