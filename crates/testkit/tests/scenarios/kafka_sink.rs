//! Sinks of Kafka at a real broker: each row arrives exactly once, through crashes of the engine and of the broker; an
//! engine that was replaced stops.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, lines, run, run_all};
use millstream_testkit::kafka::{Kafka, Received, Sent};
use millstream_testkit::registry::Registry;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("kafka_gets_each_row_once_through_crashes", || drive::block_on(crashes())),
    ("kafka_gets_keys_headers_and_timestamps", || drive::block_on(messages())),
    ("kafka_gets_row_events_and_bytes", || drive::block_on(row_events())),
    ("kafka_is_left_to_the_engine_that_took_over", || drive::block_on(fenced())),
    ("kafka_progress_is_read_past_open_transactions", || drive::block_on(progress())),
    ("kafka_sinks_that_fail_leave_no_open_transaction", || drive::block_on(failed())),
    ("kafka_refuses_sinks_that_cannot_deliver", || drive::block_on(refused())),
];

fn machine() -> Result<Machine> {
    Machine::start(|| Engine::builder().connector(Arc::new(millstream_kafka::Kafka)))
}

/// Returns the options of a sink to a topic.
fn to(kafka: &Kafka, topic: &str, more: &str) -> String {
    format!(
        "WITH (connector = 'kafka', topic = '{topic}', properties.bootstrap.servers = '{}'{more})",
        kafka.servers()
    )
}

/// Returns the options of a format with schemas in a registry.
fn registered(registry: &Registry, format: &str) -> String {
    format!(", format = '{format}', schema.registry = '{}'", registry.address())
}

/// The topics of a view's changes, each with its format.
const FEEDS: [(&str, &str); 6] = [
    ("sums", "upsert_json"),
    ("changes", "debezium_json"),
    ("avro", "upsert_avro"),
    ("avro_changes", "debezium_avro"),
    ("maxwell", "maxwell_json"),
    ("canal", "canal_json"),
];

/// Returns the options of the format of a topic with changes.
fn feed(registry: &Registry, format: &str) -> String {
    match format.ends_with("avro") {
        true => registered(registry, format),
        false => format!(", format = '{format}'"),
    }
}

/// Returns the last value of each key.
fn last_values(records: &[Received]) -> Vec<String> {
    let mut values = BTreeMap::new();
    for record in records {
        match &record.value {
            Some(value) => values.insert(record.key.clone(), value.clone()),
            None => values.remove(&record.key),
        };
    }
    let mut values: Vec<String> = values.into_values().collect();
    values.sort();
    values
}

fn values(records: &[Received]) -> Vec<String> {
    let mut values: Vec<String> = records.iter().filter_map(|record| record.value.clone()).collect();
    values.sort();
    values
}

