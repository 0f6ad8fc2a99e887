//! A consumer of librdkafka without a group: it reads the partitions and offsets that it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_connect::{Error, Health, Result};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::Notify;

use crate::options::{Settings, Start};
use crate::partition::Partition;

/// How long a question to a broker may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The receiver of the logs and errors of librdkafka.
pub(crate) struct Context {
    health: Health,
    servers: String,
}

/// Logs a message of librdkafka.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health.restarting(&self.servers, reason, 1);
        }
    }
}

impl ConsumerContext for Context {}

/// A consumer, with the partitions that it was told to read.
pub(crate) struct Reader {
    pub consumer: Arc<BaseConsumer<Context>>,
    servers: String,
}

impl Reader {
    /// Creates a consumer. `arrived` is notified when records arrive.
    pub fn new(settings: &Settings, health: &Health, arrived: Option<Arc<Notify>>) -> Result<Reader> {
        let context = Context { health: health.clone(), servers: settings.properties.servers.clone() };
        let consumer = settings.config().create_with_context(context);
        let mut consumer: BaseConsumer<Context> = consumer
            .map_err(|error| Error::Invalid(format!("a property of the Kafka client is wrong: {error}")))?;
        if let Some(arrived) = arrived {
            consumer.set_nonempty_callback(move || arrived.notify_one());
        }
        Ok(Reader { consumer: Arc::new(consumer), servers: settings.properties.servers.clone() })
    }

    /// Returns the partitions of a topic.
    pub fn partitions(&self, topic: &str, patience: Duration) -> Result<Vec<Partition>> {
        let found = partitions(self.consumer.client(), &self.servers, topic, patience)?;
        found.ok_or_else(|| missing(topic, &self.servers, "or correct option topic"))
    }

    /// Returns the first offset that a partition holds, and the one after its last.
    pub fn bounds(&self, partition: &Partition) -> Result<(u64, u64)> {
        let found = self.consumer.fetch_watermarks(&partition.topic, partition.number, ANSWER);
        let (first, end) =
            found.map_err(|error| self.failed(&format!("the offsets of {partition} can't be had"), error))?;
        Ok((first.max(0) as u64, end.max(0) as u64))
    }

