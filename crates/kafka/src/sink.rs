//! The sink: sends epochs, and records in the same transaction which epoch was the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use async_trait::async_trait;
use millstream_connect::{
    Delivery, EpochTime, Error, MessageEncoder, Result, Sink, SinkSpec, texts_or_bytes,
};
use millstream_delta::{Cut, Delta, Epoch};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tokio::task::spawn_blocking;

use crate::producer::{Connection, PATIENCE};
use crate::progress::{self, Held};
use crate::sink_options::SinkSettings;

/// Maximum of messages that are encoded together.
const MESSAGES_MAX: usize = 4096;

/// How long the progress may be hidden before a producer fences earlier ones.
const GLANCE: Duration = Duration::from_secs(2);

/// Delivers to a topic.
pub(crate) struct KafkaSink {
    settings: Arc<SinkSettings>,
    staged: Arc<Vec<(EpochTime, Delta)>>,
    /// Absent while a thread uses it.
    publisher: Option<Box<Publisher>>,
    /// True once the topic needn't be created.
    has_topic: bool,
    ended: Arc<AtomicBool>,
}

/// The part that waits for the broker, on threads that may.
struct Publisher {
    settings: Arc<SinkSettings>,
    encoder: MessageEncoder,
    /// The identifier of this run in the progress record.
    writer: String,
    /// True if epochs are sent in transactions.
    in_transactions: bool,
    connection: Option<Connection>,
    /// The last known progress record.
    known: Option<Held>,
    /// The progress of a transaction whose answer may be lost.
    tried: Option<Held>,
    /// The newest delivered epoch.
    published: Epoch,
    ended: Arc<AtomicBool>,
}

impl KafkaSink {
    pub fn new(spec: &SinkSpec) -> Result<KafkaSink> {
        let settings = Arc::new(SinkSettings::of(spec)?);
        let ended = Arc::<AtomicBool>::default();
        let publisher = Publisher {
            settings: settings.clone(),
            encoder: MessageEncoder::new(spec, "kafka")?,
            writer: format!("{:032x}", rand::random::<u128>()),
            in_transactions: false,
            connection: None,
            known: None,
            tried: None,
            published: Epoch::default(),
            ended: ended.clone(),
        };
        let has_topic = !settings.creates;
        Ok(KafkaSink {
            settings,
            staged: Arc::default(),
            publisher: Some(Box::new(publisher)),
            has_topic,
            ended,
        })
    }

    /// Creates the topic before the first message: a CREATE SINK that is refused must not leave it behind.
    async fn create_topic(&mut self) -> Result<()> {
        if !self.has_topic {
            progress::create_target(&self.settings).await?;
            self.has_topic = true;
        }
        Ok(())
    }

    /// Registers the schemas of the messages, once.
    async fn register(&mut self) -> Result<()> {
        match (&mut self.publisher, &self.settings.registry) {
            (Some(publisher), Some(registry)) if publisher.encoder.needs_registry() => {
                publisher.encoder.register(registry, &self.settings.topic).await
            }
            _ => Ok(()),
        }
    }

    /// Runs a task of the publisher on a thread that may wait.
    async fn run<T: Send + 'static>(
        &mut self,
        task: impl FnOnce(&mut Publisher) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lost = || Error::Bug("a delivery to Kafka was interrupted".into());
        let mut publisher = self.publisher.take().ok_or_else(lost)?;
        let done = spawn_blocking(move || {
            let done = task(&mut publisher);
            (publisher, done)
        });
        let (publisher, done) =
            done.await.map_err(|error| Error::Bug(format!("delivering to Kafka stopped: {error}")))?;
        self.publisher = Some(publisher);
        done
    }
}