async fn crashes() -> Result<()> {
    let Some(mut kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    for topic in ["orders", "large", "some"].into_iter().chain(FEEDS.map(|(topic, _)| topic)) {
        kafka.create_topic(topic, 3).await?;
    }
    let mut random = SmallRng::seed_from_u64(7);
    let mut machine = machine()?;
    machine.set_interval(&mut random).await?;
    let source = format!(
        "CREATE SOURCE orders (id BIGINT, k BIGINT) {}",
        to(&kafka, "orders", ", format = 'json', discovery_interval = '200 ms'")
    );
    let made = [
        &source,
        "CREATE TABLE gone (k BIGINT PRIMARY KEY)",
        "CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS n, sum(id) AS s FROM orders WHERE NOT EXISTS (SELECT 1 FROM gone WHERE gone.k = orders.k) GROUP BY k",
        &format!(
            "CREATE SINK large AS SELECT id FROM orders WHERE id % 3 = 0 {}",
            to(&kafka, "large", ", key = 'id'")
        ),
        &format!(
            "CREATE SINK some AS SELECT id FROM orders {}",
            to(&kafka, "some", ", delivery = 'at_least_once'")
        ),
    ];
    run_all(&mut machine.session(), &made).await?;
    for (topic, format) in FEEDS {
        let sink =
            format!("CREATE SINK {topic}_out FROM sums {}", to(&kafka, topic, &feed(&registry, format)));
        run(&mut machine.session(), &sink).await?;
    }
    let mut count = 0;
    for round in 0..14 {
        let more = random.random_range(1..300);
        let record = |id: i64| Sent {
            partition: (id % 3) as i32,
            value: Some(format!("{{\"id\": {id}, \"k\": {}}}", id % 17)),
            ..Sent::default()
        };
        kafka.send("orders", &(count..count + more).map(record).collect::<Vec<_>>())?;
        count += more;
        let key = random.random_range(0..17);
        let change = match round % 2 {
            0 => format!("INSERT INTO gone VALUES ({key}) ON CONFLICT DO NOTHING"),
            _ => "DELETE FROM gone".to_string(),
        };
        run(&mut machine.session(), &change).await?;
        disturb(&mut kafka, &mut machine, &mut random, round).await?;
    }
    everything_arrived(&kafka, &machine, count).await?;
    for (topic, format) in FEEDS {
        let format = feed(&registry, format);
        reads_back(&kafka, &machine, topic, &format).await.map_err(|error| format!("{topic}: {error}"))?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// Flushes, crashes the engine, or kills the broker.
async fn disturb(kafka: &mut Kafka, machine: &mut Machine, random: &mut SmallRng, round: i32) -> Result<()> {
    match round % 4 {
        0 => run(&mut machine.session(), "FLUSH").await.map(drop)?,
        1 => machine.crash(random).await?,
        2 if round == 10 => {
            kafka.kill();
            kafka.begin()?;
        }
        2 => {
            let pause = random.random_range(0..30);
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            machine.crash_at(|| {}, random).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Fails unless the topics hold what the engine has delivered of the orders with the numbers below `count`.
async fn everything_arrived(kafka: &Kafka, machine: &Machine, count: i64) -> Result<()> {
    let mut session = machine.session();
    run(&mut session, "FLUSH").await?;
    expect_soon(&mut session, "SELECT count(*) FROM millstream.sinks WHERE status <> 'running'", &["0"])
        .await?;
    let once = "SELECT name, delivery FROM millstream.sinks WHERE name IN ('large', 'some')";
    expect(&mut session, once, &["large|exactly_once", "some|at_least_once"]).await?;
    let received = kafka.received("large")?;
    let mut expected: Vec<String> =
        (0..count).filter(|id| id % 3 == 0).map(|id| format!("{{\"id\":{id}}}")).collect();
    expected.sort();
    ensure(values(&received) == expected, || {
        format!("{} rows were received, {} were sent", received.len(), expected.len())
    })?;
    let mut some = values(&kafka.received("some")?);
    some.dedup();
    ensure(some.len() as i64 == count, || format!("{} of {count} rows were received", some.len()))?;
    let sums = "SELECT '{\"k\":' || k || ',\"n\":' || n || ',\"s\":' || s || '}' FROM sums";
    let mut expected = lines(&mut session, sums).await?;
    expected.sort();
    let found = last_values(&kafka.received("sums")?);
    ensure(found == expected, || format!("the last values are {found:?}\n  expected {expected:?}"))?;
    Ok(())
}

/// Fails unless a topic, read again, is the view that was delivered to it.
async fn reads_back(kafka: &Kafka, machine: &Machine, topic: &str, format: &str) -> Result<()> {
    let source =
        format!("CREATE SOURCE back (k BIGINT PRIMARY KEY, n BIGINT, s BIGINT) {}", to(kafka, topic, format));
    let mut session = machine.session();
    run_all(&mut session, &[&source, "CREATE MATERIALIZED VIEW again AS SELECT * FROM back", "FLUSH"])
        .await?;
    let differing = "SELECT * FROM (SELECT k, n, s FROM sums EXCEPT SELECT k, n, s FROM again) AS a UNION ALL \
                     SELECT * FROM (SELECT k, n, s FROM again EXCEPT SELECT k, n, s FROM sums) AS b";
    expect(&mut session, differing, &[]).await?;
    expect(&mut session, "SELECT count(*) FROM bad_rows('back')", &["0"]).await?;
    run(&mut session, "DROP SOURCE back CASCADE").await.map(drop)
}

async fn messages() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let engine = Engine::builder().connector(Arc::new(millstream_kafka::Kafka));
    let engine = engine.start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let more = ", create = true, format = 'csv', key = 'id', key_format = 'text', headers = 'name, n', batch_id = true, \
                timestamp = 'at'";
    let made = [
        "CREATE TABLE t (id BIGINT, name TEXT, n INT, at TIMESTAMP)",
        &format!("CREATE SINK s AS SELECT * FROM t FOR EACH BATCH {}", to(&kafka, "made", more)),
        "INSERT INTO t VALUES (7, 'a\nb', NULL, TIMESTAMP '1970-01-01 00:00:01.5')",
        "FLUSH",
    ];
    run_all(&mut session, &made).await?;
    expect(&mut session, "SELECT delivery FROM millstream.sinks", &["at_least_once"]).await?;
    let mut received = kafka.received("made")?;
    for record in &mut received {
        record.headers.retain(|header| !header.starts_with("_batch_id=") || header == "_batch_id=0");
    }
    let expected = Received {
        partition: 0,
        key: Some("7".into()),
        value: Some("7,\"a\nb\",,1970-01-01T00:00:01.500".into()),
        headers: vec!["name=a\nb".into(), "n=NULL".into()],
        timestamp: Some(1500),
    };
    ensure(received == [expected.clone()], || format!("received {received:?}\n  expected {expected:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn row_events() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let engine = Engine::builder().connector(Arc::new(millstream_kafka::Kafka));
    let engine = engine.start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let columns =
        "id BIGINT PRIMARY KEY, name TEXT, price NUMERIC(10, 2), ok BOOLEAN, at TIMESTAMP, since TIMESTAMPTZ";
    run(&mut session, &format!("CREATE TABLE t ({columns})")).await?;
    for dialect in ["maxwell", "canal"] {
        let more = format!(", create = true, database = 'shop', table = 'orders', format = '{dialect}_json'");
        run(&mut session, &format!("CREATE SINK to_{dialect} FROM t {}", to(&kafka, dialect, &more))).await?;
        let more =
            format!(", format = '{dialect}_json', table.include = 'orders', database.include = 'shop'");
        let source = format!("CREATE SOURCE {dialect} ({columns}) {}", to(&kafka, dialect, &more));
        run(&mut session, &source).await?;
        run(&mut session, &format!("CREATE MATERIALIZED VIEW of_{dialect} AS SELECT * FROM {dialect}"))
            .await?;
    }
    let changes = [
        "INSERT INTO t VALUES (1, 'a\nb', 12.50, true, '2026-01-31 12:00:00.25', '2026-01-31 12:00:00Z'), (2, NULL, NULL, NULL, NULL, NULL)",
        "UPDATE t SET name = NULL, ok = false WHERE id = 1",
        "UPDATE t SET id = 3 WHERE id = 2",
        "INSERT INTO t VALUES (4, '', 0, false, NULL, NULL)",
        "DELETE FROM t WHERE id = 4",
    ];
    for change in changes {
        run_all(&mut session, &[change, "FLUSH"]).await?;
        let rows = lines(&mut session, "SELECT * FROM t").await?;
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        for dialect in ["maxwell", "canal"] {
            let view = format!("SELECT * FROM of_{dialect}");
            expect_soon(&mut session, &view, &rows).await.map_err(|error| format!("{change}: {error}"))?;
        }
    }
    for dialect in ["maxwell", "canal"] {
        expect(&mut session, &format!("SELECT count(*) FROM bad_rows('{dialect}')"), &["0"]).await?;
    }
    let found: Vec<String> =
        kafka.received("maxwell")?.iter().filter_map(|record| record.value.clone()).collect();
    let update = found.iter().find(|event| event.contains("\"update\"")).cloned().unwrap_or_default();
    let old = ",\"old\":{\"name\":\"a\\nb\",\"ok\":true}}";
    ensure(found.len() == 7 && update.ends_with(old), || format!("the topic holds {found:#?}"))?;
    // Bytes arrive as they are; NULL is a message without a value.
    let sink = format!(
        "CREATE SINK raw AS SELECT b FROM bytes FOR EACH BATCH {}",
        to(&kafka, "raw", ", create = true, format = 'bytes'")
    );
    let source = format!("CREATE SOURCE back (b BYTEA) {}", to(&kafka, "raw", ", format = 'bytes'"));
    let made = [
        "CREATE TABLE bytes (b BYTEA)",
        &sink,
        &source,
        "CREATE MATERIALIZED VIEW of_back AS SELECT encode(b, 'hex') AS b FROM back",
        "INSERT INTO bytes VALUES ('\\xff000a'), (NULL), ('')",
        "FLUSH",
    ];
    run_all(&mut session, &made).await?;
    expect_soon(&mut session, "SELECT * FROM of_back", &["", "ff000a"]).await?;
    ensure(kafka.received("raw")?.iter().filter(|record| record.value.is_none()).count() == 1, || {
        "NULL isn't a message without a value".into()
    })?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns the reason of the sink.
const REASON: &str = "SELECT status, reason LIKE '%another engine has taken over transactional_id ''ours'' at 127.0.0.1%' \
                      FROM millstream.sinks";

async fn fenced() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    let mut machine = machine()?;
    let mut session = machine.session();
    let made = [
        "CREATE TABLE t (id BIGINT PRIMARY KEY)",
        &format!(
            "CREATE SINK s FROM t {}",
            to(&kafka, "t", ", format = 'upsert_json', transactional_id = 'ours'")
        ),
        "INSERT INTO t VALUES (1)",
        "FLUSH",
    ];
    run_all(&mut session, &made).await?;
    let arrived = || kafka.received("t").map(|received| received.len());
    drive::until("the first row arrives", || arrived() == Ok(1)).await?;
    // A producer that was fenced, or timed out, while no other engine has taken over, goes on.
    let other = Sent { key: Some("x".into()), value: Some("y".into()), ..Sent::default() };
    kafka.send_as("ours", "t", std::slice::from_ref(&other), false)?;
    run(&mut session, "INSERT INTO t VALUES (2)").await?;
    drive::until("the second row arrives", || arrived() == Ok(2)).await?;
    // Its id has a transaction that hides the progress, and that nobody ends but the sink.
    let hiding = Sent { key: Some("x".into()), value: Some("{}".into()), ..Sent::default() };
    let open = kafka.send_open("ours", "millstream_sinks", &[hiding])?;
    run(&mut session, "INSERT INTO t VALUES (5)").await?;
    drive::until("the third row arrives", || arrived() == Ok(3)).await?;
    drop(open);
    // Another engine takes over.
    let claim = Sent {
        key: Some("ours".into()),
        value: Some("{\"epoch\": 3, \"writer\": \"another\"}".into()),
        partition: 0,
    };
    kafka.send_as("ours", "millstream_sinks", &[claim], true)?;
    run(&mut session, "INSERT INTO t VALUES (3)").await?;
    expect_soon(&mut session, REASON, &["failed|true"]).await?;
    ensure(arrived()? == 3, || "a row of the engine that was replaced arrived".into())?;
    // A start takes over in turn.
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(1)).await?;
    let mut session = machine.session();
    run_all(&mut session, &["INSERT INTO t VALUES (4)", "FLUSH"]).await?;
    let keys = last_values(&kafka.received("t")?);
    ensure(keys.iter().any(|key| key == "{\"id\":4}"), || format!("the topic holds {keys:?}"))?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// Creates a table and its sink `s`, and delivers a row.
async fn table_with_sink(kafka: &Kafka, machine: &Machine) -> Result<()> {
    kafka.create_topic("t", 1).await?;
    let sink = to(kafka, "t", ", format = 'upsert_json', transactional_id = 'ours'");
    let made = [
        "CREATE TABLE t (id BIGINT PRIMARY KEY, b TEXT)",
        &format!("CREATE SINK s FROM t {sink}"),
        "INSERT INTO t VALUES (1, 'x')",
    ];
    run_all(&mut machine.session(), &made).await?;
    drive::until("the first row arrives", || kafka.received("t").is_ok_and(|found| found.len() == 1)).await
}

async fn progress() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let mut machine = machine()?;
    table_with_sink(&kafka, &machine).await?;
    let other = Sent { key: Some("other".into()), value: Some("{}".into()), ..Sent::default() };
    let open = kafka.send_open("other", "millstream_sinks", &[other])?;
    // Its progress is behind the open transaction, so that a reader of committed records doesn't see it.
    run(&mut machine.session(), "INSERT INTO t VALUES (2, 'y')").await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(1)).await?;
    run(&mut machine.session(), "INSERT INTO t VALUES (3, 'z')").await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    open.commit()?;
    drive::until("the third row arrives", || kafka.received("t").is_ok_and(|found| found.len() >= 3)).await?;
    let found = kafka.received("t")?;
    ensure(found.len() == 3, || format!("received {found:?}"))?;
    // Without its progress a sink can't know what the topic holds.
    run(&mut machine.session(), "FLUSH").await?;
    kafka.delete_topic("millstream_sinks").await?;
    kafka.create_topic_with("millstream_sinks", ("cleanup.policy", "compact")).await?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(2)).await?;
    let why = "SELECT status, reason LIKE '%its progress is gone from topic ''millstream_sinks''%' FROM millstream.sinks";
    expect_soon(&mut machine.session(), why, &["failed|true"]).await?;
    ensure(kafka.received("t")?.len() == 3, || "rows arrived twice".into())?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn failed() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let machine = machine()?;
    table_with_sink(&kafka, &machine).await?;
    let large = "INSERT INTO t SELECT i, CASE WHEN i = 900 THEN repeat('x', 2000000) ELSE 'y' END \
                 FROM generate_series(10, 1000) AS g(i)";
    run(&mut machine.session(), large).await?;
    let status = "SELECT status, reason LIKE '%more than the Kafka client sends%' FROM millstream.sinks";
    expect_soon(&mut machine.session(), status, &["failed|true"]).await?;
    // A transaction that is left open would hide what others send later.
    kafka.send("t", &[Sent { key: Some("k".into()), value: Some("later".into()), ..Sent::default() }])?;
    drive::until("a later record is seen", || kafka.received("t").is_ok_and(|found| found.len() == 2))
        .await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn refused() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    kafka.create_topic_with("deleting", ("cleanup.policy", "delete")).await?;
    let machine = machine()?;
    let mut session = machine.session();
    run(&mut session, "CREATE TABLE t (id BIGINT PRIMARY KEY, b TEXT)").await?;
    let error = |made: String| {
        let mut session = machine.session();
        async move { run(&mut session, &made).await.err().unwrap_or_default() }
    };
    let upsert = ", format = 'upsert_json'";
    let found = error(format!("CREATE SINK s FROM t {}", to(&kafka, "nothing", upsert))).await;
    ensure(found.contains("topic 'nothing' doesn't exist") && found.contains("create = 'true'"), || found)?;
    let found = error(format!("CREATE SINK s FROM t {}", to(&kafka, "t", ""))).await;
    ensure(found.contains("updated or deleted"), || found)?;
    // The topic of a sink that is refused isn't created.
    let found = error(format!("CREATE SINK s FROM t {}", to(&kafka, "later", ", create = true"))).await;
    ensure(found.contains("updated or deleted"), || found)?;
    kafka.create_topic("later", 1).await?;
    let status = |reason: &str| {
        format!(
            "SELECT status, CASE WHEN reason LIKE '%{reason}%' THEN 'as expected' ELSE reason END FROM millstream.sinks"
        )
    };
    let deleting = ", format = 'upsert_json', progress_topic = 'deleting'";
    let found = error(format!("CREATE SINK s FROM t {}", to(&kafka, "t", deleting))).await;
    ensure(found.contains("has cleanup.policy = delete"), || found)?;
    let acks = ", format = 'upsert_json', properties.acks = '1'";
    let found = error(format!("CREATE SINK s FROM t {}", to(&kafka, "t", acks))).await;
    ensure(found.contains("properties of the Kafka client don't fit"), || found)?;
    let made = [
        &format!("CREATE SINK s FROM t {}", to(&kafka, "t", upsert)),
        "INSERT INTO t VALUES (1, 'x')",
        "FLUSH",
        "INSERT INTO t VALUES (2, repeat('x', 2000000))",
    ];
    run_all(&mut session, &made).await?;
    expect_soon(&mut session, &status("a message of sink ''s'' has 2000023 bytes"), &["failed|as expected"])
        .await?;
    run(&mut session, "DROP SINK s").await?;
    let found = error(format!("CREATE SINK s FROM t {}", to(&kafka, "t", upsert))).await;
    ensure(found.contains("under transactional_id 'millstream-s-t'"), || found)?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}
