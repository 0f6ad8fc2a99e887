//! Topics of Kafka that come, go, come again, or are odd, at a real broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_engine::Session;
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, lines, run, run_all};
use millstream_testkit::kafka::{Kafka, Sent};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rdkafka::consumer::Consumer;

use super::Scenario;
use super::kafka_operation::{builder, failure, source};
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("kafka_notices_topics_that_are_created_again", || drive::block_on(created_again())),
    ("kafka_follows_the_topics_of_a_pattern", || drive::block_on(pattern())),
    ("kafka_reads_records_of_20_mb", || drive::block_on(large())),
    ("kafka_times_that_are_wrong_have_an_outcome", || drive::block_on(times())),
    ("kafka_leaves_the_groups_of_others_alone", || drive::block_on(groups())),
];

pub(super) const COUNT: &str = "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, max(id) AS newest FROM s";

pub(super) async fn create_again(kafka: &Kafka, topic: &str, ids: std::ops::Range<i64>) -> Result<()> {
    kafka.delete_topic(topic).await?;
    // A broker deletes in the background.
    let mut created = kafka.create_topic(topic, 2).await;
    for _ in 0..100 {
        if created.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        created = kafka.create_topic(topic, 2).await;
    }
    created?;
    kafka.send(topic, &Sent::numbered(ids, 2))
}

