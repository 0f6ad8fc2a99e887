//! Engines with a data directory: acknowledged changes survive a crash, sinks publish everything once, and
//! the engine continues as if nothing had happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use millstream_engine::{Engine, Script, Session};
use millstream_testkit::broker::{Broker, Database};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::machine::{Kept, Machine, open};
use super::{Scenario, folder, lines_in, write};

pub const ALL: &[Scenario] = &[
    ("what_was_acknowledged_survives_crashes", || drive::block_on(acknowledged(Kept::OnDisk))),
    ("what_was_acknowledged_survives_on_an_object_store", || drive::block_on(acknowledged(Kept::OnStore))),
    ("messages_count_once_through_crashes", || drive::block_on(messages(Kept::OnDisk))),
    ("messages_count_once_on_an_object_store", || drive::block_on(messages(Kept::OnStore))),
    ("files_count_once_through_crashes", || drive::block_on(files(Kept::OnDisk))),
    ("files_count_once_on_an_object_store", || drive::block_on(files(Kept::OnStore))),
    ("a_query_that_was_reading_the_past_goes_on", || drive::block_on(reading_the_past())),
    ("windows_and_batches_are_the_same_after_crashes", || drive::block_on(batches(Kept::OnDisk))),
    ("windows_and_batches_are_the_same_on_an_object_store", || drive::block_on(batches(Kept::OnStore))),
    ("a_script_goes_on_where_it_was", || drive::block_on(script())),
    ("a_failed_disk_is_told_and_nothing_more_is_taken", || drive::block_on(failed_disk())),
    ("a_sink_that_holds_more_than_was_ever_put_out_is_refused", || drive::block_on(foreign_sink())),
    ("what_comes_out_otherwise_after_a_crash_is_not_sent", || drive::block_on(differing())),
];

/// Tables and queries of every kind over them, each with a query of its rows.
const OBJECTS: &[(&str, &str)] = &[
    ("CREATE TABLE t (k INT PRIMARY KEY, v INT, s TEXT)", "SELECT * FROM t"),
    ("CREATE TABLE u (v INT, f DOUBLE)", "SELECT * FROM u"),
    (
        "CREATE MATERIALIZED VIEW sums AS SELECT v, count(*) AS n, sum(k) AS s, max(s) AS m FROM t GROUP BY v",
        "SELECT * FROM sums",
    ),
    ("CREATE MATERIALIZED VIEW pairs AS SELECT k, f FROM t LEFT JOIN u ON t.v = u.v", "SELECT * FROM pairs"),
    (
        "CREATE MATERIALIZED VIEW ranks AS SELECT k, row_number() OVER (PARTITION BY v ORDER BY k) AS r FROM t",
        "SELECT * FROM ranks",
    ),
    ("CREATE MATERIALIZED VIEW top AS SELECT v, f FROM u ORDER BY f DESC, v LIMIT 3", "SELECT * FROM top"),
    (
        "CREATE MATERIALIZED VIEW over_views AS SELECT n, count(*) AS c FROM sums GROUP BY n",
        "SELECT * FROM over_views",
    ),
    ("CREATE TABLE copies (v INT, n BIGINT)", "SELECT * FROM copies"),
    ("CREATE SINK copying INTO copies AS SELECT v, n FROM sums", "SELECT v, sum(n) FROM copies GROUP BY v"),
    ("DROP MATERIALIZED VIEW top", "SELECT count(*) FROM u"),
];

fn change(random: &mut SmallRng) -> String {
    let (k, v) = (random.random_range(0..12), random.random_range(0..4));
    match random.random_range(0..7) {
        0 => format!("DELETE FROM t WHERE k < {v}"),
        1 => format!("UPDATE t SET v = v + 1, s = s || 'x' WHERE k > {k}"),
        2 => format!("DELETE FROM u WHERE v = {v}"),
        3 | 4 => format!("INSERT INTO u VALUES ({v}, {k}.5), ({v}, 0.1), (NULL, {k})"),
        _ => format!("INSERT INTO t VALUES ({k}, {v}, 'text of {k}')"),
    }
}

/// Returns the difference between two engines.
pub(super) async fn difference(
    found: &mut Session,
    expected: &mut Session,
    shown: &[&str],
) -> Result<Option<String>> {
    for sql in shown {
        let (found, expected) = (lines(found, sql).await?, lines(expected, sql).await?);
        if found != expected {
            return Ok(Some(format!("{sql}\n  gives    {found:?}\n  expected {expected:?}")));
        }
    }
    Ok(None)
}

