//! Operating sources of Kafka at a real broker: lag, records that retention removed, places to continue at.

use std::sync::Arc;

use millstream_durable::simulated::SimulatedDisk;
use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, lines, run, run_all};
use millstream_testkit::kafka::{Kafka, Sent};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Scenario;
use super::machine::{Machine, open};

pub const ALL: &[Scenario] = &[
    ("kafka_lag_is_right_at_rest_and_under_backpressure", || drive::block_on(lag())),
    ("kafka_goes_on_where_seek_says", || drive::block_on(seeks())),
    ("kafka_starts_without_lost_records_when_told_to", || drive::block_on(starts_without())),
    ("kafka_passes_over_lost_records_if_it_may", || drive::block_on(skips())),
];

pub(super) fn builder() -> EngineBuilder {
    Engine::builder().connector(Arc::new(millstream_kafka::Kafka))
}

pub(super) fn source(kafka: &Kafka, name: &str, topic: &str, more: &str) -> String {
    format!(
        "CREATE SOURCE {name} (id BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json', \
         properties.bootstrap.servers = '{}', discovery_interval = '200 ms'{more})",
        kafka.servers()
    )
}

fn random() -> SmallRng {
    SmallRng::seed_from_u64(7)
}

const LAGS: &str = "SELECT partition, position, end_position, lag, last_record_time > now() - INTERVAL '1 hour' \
                    FROM millstream.source_partitions WHERE partition LIKE 't/%'";