impl Publisher {
    /// Takes over from earlier runs, and returns the last epoch that they have delivered.
    fn take_over(&mut self) -> Result<Epoch> {
        self.in_transactions = true;
        let connection = Connection::open(self.settings.clone(), true, self.ended.clone())?;
        let Some(Held { epoch, .. }) = progress::read(&self.settings, PATIENCE, &self.ended)? else {
            return Err(self.is_gone());
        };
        // From now on, an engine that was fenced finds another writer, and doesn't fence this one in turn.
        let claim = Held { epoch, writer: self.writer.clone() };
        connection.begin()?;
        if let Err(error) = self.record(&connection, &claim).and_then(|()| connection.commit()) {
            connection.abort();
            return Err(error);
        }
        (self.published, self.known, self.connection) = (epoch, Some(claim), Some(connection));
        Ok(epoch)
    }

    /// Returns a connection: the one that there is, or a new one.
    fn connect(&mut self) -> Result<Connection> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        if self.in_transactions {
            // If another engine has taken over, it must not be fenced. But a transaction of this run may be open, which
            // hides the record until it is fenced.
            match progress::read(&self.settings, GLANCE, &self.ended) {
                Ok(found) => self.learn(found)?,
                Err(error @ Error::Invalid(_)) => return Err(error),
                Err(error) => tracing::debug!(%error, "the progress isn't known before the fence"),
            }
        }
        let connection = Connection::open(self.settings.clone(), self.in_transactions, self.ended.clone())?;
        if self.in_transactions {
            self.learn(progress::read(&self.settings, PATIENCE, &self.ended)?)?;
        }
        Ok(connection)
    }

    /// Compares the progress record with what this run has recorded.
    fn learn(&mut self, found: Option<Held>) -> Result<()> {
        match found {
            Some(found) if self.known.as_ref() == Some(&found) => {}
            Some(found) if self.tried.as_ref() == Some(&found) => {
                self.published = found.epoch;
                self.known = Some(found);
            }
            Some(_) => return Err(self.is_of_another()),
            None => return Err(self.is_gone()),
        }
        Ok(())
    }

    fn is_gone(&self) -> Error {
        let SinkSettings { sink, topic, progress_topic, .. } = self.settings.as_ref();
        Error::Invalid(format!(
            "sink '{sink}' has stopped: its progress is gone from topic '{progress_topic}' at {}, so that it can't know what \
             topic '{topic}' holds: DROP it and CREATE it again with another transactional_id",
            self.settings.servers()
        ))
    }

    fn is_of_another(&self) -> Error {
        Error::Invalid(format!(
            "sink '{}' has stopped: another engine has taken over transactional_id '{}' at {}; stop one of the two, or \
             give its sink another transactional_id",
            self.settings.sink,
            self.settings.transactional_id,
            self.settings.servers()
        ))
    }

    /// Sends the staged epochs up to `through`.
    fn publish(&mut self, staged: &[(EpochTime, Delta)], through: Epoch) -> Result<()> {
        let connection = self.connect()?;
        // A transaction whose answer was lost may have delivered them.
        if self.in_transactions && self.published >= through {
            self.connection = Some(connection);
            return Ok(());
        }
        let sent = self.send(&connection, staged, through);
        match &sent {
            Ok(()) => self.connection = Some(connection),
            Err(error) => {
                tracing::debug!(%error, "a delivery to Kafka is given up");
                connection.abort();
            }
        }
        sent
    }

    fn send(&mut self, connection: &Connection, staged: &[(EpochTime, Delta)], through: Epoch) -> Result<()> {
        connection.begin()?;
        let is_due = |epoch: Epoch| (!self.in_transactions || epoch > self.published) && epoch <= through;
        for (at, delta) in staged.iter().filter(|(at, _)| is_due(at.epoch)) {
            self.send_epoch(connection, *at, delta)?;
        }
        if self.in_transactions {
            let next = Held { epoch: through, writer: self.writer.clone() };
            self.record(connection, &next)?;
            self.tried = Some(next.clone());
            connection.commit()?;
            self.known = Some(next);
        } else {
            connection.commit()?;
        }
        self.published = through;
        Ok(())
    }

    fn record(&self, connection: &Connection, held: &Held) -> Result<()> {
        connection.send(progress::record(&self.settings, &held.value()))
    }

    fn send_epoch(&self, connection: &Connection, at: EpochTime, delta: &Delta) -> Result<()> {
        let number = self.settings.batch_id.then(|| at.epoch.to_string());
        for all in self.encoder.rows(delta, at)? {
            for from in (0..all.len()).step_by(MESSAGES_MAX) {
                let rows = all.slice(from, MESSAGES_MAX.min(all.len() - from));
                let details = Details::of(&self.settings, &rows.rows, number.as_deref());
                let details = details.map_err(|error| {
                    Error::Bug(format!("sink '{}' got rows of another schema: {error}", self.settings.sink))
                })?;
                let messages = self.encoder.encode(&rows)?;
                for at in 0..messages.len() {
                    let mut record = details.add_to(BaseRecord::to(&self.settings.topic), at);
                    (record.key, record.payload) = (messages.key(at), messages.value(at));
                    connection.send(record)?;
                }
            }
        }
        Ok(())
    }
}

