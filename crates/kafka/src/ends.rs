//! The ends of partitions, asked for from time to time: also while nothing is read, because a reader is full or has
//! nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use millstream_connect::{Error, Health, Result};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use crate::consumer::{Context, offsets};
use crate::partition::Partition;

/// The time between two questions.
const INTERVAL: Duration = Duration::from_secs(5);

/// A question that takes long, since there are many partitions, delays the next one by so many times its length.
const SHARE: u32 = 20;

/// A thread that asks for the ends of partitions and reports them. It ends soon after this value is dropped.
pub(crate) struct Ends(Sender<(Partition, Arc<str>)>);

impl Ends {
    /// Starts the thread.
    pub fn start(consumer: Arc<BaseConsumer<Context>>, health: Health) -> Result<Ends> {
        let (sender, followed) = channel();
        let thread = std::thread::Builder::new().name("millstream-kafka-ends".into());
        let started = thread.spawn(move || ask(&consumer, &health, &followed));
        started.map_err(|error| Error::External(format!("a thread can't be started: {error}")))?;
        Ok(Ends(sender))
    }

    /// Reports the end of a partition as that of a split.
    pub fn follow(&self, partition: Partition, split: Arc<str>) {
        let _ = self.0.send((partition, split));
    }
}

fn ask(consumer: &BaseConsumer<Context>, health: &Health, news: &Receiver<(Partition, Arc<str>)>) {
    let mut followed: BTreeMap<Partition, Arc<str>> = BTreeMap::new();
    let mut due = Instant::now() + INTERVAL;
    loop {
        match news.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok((partition, split)) => {
                followed.insert(partition, split);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let asked = Instant::now();
        for (partition, end) in ends(consumer, &mut followed) {
            followed.get(&partition).into_iter().for_each(|split| health.ends(split, end));
        }
        due = Instant::now() + INTERVAL.max(asked.elapsed() * SHARE);
    }
}

/// Returns the ends of the followed partitions. Follows those of topics no longer that don't exist.
fn ends(
    consumer: &BaseConsumer<Context>,
    followed: &mut BTreeMap<Partition, Arc<str>>,
) -> BTreeMap<Partition, u64> {
    if let Ok(ends) = offsets(consumer, followed.keys(), Offset::End) {
        return ends;
    }
    // One topic that is gone is an error of all.
    let topics: BTreeSet<String> = followed.keys().map(|partition| partition.topic.clone()).collect();
    let mut all = BTreeMap::new();
    for topic in topics {
        let of_topic = followed.keys().filter(|partition| partition.topic == topic);
        match offsets(consumer, of_topic, Offset::End) {
            Ok(ends) => all.extend(ends),
            Err(error) => {
                tracing::debug!(%error, topic, "the ends of partitions can't be had");
                let is_gone = matches!(
                    error.rdkafka_error_code(),
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition
                            | RDKafkaErrorCode::UnknownTopic
                            | RDKafkaErrorCode::UnknownPartition
                    )
                );
                followed.retain(|partition, _| !is_gone || partition.topic != topic);
            }
        }
    }
    all
}
