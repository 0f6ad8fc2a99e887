//! Measures reading and writing topics of Kafka, beside loops written by hand on the same client library.
//!
//! ```text
//! KAFKA_LIBS=JARS cargo run --release --bin kafka -- [OPTIONS]
//!
//!   --records N     records of 100 bytes in the topics that are read (default 4000000)
//!   --runs N        how often each side runs, in turn (default 3)
//!   --rate N        records a second of the latency's run (default 10000)
//!   --seconds N     how long the latency's run sends (default 20); the first half isn't counted
//! ```
//!
//! JARS is a folder with the broker's jars (`.ci/kafka.xml` names them for Maven). The broker runs beside, and its CPU time
//! isn't counted. The records have four fields, in eight partitions: as JSON, and as Avro under the id of a schema
//! registry. A filter and a count read them. The loop by hand polls the same partitions with librdkafka, decodes batches of
//! 8192 records with arrow-json, filters with Arrow's kernels, and counts. Counts must be equal.
//!
//! A sink writes the JSON topic into another one, exactly once with an epoch a second, and without transactions.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{filter_record_batch, kernels::cmp::gt_eq};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use millstream::Engine;
use millstream::connect::connectors::Print;
use millstream_benches::measure::{self, Cost};
use millstream_benches::options::Options;
use millstream_benches::sent_lines::Times;
use millstream_benches::{Result, yardstick};
use millstream_connect::AvroEncoder;
use millstream_testkit::kafka::Kafka;
use millstream_testkit::registry::Registry;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Message};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "kafka [--records 4000000] [--runs 3] [--rate 10000] [--seconds 20]
Reading and writing topics of Kafka, beside loops written by hand. KAFKA_LIBS names the folder of the broker's jars.";

const PARTITIONS: i32 = 8;

/// Records that are decoded together by hand, and encoded together for the topics.
const BATCH: usize = 8192;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let known = [("records", "4000000"), ("runs", "3"), ("rate", "10000"), ("seconds", "20")];
    let options = Options::read(HELP, &known)?;
    let (records, runs) = (options.number("records")?, options.number("runs")?);
    let kafka = Kafka::start()?.ok_or("set KAFKA_LIBS to the folder of the broker's jars")?;
    let registry = Registry::start()?;
    for topic in ["json", "avro", "once", "plain", "lines"] {
        kafka.create_topic(topic, PARTITIONS).await?;
    }
    fill(&kafka, &registry, records)?;
    println!("{records} records of 100 bytes, {PARTITIONS} partitions, medians of {runs} runs");
    let (mut by_hand, mut json, mut avro) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let expected = records / 2;
        by_hand.push(counted(expected, async { loop_by_hand(&kafka) }).await?);
        json.push(counted(expected, maintained(&kafka, "json", ", format = 'json'")).await?);
        let format = format!(", format = 'avro', schema.registry = '{}'", registry.address());
        avro.push(counted(expected, maintained(&kafka, "avro", &format)).await?);
    }
    let print = |name: &str, cost: Cost| {
        let rate = records as f64 / cost.cpu_s / 1e6;
        println!(
            "  {name:<28} {:6.2} s wall  {:6.2} s CPU  {rate:5.2} M records/s of CPU",
            cost.wall_s, cost.cpu_s
        );
    };
    let (by_hand, json, avro) =
        (measure::median_cost(&by_hand), measure::median_cost(&json), measure::median_cost(&avro));
    print("JSON, a loop by hand", by_hand);
    print("JSON, a maintained count", json);
    print("Avro, a maintained count", avro);
    println!(
        "  CPU: JSON / by hand {:.2}, JSON / Avro {:.2}",
        json.cpu_s / by_hand.cpu_s,
        json.cpu_s / avro.cpu_s
    );
    let (mut once, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        plain.push(written(&kafka, "plain", "at_least_once").await?);
        once.push(written(&kafka, "once", "exactly_once").await?);
    }
    let (once, plain) = (measure::median_cost(&once), measure::median_cost(&plain));
    print("a sink without transactions", plain);
    print("a sink, exactly once", once);
    println!("  wall: exactly once / without {:.2}", once.wall_s / plain.wall_s);
    latency(&kafka, options.number("rate")?, options.number("seconds")?).await
}

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.servers());
    config
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("k", DataType::Int32, true),
        Field::new("v", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ]))
}

