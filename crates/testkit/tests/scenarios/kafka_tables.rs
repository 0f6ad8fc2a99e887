//! Tables over topics with a real broker: row events of MySQL's captures, topics that lose records, and columns that
//! nobody declares.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::Engine;
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, within_a_minute,
};
use millstream_testkit::kafka::{Kafka, SentBytes};
use millstream_testkit::registry::Registry;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("kafka_follows_row_events_of_mysql", || drive::block_on(row_events())),
    ("kafka_tables_keep_what_the_topic_loses", || drive::block_on(tables())),
    ("kafka_sources_find_their_columns", || drive::block_on(found_columns())),
];

fn machine() -> Result<Machine> {
    Machine::start(|| Engine::builder().connector(Arc::new(millstream_kafka::Kafka)))
}

/// The rows of a table of MySQL, by key.
type Rows = BTreeMap<i64, i64>;

/// One change of a table.
enum Change {
    Insert(i64, i64),
    /// The old and the new row.
    Update((i64, i64), (i64, i64)),
    Delete(i64, i64),
}

/// Changes some rows at random; some updates change the key.
fn change(random: &mut SmallRng, rows: &mut Rows) -> Change {
    let (id, v) = (random.random_range(0..30_i64), random.random_range(-1000..1000_i64));
    let Some(old) = rows.get(&id).copied() else {
        rows.insert(id, v);
        return Change::Insert(id, v);
    };
    let other = random.random_range(0..30_i64);
    match random.random_range(0..3) {
        0 => {
            rows.remove(&id);
            Change::Delete(id, old)
        }
        1 if !rows.contains_key(&other) => {
            rows.remove(&id);
            rows.insert(other, v);
            Change::Update((id, old), (other, v))
        }
        _ => {
            rows.insert(id, v);
            Change::Update((id, old), (id, v))
        }
    }
}

/// Returns the earlier values of the columns that an update changes.
fn old_values((id, v): (i64, i64), new: (i64, i64), value: impl Fn(i64) -> Value) -> Value {
    let mut old = serde_json::Map::new();
    if id != new.0 {
        old.insert("id".into(), value(id));
    }
    if v != new.1 {
        old.insert("v".into(), value(v));
    }
    Value::Object(old)
}

fn in_maxwell(change: &Change) -> Value {
    let row = |id: i64, v: i64| json!({"id": id, "v": v});
    let (kind, data, old) = match change {
        Change::Insert(id, v) => ("insert", row(*id, *v), Value::Null),
        Change::Update(old, new) => {
            ("update", row(new.0, new.1), old_values(*old, *new, |value| json!(value)))
        }
        Change::Delete(id, v) => ("delete", row(*id, *v), Value::Null),
    };
    json!({"database": "shop", "table": "orders", "type": kind, "ts": 1, "data": data, "old": old})
}

/// Returns one message for changes of one kind: Canal's rows are texts.
fn in_canal(changes: &[Change]) -> Value {
    let text = |value: i64| json!(value.to_string());
    let row = |id: i64, v: i64| json!({"id": text(id), "v": text(v)});
    let (mut kind, mut data, mut all_old) = ("INSERT", Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Insert(id, v) => data.push(row(*id, *v)),
            Change::Update(old, new) => {
                kind = "UPDATE";
                data.push(row(new.0, new.1));
                all_old.push(old_values(*old, *new, text));
            }
            Change::Delete(id, v) => {
                kind = "DELETE";
                data.push(row(*id, *v));
            }
        }
    }
    let old = if all_old.is_empty() { Value::Null } else { Value::Array(all_old) };
    json!({"database": "shop", "table": "orders", "type": kind, "isDdl": false, "data": data, "old": old})
}

/// Groups changes of one kind that follow each other, at most three.
fn groups(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut groups: Vec<Vec<Change>> = Vec::new();
    for change in changes {
        let kind = std::mem::discriminant(&change);
        match groups.last_mut() {
            Some(last) if last.len() < 3 && last.iter().all(|one| std::mem::discriminant(one) == kind) => {
                last.push(change);
            }
            _ => groups.push(vec![change]),
        }
    }
    groups
}

fn sent(values: impl IntoIterator<Item = Value>) -> Vec<SentBytes> {
    let one =
        |value: Value| SentBytes { value: Some(value.to_string().into_bytes()), ..SentBytes::default() };
    values.into_iter().map(one).collect()
}

