//! The source at librdkafka's mock cluster: leaders that move, and limits.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use millstream_connect::{Health, More, Options};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;

fn source(servers: &str, more: &[(&str, &str)]) -> KafkaSource {
    let mut options = BTreeMap::from([
        ("topic".to_string(), "t".to_string()),
        ("properties.bootstrap.servers".into(), servers.into()),
        ("properties.topic.metadata.refresh.fast.interval.ms".into(), "50".into()),
    ]);
    options.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let spec = SourceSpec {
        name: "s".into(),
        columns: Some(Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8View, true)]))),
        key: Vec::new(),
        options: Options(options),
        max_record_bytes: 1 << 20,
        health: Health::default(),
    };
    KafkaSource::new(&spec).unwrap()
}

fn send(servers: &str, count: usize) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for number in 0..count {
        let record = BaseRecord::<str, str>::to("t").partition((number % 2) as i32).payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Reads until `count` rows have come.
async fn read(source: &mut KafkaSource, count: usize) -> Vec<Span> {
    let (mut spans, mut rows) = (Vec::new(), 0);
    let begun = Instant::now();
    while rows < count {
        assert!(begun.elapsed() < Duration::from_secs(60), "{rows} rows of {count} have come");
        match source.next(Limit { rows: 1000, bytes: 1 << 20 }).await {
            Ok(arrival) => {
                rows += arrival.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                spans.extend(arrival.spans);
                if arrival.more == More::Later {
                    source.ready().await.unwrap();
                }
            }
            Err(Error::External(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(rows, count);
    spans
}

/// Fails unless the spans of each partition follow each other, up to an offset.
fn check_spans(spans: &[Span], end: u64) {
    for split in ["t/0", "t/1"] {
        let of_split = spans.iter().filter(|span| span.split.as_ref() == split);
        let reached = of_split.fold(0, |at, span| {
            assert_eq!(span.from, at, "{spans:?}");
            span.to
        });
        assert_eq!(reached, end);
    }
}

#[tokio::test]
async fn a_leader_that_moves_or_dies_loses_and_repeats_nothing() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(3).unwrap();
    cluster.create_topic("t", 2, 3).unwrap();
    let lead =
        |broker| (0..2).for_each(|number| cluster.partition_leader("t", number, Some(broker)).unwrap());
    lead(1);
    let servers = cluster.bootstrap_servers();
    let mut source = source(&servers, &[]);
    send(&servers, 100);
    let mut spans = read(&mut source, 100).await;
    for round in 1..=4 {
        lead(round % 2 + 2);
        send(&servers, 100);
        spans.extend(read(&mut source, 100).await);
        check_spans(&spans, 50 + 50 * round as u64);
    }
    // The leader dies, and another broker takes over.
    cluster.broker_down(2).unwrap();
    lead(1);
    send(&servers, 100);
    spans.extend(read(&mut source, 100).await);
    check_spans(&spans, 300);
    let all = Span { split: "t/0".into(), from: 0, to: 300, done: false };
    let replayed = source.replay(&all, Limit { rows: 1000, bytes: 1 << 20 });
    assert_eq!(replayed.await.unwrap().rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 300);
}

#[tokio::test]
async fn a_limit_holds_for_each_partition() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    send(&servers, 200);
    for bounded in ["false", "true"] {
        let mut source = source(&servers, &[("rate_limit_per_partition", "20"), ("bounded", bounded)]);
        let begun = Instant::now();
        let spans = read(&mut source, 200).await;
        check_spans(&spans, 100);
        // A full bucket of 20, then 80 more at 20 a second.
        let seconds = begun.elapsed().as_secs_f64();
        assert!((3.5..20.0).contains(&seconds), "bounded = {bounded} took {seconds} s");
    }
}