/// Returns rows that are 100 bytes of JSON each. Half of them have `v >= 500`.
fn rows(from: usize, to: usize) -> Result<RecordBatch> {
    let ids = from..to;
    let columns_of: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| 1_000_000_000 + id as i64))),
        Arc::new(Int32Array::from_iter_values(ids.clone().map(|id| 100 + (id % 900) as i32))),
        Arc::new(Int64Array::from_iter_values(
            ids.clone().map(|id| 100 + ((id % 2) * 400 + id % 400) as i64),
        )),
        Arc::new(StringArray::from_iter_values(
            ids.map(|id| format!("{:051}", id.wrapping_mul(2_654_435_761))),
        )),
    ];
    Ok(RecordBatch::try_new(columns(), columns_of)?)
}

fn fill(kafka: &Kafka, registry: &Registry, records: usize) -> Result<()> {
    let producer: BaseProducer = config(kafka).set("queue.buffering.max.messages", "1000000").create()?;
    let encoder = AvroEncoder::new(&columns(), "Row")?;
    let id = registry.register("avro-value", encoder.schema_json());
    let header = [&[0][..], &id.to_be_bytes()].concat();
    for from in (0..records).step_by(BATCH) {
        let rows = rows(from, records.min(from + BATCH))?;
        let mut text = Vec::new();
        arrow::json::LineDelimitedWriter::new(&mut text).write_batches(&[&rows])?;
        for (place, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            send(&producer, "json", from + place, line)?;
        }
        for (place, datum) in encoder.encode(&rows)?.into_iter().enumerate() {
            send(&producer, "avro", from + place, &[&header[..], &datum].concat())?;
        }
    }
    Ok(producer.flush(PATIENCE)?)
}

fn send(producer: &BaseProducer, topic: &str, number: usize, value: &[u8]) -> Result<()> {
    // Batches of records go to one partition, as a producer without keys sends them.
    let partition = (number / 1000) as i32 % PARTITIONS;
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => record = again,
            Err((error, _)) => return Err(error.into()),
        }
        producer.poll(Duration::from_millis(10));
    }
}

/// Measures a count, which must be as expected.
async fn counted(expected: usize, count: impl Future<Output = Result<usize>>) -> Result<Cost> {
    let (found, cost) = measure::measure(count).await?;
    match found == expected {
        true => Ok(cost),
        false => Err(format!("{found} were counted, but {expected} are there").into()),
    }
}

/// Reads the JSON topic by hand: returns how many records pass the filter.
fn loop_by_hand(kafka: &Kafka) -> Result<usize> {
    let mut config = config(kafka);
    config
        .set("group.id", "by-hand")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    config.set("queued.min.messages", "1000000");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset("json", partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut decoder = ReaderBuilder::new(columns()).with_batch_size(BATCH).build_decoder()?;
    let (mut ended, mut taken, mut passed) = (0, 0, 0);
    let bound = Int64Array::new_scalar(500);
    let mut count = |rows: RecordBatch| -> Result<()> {
        passed += filter_record_batch(&rows, &gt_eq(rows.column(2), &bound)?)?.num_rows();
        Ok(())
    };
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(record)) => {
                decoder.decode(record.payload().unwrap_or_default())?;
                taken += 1;
                if taken % BATCH == 0 {
                    decoder.flush()?.map(&mut count).transpose()?;
                }
            }
        }
    }
    decoder.flush()?.map(&mut count).transpose()?;
    Ok(passed)
}

fn source(kafka: &Kafka, topic: &str, columns: &str, more: &str) -> String {
    format!(
        "CREATE SOURCE s ({columns}) WITH (connector = 'kafka', topic = '{topic}', properties.bootstrap.servers = '{}'{more})",
        kafka.servers()
    )
}