async fn created_again() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &Sent::numbered(0..20, 2))?;
    let mut machine = Machine::start(builder)?;
    let mut session = machine.session();
    run_all(&mut session, &[&source(&kafka, "s", "t", ""), COUNT, "FLUSH"]).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["20|19"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    // It has as many records as were read, so that no offset says so: the topic's id does. First while no engine runs.
    let mut again = Ok(());
    let create = || again = futures::executor::block_on(create_again(&kafka, "t", 100..140));
    machine.crash_at(create, &mut SmallRng::seed_from_u64(1)).await?;
    again?;
    let mut session = machine.session();
    let reason = failure(&mut session).await?;
    let statement = "ALTER SOURCE s SEEK '{\"t/0\":0,\"t/1\":0}'";
    ensure(
        reason.contains("topic 't' was deleted and created again: offset 10, which is next in partition 0"),
        || format!("the reason is {reason:?}"),
    )?;
    ensure(reason.ends_with(statement), || format!("the reason is {reason:?}"))?;
    expect(&mut session, "SELECT * FROM m", &["20|19"]).await?;
    let part = run(&mut session, "ALTER SOURCE s SEEK '{\"t/0\": 0}'").await.err().unwrap_or_default();
    ensure(part.contains("give the offset of partition 1, too"), || format!("a part gives {part:?}"))?;
    run(&mut session, statement).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["60|139"]).await?;
    // The former records are gone, so that a new view has no answer.
    run(&mut session, "CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM s").await?;
    let suspended = "SELECT status, reason LIKE 'topic ''t'' was deleted and created again%' \
                     FROM millstream.materialized_views WHERE name = 'later'";
    expect_soon(&mut session, suspended, &["suspended|true"]).await?;
    run(&mut session, "DROP MATERIALIZED VIEW later").await?;
    run(&mut session, "CHECKPOINT").await?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(1)).await?;
    let mut session = machine.session();
    kafka.send("t", &Sent::numbered(140..142, 2))?;
    expect_soon(&mut session, "SELECT * FROM m", &["62|141"]).await?;
    // Then while the engine runs.
    create_again(&kafka, "t", 200..260).await?;
    let reason = failure(&mut session).await?;
    ensure(reason.contains("topic 't' was deleted and created again"), || {
        format!("the reason is {reason:?}")
    })?;
    run(&mut session, "ALTER SOURCE s SEEK 'earliest'").await?;
    expect_soon(&mut session, "SELECT * FROM m", &["122|259"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn pattern() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let mut machine = Machine::start(builder)?;
    let mut session = machine.session();
    let view = "CREATE MATERIALIZED VIEW m AS SELECT _topic, count(*) AS n FROM s GROUP BY 1";
    run_all(&mut session, &[&source(&kafka, "s", "^orders-.*", ", start = 'latest'"), view]).await?;
    let none =
        "SELECT reason = 'topics: none matches ''^orders-.*'' yet' FROM millstream.sources WHERE name = 's'";
    expect_soon(&mut session, none, &["true"]).await?;
    // A topic that comes later begins at its first record, whatever `start` says.
    for topic in ["orders-a", "orders-b", "other"] {
        kafka.create_topic(topic, 2).await?;
        kafka.send(topic, &Sent::numbered(0..10, 2))?;
    }
    expect_soon(&mut session, "SELECT * FROM m", &["orders-a|10", "orders-b|10"]).await?;
    kafka.grow_topic("orders-b", 3).await?;
    kafka.send("orders-b", &Sent::numbered(10..13, 3))?;
    kafka.create_topic("orders-c", 1).await?;
    kafka.send("orders-c", &Sent::numbered(0..4, 1))?;
    expect_soon(&mut session, "SELECT * FROM m", &["orders-a|10", "orders-b|13", "orders-c|4"]).await?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(2)).await?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["orders-a|10", "orders-b|13", "orders-c|4"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    // A topic that goes ends. The others continue.
    kafka.delete_topic("orders-b").await?;
    let ended = "SELECT count(*) FROM millstream.source_partitions WHERE partition LIKE 'orders-b/%' AND done = 'true'";
    expect_soon(&mut session, ended, &["3"]).await?;
    kafka.send("orders-c", &Sent::numbered(4..5, 1))?;
    expect_soon(&mut session, "SELECT * FROM m", &["orders-a|10", "orders-b|13", "orders-c|5"]).await?;
    // If it comes again, it is another topic, with more records than were read of the former one.
    kafka.create_topic("orders-b", 2).await?;
    kafka.send("orders-b", &Sent::numbered(0..50, 2))?;
    expect_soon(&mut session, "SELECT * FROM m", &["orders-a|10", "orders-b|63", "orders-c|5"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    machine.crash_at(|| {}, &mut SmallRng::seed_from_u64(3)).await?;
    let mut session = machine.session();
    kafka.send("orders-b", &Sent::numbered(50..51, 1))?;
    expect_soon(&mut session, "SELECT * FROM m", &["orders-a|10", "orders-b|64", "orders-c|5"]).await?;
    let wrong = run(&mut session, &source(&kafka, "w", "^(", "")).await.err().unwrap_or_default();
    ensure(wrong.contains("no regular expression"), || format!("a wrong pattern gives {wrong:?}"))?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn large() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic_with("t", ("max.message.bytes", "30000000")).await?;
    let record = |id: i64, length: usize| Sent {
        value: Some(format!("{{\"id\": {id}, \"text\": \"{}\"}}", "x".repeat(length))),
        ..Sent::default()
    };
    kafka.send("t", &[record(1, 1), record(2, 20_000_000), record(3, 1)])?;
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let columns = |sql: String| sql.replacen("(id BIGINT)", "(id BIGINT, text TEXT)", 1);
    let view = "CREATE MATERIALIZED VIEW m AS SELECT id, length(text) AS l FROM s";
    // The engine has a limit of its own, which a bad row names.
    run_all(&mut session, &[&columns(source(&kafka, "s", "t", "")), view]).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["1|1", "3|1"]).await?;
    let bad = lines(&mut session, "SELECT position, reason FROM bad_rows('s')").await?.join("");
    ensure(bad.starts_with("1|") && bad.contains("max_record_bytes"), || {
        format!("the bad rows are {bad:?}")
    })?;
    let again = ["DROP MATERIALIZED VIEW m", "DROP SOURCE s", "SET max_record_bytes = '32 MiB'"];
    run_all(&mut session, &again).await?;
    // librdkafka's defaults suffice.
    run_all(&mut session, &[&columns(source(&kafka, "s", "t", "")), view]).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["1|1", "2|20000000", "3|1"]).await?;
    run_all(&mut session, &["DROP MATERIALIZED VIEW m", "DROP SOURCE s"]).await?;
    // A limit of the client that is too small has a name.
    let small = ", properties.receive.message.max.bytes = '3000000', properties.fetch.max.bytes = '2000000', \
                 properties.message.max.bytes = '1000000'";
    run_all(&mut session, &[&columns(source(&kafka, "s", "t", small)), view]).await?;
    let why =
        "SELECT reason LIKE '%increase receive.message.max.bytes%' FROM millstream.sources WHERE name = 's'";
    expect_soon(&mut session, why, &["true"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn times() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    // By default a broker takes no record more than an hour ahead of its clock.
    kafka.create_topic_with("t", ("message.timestamp.after.max.ms", "9223372036854775807")).await?;
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let marked = source(&kafka, "s", "t", "").replacen(
        "(id BIGINT)",
        "(id BIGINT, WATERMARK FOR _timestamp AS _timestamp - INTERVAL '1 second')",
        1,
    );
    let windows = "CREATE MATERIALIZED VIEW m AS SELECT window_end, count(*) AS n FROM \
                   TUMBLE(TABLE s, DESCRIPTOR(_timestamp), INTERVAL '1 minute') GROUP BY window_start, window_end";
    run_all(&mut session, &[&marked, windows, "CREATE MATERIALIZED VIEW c AS SELECT count(*) AS n FROM s"])
        .await?;
    let minute = 1_790_000_040_000;
    let hour = 3_600_000;
    kafka.send_at("t", "{\"id\": 1}", minute)?;
    kafka.send_at("t", "{\"id\": 2}", minute + 120_000)?;
    expect_soon(&mut session, "SELECT n FROM c", &["2"]).await?;
    // A record of the past is late for its window, and counted as such; it is a row of the source.
    kafka.send_at("t", "{\"id\": 3}", minute - hour)?;
    expect_soon(&mut session, "SELECT n FROM c", &["3"]).await?;
    expect_soon(&mut session, "SELECT count(*) FROM late_rows('m')", &["1"]).await?;
    // A record more than event_time_ahead_max in the future is a bad row, and moves no watermark.
    kafka.send_at("t", "{\"id\": 4}", 4_000_000_000_000)?;
    kafka.send_at("t", "{\"id\": 5}", minute + 121_000)?;
    expect_soon(&mut session, "SELECT n FROM c", &["4"]).await?;
    let bad = lines(&mut session, "SELECT position, reason FROM bad_rows('s')").await?.join("");
    ensure(bad.starts_with("3|") && bad.contains("event_time_ahead_max"), || {
        format!("the bad rows are {bad:?}")
    })?;
    let newest = "SELECT last_record_time < TIMESTAMPTZ '2027-01-01', watermark < TIMESTAMPTZ '2027-01-01' \
                  FROM millstream.source_partitions WHERE partition = 't/0'";
    expect_soon(&mut session, newest, &["true|true"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Checks that a source continues while its group has a member.
async fn beside_a_member(kafka: &Kafka, session: &mut Session) -> Result<()> {
    kafka.send("t", &Sent::numbered(5..6, 1))?;
    let why = "SELECT reason LIKE 'group ''theirs'': other consumers use the group%' \
               FROM millstream.sources WHERE name = 's'";
    for id in 6..66 {
        kafka.send("t", &Sent::numbered(id..id + 1, 1))?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if lines(session, why).await? == ["true"] {
            let expected = format!("{}|{id}", id + 1);
            return expect_soon(session, "SELECT * FROM m", &[&expected]).await;
        }
    }
    let reason = lines(session, "SELECT status, reason FROM millstream.sources").await?;
    Err(format!("the source says {reason:?}"))
}

async fn groups() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    kafka.send("t", &Sent::numbered(0..5, 1))?;
    let member = kafka.join("theirs", "t")?;
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, &[&source(&kafka, "s", "t", ", group_id = 'theirs'"), COUNT]).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["5|4"]).await?;
    let polling = Arc::new(AtomicBool::new(true));
    let still = polling.clone();
    // The member stays one only as long as it polls.
    let polls = std::thread::spawn(move || {
        while still.load(Ordering::Relaxed) {
            drop(member.poll(Duration::from_millis(50)));
        }
        member.assignment().map(|kept| kept.count())
    });
    let checked = beside_a_member(&kafka, &mut session).await;
    polling.store(false, Ordering::Relaxed);
    let kept = polls.join().map_err(|_| "the member panicked".to_string())?;
    checked?;
    ensure(kept.as_ref().is_ok_and(|kept| *kept == 1), || format!("the member has {kept:?}"))?;
    // Once the group is free, offsets are committed to it.
    let fine = "SELECT count(*) FROM millstream.sources WHERE name = 's' AND reason IS NULL";
    for id in 100..140 {
        kafka.send("t", &Sent::numbered(id..id + 1, 1))?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if lines(&mut session, fine).await? == ["1"] {
            return engine.stop().await.map_err(|error| error.to_string());
        }
    }
    Err("offsets aren't committed after the member has left".into())
}