async fn row_events() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let mut random = SmallRng::seed_from_u64(11);
    let mut machine = machine()?;
    let with = format!("connector = 'kafka', properties.bootstrap.servers = '{}', topic =", kafka.servers());
    let mut statements = Vec::new();
    for dialect in ["maxwell", "canal"] {
        kafka.create_topic(dialect, 1).await?;
        statements.push(format!(
            "CREATE SOURCE {dialect} (id BIGINT PRIMARY KEY, v BIGINT) \
             WITH ({with} '{dialect}', table.include = 'orders') FORMAT {dialect} ENCODE JSON"
        ));
        statements.push(format!("CREATE MATERIALIZED VIEW of_{dialect} AS SELECT id, v FROM {dialect}"));
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    run_all(&mut machine.session(), &statements).await?;
    let others = json!({"database": "shop", "table": "items", "type": "insert", "data": {"id": 1, "v": 1}});
    let mut rows = Rows::new();
    for round in 0..6 {
        let count = random.random_range(1..200);
        let changes: Vec<Change> = (0..count).map(|_| change(&mut random, &mut rows)).collect();
        kafka.send_bytes("maxwell", &sent(changes.iter().map(in_maxwell).chain([others.clone()])))?;
        kafka.send_bytes("canal", &sent(groups(changes).iter().map(|group| in_canal(group))))?;
        match round % 3 {
            0 => run(&mut machine.session(), "CHECKPOINT").await.map(drop)?,
            1 => machine.crash(&mut random).await?,
            _ => {}
        }
        let mut expected: Vec<String> = rows.iter().map(|(id, v)| format!("{id}|{v}")).collect();
        expected.sort();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        for dialect in ["maxwell", "canal"] {
            let view = format!("SELECT id, v FROM of_{dialect}");
            expect_soon(&mut machine.session(), &view, &expected).await?;
        }
    }
    let mut session = machine.session();
    for source in ["maxwell", "canal"] {
        expect(&mut session, &format!("SELECT count(*) FROM bad_rows('{source}')"), &["0"]).await?;
        expect(&mut session, &format!("VERIFY of_{source}"), &[]).await?;
    }
    // A message with one bad row: the others count.
    let bad = json!({"type": "DELETE", "table": "orders", "data": [{"id": "999"}, {"id": "x"}]});
    kafka.send_bytes("canal", &sent([bad, json!({"table": "orders", "type": "TRUNCATE", "isDdl": true})]))?;
    let reasons = "SELECT reason LIKE 'there is no row%', reason LIKE '%TRUNCATE%' FROM bad_rows('canal')";
    expect_soon(&mut session, reasons, &["false|false", "false|true", "true|false"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn tables() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let mut random = SmallRng::seed_from_u64(3);
    let mut machine = machine()?;
    kafka.create_topic("t", 2).await?;
    let with = format!(
        "WITH (connector = 'kafka', topic = 't', properties.bootstrap.servers = '{}', format = 'json')",
        kafka.servers()
    );
    let made = [
        &format!("CREATE TABLE whole (id BIGINT, v BIGINT) INCLUDE partition AS p {with}"),
        &format!("CREATE TABLE newest (id BIGINT PRIMARY KEY, v BIGINT) {with}"),
        "CREATE MATERIALIZED VIEW early AS SELECT count(*) AS n, sum(v) AS s FROM whole",
    ];
    run_all(&mut machine.session(), &made).await?;
    let (mut count, mut sum, mut newest, mut ends) = (0, 0, Rows::new(), [0_i64; 2]);
    for round in 0..6_i64 {
        let records: Vec<SentBytes> = (0..random.random_range(1..300_i64))
            .map(|place| {
                let (id, v) = (random.random_range(0..50_i64), round * 1000 + place);
                count += 1;
                sum += v;
                newest.insert(id, v);
                ends[(id % 2) as usize] += 1;
                let value = json!({"id": id, "v": v}).to_string().into_bytes();
                SentBytes { partition: (id % 2) as i32, key: None, value: Some(value) }
            })
            .collect();
        kafka.send_bytes("t", &records)?;
        let mut session = machine.session();
        let all = format!("{count}|{sum}");
        expect_soon(&mut session, "SELECT * FROM early", &[&all]).await?;
        expect_soon(&mut session, "SELECT count(*), sum(v) FROM whole", &[&all]).await?;
        let sums = format!("{}|{}", newest.len(), newest.values().sum::<i64>());
        expect_soon(&mut session, "SELECT count(*), sum(v) FROM newest", &[&sums]).await?;
        match round % 2 {
            0 => {
                run(&mut session, "CHECKPOINT").await?;
                // The topic loses what the tables have.
                for (partition, end) in ends.iter().enumerate() {
                    kafka.delete_before("t", partition as i32, *end).await?;
                }
                let view = format!(
                    "CREATE MATERIALIZED VIEW late{round} AS SELECT count(*) AS n, sum(v) AS s FROM whole"
                );
                within_a_minute("a view over a table", run(&mut session, &view)).await??;
                expect(&mut session, &format!("SELECT * FROM late{round}"), &[&all]).await?;
                expect(&mut session, &format!("VERIFY late{round}"), &[]).await?;
            }
            _ => machine.crash(&mut random).await?,
        }
    }
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT n, s FROM late0", &[&format!("{count}|{sum}")]).await?;
    expect(&mut session, "SELECT count(DISTINCT p) FROM whole", &["2"]).await?;
    run(&mut session, "DROP TABLE whole CASCADE").await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn found_columns() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let registry = Registry::start()?;
    let mut machine = machine()?;
    let mut session = machine.session();
    kafka.create_topic("found", 2).await?;
    let with =
        format!("WITH (connector = 'kafka', properties.bootstrap.servers = '{}', topic =", kafka.servers());
    let source = format!("CREATE SOURCE s {with} 'found', format = 'json')");
    let error = run(&mut session, &source).await.err().unwrap_or_default();
    ensure(error.contains("it has none yet. Declare the columns"), || {
        format!("an empty topic gives {error:?}")
    })?;
    let values =
        [json!({"id": 1, "at": "x", "in": {"y": [1.5]}, "none": {}}), json!({"id": 2, "more": true})];
    kafka.send_bytes("found", &sent(values))?;
    run(&mut session, &source).await?;
    let shown = lines(&mut session, "SHOW CREATE s").await?.join("\n");
    ensure(shown.contains("STRUCT<\"y\" DOUBLE PRECISION[]>"), || format!("SHOW CREATE shows {shown}"))?;
    run(&mut session, "CREATE MATERIALIZED VIEW m AS SELECT id, more, \"in\"['y'][1] AS y FROM s").await?;
    expect_soon(&mut session, "SELECT * FROM m", &["1|NULL|1.5", "2|true|NULL"]).await?;
    // The key is declared, and the columns come from the registry.
    kafka.create_topic("keyed", 1).await?;
    let schema = r#"{"type": "object", "properties": {"id": {"type": "integer"}, "v": {"type": "string"}}}"#;
    registry.add(&json!({"schemaType": "JSON", "schema": schema}).to_string(), "keyed-value");
    let source = |list: &str| {
        format!(
            "CREATE TABLE keyed {list} {with} 'keyed') FORMAT UPSERT ENCODE JSON (schema.registry = '{}')",
            registry.address()
        )
    };
    let wrong = source("(PRIMARY KEY (key))");
    let error = run(&mut session, &wrong).await.err().unwrap_or_default();
    ensure(error.contains("column \"key\" of the primary key not found"), || {
        format!("a wrong key gives {error:?}")
    })?;
    run(&mut session, &source("(PRIMARY KEY (id))")).await?;
    let message = |key: &str, value: Option<&str>| {
        let with_id = |text: &str| [&[0, 0, 0, 0, 1][..], text.as_bytes()].concat();
        SentBytes { partition: 0, key: Some(key.as_bytes().to_vec()), value: value.map(with_id) }
    };
    let messages = [
        message("1", Some("{\"id\": 1, \"v\": \"a\"}")),
        message("2", Some("{\"id\": 2, \"v\": \"b\"}")),
        message("1", None),
    ];
    kafka.send_bytes("keyed", &messages)?;
    expect_soon(&mut session, "SELECT * FROM keyed", &["2|b"]).await?;
    // A restart neither reads a sample nor asks the registry.
    kafka.send_bytes("found", &sent([json!({"id": "no number", "other": 1})]))?;
    machine.crash(&mut SmallRng::seed_from_u64(1)).await?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM keyed", &["2|b"]).await?;
    expect_soon(&mut session, "SELECT count(*) FROM bad_rows('s')", &["1"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}
