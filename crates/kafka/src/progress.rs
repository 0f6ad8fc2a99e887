//! The last epoch that a sink has delivered: a record of a compacted topic, under the transactional.id as its key.
//!
//! The transaction that sends an epoch's messages also sends this record. A reader must first fence earlier producers
//! of the transactional.id: only then is their last transaction over, and the record final.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_connect::{Error, Result};
use millstream_delta::Epoch;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::consumer::{ANSWER, failed, missing, partitions};
use crate::producer::{Connection, PATIENCE};
use crate::sink_options::SinkSettings;
use crate::tokens::ClientTokens;

/// The partition of all records.
const PARTITION: i32 = 0;

/// The pause between two looks for the end of others' transactions.
const PAUSE: Duration = Duration::from_millis(20);

/// For how long a topic that another sink has just created is awaited.
const SETTLING: Duration = Duration::from_secs(2);

/// Longest wait for a record at a time.
const LOOK: Duration = Duration::from_millis(200);

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

/// Reads the record of a sink, after earlier producers of its transactional.id were fenced. `None` if it has none. Waits so
/// long until transactions that hide it are over.
pub(crate) fn read(settings: &SinkSettings, patience: Duration, ended: &AtomicBool) -> Result<Option<Held>> {
    let (topic, servers) = (&settings.progress_topic, settings.servers());
    let wrong = |error: KafkaError| failed(servers, &format!("topic '{topic}' can't be read"), &error);
    let all = consumer(settings, "read_uncommitted")?;
    let (_, end) = all.fetch_watermarks(topic, PARTITION, ANSWER).map_err(wrong)?;
    let consumer = consumer(settings, "read_committed")?;
    let begun = Instant::now();
    let check_time = |what: &str| match begun.elapsed() > patience || ended.load(Ordering::Relaxed) {
        true => {
            Err(Error::External(format!("topic '{topic}' at {servers} can't be read to its end: {what}")))
        }
        false => Ok(()),
    };
    // Transactions of other sinks have records there, too. A reader of committed records ends before the first open one.
    while consumer.fetch_watermarks(topic, PARTITION, ANSWER).map_err(wrong)?.1 < end {
        check_time("a transaction of another producer is open")?;
        std::thread::sleep(PAUSE);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, PARTITION, Offset::Beginning).map_err(wrong)?;
    consumer.assign(&list).map_err(wrong)?;
    let mut held = None;
    loop {
        match consumer.poll(LOOK) {
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
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(held),
            Some(Err(error)) => return Err(wrong(error)),
            None => check_time("the broker doesn't answer")?,
        }
    }
}

/// Prepares the record of a new sink, so that a missing one is an error later. Creates the topic if it doesn't exist. Fails
/// if an engine has delivered under the transactional.id: if that is another engine, the two would fence each other.
pub(crate) async fn prepare(settings: &SinkSettings) -> Result<()> {
    let exists = exists(settings, &settings.progress_topic).await?;
    if !exists {
        // Small segments keep the topic, which is read at a start, short.
        let new = NewTopic::new(&settings.progress_topic, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            .set("segment.bytes", "4194304")
            .set("segment.ms", "3600000")
            .set("min.cleanable.dirty.ratio", "0.1");
        create(settings, &new, false).await?;
    }
    let (begun, patience) = (Instant::now(), if exists { SETTLING } else { PATIENCE });
    loop {
        match check_and_prepare(settings).await {
            // A broker learns of a new topic a moment later.
            Err(Error::External(_)) if begun.elapsed() < patience => tokio::time::sleep(LOOK).await,
            done => return done,
        }
    }
}

async fn check_and_prepare(settings: &SinkSettings) -> Result<()> {
    check_topic(settings).await?;
    let settings = settings.clone();
    let prepared = spawn_blocking(move || prepare_record(&settings)).await;
    prepared.map_err(|error| Error::Bug(error.to_string()))?
}

fn prepare_record(settings: &SinkSettings) -> Result<()> {
    let ended = Arc::<AtomicBool>::default();
    match read(settings, PATIENCE, &ended)? {
        // Nothing was delivered.
        Some(Held { epoch: Epoch(0), .. }) => Ok(()),
        Some(held) => Err(Error::Invalid(format!(
            "an engine has delivered up to epoch {} under transactional_id '{}' (topic '{}' at {}): continue with that \
             engine if the sink wasn't dropped there, or give sink '{}' another name with option transactional_id",
            held.epoch,
            settings.transactional_id,
            settings.progress_topic,
            settings.servers(),
            settings.sink
        ))),
        None => {
            let connection = Connection::open(Arc::new(settings.clone()), false, ended)?;
            connection.send(record(settings, &Held { epoch: Epoch(0), writer: String::new() }.value()))?;
            connection.commit()
        }
    }
}

/// Returns the message with a sink's progress.
pub(crate) fn record<'a>(settings: &'a SinkSettings, value: &'a str) -> BaseRecord<'a, [u8], [u8]> {
    BaseRecord::to(&settings.progress_topic)
        .partition(PARTITION)
        .key(settings.transactional_id.as_bytes())
        .payload(value.as_bytes())
}

/// Checks that the topic's records aren't removed after a while.
pub(crate) async fn check_topic(settings: &SinkSettings) -> Result<()> {
    let topic = settings.progress_topic.as_str();
    let wrong = |reason: &str| {
        Error::External(format!(
            "the cleanup.policy of topic '{topic}' at {} can't be read: {reason}",
            settings.servers()
        ))
    };
    let (admin, options) = admin(settings).await?;
    let specifier = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&specifier], &options).await;
    // Its end waits for a thread.
    drop(spawn_blocking(move || drop(admin)));
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
        None => Err(wrong("the topic doesn't exist, or the broker doesn't tell it")),
    }
}