    /// Returns where new partitions with these bounds begin.
    pub fn first_offsets(
        &self,
        partitions: &BTreeMap<Partition, (u64, u64)>,
        start: &Start,
    ) -> Result<BTreeMap<Partition, u64>> {
        let mut offsets = BTreeMap::new();
        if let Start::Time(time) = start {
            let mut asked = TopicPartitionList::new();
            for partition in partitions.keys() {
                let added =
                    asked.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*time));
                added.map_err(|error| self.failed("offsets by time can't be asked for", error))?;
            }
            let found = self.consumer.offsets_for_times(asked, ANSWER);
            let found = found.map_err(|error| self.failed("offsets by time can't be had", error))?;
            for element in found.elements() {
                if let Offset::Offset(offset) = element.offset() {
                    let partition = Partition { topic: element.topic().into(), number: element.partition() };
                    offsets.insert(partition, offset.max(0) as u64);
                }
            }
        }
        for (partition, (first, end)) in partitions {
            if offsets.contains_key(partition) {
                continue;
            }
            let offset = match start {
                Start::Earliest => *first,
                // No record is of that time or later.
                Start::Latest | Start::Time(_) => *end,
                Start::Offsets(given) => given.get(&partition.number).map_or(*first, |offset| *offset as u64),
            };
            offsets.insert(partition.clone(), offset);
        }
        Ok(offsets)
    }

    /// Reads more partitions, each from an offset on.
    pub fn assign(&self, offsets: &BTreeMap<Partition, u64>) -> Result<()> {
        let list = self.list(offsets)?;
        self.consumer
            .incremental_assign(&list)
            .map_err(|error| self.failed("partitions can't be read", error))
    }

    /// Reads one more partition, from an offset on, in a queue of its own.
    pub fn open(&self, partition: &Partition, from: u64) -> Result<PartitionQueue<Context>> {
        // The queue is taken first, so that no record goes to the queue of the consumer.
        let queue = self.consumer.split_partition_queue(&partition.topic, partition.number);
        self.assign(&BTreeMap::from([(partition.clone(), from)]))?;
        queue.ok_or_else(|| Error::Bug(format!("{partition} has no queue")))
    }

    /// Reads a partition no longer.
    pub fn unassign(&self, partition: &Partition) -> Result<()> {
        let list = self.list(&BTreeMap::from([(partition.clone(), 0)]))?;
        self.consumer
            .incremental_unassign(&list)
            .map_err(|error| self.failed(&format!("{partition} can't be released"), error))
    }

    /// Returns offsets by partition as librdkafka wants them.
    pub fn list(&self, offsets: &BTreeMap<Partition, u64>) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (Partition { topic, number }, offset) in offsets {
            let added = list.add_partition_offset(topic, *number, Offset::Offset(*offset as i64));
            added.map_err(|error| {
                self.failed(&format!("offset {offset} of {topic}/{number} is wrong"), error)
            })?;
        }
        Ok(list)
    }

    /// Returns the offset up to which each partition was read, records of transactions' ends included.
    pub fn positions(&self) -> Vec<(Partition, u64)> {
        let position = |element: TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => {
                let partition = Partition { topic: element.topic().into(), number: element.partition() };
                Some((partition, offset.max(0) as u64))
            }
            _ => None,
        };
        let known = self.consumer.position();
        known.map_or_else(|_| Vec::new(), |known| known.elements().into_iter().filter_map(position).collect())
    }

    /// Returns the error of a broker or a partition that the caller may try again.
    pub fn failed(&self, what: &str, error: KafkaError) -> Error {
        failed(&self.servers, what, &error)
    }

    /// Returns the error for an offset that a partition no longer, or not yet, has. `None` if it has the offset.
    pub fn out_of_range(&self, partition: &Partition, wanted: u64) -> Result<Option<Error>> {
        Ok(out_of_bounds(partition, self.bounds(partition)?, wanted))
    }
}

/// Returns the error of a broker or a partition that the caller may try again.
pub(crate) fn failed(servers: &str, what: &str, error: &KafkaError) -> Error {
    let reason = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    Error::External(format!("{what} at {servers}: {reason}"))
}

/// Returns the partitions of a topic; `None` if it doesn't exist.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    servers: &str,
    topic: &str,
    patience: Duration,
) -> Result<Option<Vec<Partition>>> {
    let metadata = client.fetch_metadata(Some(topic), patience);
    let metadata =
        metadata.map_err(|error| failed(servers, &format!("topic '{topic}' can't be found"), &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(Error::External(format!("topic '{topic}' at {servers}: {code}"))),
    }
    let partition = |number| Partition { topic: topic.to_string(), number };
    let mut partitions: Vec<Partition> =
        found.partitions().iter().map(|found| partition(found.id())).collect();
    partitions.sort();
    Ok((!partitions.is_empty()).then_some(partitions))
}

/// Returns the error that a topic doesn't exist.
pub(crate) fn missing(topic: &str, servers: &str, otherwise: &str) -> Error {
    Error::External(format!("topic '{topic}' doesn't exist at {servers}: create it, {otherwise}"))
}

/// Returns the error for an offset outside of a partition's bounds.
pub(crate) fn out_of_bounds(partition: &Partition, (first, end): (u64, u64), wanted: u64) -> Option<Error> {
    let Partition { topic, number } = partition;
    (!(first..=end).contains(&wanted)).then(|| {
        let why = match wanted < first {
            true => "the topic's retention has removed records that the source still needs",
            false => "the topic was created again, or lost records",
        };
        Error::Invalid(format!(
            "partition {number} of topic '{topic}' has the offsets from {first} to {end}, but {wanted} is next: {why}. \
             DROP the source and CREATE it again to go on from the records that are there"
        ))
    })
}
