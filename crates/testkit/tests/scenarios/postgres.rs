//! The sink `postgres` with a server. It publishes each epoch once, whatever is cut, stopped or restarted;
//! values are exact; rows that don't fit are reported. If PostgreSQL isn't installed, all tests are skipped
//! with a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_connect::{Connector, Error, Options, Sink, SinkSpec};
use millstream_delta::{Chunk, Cut as EpochCut, Delta, Epoch, Timestamp};
use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect_soon, lines, run, run_all, seeds};
use millstream_testkit::postgres::{Cut, Postgres, Proxy};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("postgres_holds_each_epoch_once_wherever_a_connection_is_cut", || drive::block_on(cut_everywhere())),
    ("postgres_is_what_the_view_is_through_killed_connections", || drive::block_on(killed_connections())),
    ("postgres_holds_everything_once_through_crashes", || drive::block_on(crashes())),
    ("postgres_gets_every_type", || drive::block_on(every_type())),
    ("postgres_refuses_what_does_not_fit", || drive::block_on(bad_input())),
    ("postgres_says_which_row_it_refuses", || drive::block_on(bad_rows())),
    ("postgres_has_one_engine_a_name", || drive::block_on(two_engines())),
];

fn engine() -> Result<Engine> {
    let builder = Engine::builder().connector(Arc::new(millstream_postgres::Postgres));
    builder.start().map_err(|error| error.to_string())
}

/// Waits until a table has the expected content.
async fn holds(postgres: &Postgres, sql: &str, expected: &[String]) -> Result<()> {
    let mut found = Vec::new();
    for _ in 0..600 {
        found = postgres.query(sql).await.unwrap_or_default();
        found.sort();
        if found == expected {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{sql}\n  gives    {found:?}\n  expected {expected:?}"))
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Utf8View, true),
    ]))
}

fn rows(rows: &[(i64, &str)]) -> Result<RecordBatch> {
    let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let values = StringViewArray::from_iter_values(rows.iter().map(|row| row.1));
    RecordBatch::try_new(columns(), vec![Arc::new(keys), Arc::new(values)]).map_err(|error| error.to_string())
}

/// The deletes and inserts of an epoch.
type Changes = (&'static [(i64, &'static str)], &'static [(i64, &'static str)]);

const EPOCHS: &[Changes] = &[
    (&[], &[(1, "a"), (2, "b"), (3, "c")]),
    (&[(1, "a")], &[(1, "aa"), (4, "d")]),
    (&[(2, "b"), (4, "d")], &[]),
    (&[(3, "c")], &[(3, "cc"), (2, "again")]),
    (&[(1, "aa")], &[(5, "e")]),
];

/// A sink with its deliveries. Transient failures are retried, and now and then with a new sink.
struct Delivering<'a> {
    spec: &'a SinkSpec,
    sink: Box<dyn Sink>,
    failures: usize,
}