const COLUMNS: &str = "id BIGINT, k INT, v BIGINT, t TEXT";

/// Reads a topic with an engine: returns how many records pass the filter.
async fn maintained(kafka: &Kafka, topic: &str, format: &str) -> Result<usize> {
    let engine = Engine::builder().connector(Arc::new(millstream_kafka::Kafka)).start()?;
    let mut session = engine.session();
    session.execute(&source(kafka, topic, COLUMNS, &format!("{format}, bounded = true"))).await?;
    session.execute("CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM s WHERE v >= 500").await?;
    engine.finished().await?;
    let rows = yardstick::rows(&mut session, "SELECT n FROM m").await?;
    engine.stop().await?;
    let count = rows.first().ok_or("the count has no row")?.column(0).as_primitive::<Int64Type>().value(0);
    Ok(count as usize)
}

/// Writes the JSON topic into another one.
async fn written(kafka: &Kafka, topic: &str, delivery: &str) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let engine =
        Engine::builder().connector(Arc::new(millstream_kafka::Kafka)).data(folder.path()).start()?;
    let mut session = engine.session();
    session.execute("SET batch_interval = '1 second'").await?;
    session.execute(&source(kafka, "json", COLUMNS, ", format = 'json', bounded = true")).await?;
    let id = match delivery {
        "exactly_once" => format!(", transactional_id = '{}'", folder.path().display()),
        _ => String::new(),
    };
    let sink = format!(
        "CREATE SINK k AS SELECT id, k, v, t FROM s WITH (connector = 'kafka', topic = '{topic}', key = 'id', \
         delivery = '{delivery}', properties.bootstrap.servers = '{}'{id})",
        kafka.servers()
    );
    let work = async {
        session.execute(&sink).await?;
        engine.finished().await?;
        session.execute("FLUSH").await?;
        Ok(())
    };
    let ((), cost) = measure::measure(work).await?;
    let status =
        yardstick::rows(&mut session, "SELECT rows FROM millstream.sinks WHERE status = 'running'").await?;
    if status.iter().all(|rows| rows.num_rows() == 0) {
        return Err("the sink has failed".into());
    }
    engine.stop().await?;
    Ok(cost)
}

/// The output for printed results.
struct Page(Arc<Times>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        self.0.arrived(text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Prints the time from a record's sending to its printed result.
async fn latency(kafka: &Kafka, rate: usize, seconds: usize) -> Result<()> {
    let times = Arc::new(Times::new(rate * seconds));
    let print = Arc::new(Print::to(Page(times.clone())));
    let engine = Engine::builder().connector(print).connector(Arc::new(millstream_kafka::Kafka)).start()?;
    let mut session = engine.session();
    let more = ", format = 'text', properties.fetch.wait.max.ms = '5'";
    session.execute(&source(kafka, "lines", "line TEXT", more)).await?;
    let sink = "CREATE SINK k AS SELECT line FROM s WHERE line LIKE 'line %' \
                WITH (connector = 'print', limit = 1000000000)";
    session.execute(sink).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (producer, sending) = (config(kafka).set("linger.ms", "1").create::<BaseProducer>()?, times.clone());
    tokio::task::spawn_blocking(move || paced(&producer, &sending, rate, rate * seconds)).await??;
    times.all_arrived().await?;
    engine.stop().await?;
    // The broker and the clients warm up in the first half.
    let latencies = times.latencies(rate * seconds / 2);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    println!("  {rate} records a second, sent to printed: p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    Ok(())
}

/// Sends lines at a steady rate.
fn paced(producer: &BaseProducer, times: &Times, rate: usize, lines: usize) -> Result<()> {
    let (began, mut line) = (Instant::now(), 0);
    while line < lines {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
        while line < due.min(lines) {
            times.is_sent(line);
            send(producer, "lines", line, format!("line {line}").as_bytes())?;
            line += 1;
        }
        producer.poll(Duration::from_millis(1));
    }
    Ok(producer.flush(PATIENCE)?)
}
