//! A consumer of librdkafka without a group: it reads the partitions and offsets that it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_connect::{Error, Health, Result};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use regex::Regex;
use tokio::sync::Notify;

use crate::commits::Commits;
use crate::ends::Ends;
use crate::options::{Settings, Start};
use crate::partition::Partition;
use crate::tokens::ClientTokens;
use crate::topic_ids::topic_ids;
use crate::topics::matches;

/// How long a question to a broker may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The number of events in a row that are looked at.
pub(crate) const EVENTS: usize = 8;

/// The receiver of the logs and errors of librdkafka.
pub(crate) struct Context {
    health: Health,
    servers: String,
    /// The group to which offsets are committed.
    group: Option<String>,
    /// The last reason for which only other properties help: a broker refuses the connection, or sends too much. Later
    /// errors say only that there is no connection.
    refusal: Mutex<Option<String>>,
    /// True if a topic was seen to have another id than before, and the reader doesn't know it yet.
    has_other_topic: AtomicBool,
    tokens: ClientTokens,
}

impl Context {
    /// Notes that a topic has another id than before.
    pub fn found_other_topic(&self) {
        self.has_other_topic.store(true, Ordering::Relaxed);
    }

    /// Returns true, once, if a topic has another id than before.
    pub fn take_other_topic(&self) -> bool {
        self.has_other_topic.swap(false, Ordering::Relaxed)
    }

    /// Reports a problem that librdkafka tries to get over.
    pub fn troubled(&self, reason: String) {
        let refusal = self.refusal();
        self.health.restarting(&self.servers, refusal.unwrap_or(reason), 1);
    }

    /// Reports that records arrive.
    pub fn is_well(&self) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.health.well(&self.servers);
    }

    /// Reports the result of a commit to the group.
    pub fn committed(&self, result: KafkaResult<()>) {
        let Some(group) = &self.group else { return };
        let part = format!("group '{group}'");
        match result.map_err(|error| error.rdkafka_error_code()) {
            // Nothing was to be committed.
            Ok(()) | Err(Some(RDKafkaErrorCode::NoOffset)) => self.health.well(&part),
            Err(Some(code @ (RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration))) => {
                let reason = "other consumers use the group, so offsets aren't committed to it: name another one with option \
                              group_id";
                self.health.warns(&part, format!("{reason} ({code})"));
            }
            Err(code) => {
                let code = code.map_or_else(|| "an unknown error".into(), |code| code.to_string());
                self.health.warns(&part, format!("offsets can't be committed: {code}"));
            }
        }
    }

    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns true if an error says that a broker, or this side, refuses the other one's identity.
pub(crate) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
    )
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
        let code = error.rdkafka_error_code();
        let is_refusal = code.is_some_and(is_refusal) || reason.contains("receive.message.max.bytes");
        if is_refusal {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
        }
        if is_refusal || code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.troubled(reason.to_string());
        }
    }
}

impl ConsumerContext for Context {}

/// Gives a consumer a new token if that is due. A failure is a warning as long as the former token lives.
pub(crate) fn renew_token(consumer: &BaseConsumer<Context>) -> Result<()> {
    consumer.context().tokens.renew(consumer.client())
}

/// Returns true if a consumer needs tokens of an endpoint.
pub(crate) fn needs_token(consumer: &BaseConsumer<Context>) -> bool {
    consumer.context().tokens.are_needed()
}

/// Renews the token of a consumer that is in use. Reports failures.
pub(crate) fn watch_token(consumer: &BaseConsumer<Context>, health: &Health) {
    match renew_token(consumer) {
        Ok(()) => health.well("token"),
        Err(error) => health.warns("token", error.to_string()),
    }
}

/// The first offset of a partition, and the one after its last.
pub(crate) type Bounds = (u64, u64);

/// A consumer, with the partitions that it was told to read.
pub(crate) struct Reader {
    pub consumer: Arc<BaseConsumer<Context>>,
    servers: String,
    /// Absent for a reader of the past.
    pub ends: Option<Ends>,
    /// Absent without a group.
    pub commits: Option<Commits>,
}

impl Reader {
    /// Creates a consumer. `arrived` is notified when records arrive.
    pub fn new(settings: &Settings, health: &Health, arrived: Option<Arc<Notify>>) -> Result<Reader> {
        let (servers, group) = (settings.properties.servers.clone(), settings.group_id.clone());
        let (health_of, refusal, has_other_topic) = (health.clone(), Mutex::default(), AtomicBool::default());
        let tokens = ClientTokens::of(&settings.properties);
        let context = Context { health: health_of, servers, group, refusal, has_other_topic, tokens };
        let consumer = settings.config().create_with_context(context);
        let mut consumer: BaseConsumer<Context> = consumer
            .map_err(|error| Error::Invalid(format!("a property of the Kafka client is wrong: {error}")))?;
        renew_token(&consumer)?;
        let is_live = arrived.is_some();
        if let Some(arrived) = arrived {
            consumer.set_nonempty_callback(move || arrived.notify_one());
        }
        let (consumer, servers) = (Arc::new(consumer), settings.properties.servers.clone());
        let ends = if is_live { Some(Ends::start(consumer.clone(), health.clone())?) } else { None };
        let commits = match is_live && settings.group_id.is_some() {
            true => Some(Commits::start(consumer.clone())?),
            false => None,
        };
        Ok(Reader { consumer, servers, ends, commits })
    }