/// The timestamps and headers of messages.
struct Details<'a> {
    timestamps: Option<ArrayRef>,
    /// Names and values.
    headers: Vec<(&'a str, ArrayRef)>,
    epoch: Option<&'a str>,
}

impl<'a> Details<'a> {
    fn of(
        settings: &SinkSettings,
        rows: &'a RecordBatch,
        epoch: Option<&'a str>,
    ) -> Result<Details<'a>, ArrowError> {
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        let timestamps =
            settings.timestamp.map(|place| cast(rows.column(place), &milliseconds)).transpose()?;
        let fields = rows.schema_ref().fields();
        let header = |place: &usize| {
            let name = fields.get(*place).map_or("", |field| field.name().as_str());
            Ok((name, texts_or_bytes(rows.column(*place))?))
        };
        let headers = settings.headers.iter().map(header).collect::<Result<_, ArrowError>>()?;
        Ok(Details { timestamps, headers, epoch })
    }

    fn add_to<'r>(&self, mut record: BaseRecord<'r, [u8], [u8]>, at: usize) -> BaseRecord<'r, [u8], [u8]> {
        if let Some(timestamps) = &self.timestamps
            && timestamps.is_valid(at)
        {
            record.timestamp = Some(timestamps.as_primitive::<TimestampMillisecondType>().value(at));
        }
        if self.headers.is_empty() && self.epoch.is_none() {
            return record;
        }
        let mut headers = OwnedHeaders::new_with_capacity(self.headers.len() + 1);
        for (key, values) in &self.headers {
            let value = values.is_valid(at).then(|| values.as_binary_view().value(at));
            headers = headers.insert(Header { key, value });
        }
        if let Some(epoch) = self.epoch {
            headers = headers.insert(Header { key: "_batch_id", value: Some(epoch) });
        }
        record.headers(headers)
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let staged = Arc::make_mut(&mut self.staged);
        staged.retain(|(at, _)| at.epoch != cut.epoch);
        staged.push((EpochTime { epoch: cut.epoch, now: cut.now }, delta.clone()));
        Ok(())
    }

    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        if !self.staged.iter().any(|(at, _)| at.epoch <= through) {
            return Ok(through);
        }
        self.create_topic().await?;
        self.register().await?;
        let staged = self.staged.clone();
        self.run(move |publisher| publisher.publish(&staged, through)).await?;
        Arc::make_mut(&mut self.staged).retain(|(at, _)| at.epoch > through);
        Ok(through)
    }

    fn delivery(&self) -> Delivery {
        match self.settings.exactly_once {
            true => Delivery::ExactlyOnce,
            false => Delivery::AtLeastOnce,
        }
    }

    async fn recover(&mut self) -> Result<Epoch> {
        if !self.settings.exactly_once {
            return Ok(Epoch::default());
        }
        self.staged = Arc::default();
        progress::check_topic(&self.settings).await?;
        let delivered = self.run(Publisher::take_over).await?;
        self.has_topic |= delivered > Epoch::default();
        Ok(delivered)
    }
}

impl Drop for KafkaSink {
    /// Ends the connection on a thread that may wait for librdkafka.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let publisher = self.publisher.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(publisher)));
        }
    }
}
