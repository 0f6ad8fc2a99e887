//! Formats of Kafka's messages with a real broker and a registry of the tests: evolution, failures of the registry,
//! replays, and keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use millstream_connect::{AvroEncoder, Options, SchemaRegistry};
use millstream_engine::Engine;
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, within_a_minute,
};
use millstream_testkit::kafka::{Kafka, SentBytes};
use millstream_testkit::registry::{Mood, Registry};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("kafka_avro_survives_evolution_and_a_registry_that_fails", || drive::block_on(evolution())),
    ("kafka_avro_gives_columns", || drive::block_on(columns())),
    ("a_client_of_registries_says_what_is_wrong", || drive::block_on(client())),
    ("kafka_follows_debezium_in_avro", || drive::block_on(debezium())),
    ("kafka_protobuf_is_read_with_its_schema", || drive::block_on(protobuf())),
    ("kafka_upserts_are_the_last_value_of_each_key", || drive::block_on(upserts())),
];

fn machine() -> Result<Machine> {
    Machine::start(|| Engine::builder().connector(Arc::new(millstream_kafka::Kafka)))
}

/// Returns messages of Confluent's wire format, with `id` and, in later schemas, `v`.
fn avro(id: u32, columns: &[(&str, ArrayRef)]) -> Result<(String, Vec<Vec<u8>>)> {
    let columns = columns.iter().map(|(name, column)| (*name, column.clone(), true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).map_err(|error| error.to_string())?;
    let encoder = AvroEncoder::new(&rows.schema(), "row").map_err(|error| error.to_string())?;
    let header = [&[0][..], &id.to_be_bytes()].concat();
    let messages = encoder.encode(&rows)?.into_iter().map(|datum| [&header[..], &datum].concat());
    Ok((encoder.schema_json().to_string(), messages.collect()))
}

fn numbers(range: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(range))
}

fn notes(range: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(range.map(|id| format!("note {id}"))))
}

/// Sends values to the partitions in turn.
fn send(kafka: &Kafka, topic: &str, values: Vec<Vec<u8>>, partitions: usize) -> Result<()> {
    let record = |(place, value): (usize, Vec<u8>)| SentBytes {
        partition: (place % partitions) as i32,
        key: None,
        value: Some(value),
    };
    let records: Vec<SentBytes> = values.into_iter().enumerate().map(record).collect();
    kafka.send_bytes(topic, &records)
}

/// Returns two messages, and what can't be decoded between them.
fn poison(values: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let cut = values[0][..values[0].len() - 1].to_vec();
    let unknown = [&[0, 0, 0, 0, 77][..], &values[0][5..]].concat();
    vec![values[1].clone(), b"{\"id\": 1}".to_vec(), unknown, cut, vec![0; 3], values[2].clone()]
}

const BAD: &str = "SELECT split, position, reason LIKE '%0x7B%', reason LIKE '%id 77%', reason LIKE '%ends within%', \
                   reason LIKE '%3 bytes%' FROM bad_rows('orders')";
const BAD_ROWS: [&str; 4] = [
    "orders/0|76|true|false|false|false",
    "orders/0|77|false|true|false|false",
    "orders/0|78|false|false|true|false",
    "orders/0|79|false|false|false|true",
];
const SUMS: &str = "SELECT n, i, v, c FROM sums";

