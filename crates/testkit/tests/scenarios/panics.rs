//! A query that panics is rebuilt from its inputs once, and nothing else is affected.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, within_a_minute};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::machine::Machine;
use super::{Scenario, folder, write};

pub const ALL: &[Scenario] = &[
    ("a_query_that_panics_once_goes_on", || drive::block_on(once(Engine::builder))),
    ("a_query_that_panics_apart_goes_on", || drive::block_on(once(|| Engine::builder().step_apart(1)))),
    ("a_query_that_panics_again_is_suspended_alone", || drive::block_on(twice(Engine::builder))),
    ("a_query_that_panics_again_apart_is_suspended_alone", || {
        drive::block_on(twice(|| Engine::builder().step_apart(1)))
    }),
    ("a_query_over_a_source_reads_it_again_after_a_panic", || drive::block_on(sources())),
    ("a_query_over_many_rows_is_made_anew_apart", || drive::block_on(large())),
    ("panics_and_crashes_leave_the_batch_answer", || drive::block_on(crashes())),
    ("a_suspended_query_is_suspended_after_a_start_and_resumed", || drive::block_on(resumed())),
    ("a_resumed_query_is_there_after_a_start", || drive::block_on(resumed_after_limits())),
    ("a_query_is_not_resumed_without_rows_that_it_had", || drive::block_on(rows_that_are_gone())),
];

/// Functions that return their argument, or panic a given number of times.
#[derive(Clone, Default)]
struct Bombs(Arc<[AtomicI64; 5]>);

impl Bombs {
    fn arm(&self, number: usize, times: i64) {
        self.0[number].store(times, Ordering::SeqCst);
    }

    fn disarm(&self) {
        self.0.iter().for_each(|bomb| bomb.store(0, Ordering::SeqCst));
    }

    /// Returns true if it has panicked as often as it was to.
    fn is_spent(&self, number: usize) -> bool {
        self.0[number].load(Ordering::SeqCst) <= 0
    }

    fn function(&self, number: usize) -> ScalarUDF {
        let bombs = self.clone();
        let pass = move |arguments: &[ColumnarValue]| {
            let spend = |times: i64| (times > 0).then_some(times - 1);
            let armed = bombs.0[number].fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend);
            assert!(armed.is_err(), "bomb {number} has gone off");
            Ok(arguments[0].clone())
        };
        let (of, immutable) = (vec![DataType::Int64], Volatility::Immutable);
        create_udf(&format!("bomb{number}"), of, DataType::Int64, immutable, Arc::new(pass))
    }

    fn of(&self, builder: EngineBuilder) -> EngineBuilder {
        (0..self.0.len()).fold(builder, |builder, number| builder.scalar_function(self.function(number)))
    }
}

const TABLES: [&str; 2] =
    ["CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT)", "CREATE TABLE u (v BIGINT, w BIGINT)"];

/// Views, each with a bomb of its own, and their readers. The batch answer is that of the same query without
/// bombs.
const VIEWS: [(&str, &str); 7] = [
    ("sums", "SELECT v, count(*) AS n, sum(bomb0(k)) AS s, max(k) AS m FROM t GROUP BY v"),
    ("pairs", "SELECT k, w FROM t LEFT JOIN u ON t.v = u.v AND bomb1(u.w) >= t.k - 100"),
    ("shared", "SELECT k, w, bomb2(k) AS b FROM t JOIN u ON t.v = u.v"),
    ("plain", "SELECT k, w FROM t JOIN u ON t.v = u.v"),
    ("ranks", "SELECT k, row_number() OVER (PARTITION BY v ORDER BY bomb3(k)) AS r FROM t"),
    ("counts", "SELECT n, count(*) AS c FROM sums GROUP BY n"),
    ("joined", "SELECT sums.v, sums.s, w FROM sums JOIN u ON sums.v = u.v WHERE bomb4(sums.s) IS NOT NULL"),
];