async fn acknowledged(kept: Kept) -> Result<()> {
    for seed in seeds(&[0, 1], 0..8) {
        acknowledged_seed(kept, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Compares the surviving state with an in-memory engine that ran the same statements.
async fn acknowledged_seed(kept: Kept, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start_at(kept, Engine::builder)?;
    machine.set_interval(&mut random).await?;
    let memory = Engine::start().map_err(|error| error.to_string())?;
    let mut model = memory.session();
    let mut objects = OBJECTS.iter();
    let mut shown: Vec<&str> = Vec::new();
    for round in 0..5 {
        for number in 0..random.random_range(2..9) {
            // Tables must exist before rows arrive.
            let another = shown.len() < 2 || (round > 0 || number > 0) && random.random_range(0..3) == 0;
            let sql = match objects.as_slice().first().filter(|_| another) {
                Some((object, show)) => {
                    objects.next();
                    // Dropped objects are no longer compared.
                    shown.retain(|shown| !object.starts_with("DROP") || !shown.contains("top"));
                    shown.push(show);
                    (*object).to_string()
                }
                None => change(&mut random),
            };
            run(&mut machine.session(), &sql).await?;
            run(&mut model, &sql).await?;
            // The next checkpoint holds the changes since this one.
            if random.random_range(0..4) == 0 {
                run(&mut machine.session(), "CHECKPOINT").await?;
            }
        }
        // The outcome of this statement is unknown.
        let last = change(&mut random);
        let asked = tokio::spawn({
            let (mut session, last) = (machine.session(), last.clone());
            async move { run(&mut session, &last).await.is_ok() }
        });
        if random.random_range(0..2) == 0 {
            tokio::time::sleep(std::time::Duration::from_micros(random.random_range(0..800))).await;
        }
        machine.crash(&mut random).await?;
        let told = asked.await.map_err(|error| error.to_string())?;
        let mut session = machine.session();
        let without = difference(&mut session, &mut model, &shown).await?;
        run(&mut model, &last).await?;
        match (without, difference(&mut session, &mut model, &shown).await?) {
            (_, None) => {}
            // The statement was lost, so it is repeated.
            (None, Some(_)) if !told => drop(run(&mut session, &last).await?),
            (None, Some(lost)) => return Err(format!("{last} was acknowledged and is lost: {lost}")),
            (Some(wrong), Some(_)) => return Err(format!("before {last}: {wrong}")),
        }
    }
    Ok(())
}

fn sum(database: &Database) -> i64 {
    database.content().sums.values().sum()
}

/// A source that is not replayable, whose broker forgets acknowledged messages, and sinks that store the
/// epoch.
async fn messages(kept: Kept) -> Result<()> {
    for seed in seeds(&[0, 1], 0..6) {
        messages_seed(kept, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn messages_seed(kept: Kept, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (broker, database) = (Broker::default(), Database::default());
    broker.messages().reliable = true;
    broker.messages().break_after = 3;
    database.content().lose_answer_after = 5;
    let parts = (broker.clone(), database.clone());
    let mut machine = Machine::start_at(kept, move || {
        Engine::builder().connector(Arc::new(parts.0.clone())).connector(Arc::new(parts.1.clone()))
    })?;
    machine.set_interval(&mut random).await?;
    run_all(
        &mut machine.session(),
        &[
            "CREATE SOURCE b WITH (connector = 'broker')",
            "CREATE STREAM s AS SELECT n FROM b WHERE n % 3 <> 0",
            "CREATE MATERIALIZED VIEW m AS SELECT n % 7 AS g, count(*) AS c, sum(n) AS s FROM b GROUP BY n % 7",
            "CREATE SINK k FROM s WITH (connector = 'database')",
        ],
    )
    .await?;
    for _ in 0..5 {
        // Whole deliveries, so that none mixes redelivered messages with new ones.
        broker.messages().sent += 4 * random.random_range(0..10);
        tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..60))).await;
        machine.crash(&mut random).await?;
    }
    let sent = broker.messages().sent as i64;
    until("all messages to be acknowledged", || broker.messages().acknowledged as i64 == sent).await?;
    let mut session = machine.session();
    run(&mut session, "FLUSH").await?;
    let expected: i64 = (0..sent).filter(|n| n % 3 != 0).sum();
    // The database loses answers, and FLUSH doesn't wait for them.
    until("all to be delivered", || sum(&database) >= expected).await?;
    ensure(sum(&database) == expected, || format!("{} was delivered, expected {expected}", sum(&database)))?;
    let groups = (0..7.min(sent)).map(|g| {
        let of = (0..sent).filter(|n| n % 7 == g);
        format!("{g}|{}|{}", of.clone().count(), of.sum::<i64>())
    });
    let groups: Vec<String> = groups.collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    expect(&mut session, "SELECT * FROM m", &groups).await
}

/// File sources and file sinks; queries that are created later read the earlier files.
async fn files(kept: Kept) -> Result<()> {
    for seed in seeds(&[0], 0..4) {
        files_seed(kept, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn files_seed(kept: Kept, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (folder, out) = (folder()?, folder()?);
    let place = |name: &str| out.path().join(name).display().to_string();
    let mut machine = Machine::start_at(kept, Engine::builder)?;
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let early = format!(
        "CREATE SINK early AS SELECT n * 2 AS d FROM s WITH (connector = 'file', path = '{}', format = 'csv', \
         header = false)",
        place("early")
    );
    let late = format!(
        "CREATE SINK late AS SELECT n + 1 AS d FROM s WITH (connector = 'file', path = '{}', format = 'csv', \
         header = false, roll_size = '200 B')",
        place("late")
    );
    let changes = format!(
        "CREATE SINK changes AS SELECT n % 5 AS g, count(*) AS c FROM s GROUP BY n % 5 WITH (connector = 'file', \
         path = '{}', format = 'csv', header = false, changelog = true)",
        place("changes")
    );
    machine.set_interval(&mut random).await?;
    run_all(&mut machine.session(), &[&source, &early, &changes]).await?;
    let mut n = 0;
    for round in 0..5 {
        for _ in 0..random.random_range(0..4) {
            let numbers: Vec<String> = (n..n + random.random_range(1..30)).map(|n| n.to_string()).collect();
            n += numbers.len() as i64;
            write(folder.path(), &format!("{n:05}.csv"), &(numbers.join("\n") + "\n"))?;
        }
        if round == 2 {
            run(&mut machine.session(), &late).await?;
        }
        tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..80))).await;
        machine.crash(&mut random).await?;
    }
    let mut session = machine.session();
    run(&mut session, "FLUSH").await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    let found = |name: &str| -> Result<Vec<i64>> {
        let mut numbers: Vec<i64> =
            lines_in(&out.path().join(name))?.iter().filter_map(|line| line.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    };
    let check = |name: &str, expected: Vec<i64>| -> Result<()> {
        let found = found(name)?;
        ensure(found == expected, || format!("{name} has {found:?}\n  expected {expected:?}"))
    };
    check("early", (0..n).map(|n| n * 2).collect())?;
    check("late", (0..n).map(|n| n + 1).collect())?;
    // Inserts minus deletes are the last answer.
    let mut left = std::collections::BTreeMap::<String, i64>::new();
    for line in lines_in(&out.path().join("changes"))? {
        let (op, row) = line.split_once(',').ok_or("a line without columns")?;
        *left.entry(row.into()).or_default() += if op == "insert" { 1 } else { -1 };
    }
    left.retain(|_, count| *count != 0);
    let counts = (0..5.min(n)).map(|g| (format!("{g},{}", (0..n).filter(|n| n % 5 == g).count()), 1));
    let counts: std::collections::BTreeMap<String, i64> = counts.collect();
    ensure(left == counts, || format!("changes come to {left:?}\n  expected {counts:?}"))
}

/// A crash during the backfill of a new query.
async fn reading_the_past() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(7);
    let (broker, database) = (Broker::default(), Database::default());
    let parts = (broker, database.clone());
    let mut machine = Machine::start(move || {
        Engine::builder().connector(Arc::new(parts.0.clone())).connector(Arc::new(parts.1.clone()))
    })?;
    run_all(
        &mut machine.session(),
        &[
            "SET max_batch_rows = 500",
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 20000, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW c AS SELECT count(*) AS c FROM n",
        ],
    )
    .await?;
    drive::expect_soon(&mut machine.session(), "SELECT c FROM c", &["20000"]).await?;
    for name in ["k0", "k1", "k2"] {
        let sql =
            format!("CREATE SINK {name} AS SELECT n FROM n WHERE n % 2 = 0 WITH (connector = 'database')");
        let mut session = machine.session();
        let asked = tokio::spawn(async move { run(&mut session, &sql).await.is_ok() });
        tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..25))).await;
        machine.crash(&mut random).await?;
        let told = asked.await.map_err(|error| error.to_string())?;
        let mut session = machine.session();
        let there = lines(&mut session, "SHOW SINKS").await?.iter().any(|line| line.contains(name));
        ensure(there || !told, || format!("{name} was acknowledged and is lost"))?;
        run(&mut session, "FLUSH").await?;
        let expected: i64 = (0..20_000).filter(|n| n % 2 == 0).sum();
        let found = sum(&database);
        ensure(found == if there { expected } else { 0 }, || {
            format!("{name} has {found}, expected {expected}")
        })?;
        if there {
            run(&mut session, &format!("DROP SINK {name}")).await?;
        }
        database.content().sums.clear();
    }
    Ok(())
}

