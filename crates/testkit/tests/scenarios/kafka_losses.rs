//! Records of Kafka that are lost, or are others under the same offsets, at a real broker.

use millstream_durable::simulated::SimulatedDisk;
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, run, run_all};
use millstream_testkit::kafka::{Kafka, Sent};

use super::Scenario;
use super::kafka_operation::{builder, failure, source};
use super::kafka_topics::{COUNT, create_again};
use super::machine::open;

pub const ALL: &[Scenario] = &[
    ("kafka_replays_no_other_topic", || drive::block_on(replayed())),
    ("kafka_notices_another_topic_before_the_next_look", || drive::block_on(noticed())),
    ("kafka_continues_a_log_that_was_cut", || drive::block_on(cut())),
    ("kafka_keeps_rows_aside_without_earlier_records", || drive::block_on(aside())),
];

async fn replayed() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &Sent::numbered(0..10, 2))?;
    let disk = SimulatedDisk::default();
    let engine = open(&disk, builder())?;
    let mut session = engine.session();
    let made = ["SET checkpoint_interval = 'off'", &source(&kafka, "s", "t", ""), COUNT, "FLUSH"];
    run_all(&mut session, &made).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["10|9"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    kafka.send("t", &Sent::numbered(10..16, 2))?;
    expect_soon(&mut session, "SELECT * FROM m", &["16|15"]).await?;
    // What was read may not be durable yet; what precedes an acknowledged statement is.
    run(&mut session, "CREATE TABLE later (id INT)").await?;
    // A start reads the last records again. Under their offsets are those of another topic.
    let disk = disk.crash(|_| 0);
    engine.stop().await.map_err(|error| error.to_string())?;
    create_again(&kafka, "t", 100..140).await?;
    let error = open(&disk, builder()).err().unwrap_or_default();
    for part in ["topic 't' was deleted and created again: offset 5, which is next", "--skip-lost-records"] {
        ensure(error.contains(part), || format!("a start with another topic gives {error:?}"))?;
    }
    let engine = open(&disk, builder().skip_lost_records())?;
    let mut session = engine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["50|139"]).await?;
    let bad = "SELECT split, position FROM bad_rows('s') WHERE reason LIKE 'topic ''t'' was deleted and created again%'";
    expect(&mut session, bad, &["t/0|5", "t/0|8", "t/1|5", "t/1|8"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn noticed() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &Sent::numbered(0..20, 2))?;
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let rarely = source(&kafka, "s", "t", "").replace("'200 ms'", "'1 hour'");
    run_all(&mut session, &[&rarely, COUNT]).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["20|19"]).await?;
    run(&mut session, "ALTER SOURCE s RENAME TO \"Orders\"").await?;
    // No offset says that it is another topic.
    create_again(&kafka, "t", 100..140).await?;
    let reason = "SELECT reason LIKE 'topic ''t'' was deleted and created again%' \
                  AND reason LIKE '%: ALTER SOURCE \"Orders\" SEEK ''{\"t/0\":0,\"t/1\":0}''' \
                  FROM millstream.sources WHERE name = 'Orders'";
    expect_soon(&mut session, reason, &["true"]).await?;
    run(&mut session, "ALTER SOURCE \"Orders\" SEEK 'earliest'").await?;
    expect_soon(&mut session, "SELECT newest FROM m", &["139"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn cut() -> Result<()> {
    let Some(mut kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    kafka.send("t", &Sent::numbered(0..10, 1))?;
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let made = [
        &source(&kafka, "s", "t", ""),
        COUNT,
        &source(&kafka, "k", "t", ", on_data_loss = 'skip'"),
        "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, max(id) AS newest FROM k",
    ];
    run_all(&mut session, &made).await?;
    // The last batch has one record, which the broker loses.
    kafka.send("t", &Sent::numbered(10..11, 1))?;
    expect_soon(&mut session, "SELECT * FROM m UNION ALL SELECT * FROM n", &["11|10", "11|10"]).await?;
    kafka.kill();
    kafka.cut_log("t", 0)?;
    kafka.begin()?;
    let reason = failure(&mut session).await?;
    let expected = "partition 0 of topic 't' has the offsets from 0 to 10, but 11 is next: the partition has lost its newest \
                    records, as after an unclean election of its leader. To continue with the records that are there: \
                    ALTER SOURCE s SEEK '{\"t/0\":10}'";
    ensure(reason == expected, || format!("the reason is {reason:?}"))?;
    let bad = "SELECT split, position FROM bad_rows('k')";
    expect_soon(&mut session, bad, &["t/0|11"]).await?;
    kafka.send("t", &Sent::numbered(20..25, 1))?;
    expect_soon(&mut session, "SELECT * FROM n", &["16|24"]).await?;
    run(&mut session, "ALTER SOURCE s SEEK '{\"t/0\":10}'").await?;
    expect_soon(&mut session, "SELECT * FROM m", &["16|24"]).await?;
    expect(&mut session, "SELECT * FROM n", &["16|24"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn aside() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    // By default a broker takes no record more than an hour ahead of its clock.
    kafka.create_topic_with("t", ("message.timestamp.after.max.ms", "9223372036854775807")).await?;
    let minute = 1_790_000_040_000;
    for id in 0..6 {
        let time = if id == 3 { 4_000_000_000_000 } else { minute + id };
        kafka.send_at("t", &format!("{{\"id\": {id}}}"), time)?;
    }
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let marked = source(&kafka, "s", "t", ", on_data_loss = 'skip'").replacen(
        "(id BIGINT)",
        "(id BIGINT, WATERMARK FOR _timestamp AS _timestamp - INTERVAL '1 second')",
        1,
    );
    run_all(&mut session, &[&marked, "CREATE MATERIALIZED VIEW m AS SELECT id FROM s"]).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["0", "1", "2", "4", "5"]).await?;
    expect(&mut session, "SELECT position FROM bad_rows('s')", &["3"]).await?;
    kafka.delete_before("t", 0, 2).await?;
    run(&mut session, "CREATE MATERIALIZED VIEW later AS SELECT id FROM s").await?;
    expect_soon(&mut session, "SELECT * FROM later", &["2", "4", "5"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