impl Delivering<'_> {
    fn open(spec: &SinkSpec) -> Result<Delivering<'_>> {
        let sink = millstream_postgres::Postgres.sink(spec).map_err(|error| error.to_string())?;
        Ok(Delivering { spec, sink, failures: 0 })
    }

    fn failed(&mut self, error: Error) -> Result<()> {
        self.failures += 1;
        match error {
            Error::External(_) if self.failures < 20 => Ok(()),
            other => Err(format!("after {} failures: {other}", self.failures)),
        }
    }

    /// Creates the sink again, like a restarted engine.
    async fn start_again(&mut self) -> Result<Epoch> {
        self.sink = millstream_postgres::Postgres.sink(self.spec).map_err(|error| error.to_string())?;
        loop {
            match self.sink.recover().await {
                Ok(held) => return Ok(held),
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// Delivers the epochs at these indices with one commit.
    async fn deliver(&mut self, epochs: std::ops::Range<usize>) -> Result<()> {
        for place in epochs.clone() {
            let (gone, come) = EPOCHS[place];
            let mut delta = Delta::insert(rows(come)?);
            delta.push(Chunk::delete(rows(gone)?));
            let cut = EpochCut::new(Epoch(place as u64 + 1), Timestamp(0));
            self.sink.write(&cut, &delta).await.map_err(|error| error.to_string())?;
        }
        let through = Epoch(epochs.end as u64);
        while let Err(error) = self.sink.commit(through).await {
            self.failed(error)?;
        }
        Ok(())
    }
}

/// Each message of the sink is once the last of its connection, received or not. In the midst the sink is
/// dropped, as by `kill -9`, and created again.
async fn cut_everywhere() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let proxy = Proxy::start(postgres.port)?;
    let options = |append_only: bool| {
        let mut options = BTreeMap::from([
            ("url".to_string(), postgres.url(proxy.port)),
            ("table".to_string(), "public.t".to_string()),
            ("create".to_string(), "true".to_string()),
        ]);
        if !append_only {
            options.insert("primary_key".to_string(), "k".to_string());
        }
        Options(options)
    };
    let spec = SinkSpec {
        name: "k".into(),
        columns: columns(),
        append_only: false,
        key: Some(vec![0]),
        auto_pace: false,
        options: options(false),
    };
    let mut runs = 0;
    for arrives in [false, true] {
        for at in 1.. {
            postgres.query("DROP TABLE IF EXISTS public.t, millstream_sinks").await?;
            proxy.cut(Some(Cut { at, arrives }));
            let told = format!("cut at message {at}, which arrives: {arrives}");
            let failed = |error: String| format!("{told}: {error}");
            let mut delivering = Delivering::open(&spec)?;
            let held = delivering.start_again().await.map_err(failed)?;
            ensure(held == Epoch(0), || format!("{told}: a new sink holds {held}"))?;
            delivering.deliver(0..2).await.map_err(failed)?;
            // A transaction in progress at the kill is rolled back, or committed and reported by `recover`.
            let _ =
                tokio::time::timeout(Duration::from_millis(at as u64 % 7), delivering.deliver(2..3)).await;
            let held = delivering.start_again().await.map_err(failed)?;
            ensure((2..=3).contains(&held.0), || format!("{told}: it holds {held}"))?;
            delivering.deliver(held.0 as usize..EPOCHS.len()).await.map_err(failed)?;
            let found = postgres.query("SELECT k, v FROM public.t ORDER BY k").await?;
            ensure(found == ["2|again", "3|cc", "5|e"], || format!("{told}: {found:?}"))?;
            let found = postgres.query("SELECT sink, target, epoch FROM millstream_sinks").await?;
            ensure(found == ["k|public.t|5"], || format!("{told}: {found:?}"))?;
            runs += 1;
            if proxy.is_waiting() {
                break;
            }
        }
    }
    ensure(runs > 40, || format!("there were only {runs} messages to cut at"))
}

/// Random changes, while the server ends connections at random and is restarted once.
async fn killed_connections() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let engine = engine()?;
    let mut session = engine.session();
    let url = postgres.url(postgres.port);
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, g INT, v TEXT)",
            "CREATE TABLE log (n BIGINT NOT NULL) APPEND ONLY",
            "CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, max(v) AS m FROM t GROUP BY g",
            &format!("CREATE SINK groups FROM sums WITH (connector = 'postgres', url = '{url}', table = 'sums', \
                      create = true, primary_key = 'g')"),
            &format!("CREATE SINK rows FROM t WITH (connector = 'postgres', url = '{url}', table = 't', create = true)"),
            &format!("CREATE SINK log_rows FROM log WITH (connector = 'postgres', url = '{url}', table = 'log', \
                      create = true)"),
        ],
    )
    .await?;
    let mut random = SmallRng::seed_from_u64(7);
    for round in 0..120 {
        let (k, g) = (random.random_range(0..40), random.random_range(0..5));
        run(&mut session, &format!("INSERT INTO log VALUES ({round}), ({round})")).await?;
        let change = match random.random_range(0..4) {
            0 => format!("DELETE FROM t WHERE k < {g}"),
            1 => format!("UPDATE t SET g = nullif({g}, 2), v = v || 'x' WHERE k > {k}"),
            _ => format!("INSERT INTO t VALUES ({k}, {g}, 'it''s {round}')"),
        };
        run(&mut session, &change).await?;
        if round % 5 == 0 {
            postgres
                .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'millstream%'")
                .await?;
        }
        if round == 60 {
            postgres.stop()?;
            run(&mut session, "INSERT INTO t VALUES (1000, 1, 'while it was away')").await?;
            expect_away(&mut session).await?;
            postgres.run()?;
        }
    }
    for (sql, target) in [
        ("SELECT g, n, m FROM sums", "SELECT g, n, m FROM sums"),
        ("SELECT k, g, v FROM t", "SELECT k, g, v FROM t"),
        ("SELECT n FROM log", "SELECT n FROM log"),
    ] {
        let expected = lines(&mut session, sql).await?;
        holds(&postgres, target, &expected).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Waits until a sink reports that its database is unreachable, and that it retries.
async fn expect_away(session: &mut Session) -> Result<()> {
    let mut found = Vec::new();
    for _ in 0..600 {
        found = lines(session, "SHOW SINKS").await?;
        if found.iter().any(|line| line.contains("could not")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("no sink says that its database is away: {found:?}"))
}

/// An engine with a data directory crashes at random and loses unsynced bytes, and its connections are cut at
/// random. The tables equal those without any of that.
async fn crashes() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let proxy = Proxy::start(postgres.port)?;
    for seed in seeds(&[0], 0..4) {
        crashes_seed(seed, &postgres, &proxy).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn crashes_seed(seed: u64, postgres: &Postgres, proxy: &Proxy) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    postgres.query("DROP TABLE IF EXISTS log, groups, millstream_sinks").await?;
    proxy.cut(None);
    let mut machine =
        Machine::start(|| Engine::builder().connector(Arc::new(millstream_postgres::Postgres)))?;
    machine.set_interval(&mut random).await?;
    let with = |table: &str| {
        let url = postgres.url(proxy.port);
        format!("WITH (connector = 'postgres', url = '{url}', table = '{table}', create = true)")
    };
    run_all(
        &mut machine.session(),
        &[
            "CREATE TABLE t (n BIGINT PRIMARY KEY)",
            "CREATE TABLE log (n BIGINT) APPEND ONLY",
            &format!("CREATE SINK log_rows FROM log {}", with("log")),
            &format!(
                "CREATE SINK sums AS SELECT n % 5 AS g, count(*) AS c FROM t GROUP BY n % 5 {}",
                with("groups")
            ),
        ],
    )
    .await?;
    let mut n = 0;
    for _ in 0..6 {
        proxy.cut(Some(Cut { at: random.random_range(1..40), arrives: random.random_bool(0.5) }));
        for _ in 0..random.random_range(1..12) {
            let mut session = machine.session();
            run(&mut session, &format!("INSERT INTO log VALUES ({n}), ({})", n + 1)).await?;
            run(&mut session, &format!("INSERT INTO t VALUES ({n}), ({})", n + 1)).await?;
            run(&mut session, &format!("DELETE FROM t WHERE n < {}", n - 10)).await?;
            n += 2;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        machine.crash(&mut random).await?;
    }
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    let log = sorted((0..n).map(|n| n.to_string()).collect());
    holds(postgres, "SELECT n FROM log", &log).await?;
    let groups = lines(&mut machine.session(), "SELECT n % 5, count(*) FROM t GROUP BY n % 5").await?;
    holds(postgres, "SELECT g, c FROM groups", &sorted(groups)).await
}

/// Columns of every type, a value of each, and PostgreSQL's output.
const TYPES: &[(&str, &str, &str)] = &[
    ("BOOLEAN", "true", "t"),
    ("TINYINT", "-128", "-128"),
    ("SMALLINT", "-32768", "-32768"),
    ("INT", "2147483647", "2147483647"),
    ("BIGINT", "-9223372036854775808", "-9223372036854775808"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
    ("REAL", "0.1", "0.1"),
    ("REAL", "'NaN'", "NaN"),
    ("DOUBLE PRECISION", "1e300", "1e+300"),
    ("DOUBLE PRECISION", "'-Infinity'", "-Infinity"),
    ("DOUBLE PRECISION", "'Infinity'", "Infinity"),
    ("NUMERIC(5, 2)", "-0.05", "-0.05"),
    (
        "NUMERIC(76, 10)",
        "123456789012345678901234567890123456789012345678901234567890123456.0123456789",
        "123456789012345678901234567890123456789012345678901234567890123456.0123456789",
    ),
    ("TEXT", "'tab\t, \"quotes\" \\ and {braces} é 漢 😀'", "tab\t, \"quotes\" \\ and {braces} é 漢 😀"),
    ("TEXT", "''", ""),
    ("TEXT", "'NULL'", "NULL"),
    ("BYTEA", "'\\x00ff27'", "\\x00ff27"),
    ("DATE", "DATE '2024-02-29'", "2024-02-29"),
    ("TIME(6)", "TIME '23:59:59.999999'", "23:59:59.999999"),
    ("TIMESTAMP(6)", "TIMESTAMP '2024-05-01 12:00:00.000001'", "2024-05-01 12:00:00.000001"),
    ("TIMESTAMP", "TIMESTAMP '1969-12-31 23:59:59.5'", "1969-12-31 23:59:59.5"),
    ("TIMESTAMPTZ(6)", "TIMESTAMPTZ '2024-05-01 12:00:00.5+02:00'", "2024-05-01 10:00:00.5+00"),
    ("INTERVAL", "INTERVAL '-1 year 3 days -04:05:06.5'", "-1 years +3 days -04:05:06.5"),
    ("UUID", "'550e8400-e29b-41d4-a716-446655440000'", "550e8400-e29b-41d4-a716-446655440000"),
    ("JSON", "'{\"a\": [1, \"x\"]}'", "{\"a\": [1, \"x\"]}"),
    ("INT[]", "[1, NULL, -3]", "{1,NULL,-3}"),
    ("TEXT[]", "['', 'null', 'a\"\\,}', NULL]", "{\"\",\"null\",\"a\\\"\\\\,}\",NULL}"),
    ("DATE[]", "[DATE '2024-02-29']", "{2024-02-29}"),
];

/// Each type is a column of one table, with a row of values and a row of NULLs, inserted once more and
/// deleted.
async fn every_type() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let engine = engine()?;
    let mut session = engine.session();
    let url = postgres.url(postgres.port);
    let declared: Vec<String> =
        TYPES.iter().enumerate().map(|(place, (name, ..))| format!("\"c {place}\" {name}")).collect();
    run(&mut session, &format!("CREATE TABLE t (k INT PRIMARY KEY, {})", declared.join(", "))).await?;
    let nested = "SELECT k, named_struct('x', k, 'y', 'z') AS s, [[k], [k, 2]] AS l FROM t";
    run_all(
        &mut session,
        &[
            &format!("CREATE SINK all_types FROM t WITH (connector = 'postgres', url = '{url}', \
                      table = '\"All Types\"', create = true)"),
            &format!("CREATE SINK nested AS {nested} WITH (connector = 'postgres', url = '{url}', table = 'nested', \
                      create = true)"),
        ],
    )
    .await?;
    let values: Vec<&str> = TYPES.iter().map(|(_, value, _)| *value).collect();
    let nulls = vec!["NULL"; TYPES.len()];
    for (k, values) in [(1, &values), (2, &nulls), (3, &values)] {
        run(&mut session, &format!("INSERT INTO t VALUES ({k}, {})", values.join(", "))).await?;
    }
    run_all(&mut session, &["DELETE FROM t WHERE k = 3", "UPDATE t SET \"c 0\" = NULL WHERE k = 2"]).await?;
    let shown: Vec<&str> = TYPES.iter().map(|(.., shown)| *shown).collect();
    let expected = [format!("1|{}", shown.join("|")), format!("2|{}", nulls.join("|"))];
    let show = "SET timezone = 'UTC'; SELECT * FROM \"All Types\"";
    holds(&postgres, show, &expected).await?;
    let expected = [1, 2].map(|k| format!("{k}|{{\"x\":{k},\"y\":\"z\"}}|[[{k}],[{k},2]]"));
    holds(&postgres, "SELECT * FROM nested", &expected).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Fails unless a statement is rejected with all of these words.
async fn refused(session: &mut Session, sql: &str, words: &[&str]) -> Result<()> {
    match run(session, sql).await {
        Ok(_) => Err(format!("it was not refused: {sql}")),
        Err(error) => {
            let message = error.split("\n  in: ").next().unwrap_or_default();
            for word in words {
                ensure(message.contains(word), || format!("no '{word}' in: {message}"))?;
            }
            ensure(!message.contains("sesame"), || format!("the password is shown: {message}"))
        }
    }
}

async fn bad_input() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    postgres
        .query(
            "CREATE TABLE narrow (k int PRIMARY KEY, v varchar(3) CHECK (v <> 'bad'));
             CREATE TABLE keyless (k int, v text);
             CREATE TABLE needs (k int PRIMARY KEY, v text, must int NOT NULL);
             CREATE VIEW shown AS SELECT * FROM keyless",
        )
        .await?;
    let engine = engine()?;
    let mut session = engine.session();
    let url = postgres.url(postgres.port);
    let sink = |from: &str, table: &str, more: &str| {
        format!(
            "CREATE SINK k FROM {from} WITH (connector = 'postgres', url = '{url}', table = '{table}'{more})"
        )
    };
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v TEXT)",
            "CREATE MATERIALIZED VIEW wide AS SELECT k::BIGINT AS k, v FROM t",
            "CREATE MATERIALIZED VIEW other AS SELECT k, v AS w FROM t",
            "CREATE MATERIALIZED VIEW unkeyed AS SELECT v FROM t",
        ],
    )
    .await?;
    for (sql, words) in [
        (sink("t", "nowhere", ""), &["there is no table nowhere", "create = 'true'"][..]),
        (sink("t", "shown", ""), &["is no table but a view"]),
        (
            sink("wide", "narrow", ""),
            &["column 'k' of table public.narrow is integer", "bigint was expected"],
        ),
        (sink("other", "narrow", ""), &["table public.narrow has no column 'w'", "only k, v"]),
        (sink("t", "needs", ""), &["column 'must' of table public.needs is NOT NULL"]),
        (sink("unkeyed", "keyless", ""), &["no key is known for the rows of sink 'k'"]),
        (sink("t", "keyless", ", primary_key = 'x'"), &["names column 'x', but there are k, v"]),
        (sink("t", "a;b", ""), &["there is no table a;b"]),
        (sink("t", "t", ", password_file = '/nowhere'"), &["leave one of them out"]),
        (sink("t", "t", "").replace("sesame", "sesam"), &["password authentication failed"]),
        (
            sink("t", "t", "").replace(&format!(":{}/", postgres.port), ":1/"),
            &["could not connect to database"],
        ),
    ] {
        refused(&mut session, &sql, words).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Errors that appear only when rows arrive: the sink stops, and gives the reason.
async fn bad_rows() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    postgres
        .query(
            "CREATE TABLE narrow (k int PRIMARY KEY, v varchar(3) CHECK (v <> 'bad'));
             CREATE TABLE keyless (k int, v text);
             CREATE TABLE by_v (v text PRIMARY KEY, n bigint)",
        )
        .await?;
    let engine = engine()?;
    let mut session = engine.session();
    let url = postgres.url(postgres.port);
    let sink = |from: &str, table: &str| {
        format!("CREATE SINK k FROM {from} WITH (connector = 'postgres', url = '{url}', table = '{table}')")
    };
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v TEXT)",
            "CREATE MATERIALIZED VIEW by_v AS SELECT v, count(*) AS n FROM t GROUP BY v",
        ],
    )
    .await?;
    // The query's key is known when the sink is created; the table's key is checked at the first write.
    run_all(&mut session, &[&sink("t", "keyless"), "INSERT INTO t VALUES (1, 'a')"]).await?;
    let reason = "has no unique index on just these columns: ALTER TABLE public.keyless ADD PRIMARY KEY";
    stopped(&mut session, reason).await?;
    let shown = lines(&mut session, "SHOW CREATE SINK k").await?.join("\n");
    ensure(shown.contains("postgres://tester:***@127.0.0.1"), || shown.clone())?;
    for (value, reason) in [
        ("'long'", "value too long for type character varying(3) (SQLSTATE 22001"),
        ("'bad'", "constraint 'narrow_v_check'"),
        ("'a' || chr(0)", "can't deliver the row (k = 9, v = a\\0): its column 'v' has a NUL character"),
    ] {
        run_all(
            &mut session,
            &[
                "DROP SINK k",
                "DELETE FROM t",
                &sink("t", "narrow"),
                &format!("INSERT INTO t VALUES (9, {value})"),
            ],
        )
        .await?;
        stopped(&mut session, reason).await?;
    }
    run_all(
        &mut session,
        &["DROP SINK k", "DELETE FROM t", &sink("by_v", "by_v"), "INSERT INTO t VALUES (1, NULL)"],
    )
    .await?;
    stopped(&mut session, "its column 'v' is NULL, but it is part of the key").await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Waits until the sink has stopped for good, for this reason.