/// Results that depend on batches and on time are the same, because the journal records these.
async fn batches(kept: Kept) -> Result<()> {
    for seed in seeds(&[0], 0..4) {
        batches_seed(kept, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn batches_seed(kept: Kept, seed: u64) -> Result<()> {
    const MADE: &[&str] = &[
        "SET clock = 'manual'",
        "SET batch_interval = '1 second'",
        "CREATE TABLE t (k INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')",
        "CREATE SOURCE q (x INT) WITH (connector = 'queue', one_at_a_time = false)",
        "CREATE STREAM each AS SELECT count(*) AS n, sum(x) AS s, max(_batch_id) AS b FROM q FOR EACH BATCH",
        "CREATE STREAM last AS SELECT x % 3 AS g, count(*) AS n FROM LAST(q, INTERVAL '3 seconds', INTERVAL '1 second') \
         GROUP BY x % 3 FOR EACH BATCH",
        "CREATE STREAM closed AS SELECT window_start, k, count(*) AS n FROM TUMBLE(t, ts, INTERVAL '5 seconds') GROUP BY \
         window_start, window_end, k EMIT ON WINDOW CLOSE",
        "CREATE MATERIALIZED VIEW idle WITH (state_ttl = '4 seconds') AS SELECT k, count(*) AS n FROM t GROUP BY k",
        "CREATE MATERIALIZED VIEW recent AS SELECT k, ts FROM t WHERE ts > now() - INTERVAL '6 seconds'",
        "CREATE MATERIALIZED VIEW windows AS SELECT window_start, k, count(*) AS n FROM TUMBLE(t, ts, INTERVAL '5 seconds') \
         GROUP BY window_start, window_end, k",
        "CREATE STREAM hops AS SELECT window_end, count(*) AS n, max(k) AS m FROM HOP(t, ts, INTERVAL '1 second', \
         INTERVAL '4 seconds') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    ];
    const SHOWN: &[&str] = &[
        "SELECT n, s, _batch_time FROM each",
        "SELECT *, _batch_time FROM last",
        "SELECT * FROM closed",
        "SELECT * FROM idle",
        "SELECT * FROM recent",
        "SELECT _window, k, _weight FROM late_rows('closed')",
        "SELECT * FROM windows",
        "SELECT _window, k, _weight FROM late_rows('windows')",
        "SELECT * FROM hops",
    ];
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start_at(kept, Engine::builder)?;
    let memory = Engine::start().map_err(|error| error.to_string())?;
    let mut model = memory.session();
    run_all(&mut machine.session(), MADE).await?;
    run_all(&mut model, MADE).await?;
    for second in 0..24 {
        for _ in 0..random.random_range(0..3) {
            let (k, behind) = (random.random_range(0..3), random.random_range(0..7));
            let sql = match random.random_range(0..4) {
                0 => format!("INSERT INTO q VALUES ({second}), ({k})"),
                1 => format!(
                    "DELETE FROM t WHERE k = {k} AND ts < TIMESTAMP '1970-01-01' + INTERVAL '{behind} s'"
                ),
                _ => format!(
                    "INSERT INTO t VALUES ({k}, TIMESTAMP '1970-01-01' + INTERVAL '{} s')",
                    second - behind
                ),
            };
            run(&mut machine.session(), &sql).await?;
            run(&mut model, &sql).await?;
        }
        if random.random_range(0..6) == 0 {
            // Late rows are put into their windows.
            let sql = "INSERT INTO windows SELECT * FROM late_rows('windows') WHERE _weight > 0 LIMIT 2";
            let (machine, model) = (run(&mut machine.session(), sql).await, run(&mut model, sql).await);
            ensure(machine.is_ok() == model.is_ok(), || format!("{machine:?}, but {model:?}"))?;
        }
        run(&mut machine.session(), "ADVANCE BATCH").await?;
        run(&mut model, "ADVANCE BATCH").await?;
        if random.random_range(0..4) == 0 {
            // A manual clock answers before its changes are durable; CREATE and SET don't.
            run(&mut machine.session(), "SET recursion_max = 100").await?;
            machine.crash(&mut random).await?;
        }
        if let Some(wrong) = difference(&mut machine.session(), &mut model, SHOWN).await? {
            return Err(format!("second {second}: {wrong}"));
        }
    }
    Ok(())
}

/// Runs a script as `millstream run` does, and returns the answers to its statements.
pub(super) async fn run_script(session: &mut Session, text: &str) -> Result<Vec<String>> {
    let mut script = Script::parse(text).map_err(|error| error.to_string())?;
    script.gather_ddl();
    session.begin_script();
    let mut answers = Vec::new();
    while let Some(outcomes) = session.step(&mut script).await.map_err(|error| error.to_string())? {
        answers.extend(outcomes.into_iter().map(|outcome| format!("{:?}", outcome.response)));
    }
    session.end_script();
    Ok(answers)
}

async fn script() -> Result<()> {
    const SCRIPT: &str = "CREATE TABLE t (x INT);
        CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS s FROM t;
        CREATE SUBSCRIPTION r FROM m WITH (snapshot = false);
        INSERT INTO t VALUES (1), (2);
        INSERT INTO t VALUES (1), (2);
        BEGIN; INSERT INTO t VALUES (10); COMMIT;
        UPDATE t SET x = x + 100 WHERE x = 10;";
    let mut random = SmallRng::seed_from_u64(3);
    let mut machine = Machine::start(Engine::builder)?;
    run_script(&mut machine.session(), SCRIPT).await?;
    expect(&mut machine.session(), "SELECT s FROM m", &["116"]).await?;
    for _ in 0..2 {
        machine.crash(&mut random).await?;
        let answers = run_script(&mut machine.session(), SCRIPT).await?;
        let again = answers.iter().filter(|answer| answer.contains("is not run again")).count();
        ensure(again == 4, || format!("{answers:#?}"))?;
        expect(&mut machine.session(), "SELECT s FROM m", &["116"]).await?;
    }
    // Only new statements of the script take effect.
    run_script(&mut machine.session(), &format!("{SCRIPT} INSERT INTO t VALUES (1), (2);")).await?;
    expect(&mut machine.session(), "SELECT s FROM m", &["119"]).await?;
    let changed = SCRIPT.replace("sum(x)", "max(x)");
    let Err(error) = run_script(&mut machine.session(), &changed).await else {
        return Err("another definition was taken".into());
    };
    let told = ["\"m\" exists with another definition", "sum(x)", "max(x)"];
    ensure(told.iter().all(|told| error.contains(told)), || error.clone())
}

async fn failed_disk() -> Result<()> {
    for n in [1, 2, 3, 4, 7] {
        let machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        run(&mut session, "CREATE TABLE t (x INT)").await?;
        machine.disk.fail_at(n);
        let mut acknowledged = BTreeSet::new();
        let mut failure = None;
        for x in 0..8 {
            match run(&mut session, &format!("INSERT INTO t VALUES ({x})")).await {
                Ok(_) if failure.is_none() => drop(acknowledged.insert(x.to_string())),
                Ok(_) => return Err(format!("{x} was taken after the failure")),
                Err(error) => failure = Some(error),
            }
        }
        let failure = failure.ok_or("nothing failed")?;
        ensure(failure.contains("fails as it was told to"), || failure.clone())?;
        ensure(machine.engine.progress().problems.len() == 1, || format!("{:?}", machine.engine.progress()))?;
        drop(session);
        machine.engine.stop().await.map_err(|error| error.to_string())?;
        let disk = machine.disk.crash(|_| 0);
        let engine = open(&disk, Engine::builder())?;
        let found: BTreeSet<String> =
            lines(&mut engine.session(), "SELECT x FROM t").await?.into_iter().collect();
        ensure(found == acknowledged, || format!("{found:?} is there, {acknowledged:?} was acknowledged"))?;
    }
    Ok(())
}

/// Files of another run do not count as delivered by this one.
async fn foreign_sink() -> Result<()> {
    let out = folder()?;
    write(out.path(), "part-5-900.csv", "1\n")?;
    let machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    let sink = format!(
        "CREATE SINK k FROM t WITH (connector = 'file', path = '{}', format = 'csv', filename = \
         'part-{{batch_time_ms}}-{{epoch}}.csv')",
        out.path().display()
    );
    run_all(&mut session, &["CREATE TABLE t (x INT) APPEND ONLY", &sink]).await?;
    until("the sink to be refused", || !machine.engine.progress().problems.is_empty()).await?;
    let problems = machine.engine.progress().problems.join("; ");
    ensure(problems.contains("holds epoch 900") && problems.contains("another run"), || problems.clone())
}

/// Returns a function that adds a number that the test sets.
fn shift(by: Arc<AtomicI64>) -> ScalarUDF {
    let add = move |arguments: &[ColumnarValue]| {
        let numbers = ColumnarValue::values_to_arrays(arguments)?;
        let by = by.load(Ordering::SeqCst);
        let sums = numbers[0].as_primitive::<Int64Type>().unary::<_, Int64Type>(|n| n + by);
        Ok(ColumnarValue::Array(Arc::new(sums)))
    };
    create_udf("shift", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(add))
}

/// If recovery computes another answer of a query, only the sink that received its changes stops, for good.
async fn differing() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(5);
    let (database, by, out) = (Database::default(), Arc::<AtomicI64>::default(), folder()?);
    let parts = (database.clone(), by.clone());
    let mut machine = Machine::start(move || {
        Engine::builder().connector(Arc::new(parts.0.clone())).scalar_function(shift(parts.1.clone()))
    })?;
    let same = format!(
        "CREATE SINK same AS SELECT n + 1 AS n FROM t WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        out.path().display()
    );
    const ODD: &str = "CREATE SINK odd AS SELECT shift(n) AS n FROM t WITH (connector = 'database')";
    let made = ["SET checkpoint_interval = 'off'", "CREATE TABLE t (n BIGINT) APPEND ONLY", ODD, &same];
    run_all(&mut machine.session(), &made).await?;
    let mut sent = 0;
    for n in 1..=4 {
        run(&mut machine.session(), &format!("INSERT INTO t VALUES ({n})")).await?;
        sent += n;
        until("the database to have it", || sum(&database) == sent).await?;
    }
    // As long as the answers are equal, there is no problem.
    machine.crash_at(|| {}, &mut random).await?;
    run(&mut machine.session(), "FLUSH").await?;
    ensure(machine.engine.progress().problems.is_empty(), || {
        format!("{:?}", machine.engine.progress().problems)
    })?;
    machine.crash_at(|| by.store(10, Ordering::SeqCst), &mut random).await?;
    for restarted in [false, true] {
        until("the sink to fail", || !machine.engine.progress().problems.is_empty()).await?;
        let problems = machine.engine.progress().problems.join("; ");
        let told = [
            "sink \"odd\" failed",
            "up to epoch",
            "differ after a restart",
            "was published",
            "create it again",
        ];
        ensure(told.iter().all(|told| problems.contains(told)), || format!("{restarted}: {problems}"))?;
        run_all(&mut machine.session(), &["INSERT INTO t VALUES (5)", "FLUSH", "CHECKPOINT"]).await?;
        ensure(sum(&database) == sent, || format!("{} was sent, expected {sent}", sum(&database)))?;
        machine.crash_at(|| {}, &mut random).await?;
    }
    run(&mut machine.session(), "FLUSH").await?;
    let mut lines = lines_in(out.path())?;
    lines.sort();
    ensure(lines == ["2", "3", "4", "5", "6", "6"], || format!("{lines:?}"))?;
    // A recreated sink begins anew.
    database.content().sums.clear();
    run_all(&mut machine.session(), &["DROP SINK odd", ODD, "FLUSH"]).await?;
    until("the new sink to deliver", || sum(&database) == 20 + 60).await
}
