//! The last epoch that a sink has delivered: a record of a compacted topic, under the transactional.id as its key.
//!
//! The transaction that sends an epoch's messages also sends this record. A reader must first fence earlier producers
//! of the transactional.id: only then is their last transaction over, and the record final.

use std::time::{Duration, Instant};

use millstream_connect::{Error, Result};
use millstream_delta::Epoch;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::consumer::{ANSWER, failed, missing, partitions};
use crate::producer::PATIENCE;
use crate::sink_options::SinkSettings;

/// The partition of all records.
pub(crate) const PARTITION: i32 = 0;

/// The content of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub epoch: Epoch,
    /// The run that has delivered the epoch, or that has taken over since.
    pub writer: String,
}

impl Held {
    /// Returns the record's value.
    pub fn value(&self) -> String {
        json!({"epoch": self.epoch.0, "writer": self.writer}).to_string()
    }

    fn of(value: &[u8]) -> Option<Held> {
        let value: Value = serde_json::from_slice(value).ok()?;
        let epoch = Epoch(value.get("epoch")?.as_u64()?);
        Some(Held { epoch, writer: value.get("writer")?.as_str()?.to_string() })
    }
}

/// Reads the record of a sink. `None` if it has none, or the topic doesn't exist.
pub(crate) fn read(settings: &SinkSettings) -> Result<Option<Held>> {
    let (topic, servers) = (&settings.progress_topic, settings.servers());
    let wrong = |error: KafkaError| failed(servers, &format!("topic '{topic}' can't be read"), &error);
    let consumer: BaseConsumer = settings.consumer().create().map_err(wrong)?;
    if partitions(consumer.client(), servers, topic, ANSWER)?.is_none() {
        return Ok(None);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, PARTITION, Offset::Beginning).map_err(wrong)?;
    consumer.assign(&list).map_err(wrong)?;
    let (begun, mut held) = (Instant::now(), None);
    loop {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(record)) if record.key() == Some(settings.transactional_id.as_bytes()) => {
                held = match record.payload() {
                    None => None,
                    Some(value) => Some(Held::of(value).ok_or_else(|| {
                        Error::Invalid(format!(
                            "sink '{}': record {} of partition {PARTITION} of topic '{topic}' isn't the progress of a \
                             sink: name another topic with option progress_topic",
                            settings.sink,
                            record.offset()
                        ))
                    })?),
                };
            }
            Some(Ok(_)) => {}
            // The end of what is committed: its fetches end before open transactions.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(held),
            Some(Err(error)) => return Err(wrong(error)),
            None if begun.elapsed() > PATIENCE => {
                return Err(Error::External(format!("topic '{topic}' at {servers} can't be read in time")));
            }
            None => {}
        }
    }
}

/// Creates the topic if it doesn't exist, and checks that its records aren't removed after a while.
pub(crate) async fn prepare(settings: &SinkSettings) -> Result<()> {
    let topic = settings.progress_topic.as_str();
    if !exists(settings, topic).await? {
        // Small segments keep the topic, which is read at a start, short.
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            .set("segment.bytes", "4194304")
            .set("segment.ms", "3600000")
            .set("min.cleanable.dirty.ratio", "0.1");
        return create(settings, &new).await;
    }
    let wrong = |reason: &str| {
        Error::External(format!(
            "the cleanup.policy of topic '{topic}' at {} can't be read: {reason}",
            settings.servers()
        ))
    };
    let (admin, options) = admin(settings)?;
    let specifier = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&specifier], &options).await;
    let described = described.map_err(|error| wrong(&error.to_string()))?;
    let policy = match described.first() {
        Some(Ok(found)) => found.get("cleanup.policy").and_then(|entry| entry.value.clone()),
        Some(Err(code)) => return Err(wrong(&code.to_string())),
        None => None,
    };
    match policy.as_deref() {
        Some("compact") => Ok(()),
        Some(other) => Err(Error::Invalid(format!(
            "topic '{topic}' at {} has cleanup.policy = {other}, which would remove the progress of sink '{}': set it to \
             compact, or name another topic with option progress_topic",
            settings.servers(),
            settings.sink
        ))),
        None => Err(wrong("the broker doesn't tell it")),
    }
}

fn admin(settings: &SinkSettings) -> Result<(AdminClient<DefaultClientContext>, AdminOptions)> {
    let wrong = |error: KafkaError| failed(settings.servers(), "a client can't be created", &error);
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    Ok((settings.client().create().map_err(wrong)?, options))
}

/// Returns true if a topic exists.
async fn exists(settings: &SinkSettings, topic: &str) -> Result<bool> {
    let (servers, topic) = (settings.servers().to_string(), topic.to_string());
    let wrong = |error: KafkaError| failed(&servers, "a client can't be created", &error);
    // Questions of a consumer don't make a broker create a topic.
    let consumer: BaseConsumer = settings.consumer().create().map_err(wrong)?;
    let found = spawn_blocking(move || partitions(consumer.client(), &servers, &topic, ANSWER)).await;
    Ok(found.map_err(|error| Error::Bug(error.to_string()))??.is_some())
}

/// Creates a topic.
async fn create(settings: &SinkSettings, new: &NewTopic<'_>) -> Result<()> {
    let what = format!("topic '{}' can't be created", new.name);
    let wrong = |error: KafkaError| failed(settings.servers(), &what, &error);
    let (admin, options) = admin(settings)?;
    let created = admin.create_topics([new], &options).await.map_err(wrong)?;
    match created.first() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(wrong(KafkaError::AdminOp(*code))),
        None => Err(Error::Bug("Kafka created no topic".into())),
    }
}

/// Returns the error of a new sink whose transactional.id has delivered before. If that is another engine, the two would
/// fence each other.
pub(crate) fn is_of_before(settings: &SinkSettings, held: &Held) -> Error {
    Error::Invalid(format!(
        "an engine has delivered up to epoch {} under transactional_id '{}' (topic '{}' at {}): continue with that engine \
         if the sink wasn't dropped there, or give sink '{}' another name with option transactional_id",
        held.epoch,
        settings.transactional_id,
        settings.progress_topic,
        settings.servers(),
        settings.sink
    ))
}

/// Checks the topic that a new sink delivers to; creates it if the sink may.
pub(crate) async fn check_target(settings: &SinkSettings) -> Result<()> {
    let topic = settings.topic.as_str();
    if exists(settings, topic).await? {
        return Ok(());
    }
    match settings.creates {
        true => create(settings, &NewTopic::new(topic, -1, TopicReplication::Fixed(-1))).await,
        false => Err(missing(topic, settings.servers(), "add create = 'true', or correct option topic")),
    }
}