async fn make_views(session: &mut Session) -> Result<()> {
    run_all(session, &TABLES).await?;
    for (name, query) in VIEWS {
        run(session, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
    }
    Ok(())
}

/// Fails unless every view equals its query.
async fn all_equal(session: &mut Session) -> Result<()> {
    for (name, query) in VIEWS {
        let mut found = lines(session, &format!("SELECT * FROM {name}")).await?;
        let query =
            (0..5).fold(query.to_string(), |query, number| query.replace(&format!("bomb{number}("), "("));
        let mut batch = lines(session, &query).await?;
        found.sort();
        batch.sort();
        ensure(found == batch, || format!("{name} is {found:?}, and its query gives {batch:?}"))?;
    }
    Ok(())
}

fn change(random: &mut SmallRng) -> String {
    let (k, v) = (random.random_range(0..20), random.random_range(0..4));
    match random.random_range(0..6) {
        0 => format!("DELETE FROM t WHERE k < {v}"),
        1 => format!("UPDATE t SET v = (v + 1) % 4 WHERE k > {k}"),
        2 => format!("DELETE FROM u WHERE w % 7 = {v}"),
        3 => format!("INSERT INTO u VALUES ({v}, {k}), ({v}, {v}), (NULL, {k})"),
        _ => format!("INSERT INTO t VALUES ({k}, {v}), ({}, {v}) ON CONFLICT DO NOTHING", k + 20),
    }
}

/// Returns the sum of the changes in the folder of a sink.
fn sum_in(path: &Path) -> Result<Vec<(String, i64)>> {
    let mut sums = std::collections::BTreeMap::new();
    for line in super::lines_in(path)? {
        let (op, row) = line.split_once(',').ok_or_else(|| format!("a sink wrote {line}"))?;
        *sums.entry(row.to_string()).or_insert(0) += if op == "insert" { 1 } else { -1 };
    }
    Ok(sums.into_iter().filter(|(_, weight)| *weight != 0).collect())
}

async fn once(builder: fn() -> EngineBuilder) -> Result<()> {
    for seed in seeds(&[0, 1], 0..6) {
        once_of(builder(), seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn once_of(builder: EngineBuilder, seed: u64) -> Result<()> {
    let (mut random, bombs, out) = (SmallRng::seed_from_u64(seed), Bombs::default(), folder()?);
    let engine = bombs.of(builder).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    make_views(&mut session).await?;
    let sink = format!(
        "CREATE SINK out FROM sums WITH (connector = 'file', path = '{}', format = 'csv', header = false, \
         changelog = true)",
        out.path().join("sums").display()
    );
    run(&mut session, &sink).await?;
    for number in 0..5 {
        for _ in 0..random.random_range(1..8) {
            run(&mut session, &change(&mut random)).await?;
        }
        bombs.arm(number, 1);
        let mut tries = 0;
        while !bombs.is_spent(number) && tries < 50 {
            run(&mut session, &change(&mut random)).await?;
            run(&mut session, "FLUSH").await?;
            tries += 1;
        }
        ensure(bombs.is_spent(number), || format!("bomb {number} has never gone off"))?;
        within_a_minute("the views to be right", all_equal(&mut session)).await??;
        let told = format!(
            "SELECT count(*) FROM millstream.errors WHERE message LIKE '%bomb {number} has gone off%rebuilt from its \
             inputs in epoch%'"
        );
        expect(&mut session, &told, &["1"]).await?;
    }
    for _ in 0..10 {
        run(&mut session, &change(&mut random)).await?;
    }
    run(&mut session, "FLUSH").await?;
    within_a_minute("the views to be right", all_equal(&mut session)).await??;
    let suspended = "SELECT count(*) FROM millstream.materialized_views WHERE status = 'suspended'";
    expect(&mut session, suspended, &["0"]).await?;
    has_backtrace(&mut session, "sums").await?;
    // The sink received every change once.
    let batch = lines(&mut session, "SELECT * FROM sums").await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    let sums = sum_in(&out.path().join("sums"))?;
    let ones = sums.iter().all(|(_, weight)| *weight == 1);
    ensure(sums.len() == batch.len() && ones, || format!("the sink has {sums:?}, the view {batch:?}"))
}

/// Waits for the backtrace of a query's panic, whose symbols are resolved in the background.
async fn has_backtrace(session: &mut Session, query: &str) -> Result<()> {
    let sql = format!(
        "SELECT count(*) FROM millstream.errors WHERE query = '{query}' AND strpos(backtrace, 'panic') > 0 AND \
         length(backtrace) BETWEEN 100 AND 17000"
    );
    for _ in 0..600 {
        if lines(session, &sql).await? == ["1"] {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(format!("{query} has no backtrace: {:?}", lines(session, "SELECT * FROM millstream.errors").await?))
}

const STATUS: &str = "SELECT name, status FROM millstream.materialized_views ORDER BY name";

async fn twice(builder: fn() -> EngineBuilder) -> Result<()> {
    let bombs = Bombs::default();
    let engine = bombs.of(builder()).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    make_views(&mut session).await?;
    run_all(&mut session, &["INSERT INTO t VALUES (1, 1), (2, 1)", "INSERT INTO u VALUES (1, 7)"]).await?;
    // Each step panics, and so does the rebuild.
    bombs.arm(0, i64::MAX);
    run_all(&mut session, &["INSERT INTO t VALUES (3, 2)", "INSERT INTO t VALUES (4, 2)", "FLUSH"]).await?;
    expect(&mut session, "SELECT count(*) FROM plain", &["2"]).await?;
    expect(&mut session, "SELECT k FROM ranks", &["1", "2", "3", "4"]).await?;
    let found = within_a_minute("the suspended view", lines(&mut session, "SELECT * FROM sums")).await?;
    let error = found.err().unwrap_or_default();
    let told = ["\"sums\" is suspended", "bomb 0 has gone off", "rebuilt from its inputs", "RESUME sums"];
    ensure(told.iter().all(|told| error.contains(told)), || error.clone())?;
    let mut status = Vec::new();
    for line in lines(&mut session, STATUS).await? {
        status.extend(line.strip_suffix("|suspended").map(str::to_string));
    }
    ensure(status == ["counts", "joined", "sums"], || format!("{status:?} are suspended"))?;
    has_backtrace(&mut session, "sums").await?;

    // The query panics again when it is resumed; the next time it doesn't.
    run(&mut session, "RESUME sums").await?;
    run(&mut session, "FLUSH").await?;
    ensure(lines(&mut session, "SELECT * FROM sums").await.is_err(), || "it panics no more".into())?;
    let refused = lines(&mut session, "RESUME counts").await.err().unwrap_or_default();
    ensure(refused.contains("RESUME sums"), || refused.clone())?;
    bombs.disarm();
    run_all(&mut session, &["RESUME sums", "INSERT INTO t VALUES (5, 1)", "FLUSH"]).await?;
    all_equal(&mut session).await?;
    expect(&mut session, "SELECT count(*) FROM millstream.errors", &["0"]).await?;
    // The next panic counts as the first one again.
    bombs.arm(0, 1);
    run_all(&mut session, &["INSERT INTO t VALUES (6, 1)", "FLUSH"]).await?;
    within_a_minute("the views to be right", all_equal(&mut session)).await??;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn sources() -> Result<()> {
    for durable in [false, true] {
        for seed in seeds(&[0, 1], 0..4) {
            sources_of(durable, seed).await.map_err(|error| format!("{durable}, seed {seed}: {error}"))?;
        }
    }
    Ok(())
}

/// A view over files and a table panics, while it steps or while recovery repeats the step.
async fn sources_of(durable: bool, seed: u64) -> Result<()> {
    let (mut random, bombs, files) = (SmallRng::seed_from_u64(seed), Bombs::default(), folder()?);
    let builder = {
        let bombs = bombs.clone();
        move || bombs.of(Engine::builder())
    };
    let mut machine = Machine::start(builder)?;
    let source = format!(
        "CREATE SOURCE s (id BIGINT, v BIGINT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        files.path().display()
    );
    const VIEW: &str = "CREATE MATERIALIZED VIEW m AS SELECT w, count(*) AS n, sum(bomb0(id)) AS s FROM s JOIN u ON \
                        s.v = u.v GROUP BY w";
    let all = ["SET checkpoint_interval = 'off'", TABLES[1], &source, VIEW];
    run_all(&mut machine.session(), &all).await?;
    let over = "CREATE MATERIALIZED VIEW over_m AS SELECT sum(n) AS n, sum(s) AS s FROM m";
    run(&mut machine.session(), over).await?;
    run(&mut machine.session(), "CREATE MATERIALIZED VIEW taken AS SELECT count(*) AS n FROM s").await?;
    let mut ids = Vec::new();
    for round in 0..6 {
        for number in 0..random.random_range(1..4) {
            let first = ids.len() as i64;
            ids.extend(first..first + random.random_range(1..60));
            let of = |id: &i64| format!("{id},{}\n", id % 3);
            let text: String = ids[first as usize..].iter().map(of).collect();
            write(files.path(), &format!("{round}{number}.csv"), &text)?;
            run(&mut machine.session(), &format!("INSERT INTO u VALUES ({}, {round})", number % 3)).await?;
        }
        if round == 3 {
            bombs.arm(0, 1);
        }
        until_taken(&mut machine.session(), ids.len()).await?;
        if durable && random.random_range(0..2) == 0 {
            machine
                .crash_at(
                    || {
                        if round >= 3 {
                            bombs.arm(0, 1)
                        }
                    },
                    &mut random,
                )
                .await?;
            until_taken(&mut machine.session(), ids.len()).await?;
        }
    }
    let number = |values: Vec<String>| values.concat();
    let count = "SELECT count(*) FROM u WHERE v = ";
    let (mut n, mut s) = (0, 0);
    for v in 0..3 {
        let pairs: i64 = number(lines(&mut machine.session(), &format!("{count}{v}")).await?)
            .parse()
            .map_err(|error| format!("{error}"))?;
        n += pairs * ids.iter().filter(|id| **id % 3 == v).count() as i64;
        s += pairs * ids.iter().filter(|id| **id % 3 == v).sum::<i64>();
    }
    let expected = format!("{n}|{s}");
    let mut session = machine.session();
    for sql in ["SELECT sum(n), sum(s) FROM m", "SELECT * FROM over_m"] {
        let found = within_a_minute("the view over a source", lines(&mut session, sql)).await??;
        ensure(found == [expected.clone()], || format!("{sql}: {found:?}, expected {expected}"))?;
    }
    Ok(())
}

/// Waits until all rows of the files are taken.
async fn until_taken(session: &mut Session, rows: usize) -> Result<()> {
    for _ in 0..600 {
        run(session, "FLUSH").await?;
        if lines(session, "SELECT n FROM taken").await? == [rows.to_string()] {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(format!("{rows} rows are not taken after a minute"))
}

/// Runs over more rows than others may wait for. A query that shares a part would be suspended.
async fn large() -> Result<()> {
    let bombs = Bombs::default();
    let engine = bombs.of(Engine::builder().separate_parts()).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    make_views(&mut session).await?;
    let rows = "INSERT INTO t SELECT i, i % 1000 FROM generate_series(1, 50000) g(i)";
    run_all(&mut session, &[rows, "INSERT INTO u SELECT i, i FROM generate_series(1, 1000) g(i)"]).await?;
    run(&mut session, "FLUSH").await?;
    for number in [0, 1, 2, 4] {
        in_the_loop(&mut session).await?;
        bombs.arm(number, 1);
        let key = 60_000 + number;
        let changes = [
            format!("INSERT INTO t VALUES ({key}, {number})"),
            format!("INSERT INTO u VALUES (7, {number})"),
        ];
        run_all(&mut session, &[&changes[0], &changes[1], "DELETE FROM t WHERE k = 77"]).await?;
        within_a_minute("the views to be right", all_equal(&mut session)).await??;
        ensure(bombs.is_spent(number), || format!("bomb {number} has not gone off"))?;
    }
    let suspended = "SELECT count(*) FROM millstream.materialized_views WHERE status = 'suspended'";
    expect(&mut session, suspended, &["0"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Waits until no view lags.
async fn in_the_loop(session: &mut Session) -> Result<()> {
    let behind = "SELECT count(*) FROM millstream.materialized_views WHERE status <> 'running'";
    for id in 0..600 {
        run(session, &format!("INSERT INTO u VALUES (NULL, {id})")).await?;
        if lines(session, behind).await? == ["0"] {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(format!("some views are behind: {:?}", lines(session, STATUS).await?))
}

async fn crashes() -> Result<()> {
    for seed in 0..6 {
        crashes_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

/// Bombs go off while the engine runs, and during recovery; each at most once per process.
async fn crashes_of(seed: u64) -> Result<()> {
    let (mut random, bombs) = (SmallRng::seed_from_u64(seed), Bombs::default());
    let builder = {
        let bombs = bombs.clone();
        move || bombs.of(Engine::builder().step_apart(1 + seed % 2))
    };
    let mut machine = Machine::start(builder)?;
    machine.set_interval(&mut random).await?;
    make_views(&mut machine.session()).await?;
    for _ in 0..5 {
        bombs.arm((seed as usize + random.random_range(1..5)) % 5, 1);
        for _ in 0..random.random_range(1..10) {
            run(&mut machine.session(), &change(&mut random)).await?;
        }
        within_a_minute("the views to be right", all_equal(&mut machine.session())).await??;
        bombs.disarm();
        machine.crash_at(|| bombs.arm(seed as usize % 5, 1), &mut random).await?;
        within_a_minute("the views to be right", all_equal(&mut machine.session())).await??;
        bombs.disarm();
    }
    Ok(())
}

/// Too many rows in one epoch, and then few.
const TOO_MANY: [&str; 2] =
    ["INSERT INTO t SELECT i, 1 FROM generate_series(1, 50) g(i)", "DELETE FROM t WHERE k > 5"];

async fn resumed_after_limits() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(2);
    let mut machine = Machine::start(Engine::builder)?;
    let make = [
        "SET output_rows_max = 100",
        "CREATE TABLE t (k BIGINT PRIMARY KEY, g BIGINT)",
        "CREATE MATERIALIZED VIEW u AS SELECT a.k AS k1, b.k AS k2 FROM t a JOIN t b ON a.g = b.g",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM u",
        "PAUSE v",
    ];
    run_all(&mut machine.session(), &make).await?;
    run_all(&mut machine.session(), &TOO_MANY).await?;
    // Neither a paused view nor present settings make the query different from the one after a start.
    let resume = ["SET output_rows_max = 100000", "SET state_ttl = '1 hour'", "RESUME u", "CHECKPOINT"];
    run_all(&mut machine.session(), &resume).await?;
    for _ in 0..2 {
        expect(&mut machine.session(), "SELECT n FROM v", &["25"]).await?;
        run_all(&mut machine.session(), &["INSERT INTO t VALUES (6, 1)", "FLUSH"]).await?;
        expect(&mut machine.session(), "SELECT n FROM v", &["36"]).await?;
        run_all(&mut machine.session(), &["DELETE FROM t WHERE k = 6", "CHECKPOINT"]).await?;
        machine.crash_at(|| {}, &mut random).await?;
    }
    Ok(())
}

async fn rows_that_are_gone() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let source = format!(
        "CREATE SOURCE e (a BIGINT, g BIGINT) WITH (connector = 'socket', mode = 'listen', host = '127.0.0.1', \
         port = {}, format = 'csv')",
        free.map_err(|error| error.to_string())?.port()
    );
    let make = [
        "SET output_rows_max = 100",
        &source,
        "CREATE TABLE t (k BIGINT PRIMARY KEY, g BIGINT)",
        "CREATE MATERIALIZED VIEW v AS SELECT e.a, t.k FROM e JOIN t ON e.g = t.g",
        "INSERT INTO e VALUES (1, 1), (2, 1), (3, 1)",
    ];
    run_all(&mut session, &make).await?;
    run_all(&mut session, &TOO_MANY).await?;
    let refused = lines(&mut session, "RESUME v").await.err().unwrap_or_default();
    ensure(refused.contains("can't be read again"), || refused.clone())?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn resumed() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    let bombs = Bombs::default();
    let builder = {
        let bombs = bombs.clone();
        move || bombs.of(Engine::builder())
    };
    let mut machine = Machine::start(builder)?;
    make_views(&mut machine.session()).await?;
    run_all(&mut machine.session(), &["INSERT INTO t VALUES (1, 1)", "INSERT INTO u VALUES (1, 7)"]).await?;
    bombs.arm(0, i64::MAX);
    run_all(&mut machine.session(), &["INSERT INTO t VALUES (3, 1)", "CHECKPOINT"]).await?;
    bombs.disarm();
    machine.crash_at(|| {}, &mut random).await?;
    let error = lines(&mut machine.session(), "SELECT * FROM sums").await.err().unwrap_or_default();
    ensure(error.contains("is suspended") && error.contains("RESUME sums"), || error.clone())?;
    let resume = ["INSERT INTO t VALUES (4, 1)", "RESUME sums", "INSERT INTO t VALUES (5, 1)", "FLUSH"];
    run_all(&mut machine.session(), &resume).await?;
    all_equal(&mut machine.session()).await?;
    machine.crash_at(|| {}, &mut random).await?;
    all_equal(&mut machine.session()).await?;

    // The engine does not know how much of the query a sink has published, so it refuses RESUME.
    let out = folder()?;
    let sink = format!(
        "CREATE SINK o FROM counts WITH (connector = 'file', path = '{}', format = 'csv', changelog = true)",
        out.path().display()
    );
    run(&mut machine.session(), &sink).await?;
    bombs.arm(0, i64::MAX);
    run_all(&mut machine.session(), &["INSERT INTO t VALUES (6, 1)", "FLUSH"]).await?;
    bombs.disarm();
    let refused = lines(&mut machine.session(), "RESUME sums").await.err().unwrap_or_default();
    ensure(refused.contains("\"o\"") && refused.contains("DROP SINK o"), || refused.clone())?;
    run_all(&mut machine.session(), &["DROP SINK o", "RESUME sums", "FLUSH"]).await?;
    all_equal(&mut machine.session()).await
}