    /// Returns the partitions of a topic.
    pub fn partitions(&self, topic: &str, patience: Duration) -> Result<Vec<Partition>> {
        let found = partitions(self.consumer.client(), topic, patience);
        let found = found.map_err(|error| self.failed(&format!("topic '{topic}' can't be found"), error))?;
        found.ok_or_else(|| missing(topic, &self.servers, "or correct option topic"))
    }

    /// Returns the partitions of all topics whose names match a pattern.
    pub fn matching(&self, pattern: &Regex, patience: Duration) -> Result<Vec<Partition>> {
        let metadata = self.consumer.fetch_metadata(None, patience);
        let metadata = metadata.map_err(|error| self.failed("topics can't be found", error))?;
        let mut found = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| matches(pattern, topic.name())) {
            let partition = |number| Partition { topic: topic.name().to_string(), number };
            found.extend(topic.partitions().iter().map(|found| partition(found.id())));
        }
        found.sort();
        Ok(found)
    }

    /// Returns the id of each topic that exists. It is empty for brokers that have no ids.
    pub fn topic_ids<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t str>,
        patience: Duration,
    ) -> Result<BTreeMap<String, String>> {
        let found = topic_ids(&self.consumer, topics, patience);
        found.map_err(|error| self.failed("the ids of topics can't be had", error))
    }

    /// Returns the addresses of the brokers, for messages.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Returns the first offset that each partition holds, and the one after its last. Of a reader of committed records,
    /// that is the first offset of an open transaction.
    pub fn bounds<'p>(
        &self,
        partitions: impl Iterator<Item = &'p Partition> + Clone,
    ) -> Result<BTreeMap<Partition, Bounds>> {
        let failed = |error| self.failed("the offsets of partitions can't be had", error);
        let first = offsets(&self.consumer, partitions.clone(), Offset::Beginning).map_err(failed)?;
        let ends = offsets(&self.consumer, partitions, Offset::End).map_err(failed)?;
        let of = |(partition, first)| {
            let end = ends.get(&partition).copied().unwrap_or(first);
            (partition, (first, end))
        };
        Ok(first.into_iter().map(of).collect())
    }

    /// Returns where new partitions with these bounds begin.
    pub fn first_offsets(
        &self,
        partitions: &BTreeMap<Partition, Bounds>,
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
                Start::Offsets(_) => start.offset_of(partition).unwrap_or(*first),
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

    /// Pauses partitions, or resumes them.
    pub fn pause(&self, partitions: &[Partition], pauses: bool) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for Partition { topic, number } in partitions {
            list.add_partition(topic, *number);
        }
        let done = if pauses { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        done.map_err(|error| self.failed("partitions can't be paused or resumed", error))
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
        // Nothing is read yet, so that only errors can come. They say more than that there is no connection.
        if self.consumer.assignment().is_ok_and(|assigned| assigned.count() == 0) {
            (0..EVENTS).for_each(|_| drop(self.consumer.poll(Duration::ZERO)));
        }
        match (failed(&self.servers, what, &error), self.consumer.context().refusal()) {
            (Error::External(message), Some(reason)) => Error::External(format!("{message}: {reason}")),
            (error, _) => error,
        }
    }
}

/// Returns the error of a broker or a partition that the caller may try again.
pub(crate) fn failed(servers: &str, what: &str, error: &KafkaError) -> Error {
    let reason = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    Error::External(format!("{what} at {servers}: {reason}"))
}

/// Returns the first offset of each partition (`Offset::Beginning`), or the one after its last (`Offset::End`), by one
/// request to each broker.
pub(crate) fn offsets<'p>(
    consumer: &BaseConsumer<Context>,
    partitions: impl Iterator<Item = &'p Partition>,
    at: Offset,
) -> KafkaResult<BTreeMap<Partition, u64>> {
    let mut list = TopicPartitionList::new();
    for Partition { topic, number } in partitions {
        list.add_partition_offset(topic, *number, at)?;
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let mut found = BTreeMap::new();
    for element in consumer.offsets_for_times(list, ANSWER)?.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let partition = Partition { topic: element.topic().into(), number: element.partition() };
            found.insert(partition, offset.max(0) as u64);
        }
    }
    Ok(found)
}

/// Returns the partitions of a topic; `None` if it doesn't exist.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> KafkaResult<Option<Vec<Partition>>> {
    let metadata = client.fetch_metadata(Some(topic), patience)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
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
