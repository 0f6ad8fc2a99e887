//! Sources of Kafka at a real broker: each record counts once, through crashes of the engine and of the broker; what can't
//! be read is said.

use std::sync::Arc;

use millstream_engine::Engine;
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, within_a_minute,
};
use millstream_testkit::kafka::{Kafka, Sent};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("kafka_counts_each_record_once_through_crashes", || drive::block_on(crashes())),
    ("kafka_ends_where_it_ended_at_the_start", || drive::block_on(bounded())),
    ("kafka_begins_where_it_is_told", || drive::block_on(begins())),
    ("kafka_says_what_it_cannot_read", || drive::block_on(bad_input())),
];

fn machine() -> Result<Machine> {
    Machine::start(|| Engine::builder().connector(Arc::new(millstream_kafka::Kafka)))
}

fn source(kafka: &Kafka, name: &str, columns: &str, topic: &str, more: &str) -> String {
    format!(
        "CREATE SOURCE {name} ({columns}) WITH (connector = 'kafka', topic = '{topic}', format = 'json', \
         properties.bootstrap.servers = '{}', discovery_interval = '200 ms'{more})",
        kafka.servers()
    )
}

/// Returns records with the numbers `range`, in partition `number % partitions`.
fn numbered(range: std::ops::Range<i64>, partitions: i64) -> Vec<Sent> {
    let record = |id: i64| Sent {
        partition: (id % partitions) as i32,
        key: Some(format!("k{}", id % 5)),
        value: Some(format!("{{\"id\": {id}, \"v\": {}}}", id * 10)),
    };
    range.map(record).collect()
}

const SUMS: &str = "SELECT k, n, s FROM sums";

fn sums(count: i64) -> Vec<String> {
    let of = |k: i64| (0..count).filter(move |id| id % 5 == k);
    let line = |k: i64| format!("k{k}|{}|{}", of(k).count(), of(k).sum::<i64>() * 10);
    (0..5).filter(|k| of(*k).count() > 0).map(line).collect()
}

async fn expect_sums(machine: &Machine, count: i64) -> Result<()> {
    let expected = sums(count);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect_soon(&mut machine.session(), SUMS, &expected).await
}