async fn evolution() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    // ann:open sesame
    registry.demand("Basic YW5uOm9wZW4gc2VzYW1l");
    kafka.create_topic("orders", 2).await?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut machine = machine()?;
    let mut session = machine.session();
    let source = format!(
        "CREATE SOURCE orders (id BIGINT, v BIGINT, note TEXT) WITH (connector = 'kafka', topic = 'orders', \
         properties.bootstrap.servers = '{}') FORMAT PLAIN ENCODE AVRO (schema.registry = '{}', \
         schema.registry.username = 'ann', schema.registry.password = 'open sesame')",
        kafka.servers(),
        registry.address()
    );
    run(&mut session, &source).await?;
    let shown = lines(&mut session, "SHOW CREATE orders").await?.join("\n");
    ensure(!shown.contains("sesame") && shown.contains("ENCODE AVRO"), || {
        format!("SHOW CREATE shows {shown}")
    })?;
    let view = "CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n, sum(id) AS i, sum(v) AS v, count(note) AS c FROM orders";
    run(&mut session, view).await?;
    let (schema, values) = avro(1, &[("id", numbers(0..100)), ("v", numbers(100..200))])?;
    registry.register("orders-value", &schema);
    send(&kafka, "orders", values, 2)?;
    expect_soon(&mut session, SUMS, &["100|4950|14950|0"]).await?;
    // A field goes, another comes, and the order changes, while the registry fails.
    let (schema, values) = avro(2, &[("note", notes(100..150)), ("id", numbers(100..150))])?;
    registry.register("orders-value", &schema);
    for (mood, reason) in
        [(Mood::Failing, "%answers 500%"), (Mood::Down, "%doesn''t answer at http://127.0.0.1%")]
    {
        registry.set_mood(mood);
        if mood == Mood::Failing {
            send(&kafka, "orders", values.clone(), 2)?;
        }
        let why =
            format!("SELECT status, reason LIKE '{reason}' FROM millstream.sources WHERE name = 'orders'");
        expect_soon(&mut session, &why, &["restarting|true"]).await?;
    }
    expect(&mut session, SUMS, &["100|4950|14950|0"]).await?;
    registry.set_mood(Mood::Well);
    expect_soon(&mut session, SUMS, &["150|11175|14950|50"]).await?;
    expect(&mut session, "SELECT count(*) FROM bad_rows('orders')", &["0"]).await?;
    send(&kafka, "orders", poison(&values), 1)?;
    expect_soon(&mut session, SUMS, &["152|11378|14950|52"]).await?;
    expect(&mut session, BAD, &BAD_ROWS).await?;
    for _ in 0..3 {
        machine.crash(&mut random).await?;
        let mut session = machine.session();
        expect_soon(&mut session, SUMS, &["152|11378|14950|52"]).await?;
        expect_soon(&mut session, BAD, &BAD_ROWS).await?;
    }
    let mut session = machine.session();
    let late =
        "CREATE MATERIALIZED VIEW late AS SELECT count(*) AS n, sum(id) AS i, count(note) AS c FROM orders";
    within_a_minute("a view over the past", run(&mut session, late)).await??;
    expect_soon(&mut session, "SELECT * FROM late", &["152|11378|52"]).await?;
    expect(&mut session, "VERIFY sums", &[]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn columns() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    kafka.create_topic("events", 1).await?;
    let mut machine = machine()?;
    let mut session = machine.session();
    let source = |name: &str| {
        format!(
            "CREATE SOURCE {name} WITH (connector = 'kafka', topic = 'events', format = 'avro', schema.registry = '{}', \
             properties.bootstrap.servers = '{}')",
            registry.address(),
            kafka.servers()
        )
    };
    let error = run(&mut session, &source("events")).await.err().unwrap_or_default();
    ensure(error.contains("has no subject 'events-value'"), || format!("a missing subject gives {error:?}"))?;
    registry.set_mood(Mood::Failing);
    let error = run(&mut session, &source("events")).await.err().unwrap_or_default();
    ensure(error.contains("answers 500"), || format!("a registry that fails gives {error:?}"))?;
    registry.set_mood(Mood::Well);
    let place = r#"{"type": "record", "name": "row", "fields": [{"name": "id", "type": "long"},
        {"name": "At", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [
            {"name": "City", "type": "string"}, {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "int"}}}]}}]}"#;
    registry.register("events-value", place);
    run(&mut session, &source("events")).await?;
    let shown = lines(&mut session, "SHOW CREATE events").await?.join("\n");
    let declared = "(\"id\" BIGINT, \"At\" TIMESTAMPTZ(3), \"place\" STRUCT<\"City\" TEXT, \"tags\" MAP(TEXT, INT[])>) WITH";
    ensure(shown.contains(declared), || format!("SHOW CREATE shows {shown}"))?;
    let view = "CREATE MATERIALIZED VIEW m AS SELECT id, \"At\" AS at, place['City'] AS city FROM events";
    run(&mut session, view).await?;
    // id 7, no time, Bonn, {"a": [1]}
    send(&kafka, "events", vec![b"\0\0\0\0\x01\x0e\x00\x08Bonn\x02\x02a\x02\x02\x00\x00".to_vec()], 1)?;
    expect_soon(&mut session, "SELECT * FROM m", &["7|NULL|Bonn"]).await?;
    // A bounded source waits for a registry that fails.
    registry.set_mood(Mood::Failing);
    let bounded = source("bounded").replacen("CREATE SOURCE bounded", "CREATE SOURCE bounded (id BIGINT)", 1);
    let bounded = bounded.replace("format =", "bounded = true, format =");
    let view = "CREATE MATERIALIZED VIEW b AS SELECT id FROM bounded";
    run_all(&mut session, &[&bounded, view]).await?;
    let why = "SELECT status, reason LIKE '%answers 500%' FROM millstream.sources WHERE name = 'bounded'";
    expect_soon(&mut session, why, &["restarting|true"]).await?;
    registry.set_mood(Mood::Well);
    let status = "SELECT status FROM millstream.sources WHERE name = 'bounded'";
    expect_soon(&mut session, status, &["ended"]).await?;
    expect_soon(&mut session, "SELECT * FROM b", &["7"]).await?;
    // A later version changes no columns.
    registry.register("events-value", "\"string\"");
    run_all(&mut session, &["FLUSH", "CHECKPOINT"]).await?;
    machine.crash_at(|| registry.set_mood(Mood::Down), &mut SmallRng::seed_from_u64(1)).await?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["7|NULL|Bonn"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// The rows that a topic's messages leave, by key.
type Rows = BTreeMap<i64, i64>;

fn expected(rows: &Rows) -> Vec<String> {
    let mut lines: Vec<String> = rows.iter().map(|(id, v)| format!("{id}|{v}")).collect();
    lines.sort();
    lines
}

/// Returns an upsert of a key, or its delete.
fn in_json_message(random: &mut SmallRng, id: i64, value: Option<i64>) -> SentBytes {
    let key = if random.random_bool(0.5) { format!("{id}") } else { format!("{{\"id\": {id}}}") };
    let has_key = random.random_bool(0.5);
    let value = value.map(|v| match has_key {
        true => format!("{{\"id\": {id}, \"v\": {v}}}").into_bytes(),
        false => format!("{{\"v\": {v}}}").into_bytes(),
    });
    SentBytes { partition: (id % 3) as i32, key: Some(key.into_bytes()), value }
}

fn in_avro_message([key_id, value_id]: [u32; 2], id: i64, value: Option<i64>) -> Result<SentBytes> {
    let one = |schema, name, number: i64| -> Result<Vec<u8>> {
        Ok(avro(schema, &[(name, numbers(number..number + 1))])?.1.remove(0))
    };
    let value = value.map(|v| one(value_id, "v", v)).transpose()?;
    Ok(SentBytes { partition: (id % 3) as i32, key: Some(one(key_id, "id", id)?), value })
}

async fn upserts() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    let mut random = SmallRng::seed_from_u64(5);
    let mut machine = machine()?;
    let (schema, _) = avro(0, &[("v", numbers(0..1))])?;
    let value_id = registry.register("a-value", &schema);
    let (schema, _) = avro(0, &[("id", numbers(0..1))])?;
    let key_id = registry.register("a-key", &schema);
    kafka.create_topic("j", 3).await?;
    kafka.create_topic("a", 3).await?;
    let with =
        format!("WITH (connector = 'kafka', properties.bootstrap.servers = '{}', topic =", kafka.servers());
    let made = [
        &format!("CREATE SOURCE j (id BIGINT PRIMARY KEY, v BIGINT) {with} 'j') FORMAT UPSERT ENCODE JSON"),
        &format!(
            "CREATE SOURCE a (id BIGINT PRIMARY KEY, v BIGINT) {with} 'a') FORMAT UPSERT ENCODE AVRO (schema.registry = '{}')",
            registry.address()
        ),
        "CREATE MATERIALIZED VIEW of_j AS SELECT id, v FROM j",
        "CREATE MATERIALIZED VIEW of_a AS SELECT id, v FROM a",
        "CREATE MATERIALIZED VIEW sum_j AS SELECT count(*) AS n, sum(v) AS s FROM j",
    ];
    run_all(&mut machine.session(), &made).await?;
    let mut rows = Rows::new();
    for round in 0..8 {
        let (mut in_json, mut in_avro) = (Vec::new(), Vec::new());
        for _ in 0..random.random_range(1..300) {
            let (id, v) = (random.random_range(0..40_i64), random.random_range(-1000..1000_i64));
            // Some keys are deleted that have no row.
            let deletes = random.random_bool(0.3);
            match deletes {
                true => drop(rows.remove(&id)),
                false => drop(rows.insert(id, v)),
            }
            let value = (!deletes).then_some(v);
            in_json.push(in_json_message(&mut random, id, value));
            in_avro.push(in_avro_message([key_id, value_id], id, value)?);
        }
        kafka.send_bytes("j", &in_json)?;
        kafka.send_bytes("a", &in_avro)?;
        match round % 3 {
            0 => run(&mut machine.session(), "CHECKPOINT").await.map(drop)?,
            1 => machine.crash(&mut random).await?,
            _ => {}
        }
        let expected = expected(&rows);
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        for view in ["of_j", "of_a"] {
            expect_soon(&mut machine.session(), &format!("SELECT id, v FROM {view}"), &expected).await?;
        }
    }
    let mut session = machine.session();
    let late = "CREATE MATERIALIZED VIEW late AS SELECT count(*) AS n, sum(v) AS s FROM a";
    within_a_minute("a view over the past", run(&mut session, late)).await??;
    let sums = format!("{}|{}", rows.len(), rows.values().sum::<i64>());
    expect_soon(&mut session, "SELECT * FROM late", &[&sums]).await?;
    expect_soon(&mut session, "SELECT * FROM sum_j", &[&sums]).await?;
    for source in ["j", "a"] {
        expect(&mut session, &format!("SELECT count(*) FROM bad_rows('{source}')"), &["0"]).await?;
    }
    expect(&mut session, "VERIFY of_a", &[]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn debezium() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    let envelope = r#"{"type": "record", "name": "Envelope", "namespace": "shop", "fields": [
        {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": [
            {"name": "id", "type": "long"}, {"name": "t", "type": ["null", "string"]}]}]},
        {"name": "after", "type": ["null", "Value"]}, {"name": "op", "type": "string"}]}"#;
    registry.register("cdc-value", envelope);
    kafka.create_topic("cdc", 1).await?;
    let mut machine = machine()?;
    let source = format!(
        "CREATE SOURCE cdc (id BIGINT PRIMARY KEY, t TEXT) WITH (connector = 'kafka', topic = 'cdc', \
         properties.bootstrap.servers = '{}') FORMAT DEBEZIUM ENCODE AVRO (schema.registry = '{}')",
        kafka.servers(),
        registry.address()
    );
    let view = "CREATE MATERIALIZED VIEW m AS SELECT id, t FROM cdc";
    run_all(&mut machine.session(), &[&source, view]).await?;
    let events: [&[u8]; 5] = [
        b"\0\0\0\0\x01\x00\x02\x0e\x02\x02a\x02c",
        b"\0\0\0\0\x01\x00\x02\x10\x02\x02b\x02r",
        b"\0\0\0\0\x01\x02\x0e\x00\x02\x0e\x02\x02A\x02u",
        b"\0\0\0\0\x01\x02\x10\x00\x00\x02d",
        b"\0\0\0\0\x01\x00\x00\x02d",
    ];
    send(&kafka, "cdc", events.iter().map(|event| event.to_vec()).collect(), 1)?;
    kafka.send_bytes("cdc", &[SentBytes { key: Some(b"k".to_vec()), ..SentBytes::default() }])?;
    let bad = "SELECT position, reason LIKE '%''before'' is missing%' FROM bad_rows('cdc')";
    for _ in 0..2 {
        expect_soon(&mut machine.session(), "SELECT * FROM m", &["7|A"]).await?;
        expect_soon(&mut machine.session(), bad, &["4|true"]).await?;
        machine.crash(&mut SmallRng::seed_from_u64(1)).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// Fails unless a result is the error with this text.
fn ensure_fails<T>(result: millstream_connect::Result<T>, text: &str) -> Result<()> {
    let error = result.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(error.contains(text), || format!("{text:?} was expected, but the error is {error:?}"))
}

async fn client() -> Result<()> {
    let registry = Registry::start()?;
    let client = |pairs: &[(&str, &str)]| -> Result<millstream_registry::Registry> {
        let mut options = BTreeMap::from([("schema.registry".to_string(), registry.address())]);
        options.extend(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let found = millstream_registry::Registry::from_options(&Options(options));
        found.map_err(|error| error.to_string())?.ok_or_else(|| "there is no registry".to_string())
    };
    let said = |error: millstream_connect::Error| error.to_string();
    let anonymous = client(&[])?;
    let subject = "a b/c";
    ensure(anonymous.latest(subject).await.map_err(said)?.is_none(), || "a subject is there".into())?;
    ensure(anonymous.schema(7).await.map_err(said)?.is_none(), || "a schema is there".into())?;
    let first = anonymous.register(subject, "AVRO", "\"int\"").await.map_err(said)?;
    let second = anonymous.register(subject, "AVRO", "\"long\"").await.map_err(said)?;
    let again = anonymous.register(subject, "AVRO", "\"int\"").await.map_err(said)?;
    ensure(first == again && first != second, || format!("the ids are {first}, {second}, {again}"))?;
    let latest = anonymous.latest(subject).await.map_err(said)?.map(|latest| (latest.id, latest.text));
    ensure(latest == Some((second, "\"long\"".into())), || format!("the latest is {latest:?}"))?;
    registry.add(r#"{"schema": "{\"type\": \"record\", \"name\": \"r\", \"fields\": []}"}"#, "r");
    let id = registry
        .add(r#"{"schema": "\"r\"", "references": [{"name": "r", "subject": "r", "version": 1}]}"#, "s");
    let found = anonymous.schema(id).await.map_err(said)?.map(|found| (found.kind, found.references.len()));
    ensure(found == Some(("AVRO".into(), 1)), || format!("a schema that refers to another is {found:?}"))?;
    registry.set_mood(Mood::Failing);
    ensure_fails(anonymous.schema(first).await, "answers 500 Internal Server Error at http://127.0.0.1:")?;
    registry.set_mood(Mood::Down);
    ensure_fails(anonymous.schema(first).await, "the schema registry doesn't answer at http://127.0.0.1:")?;
    registry.set_mood(Mood::Well);
    let elsewhere = client(&[("schema.registry", &format!("{}/nothing", registry.address()))])?;
    ensure_fails(elsewhere.schema(first).await, "answers 404 Not Found")?;
    let other = format!("http://127.0.0.1:1, {}", registry.address());
    let second_address = client(&[("schema.registry", &other)])?;
    ensure(second_address.schema(first).await.map_err(said)?.is_some(), || {
        "only one address is asked".into()
    })?;
    registry.demand("Basic YW5uOm9wZW4gc2VzYW1l");
    ensure_fails(
        anonymous.schema(first).await,
        "check schema.registry.username and schema.registry.password",
    )?;
    let ann = client(&[("schema.registry.username", "ann"), ("schema.registry.password", "open sesame")])?;
    ensure(ann.schema(first).await.map_err(said)?.is_some(), || "ann is refused".into())?;
    let in_address = registry.address().replace("http://", "http://ann:open%20sesame@");
    let ann = client(&[("schema.registry", &in_address)])?;
    ensure(ann.schema(first).await.map_err(said)?.is_some(), || "ann is refused by her address".into())?;
    registry.set_mood(Mood::Failing);
    let error = ann.schema(first).await.err().map(said).unwrap_or_default();
    ensure(!error.contains("sesame"), || format!("an error shows a password: {error}"))
}

async fn protobuf() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    let schema =
        "syntax = \\\"proto3\\\"; package shop; message Order { int64 id = 1; optional string note = 2; }";
    registry.add(&format!("{{\"schemaType\": \"PROTOBUF\", \"schema\": \"{schema}\"}}"), "p-value");
    kafka.create_topic("p", 1).await?;
    let mut machine = machine()?;
    let source = format!(
        "CREATE SOURCE p WITH (connector = 'kafka', topic = 'p', properties.bootstrap.servers = '{}') \
         FORMAT PLAIN ENCODE PROTOBUF (schema.registry = '{}')",
        kafka.servers(),
        registry.address()
    );
    let view = "CREATE MATERIALIZED VIEW m AS SELECT id, note FROM p";
    run_all(&mut machine.session(), &[&source, view]).await?;
    let messages: [&[u8]; 4] = [
        b"\0\0\0\0\x01\x00\x08\x07\x12\x01a",
        b"\0\0\0\0\x01\x00",
        b"\0\0\0\0\x01\x00\x08",
        b"\0\0\0\0\x01\x02\x02",
    ];
    send(&kafka, "p", messages.iter().map(|message| message.to_vec()).collect(), 1)?;
    for _ in 0..2 {
        expect_soon(&mut machine.session(), "SELECT * FROM m", &["0|NULL", "7|a"]).await?;
        expect_soon(&mut machine.session(), "SELECT position FROM bad_rows('p')", &["2", "3"]).await?;
        machine.crash(&mut SmallRng::seed_from_u64(1)).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}
