//! Measures a restart with a backlog in a topic of Kafka: the rate, the memory, and the watermark at every moment.
//!
//! ```text
//! KAFKA_LIBS=JARS cargo run --release --bin kafka_backlog -- [OPTIONS]
//!
//!   --mib N          size of the backlog (default 1024)
//!   --partitions N   partitions of the topic (default 8)
//! ```
//!
//! An engine with a data directory reads 1,000 records of each partition, takes a checkpoint and stops. Then the backlog is
//! sent, in records of 100 bytes whose times ascend in each partition, and another engine starts. It counts the records
//! in windows of event time. While it reads, samples compare each partition's watermark with its position: the time of the
//! record before that, less a second. At the end the counts must be right, and no record may be late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use millstream::{Engine, Session};
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};
use millstream_testkit::kafka::Kafka;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "kafka_backlog [--mib 1024] [--partitions 8]
A restart with a backlog in a topic of Kafka. KAFKA_LIBS names the folder of the broker's jars.";

/// The time of the first record of each partition, in milliseconds since 1970.
const BEGIN: i64 = 1_767_225_600_000;

/// Records of each partition before the restart.
const BEFORE: usize = 1000;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("mib", "1024"), ("partitions", "8")])?;
    let (mib, partitions) = (options.number("mib")?, options.number("partitions")?);
    let each = (mib << 20) / 100 / partitions;
    let before = BEFORE.min(each);
    let kafka = Kafka::start()?.ok_or("set KAFKA_LIBS to the folder of the broker's jars")?;
    kafka.create_topic("backlog", i32::try_from(partitions)?).await?;
    fill(&kafka, partitions, 0..before)?;
    let folder = tempfile::tempdir()?;
    let engine = start(folder.path())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE s (v BIGINT, t TEXT, WATERMARK FOR _timestamp AS _timestamp - INTERVAL '1 second') \
         WITH (connector = 'kafka', topic = 'backlog', format = 'json', properties.bootstrap.servers = '{}')",
        kafka.servers()
    );
    let windows = "CREATE MATERIALIZED VIEW windows AS SELECT window_end, count(*) AS n FROM \
                   TUMBLE(TABLE s, DESCRIPTOR(_timestamp), INTERVAL '10 seconds') GROUP BY window_start, window_end";
    let count = "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM s";
    for statement in [&source, windows, count] {
        session.execute(statement).await?;
    }
    counted(&mut session, before * partitions, |_| {}).await?;
    session.execute("CHECKPOINT").await?;
    engine.stop().await?;
    fill(&kafka, partitions, before..before + each)?;
    restart(folder.path(), partitions, before, each).await
}

/// Reads the backlog with another engine, and prints the figures.
async fn restart(folder: &std::path::Path, partitions: usize, before: usize, each: usize) -> Result<()> {
    let resting = measure::resident_mib()?;
    let (begun, cpu) = (Instant::now(), measure::cpu_seconds()?);
    let engine = start(folder)?;
    let mut session = engine.session();
    let ready = begun.elapsed().as_secs_f64();
    let mut resident = Vec::new();
    let expected = (before + each) * partitions;
    counted(&mut session, expected, |mib| resident.push(mib)).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), measure::cpu_seconds()? - cpu);
    let late = number(&mut session, "SELECT count(*) FROM late_rows('windows')").await?;
    if late > 0 {
        return Err(format!("{late} records were late").into());
    }
    engine.stop().await?;
    let (records, size) = (each * partitions, each * partitions * 100);
    let later = resident.get(resident.len() / 4..).unwrap_or_default().iter().copied();
    let (least, most) =
        later.fold((f64::MAX, 0.0), |(least, most): (f64, f64), mib| (least.min(mib), most.max(mib)));
    println!("{records} records of 100 bytes ({} MiB) in {partitions} partitions", size >> 20);
    println!(
        "  start {ready:.2} s, all read after {seconds:.2} s: {:.2} M records/s, {:.0} MiB/s, {:.2} M records/s of CPU",
        records as f64 / seconds / 1e6,
        (size >> 20) as f64 / seconds,
        records as f64 / cpu / 1e6
    );
    println!(
        "  memory: {resting:.0} MiB before, {least:.0} to {most:.0} MiB in the last three quarters; {} samples, each \
         watermark right",
        resident.len()
    );
    Ok(())
}

fn start(folder: &std::path::Path) -> Result<Engine> {
    Ok(Engine::builder().connector(Arc::new(millstream_kafka::Kafka)).data(folder).start()?)
}

/// Sends the records with these offsets to each partition.
fn fill(kafka: &Kafka, partitions: usize, offsets: std::ops::Range<usize>) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.servers()).set("queue.buffering.max.messages", "1000000");
    // In one partition, order is time.
    let producer: BaseProducer = config.set("enable.idempotence", "true").create()?;
    for begin in offsets.clone().step_by(1000) {
        for partition in 0..partitions {
            for offset in begin..offsets.end.min(begin + 1000) {
                let value =
                    format!("{{\"v\": {offset:010}, \"t\": \"{:072}\"}}", offset * partitions + partition);
                let value = value.replacen(": 0", ": 1", 1);
                let mut record = BaseRecord::<str, str>::to("backlog")
                    .partition(i32::try_from(partition)?)
                    .payload(&value)
                    .timestamp(BEGIN + offset as i64);
                while let Err((error, again)) = producer.send(record) {
                    if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                        return Err(error.into());
                    }
                    producer.poll(Duration::from_millis(10));
                    record = again;
                }
            }
        }
        producer.poll(Duration::ZERO);
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Waits until the records are counted. Samples the memory and checks the watermarks meanwhile.
async fn counted(session: &mut Session, expected: usize, mut sample: impl FnMut(f64)) -> Result<()> {
    let mut progress = (0, Instant::now());
    loop {
        check_watermarks(session).await?;
        sample(measure::resident_mib()?);
        let total = number(session, "SELECT n FROM total").await?;
        if total == expected {
            return Ok(());
        }
        if total != progress.0 {
            progress = (total, Instant::now());
        }
        if total > expected || progress.1.elapsed() > PATIENCE {
            return Err(format!("{total} records are counted, but {expected} are there").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Fails unless each partition's watermark is the time of its last record, less a second.
async fn check_watermarks(session: &mut Session) -> Result<()> {
    let sql = "SELECT position, watermark FROM millstream.source_partitions \
               WHERE partition LIKE 'backlog/%' AND watermark IS NOT NULL";
    for rows in yardstick::rows(session, sql).await? {
        let positions = rows.column(0).as_primitive::<Int64Type>().values();
        let watermarks = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
        for (position, watermark) in positions.iter().zip(watermarks) {
            let expected = (BEGIN + position - 1 - 1000) * 1_000;
            if *watermark != expected {
                return Err(
                    format!("at offset {position} the watermark is {watermark}, not {expected}").into()
                );
            }
        }
    }
    Ok(())
}

async fn number(session: &mut Session, sql: &str) -> Result<usize> {
    let rows = yardstick::rows(session, sql).await?;
    let number = rows.first().filter(|rows| rows.num_rows() > 0);
    Ok(number.map_or(0, |rows| rows.column(0).as_primitive::<Int64Type>().value(0)) as usize)
}
