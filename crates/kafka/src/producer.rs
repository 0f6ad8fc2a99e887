//! A connection that sends messages, in transactions or without them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_connect::{Error, Result};
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::consumer::log;
use crate::sink_options::SinkSettings;

/// How long a request may take before the sink reports a failure and tries again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long an abort may take. An open transaction ends by itself later.
const ABORT: Duration = Duration::from_secs(5);

/// Longest wait until the connection notices that its sink has ended.
const LOOK: Duration = Duration::from_millis(200);

/// The receiver of delivery reports.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// Why the first message since the last look could not be delivered.
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let (Err((error, message)), Ok(mut failure)) = (result, self.failure.lock())
            && failure.is_none()
        {
            tracing::debug!(%error, topic = message.topic(), partition = message.partition(), "a message failed");
            *failure = Some(error.clone());
        }
    }
}

/// A producer of one sink.
pub(crate) struct Connection {
    producer: BaseProducer<Deliveries>,
    settings: Arc<SinkSettings>,
    in_transactions: bool,
    /// True once the sink has ended: nothing waits any longer.
    ended: Arc<AtomicBool>,
}

impl Connection {
    /// Creates a producer. `in_transactions`: it fences earlier producers of the same transactional.id, and waits until
    /// their last transaction is over.
    pub fn open(
        settings: Arc<SinkSettings>,
        in_transactions: bool,
        ended: Arc<AtomicBool>,
    ) -> Result<Connection> {
        let producer = settings.producer(in_transactions).create_with_context(Deliveries::default());
        let producer = producer
            .map_err(|error| Error::Invalid(format!("a property of the Kafka client is wrong: {error}")))?;
        let connection = Connection { producer, settings, in_transactions, ended };
        if in_transactions {
            connection.patiently("transactions can't be used", PATIENCE, |wait| {
                connection.producer.init_transactions(wait)
            })?;
        }
        Ok(connection)
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<()> {
        match self.in_transactions {
            true => self
                .producer
                .begin_transaction()
                .map_err(|error| self.failed("a transaction can't begin", &error)),
            false => Ok(()),
        }
    }

    /// Sends a message. Waits for room in the queue.
    pub fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.producer.poll(Duration::ZERO);
            let (error, again) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.check_deliveries()?;
                    self.check_ended()?;
                    if begun.elapsed() > PATIENCE {
                        return Err(self.failed("messages can't be sent", &error));
                    }
                    record = again;
                    self.producer.poll(LOOK);
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    let length = again.payload.map_or(0, <[u8]>::len) + again.key.map_or(0, <[u8]>::len);
                    return Err(Error::Invalid(format!(
                        "a message of sink '{}' has {length} bytes, more than the Kafka client sends: raise \
                         properties.message.max.bytes, and max.message.bytes of topic '{}'",
                        self.settings.sink, self.settings.topic
                    )));
                }
                _ => return Err(self.failed("messages can't be sent", &error)),
            }
        }
    }

    /// Waits until all messages are delivered, and commits the transaction.
    pub fn commit(&self) -> Result<()> {
        let what = "messages can't be delivered";
        let patience = match self.in_transactions {
            true => self.settings.transaction_timeout(),
            // Messages time out by themselves.
            false => Duration::MAX,
        };
        self.patiently(what, patience, |wait| self.producer.flush(wait))?;
        self.check_deliveries()?;
        match self.in_transactions {
            true => self.patiently("a transaction can't be committed", patience, |wait| {
                self.producer.commit_transaction(wait)
            }),
            false => Ok(()),
        }
    }

    /// Aborts the transaction, if the broker answers soon. If it doesn't, the transaction times out there.
    pub fn abort(&self) {
        if self.in_transactions {
            let aborted = self.patiently("a transaction can't be aborted", ABORT, |wait| {
                self.producer.abort_transaction(wait)
            });
            if let Err(error) = aborted {
                tracing::debug!(%error, "a transaction is left to time out");
            }
        }
    }

    /// Fails if a message could not be delivered.
    fn check_deliveries(&self) -> Result<()> {
        let failure = self.producer.context().failure.lock().ok().and_then(|mut failure| failure.take());
        let Some(error) = failure else { return Ok(()) };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            return Err(Error::Invalid(format!(
                "topic '{}' at {} refuses a message of sink '{}' for its size: raise its max.message.bytes",
                self.settings.topic,
                self.settings.servers(),
                self.settings.sink
            )));
        }
        Err(self.failed("messages can't be delivered", &error))
    }

    fn check_ended(&self) -> Result<()> {
        match self.ended.load(Ordering::Relaxed) {
            true => Err(Error::External(format!("sink '{}' has ended", self.settings.sink))),
            false => Ok(()),
        }
    }

    /// Repeats a call that may be continued after its time is over.
    fn patiently(
        &self,
        what: &str,
        patience: Duration,
        call: impl Fn(Duration) -> KafkaResult<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = call(LOOK) else { return Ok(()) };
            // A producer that was fenced sends nothing any more, and its messages time out late.
            if let Some((_, reason)) = self.producer.client().fatal_error() {
                return Err(self.lost(what, &reason));
            }
            if !may_continue(&error) || begun.elapsed() > patience {
                return Err(self.failed(what, &error));
            }
            self.check_ended()?;
        }
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        let reason = match error {
            KafkaError::Transaction(error) => error.to_string(),
            other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
        };
        self.lost(what, &reason)
    }

    fn lost(&self, what: &str, reason: &str) -> Error {
        Error::External(format!(
            "sink '{}' of topic '{}' at {}: {what}: {reason}",
            self.settings.sink,
            self.settings.topic,
            self.settings.servers()
        ))
    }
}

/// Returns true if the same call continues what it has begun.
fn may_continue(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        other => other.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut),
    }
}