async fn stopped(session: &mut Session, reason: &str) -> Result<()> {
    let mut found = Vec::new();
    for _ in 0..600 {
        found = lines(session, "SHOW SINKS").await?;
        if found.iter().any(|line| line.contains("failed") && line.contains(reason)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("no sink has stopped since it '{reason}': {found:?}"))
}

/// A second engine under one name is detected, and so is a new sink under a name that another engine has
/// published with.
async fn two_engines() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let url = postgres.url(postgres.port);
    let sink = format!(
        "CREATE SINK k FROM t WITH (connector = 'postgres', url = '{url}', table = 't', create = true)"
    );
    let (first, second) = (engine()?, engine()?);
    let (mut one, mut two) = (first.session(), second.session());
    for session in [&mut one, &mut two] {
        run_all(session, &["CREATE TABLE t (k INT PRIMARY KEY)", &sink]).await?;
    }
    run(&mut one, "INSERT INTO t VALUES (1)").await?;
    holds(&postgres, "SELECT k FROM t", &["1".to_string()]).await?;
    run(&mut two, "INSERT INTO t VALUES (2)").await?;
    holds(&postgres, "SELECT k FROM t", &["1", "2"].map(String::from)).await?;
    run(&mut one, "INSERT INTO t VALUES (3)").await?;
    stopped(&mut one, "another engine has published into public.t under the name 'k'").await?;
    expect_soon(&mut two, "SELECT k FROM t", &["2"]).await?;
    holds(&postgres, "SELECT k FROM t", &["1", "2"].map(String::from)).await?;
    let folder = super::folder()?;
    let durable = || {
        let builder = Engine::builder().connector(Arc::new(millstream_postgres::Postgres));
        builder.data(folder.path().join("state")).start().map_err(|error| error.to_string())
    };
    let third = durable()?;
    let named = sink.replace("SINK k", "SINK kept");
    run_all(
        &mut third.session(),
        &["CREATE TABLE t (k INT PRIMARY KEY)", &named, "INSERT INTO t VALUES (7)"],
    )
    .await?;
    holds(&postgres, "SELECT k FROM t", &["1", "2", "7"].map(String::from)).await?;
    refused(&mut two, &named, &["an engine with a data directory has published up to epoch"]).await?;
    third.stop().await.map_err(|error| error.to_string())?;
    // The engine starts while the database is unreachable.
    postgres.stop()?;
    let third = durable()?;
    run(&mut third.session(), "INSERT INTO t VALUES (8)").await?;
    postgres.run()?;
    holds(&postgres, "SELECT k FROM t", &["1", "2", "7", "8"].map(String::from)).await?;
    for engine in [first, second, third] {
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
