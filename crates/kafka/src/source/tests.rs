//! The source at librdkafka's mock cluster: leaders that move, limits, and topics that are lost or created again.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use millstream_connect::{BadRow, Health, More, Options};
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::*;
use crate::consumer::Reader;
use crate::ends::{Followed, ends, has_other_topic};
use crate::partition::Partition;

const WIDE: Limit = Limit { rows: 1000, bytes: 1 << 20 };

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
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
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
        match source.next(WIDE).await {
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
    let replayed = source.replay(&all, WIDE);
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

/// Creates a cluster whose topic "t" has two partitions of ten records.
fn cluster() -> (MockCluster<'static, DefaultProducerContext>, String) {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    send(&servers, 20);
    (cluster, servers)
}

fn position(spans: &[(&str, u64)]) -> Position {
    let mut position = Position::default();
    for (split, to) in spans {
        position.advance(&Span { split: (*split).into(), from: 0, to: *to, done: split.contains("t#") });
    }
    position
}

/// Returns the split that is the id of topic "t".
async fn id_of_t(servers: &str) -> String {
    let spans = read(&mut source(servers, &[]), 20).await;
    let id = spans.iter().find(|span| span.split.starts_with("t#")).expect("the topic has an id");
    id.split.to_string()
}

/// Returns the first offset of a split in spans, and the one after its last.
fn reach(spans: &[Span], split: &str) -> Option<(u64, u64)> {
    let of_split = || spans.iter().filter(|span| span.split.as_ref() == split);
    of_split().map(|span| span.from).min().zip(of_split().map(|span| span.to).max())
}

/// Reads `count` rows. Returns their spans and the bad rows.
async fn take(source: &mut KafkaSource, count: u64) -> (Vec<Span>, Vec<BadRow>) {
    let (mut spans, mut bad_rows, mut rows) = (Vec::new(), Vec::new(), 0);
    let begun = Instant::now();
    while rows < count {
        assert!(begun.elapsed() < Duration::from_secs(60), "{rows} rows of {count} have come");
        let arrival = source.next(WIDE).await.unwrap();
        rows += arrival.rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        spans.extend(arrival.spans);
        bad_rows.extend(arrival.bad_rows);
    }
    assert_eq!(rows, count);
    (spans, bad_rows)
}

#[tokio::test]
async fn a_replay_never_takes_the_records_of_another_topic() {
    let (_cluster, servers) = cluster();
    let id = id_of_t(&servers).await;
    let span = |from, to| Span { split: "t/0".into(), from, to, done: false };
    for (name, skip) in [("fail", false), ("skip", true)] {
        let mut source = source(&servers, &[("on_data_loss", name)]);
        // A checkpoint has the id of a former topic.
        source.seek(&position(&[("t#former", 1), ("t/0", 4)])).await.unwrap();
        let replayed = source.replay(&span(4, 8), WIDE).await;
        if !skip {
            let error = replayed.unwrap_err().to_string();
            assert!(error.contains("topic 't' was deleted and created again"), "{error}");
            let error = source.next(WIDE).await.unwrap_err().to_string();
            assert!(error.contains("topic 't' was deleted and created again"), "{error}");
            assert!(error.ends_with("ALTER SOURCE s SEEK '{\"t/0\":0}'"), "{error}");
            continue;
        }
        let replayed = replayed.unwrap();
        assert!(replayed.rows.is_empty() && replayed.spans == [span(4, 8)]);
        let told: Vec<u64> = replayed.bad_rows.iter().map(|bad| bad.offset).collect();
        assert_eq!(told, [4]);
        // The rest of them is not told again.
        assert!(source.replay(&span(8, 9), WIDE).await.unwrap().bad_rows.is_empty());
        let (spans, bad_rows) = take(&mut source, 20).await;
        assert!(bad_rows[0].reason.contains("created again"), "{bad_rows:?}");
        assert_eq!(reach(&spans, "t/0@0#1"), Some((0, 10)), "{spans:?}");
        let again = Span { split: "t/0@0#1".into(), ..span(0, 10) };
        // So is the end of a split, which a later start replays, with its bad row.
        let end = Span { done: true, ..span(10, 10) };
        let mut later = self::source(&servers, &[("on_data_loss", name)]);
        later.seek(&position(&[("t#former", 1), ("t/0", 10)])).await.unwrap();
        assert!(later.replay(&end, WIDE).await.unwrap().bad_rows.is_empty());
        let id = Span { split: id.clone().into(), from: 1, to: 2, done: true };
        later.replay(&id, WIDE).await.unwrap();
        let told: Vec<u64> =
            later.replay(&end, WIDE).await.unwrap().bad_rows.iter().map(|bad| bad.offset).collect();
        assert_eq!(told, [10]);
        // A span that was read of the present topic is replayed.
        assert_eq!(source.replay(&again, WIDE).await.unwrap().rows[0].num_rows(), 10);
    }
    let mut source = source(&servers, &[]);
    source.seek(&position(&[(&id, 1), ("t/0", 4)])).await.unwrap();
    assert_eq!(source.replay(&span(4, 8), WIDE).await.unwrap().rows[0].num_rows(), 4);
}

#[tokio::test]
async fn a_log_that_was_cut_is_read_on_at_its_end() {
    let (_cluster, servers) = cluster();
    let id = id_of_t(&servers).await;
    let known = position(&[(&id, 1), ("t/0", 15), ("t/1", 10)]);
    let mut fails = source(&servers, &[]);
    fails.seek(&known).await.unwrap();
    let error = fails.next(WIDE).await.unwrap_err().to_string();
    assert!(error.ends_with("ALTER SOURCE s SEEK '{\"t/0\":10}'"), "{error}");
    let mut skips = source(&servers, &[("on_data_loss", "skip")]);
    skips.seek(&known).await.unwrap();
    let arrival = skips.next(WIDE).await.unwrap();
    assert!(arrival.rows.is_empty(), "{arrival:?}");
    assert_eq!((arrival.bad_rows.len(), arrival.bad_rows[0].offset), (1, 15));
    send(&servers, 2);
    let (spans, _) = take(&mut skips, 2).await;
    assert_eq!(reach(&spans, "t/0@10#1"), Some((10, 11)), "{spans:?}");
    // If the ids aren't known, it may be another topic.
    let mut unknown = source(&servers, &[("on_data_loss", "skip")]);
    unknown.seek(&position(&[("t/0", 15), ("t/1", 11)])).await.unwrap();
    take(&mut unknown, 11).await;
}

#[tokio::test]
async fn a_topic_is_gone_only_after_a_while() {
    let (cluster, servers) = cluster();
    let mut source = source(&servers, &[("topic", "^t$"), ("discovery_interval", "2 seconds")]);
    take(&mut source, 20).await;
    let hides = |error| cluster.topic_error("t", error).unwrap();
    hides(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    let begun = Instant::now();
    let mut gone = Vec::new();
    // Looks follow each other at once.
    for _ in 0..3 {
        source.intake.as_mut().unwrap().disconnect();
        let spans = source.next(WIDE).await.unwrap().spans;
        assert!(spans.is_empty() || begun.elapsed() >= Duration::from_secs(2), "{spans:?}");
        gone.extend(spans);
    }
    while gone.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{gone:?}");
        gone.extend(source.next(WIDE).await.unwrap().spans);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(gone.iter().all(|span| span.done && span.from == 10) && begun.elapsed() > Duration::from_secs(2));
    // It is the same topic after all.
    hides(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    send(&servers, 2);
    let (spans, _) = take(&mut source, 2).await;
    assert_eq!(reach(&spans, "t/0@10#1"), Some((10, 11)), "{spans:?}");
}

#[tokio::test]
async fn partitions_that_a_new_topic_lacks_end() {
    let (_cluster, servers) = cluster();
    // A former topic had a third partition.
    let former = position(&[("t#former", 1), ("t/0", 4), ("t/1", 4), ("t/2", 7)]);
    let mut strict = source(&servers, &[]);
    strict.seek(&former).await.unwrap();
    let error = strict.next(WIDE).await.unwrap_err().to_string();
    assert!(error.contains("ALTER SOURCE") && !error.contains("t/2"), "{error}");
    // The statement that the error suggests moves all partitions that there are.
    assert_eq!(strict.jump(&Jump::To("{\"t/0\": 0, \"t/1\": 0}".into())).await.unwrap(), 2);
    let (spans, _) = take(&mut strict, 20).await;
    assert!(spans.iter().any(|span| &*span.split == "t/2" && span.done && span.from == 7), "{spans:?}");

    let mut skips = source(&servers, &[("on_data_loss", "skip")]);
    skips.seek(&former).await.unwrap();
    let (spans, _) = take(&mut skips, 20).await;
    assert!(spans.iter().any(|span| &*span.split == "t/2" && span.done), "{spans:?}");
}

#[tokio::test]
async fn a_partition_that_came_later_is_not_the_former_one() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 3, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    send(&servers, 20);
    let id = id_of_t(&servers).await;
    // The topic was created again with two partitions, and has got a third one since.
    let mut position = position(&[("t#former", 1), ("t/0@0#1", 10), ("t/1@0#1", 10)]);
    position.advance(&Span { split: "t/2".into(), from: 7, to: 7, done: true });
    position.advance(&Span { split: id.into(), from: 1, to: 2, done: true });
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let record = BaseRecord::<str, str>::to("t").partition(2).payload("x");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    let mut source = source(&servers, &[]);
    source.seek(&position).await.unwrap();
    let (spans, _) = take(&mut source, 1).await;
    assert_eq!(reach(&spans, "t/2@0#1"), Some((0, 1)), "{spans:?}");
}

#[tokio::test]
async fn a_start_applies_to_the_first_look_only() {
    let (cluster, servers) = cluster();
    let late = [("topic", "^u"), ("start", "latest")];
    let mut first = source(&servers, &late);
    let spans = first.next(WIDE).await.unwrap().spans;
    assert_eq!(spans.len(), 1, "{spans:?}");
    let mut position = Position::default();
    position.advance(&spans[0]);
    // A topic appears while no engine runs.
    cluster.create_topic("u", 1, 1).unwrap();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    for _ in 0..3 {
        producer.send(BaseRecord::<str, str>::to("u").payload("x")).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let mut again = source(&servers, &late);
    again.seek(&position).await.unwrap();
    take(&mut again, 3).await;
    // A new source begins at the end.
    let mut new = source(&servers, &late);
    let spans = new.next(WIDE).await.unwrap().spans;
    assert_eq!(reach(&spans, "u/0@3"), Some((3, 3)), "{spans:?}");
    // A jump before the first look moves only the partitions that it names.
    let mut jumps = source(&servers, &[("start", "latest")]);
    assert_eq!(jumps.jump(&Jump::To("{\"t/0\": 7}".into())).await.unwrap(), 1);
    let (spans, _) = take(&mut jumps, 3).await;
    assert_eq!(reach(&spans, "t/1@10"), Some((10, 10)), "{spans:?}");
}

#[tokio::test]
async fn ends_are_reported_beside_missing_topics_and_ids_are_compared() {
    let (_cluster, servers) = cluster();
    let id = id_of_t(&servers).await;
    let source = source(&servers, &[]);
    let reader = Reader::new(&source.settings, &Health::default(), None).unwrap();
    let consumer: &BaseConsumer<_> = &reader.consumer;
    let followed = |topic: &str, id: Option<&str>| {
        let partition = Partition { topic: topic.into(), number: 0 };
        (partition, Followed { split: "s".into(), id: id.map(str::to_string) })
    };
    let known = id.trim_start_matches("t#");
    let mut all = BTreeMap::from([followed("t", Some(known)), followed("missing", Some("former"))]);
    assert_eq!(ends(consumer, &all).into_values().collect::<Vec<_>>(), [10]);
    assert!(!has_other_topic(consumer, &all));
    all.extend([followed("t", Some("former"))]);
    assert!(has_other_topic(consumer, &all));
}

#[tokio::test]
async fn a_pull_that_fails_loses_nothing() {
    let (_cluster, servers) = cluster();
    let id = id_of_t(&servers).await;
    let mut source = source(&servers, &[("on_data_loss", "skip")]);
    source.seek(&position(&[(&id, 1), ("t/0", 15)])).await.unwrap();
    // The new split and the bad row of lost records survive a new consumer.
    source.intake.as_mut().unwrap().discover().unwrap();
    source.intake.as_mut().unwrap().disconnect();
    let (spans, bad_rows) = take(&mut source, 10).await;
    assert_eq!(bad_rows.len(), 1);
    let left = Span { split: "t/0".into(), from: 15, to: 15, done: true };
    assert_eq!(spans.iter().filter(|span| **span == left).count(), 1, "{spans:?}");
    assert_eq!(reach(&spans, "t/0@10#1"), Some((10, 10)), "{spans:?}");
}