async fn crashes() -> Result<()> {
    let Some(mut kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("orders", 3).await?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut machine = machine()?;
    let group = ", group_id = 'watchers'";
    let made = [
        &source(&kafka, "orders", "id BIGINT, v BIGINT", "orders", group),
        "CREATE MATERIALIZED VIEW sums AS SELECT _key::STRING AS k, count(*) AS n, sum(v) AS s FROM orders GROUP BY 1",
        "CREATE MATERIALIZED VIEW distinct_ids AS SELECT count(*) AS n, count(DISTINCT id) AS d, count(_timestamp) AS t FROM orders",
    ];
    run_all(&mut machine.session(), &made).await?;
    let mut count = 0;
    for round in 0..12 {
        let more = random.random_range(1..400);
        let partitions = if round < 6 { 3 } else { 5 };
        if round == 6 {
            kafka.grow_topic("orders", 5).await?;
        }
        kafka.send("orders", &numbered(count..count + more, partitions))?;
        count += more;
        match round % 4 {
            0 => run(&mut machine.session(), "CHECKPOINT").await.map(drop)?,
            1 => machine.crash(&mut random).await?,
            2 if round == 10 => {
                kafka.kill();
                kafka.begin()?;
            }
            _ => {}
        }
        if round % 3 == 0 {
            expect_sums(&machine, count).await?;
        }
    }
    machine.crash(&mut random).await?;
    expect_sums(&machine, count).await?;
    let mut session = machine.session();
    expect(&mut session, "SELECT n, d, t FROM distinct_ids", &[&format!("{count}|{count}|{count}")]).await?;
    // A new view reads all records again.
    let late = "CREATE MATERIALIZED VIEW late AS SELECT _partition, count(*) AS n, max(_offset) + 1 AS through FROM orders GROUP BY 1";
    within_a_minute("a view over the past", run(&mut session, late)).await??;
    expect_soon(&mut session, "SELECT sum(n) FROM late", &[&count.to_string()]).await?;
    expect(&mut session, "SELECT count(*) FROM late WHERE n <> through", &["0"]).await?;
    expect(&mut session, "VERIFY sums", &[]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn bounded() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("a", 2).await?;
    kafka.create_topic("b", 1).await?;
    kafka.create_topic("empty", 2).await?;
    kafka.send("a", &numbered(0..1000, 2))?;
    kafka.send_together("b", &numbered(1000..1100, 1), false)?;
    kafka.send_together("b", &numbered(1000..1200, 1), true)?;
    kafka.send_together("b", &numbered(5000..5100, 1), false)?;
    let machine = machine()?;
    let mut session = machine.session();
    let made = [
        &source(&kafka, "all_of_it", "id BIGINT", "a, b, empty", ", bounded = true"),
        &source(&kafka, "uncommitted", "id BIGINT", "b", ", bounded = true, isolation = 'read_uncommitted'"),
        "CREATE MATERIALIZED VIEW m AS SELECT _topic, count(*) AS n, count(DISTINCT id) AS d FROM all_of_it GROUP BY 1",
        "CREATE MATERIALIZED VIEW u AS SELECT count(*) AS n FROM uncommitted",
    ];
    run_all(&mut session, &made).await?;
    let status = "SELECT count(*) FROM millstream.sources WHERE status = 'ended'";
    expect_soon(&mut session, status, &["2"]).await?;
    kafka.send("a", &numbered(9000..9010, 2))?;
    expect(&mut session, "SELECT * FROM m", &["a|1000|1000", "b|200|200"]).await?;
    expect(&mut session, "SELECT n FROM u", &["400"]).await?;
    // FLUSH takes in all that was there when the source connected.
    let live = [
        &source(&kafka, "live", "id BIGINT", "a, b", ""),
        "CREATE MATERIALIZED VIEW l AS SELECT count(*) AS n FROM live",
        "FLUSH",
    ];
    run_all(&mut session, &live).await?;
    expect(&mut session, "SELECT n FROM l", &["1210"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn begins() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &numbered(0..100, 2))?;
    let mut machine = machine()?;
    let mut session = machine.session();
    let mut made = vec![
        source(&kafka, "latest", "id BIGINT", "t", ", start = 'latest'"),
        source(&kafka, "offsets", "id BIGINT", "t", ", start = '{\"1\": 40}'"),
        source(&kafka, "old", "id BIGINT", "t", ", start = '2020-01-01'"),
    ];
    let included =
        source(&kafka, "included", "id BIGINT, WATERMARK FOR at AS at - INTERVAL '1 second'", "t", "");
    made.push(included.replace(" WITH ", " INCLUDE timestamp AS at INCLUDE key AS k INCLUDE offset WITH "));
    made.push(source(&kafka, "timed", "id BIGINT, WATERMARK FOR _timestamp AS _timestamp", "t", ""));
    made.push(
        "CREATE MATERIALIZED VIEW keys AS SELECT count(*) AS n, count(DISTINCT k) AS k, count(DISTINCT _key) AS h, \
         max(_offset) AS o, count(at) AS t FROM included"
            .into(),
    );
    for name in ["latest", "offsets", "old"] {
        made.push(format!(
            "CREATE MATERIALIZED VIEW of_{name} AS SELECT count(*) AS n, min(id) AS least FROM {name}"
        ));
    }
    run_all(&mut session, &made.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    expect_soon(&mut session, "SELECT * FROM of_offsets", &["60|0"]).await?;
    expect_soon(&mut session, "SELECT * FROM of_old", &["100|0"]).await?;
    let known = "SELECT count(*) FROM millstream.sources WHERE name = 'latest' AND status = 'running'";
    expect_soon(&mut session, known, &["1"]).await?;
    run(&mut session, "FLUSH").await?;
    // What arrives while no engine runs belongs to it, too.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    machine
        .crash_at(|| drop(kafka.send("t", &numbered(100..110, 2))), &mut SmallRng::seed_from_u64(1))
        .await?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM of_latest", &["10|100"]).await?;
    expect_soon(&mut session, "SELECT * FROM keys", &["110|5|5|54|110"]).await?;
    let marked = "SELECT count(*) FROM millstream.source_partitions WHERE source IN ('included', 'timed') AND \
                  watermark > TIMESTAMPTZ '2020-01-01'";
    let view = "CREATE MATERIALIZED VIEW times AS SELECT count(_timestamp) AS n FROM timed";
    run(&mut session, view).await?;
    expect_soon(&mut session, "SELECT n FROM times", &["110"]).await?;
    expect_soon(&mut session, marked, &["4"]).await?;
    let again = "CREATE MATERIALIZED VIEW again AS SELECT count(*) AS n, min(id) AS least FROM latest";
    run(&mut session, again).await?;
    expect_soon(&mut session, "SELECT * FROM again", &["10|100"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn bad_input() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    let mut machine = machine()?;
    let mut session = machine.session();
    let wrong = source(&kafka, "wrong", "id BIGINT", "t", ", properties.no.such.thing = '1'");
    let error = run(&mut session, &wrong).await.err().unwrap_or_default();
    ensure(error.contains("no.such.thing"), || format!("a wrong property gives {error:?}"))?;
    run(&mut session, &source(&kafka, "missing", "id BIGINT", "nothing", "")).await?;
    let view = "CREATE MATERIALIZED VIEW of_missing AS SELECT count(*) AS n FROM missing";
    run(&mut session, view).await?;
    let why = "SELECT reason LIKE '%topic ''nothing'' doesn''t exist at 127.0.0.1%' FROM millstream.sources WHERE name = 'missing'";
    expect_soon(&mut session, why, &["true"]).await?;
    kafka.create_topic("nothing", 1).await?;
    kafka.send("nothing", &numbered(0..3, 1))?;
    expect_soon(&mut session, "SELECT n FROM of_missing", &["3"]).await?;
    let poison = Sent { value: Some("{\"id\": \"x\"}".into()), ..Sent::default() };
    let records = [numbered(0..2, 1), vec![poison, Sent::default()], numbered(2..3, 1)].concat();
    kafka.send("t", &records)?;
    let made = [
        &source(&kafka, "s", "id BIGINT", "t", ""),
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, max(_offset) AS o FROM s",
    ];
    run_all(&mut session, &made).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["3|4"]).await?;
    let bad = lines(&mut session, "SELECT split, position FROM bad_rows('s')").await?;
    ensure(bad == ["t/0|2", "t/0|3"], || format!("the bad rows are {bad:?}"))?;
    run_all(&mut session, &["FLUSH", "CHECKPOINT"]).await?;
    // Retention removes what was not read.
    let mut removed = Ok(());
    let remove = || {
        removed = kafka
            .send("t", &numbered(3..10, 1))
            .and_then(|()| futures::executor::block_on(kafka.delete_before("t", 0, 8)));
    };
    machine.crash_at(remove, &mut SmallRng::seed_from_u64(1)).await?;
    removed?;
    let why = "SELECT reason LIKE '%partition 0 of topic ''t'' has the offsets from 8 to 12, but 5 is next: the topic''s \
               retention%' FROM millstream.sources WHERE name = 's'";
    expect_soon(&mut machine.session(), why, &["true"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}