/// Creates a consumer. May wait for a token.
fn consumer(settings: &SinkSettings, isolation: &str) -> Result<BaseConsumer> {
    let wrong = |error: KafkaError| failed(settings.servers(), "a client can't be created", &error);
    let consumer: BaseConsumer = settings.consumer(isolation).create().map_err(wrong)?;
    ClientTokens::of(&settings.properties).renew(consumer.client())?;
    Ok(consumer)
}

async fn admin(settings: &SinkSettings) -> Result<(AdminClient<DefaultClientContext>, AdminOptions)> {
    let (settings, servers) = (settings.clone(), settings.servers().to_string());
    let created = spawn_blocking(move || {
        let wrong = |error: KafkaError| failed(&servers, "a client can't be created", &error);
        let admin: AdminClient<DefaultClientContext> = settings.client().create().map_err(wrong)?;
        ClientTokens::of(&settings.properties).renew(admin.inner())?;
        Ok(admin)
    });
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    Ok((created.await.map_err(|error| Error::Bug(error.to_string()))??, options))
}

/// Returns true if a topic exists.
async fn exists(settings: &SinkSettings, topic: &str) -> Result<bool> {
    let (settings, topic) = (settings.clone(), topic.to_string());
    let found = spawn_blocking(move || {
        // Questions of a consumer don't make a broker create a topic.
        let consumer = consumer(&settings, "read_committed")?;
        let found = partitions(consumer.client(), &topic, ANSWER);
        let what = format!("topic '{topic}' can't be found");
        Ok(found.map_err(|error| failed(settings.servers(), &what, &error))?.is_some())
    });
    found.await.map_err(|error| Error::Bug(error.to_string()))?
}

/// Creates the topic that a sink delivers to, unless it exists.
pub(crate) async fn create_target(settings: &SinkSettings) -> Result<()> {
    match exists(settings, &settings.topic).await? {
        true => Ok(()),
        false => create(settings, &target(&settings.topic), false).await,
    }
}

/// Returns a topic with the broker's defaults.
fn target(topic: &str) -> NewTopic<'_> {
    NewTopic::new(topic, -1, TopicReplication::Fixed(-1))
}

/// Creates a topic, unless it exists meanwhile. `only_checks`: the broker says if it would, and creates nothing.
async fn create(settings: &SinkSettings, new: &NewTopic<'_>, only_checks: bool) -> Result<()> {
    let what = format!("topic '{}' can't be created", new.name);
    let wrong = |error: KafkaError| failed(settings.servers(), &what, &error);
    let (admin, options) = admin(settings).await?;
    let options = options.validate_only(only_checks);
    let created = admin.create_topics([new], &options).await.map_err(wrong)?;
    match created.first() {
        Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(wrong(KafkaError::AdminOp(*code))),
        None => Err(Error::Bug("Kafka created no topic".into())),
    }
}

/// Checks the topic that a new sink delivers to. If it doesn't exist, and the sink may create it, the broker says if it would.
pub(crate) async fn check_target(settings: &SinkSettings) -> Result<()> {
    let topic = settings.topic.as_str();
    if exists(settings, topic).await? {
        return Ok(());
    }
    match settings.creates {
        true => create(settings, &target(topic), true).await,
        false => Err(missing(topic, settings.servers(), "add create = 'true', or correct option topic")),
    }
}