async fn lag() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &Sent::numbered(0..10, 2))?;
    let engine = builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let made = [
        "SET source_rate_limit = 'none'",
        &source(&kafka, "s", "t", ""),
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM s",
    ];
    run_all(&mut session, &made).await?;
    expect_soon(&mut session, "SELECT n FROM m", &["10"]).await?;
    expect_soon(&mut session, LAGS, &["t/0|5|5|0|true", "t/1|5|5|0|true"]).await?;
    // At rest, also after transactions, whose ends take offsets.
    kafka.send_together("t", &Sent::numbered(10..14, 2), true)?;
    kafka.send_together("t", &Sent::numbered(14..16, 1), false)?;
    expect_soon(&mut session, "SELECT n FROM m", &["14"]).await?;
    expect_soon(&mut session, LAGS, &["t/0|11|11|0|true", "t/1|8|8|0|true"]).await?;
    // The records of an open transaction are not behind, since none of them may be read yet.
    let transaction = kafka.send_open("open", "t", &Sent::numbered(20..30, 2))?;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    expect(&mut session, LAGS, &["t/0|11|11|0|true", "t/1|8|8|0|true"]).await?;
    transaction.commit()?;
    expect_soon(&mut session, LAGS, &["t/0|17|17|0|true", "t/1|14|14|0|true"]).await?;
    // A paused source isn't asked for rows, but its ends go on.
    run(&mut session, "PAUSE SOURCE s").await?;
    kafka.send("t", &Sent::numbered(30..50, 2))?;
    expect_soon(&mut session, LAGS, &["t/0|17|27|10|true", "t/1|14|24|10|true"]).await?;
    run(&mut session, "RESUME SOURCE s").await?;
    expect_soon(&mut session, LAGS, &["t/0|27|27|0|true", "t/1|24|24|0|true"]).await?;
    // A source that is held back has the position of its epochs, not of what librdkafka has fetched.
    run(&mut session, "SET source_rate_limit = 1").await?;
    kafka.send("t", &Sent::numbered(50..1050, 1))?;
    let behind =
        "SELECT lag > 900 AND end_position = 1027 FROM millstream.source_partitions WHERE partition = 't/0'";
    expect_soon(&mut session, behind, &["true"]).await?;
    run(&mut session, "SET source_rate_limit = 'none'").await?;
    expect_soon(&mut session, LAGS, &["t/0|1027|1027|0|true", "t/1|24|24|0|true"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns the reason for which source `s` fails, once it does.
pub(super) async fn failure(session: &mut Session) -> Result<String> {
    let failed = "SELECT count(*) FROM millstream.sources WHERE name = 's' AND status = 'failed'";
    expect_soon(session, failed, &["1"]).await?;
    Ok(lines(session, "SELECT reason FROM millstream.sources WHERE name = 's'").await?.join(""))
}

async fn seeks() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &Sent::numbered(0..20, 2))?;
    let mut machine = Machine::start(builder)?;
    let mut session = machine.session();
    let made = [
        &source(&kafka, "s", "t", ", group_id = 'watchers'"),
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, count(DISTINCT id) AS d, max(id) AS newest FROM s",
        "FLUSH",
        "CHECKPOINT",
    ];
    run_all(&mut session, &made).await?;
    // Retention overtakes the source while no engine runs.
    let remove = || {
        kafka.send("t", &Sent::numbered(20..40, 2)).and_then(|()| {
            let removed = [kafka.delete_before("t", 0, 14), kafka.delete_before("t", 1, 13)];
            futures::executor::block_on(futures::future::try_join_all(removed)).map(drop)
        })
    };
    let mut removed = Ok(());
    machine.crash_at(|| removed = remove(), &mut random()).await?;
    removed?;
    let mut session = machine.session();
    let reason = failure(&mut session).await?;
    let expected = "partition 0 of topic 't' has the offsets from 14 to 20, but 10 is next: the topic's retention has \
                    removed records that the source still needs, and 1 other partitions lack theirs. To continue with \
                    the records that are there: ";
    let statement = "ALTER SOURCE s SEEK '{\"t/0\":14,\"t/1\":13}'";
    ensure(reason == format!("{expected}{statement}"), || format!("the reason is {reason:?}"))?;
    expect(&mut session, "SELECT * FROM m", &["20|20|19"]).await?;
    for (wrong, what) in [
        ("'soon'", "the place is 'soon', but earliest"),
        ("'{\"t/0\": 3}'", "t/0 has the offsets from 14 to 20, and 3 isn't among them"),
        ("'{\"t/7\": 3}'", "no partition 't/7'"),
    ] {
        let error =
            run(&mut session, &format!("ALTER SOURCE s SEEK {wrong}")).await.err().unwrap_or_default();
        ensure(error.contains(what), || format!("SEEK {wrong} gives {error:?}"))?;
    }
    run(&mut session, statement).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["33|33|39"]).await?;
    let parts =
        "SELECT partition, position, done, lag FROM millstream.source_partitions WHERE partition LIKE 't/%'";
    let at = ["t/0@14#1|20|false|0", "t/0|10|true|0", "t/1@13#1|20|false|0", "t/1|10|true|0"];
    expect_soon(&mut session, parts, &at).await?;
    // The place is kept, through a crash without a checkpoint and through one with it.
    kafka.send("t", &Sent::numbered(40..44, 2))?;
    expect_soon(&mut session, "SELECT * FROM m", &["37|37|43"]).await?;
    machine.crash_at(|| {}, &mut random()).await?;
    expect_soon(&mut machine.session(), "SELECT * FROM m", &["37|37|43"]).await?;
    run(&mut machine.session(), "CHECKPOINT").await?;
    machine.crash_at(|| {}, &mut random()).await?;
    kafka.send("t", &Sent::numbered(44..48, 2))?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["41|41|47"]).await?;
    // Back to the first records that are there: these count again.
    run(&mut session, "ALTER SOURCE s SEEK 'earliest'").await?;
    expect_soon(&mut session, "SELECT * FROM m", &["62|41|47"]).await?;
    run(&mut session, "ALTER SOURCE s SEEK 'latest'").await?;
    kafka.send("t", &Sent::numbered(48..50, 2))?;
    expect_soon(&mut session, "SELECT * FROM m", &["64|43|49"]).await?;
    machine.crash_at(|| {}, &mut random()).await?;
    expect_soon(&mut machine.session(), "SELECT * FROM m", &["64|43|49"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn starts_without() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    kafka.send("t", &Sent::numbered(0..10, 1))?;
    let disk = SimulatedDisk::default();
    let engine = open(&disk, builder())?;
    let mut session = engine.session();
    let made = [
        "SET checkpoint_interval = 'off'",
        &source(&kafka, "s", "t", ""),
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, min(id) AS least FROM s",
        "FLUSH",
    ];
    run_all(&mut session, &made).await?;
    expect_soon(&mut session, "SELECT * FROM m", &["10|0"]).await?;
    // What was read may not be durable yet; what precedes an acknowledged statement is.
    run(&mut session, "CREATE TABLE later (id INT)").await?;
    // No checkpoint has the state, so that a start reads the records again.
    let disk = disk.crash(|_| 0);
    engine.stop().await.map_err(|error| error.to_string())?;
    kafka.delete_before("t", 0, 4).await?;
    let error = open(&disk, builder()).err().unwrap_or_default();
    for part in [
        "partition 0 of topic 't' has the offsets from 4 to 10, but 0 is next",
        "on_data_loss = 'skip'",
        "start with --skip-lost-records",
    ] {
        ensure(error.contains(part), || format!("a start without records gives {error:?}"))?;
    }
    let engine = open(&disk, builder().skip_lost_records())?;
    let mut session = engine.session();
    expect(&mut session, "SELECT * FROM m", &["6|4"]).await?;
    kafka.send("t", &Sent::numbered(10..12, 1))?;
    expect_soon(&mut session, "SELECT * FROM m", &["8|4"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    // From now on the state is that of the records that were there.
    let engine = open(&disk, builder())?;
    expect_soon(&mut engine.session(), "SELECT * FROM m", &["8|4"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn skips() -> Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    kafka.create_topic("t", 1).await?;
    kafka.send("t", &Sent::numbered(0..10, 1))?;
    let mut machine = Machine::start(builder)?;
    let mut session = machine.session();
    let made = [
        &source(&kafka, "s", "t", ", on_data_loss = 'skip'"),
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, max(id) AS newest FROM s",
        "FLUSH",
        "CHECKPOINT",
    ];
    run_all(&mut session, &made).await?;
    let remove = || {
        kafka
            .send("t", &Sent::numbered(10..20, 1))
            .and_then(|()| futures::executor::block_on(kafka.delete_before("t", 0, 15)))
    };
    let mut removed = Ok(());
    machine.crash_at(|| removed = remove(), &mut random()).await?;
    removed?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["15|19"]).await?;
    let bad = "SELECT split, position, reason LIKE 'partition 0 of topic ''t'' has the offsets from 15 to 20, but 10 is \
               next%' FROM bad_rows('s')";
    expect(&mut session, bad, &["t/0|10|true"]).await?;
    // A new view reads the records that are there.
    run(&mut session, "CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n, min(id) AS least FROM s")
        .await?;
    expect_soon(&mut session, "SELECT * FROM later", &["5|15"]).await?;
    // The journal is replayed, with the bad row.
    machine.crash_at(|| {}, &mut random()).await?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["15|19"]).await?;
    expect(&mut session, bad, &["t/0|10|true"]).await?;
    run(&mut session, "CHECKPOINT").await?;
    // The topic is created again: its records begin at 0.
    kafka.delete_topic("t").await?;
    let missing =
        "SELECT reason LIKE '%topic ''t'' doesn''t exist%' FROM millstream.sources WHERE name = 's'";
    expect_soon(&mut session, missing, &["true"]).await?;
    kafka.create_topic("t", 1).await?;
    kafka.send("t", &Sent::numbered(100..103, 1))?;
    expect_soon(&mut session, "SELECT * FROM m", &["18|102"]).await?;
    let parts =
        "SELECT partition, position, done FROM millstream.source_partitions WHERE partition LIKE 't/%'";
    expect(&mut session, parts, &["t/0@0#1|3|false", "t/0|20|true"]).await?;
    let bad = "SELECT split, position FROM bad_rows('s')";
    expect(&mut session, bad, &["t/0|10", "t/0|20"]).await?;
    machine.crash_at(|| {}, &mut random()).await?;
    let mut session = machine.session();
    expect_soon(&mut session, "SELECT * FROM m", &["18|102"]).await?;
    expect(&mut session, bad, &["t/0|10", "t/0|20"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}
