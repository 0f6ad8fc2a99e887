//! A connection that sends messages, in transactions or without them.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream_connect::{Error, Result};
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::consumer::log;
use crate::options::misfit;
use crate::sink_options::SinkSettings;
use crate::tokens::ClientTokens;

/// How long a request may take before the sink reports a failure and tries again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long an abort may take. An open transaction ends by itself later.
const ABORT: Duration = Duration::from_secs(5);

/// How long reports of deliveries are awaited at a time: a poll takes all of its time.
const SHORT: Duration = Duration::from_millis(5);

/// Longest wait until the connection notices that its sink has ended.
const LOOK: Duration = Duration::from_millis(200);

/// The receiver of delivery reports.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// Why a message since the last look could not be delivered.
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
            && failure.as_ref().is_none_or(is_consequence)
        {
            tracing::debug!(%error, topic = message.topic(), partition = message.partition(), "a message failed");
            *failure = Some(error.clone());
        }
    }
}

/// Returns true if a message failed only because another one did.
fn is_consequence(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// A producer of one sink.
pub(crate) struct Connection {
    producer: BaseProducer<Deliveries>,
    tokens: ClientTokens,
    settings: Arc<SinkSettings>,
    in_transactions: bool,
    /// The begin of the transaction.
    begun: Cell<Instant>,
    /// True once the sink has ended: nothing waits any longer.
    ended: Arc<AtomicBool>,
}

/// Fails for properties that contradict each other, as far as librdkafka says so.
pub(crate) fn check(settings: &SinkSettings) -> Result<()> {
    let client = settings.producer(settings.exactly_once).create::<BaseProducer>();
    client.map(drop).map_err(|error| misfit(&settings.properties, &error))
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
        let producer: BaseProducer<Deliveries> = producer
            .map_err(|error| Error::Invalid(format!("a property of the Kafka client is wrong: {error}")))?;
        let tokens = ClientTokens::of(&settings.properties);
        tokens.renew(producer.client())?;
        let begun = Cell::new(Instant::now());
        let connection = Connection { producer, tokens, settings, in_transactions, begun, ended };
        if in_transactions {
            connection.patiently("transactions can't be used", PATIENCE, |wait| {
                connection.producer.init_transactions(wait)
            })?;
        }
        Ok(connection)
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<()> {
        self.begun.set(Instant::now());
        self.tokens.renew(self.producer.client())?;
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
                    self.producer.poll(SHORT);
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    let length = again.payload.map_or(0, <[u8]>::len) + again.key.map_or(0, <[u8]>::len);
                    return Err(Error::Invalid(format!(
                        "a message of sink '{}' has {length} bytes, more than the Kafka client sends: raise \
                         properties.message.max.bytes, and max.message.bytes of topic '{}'",
                        self.settings.sink, self.settings.topic
                    )));
                }
                _ => {
                    // An earlier message may have failed, which its report says soon.
                    self.producer.poll(LOOK);
                    self.check_deliveries()?;
                    return Err(self.failed("messages can't be sent", &error));
                }
            }
        }
    }

    /// Waits until all messages are delivered, and commits the transaction.
    pub fn commit(&self) -> Result<()> {
        self.deliver()?;
        match self.in_transactions {
            true => self.patiently("a transaction can't be committed", PATIENCE, |wait| {
                self.producer.commit_transaction(wait)
            }),
            false => Ok(()),
        }
    }

    /// Waits until all messages are delivered, as long as some are.
    fn deliver(&self) -> Result<()> {
        let (mut moved, mut left) = (Instant::now(), self.producer.in_flight_count());
        // A flush without time begins it, and fails until everything is delivered.
        while self.producer.flush(Duration::ZERO).is_err() {
            self.producer.poll(SHORT);
            self.check_ended()?;
            if let Some((_, reason)) = self.producer.client().fatal_error() {
                return Err(self.lost("messages can't be delivered", &reason));
            }
            let now_left = self.producer.in_flight_count();
            if now_left != left {
                (moved, left) = (Instant::now(), now_left);
            } else if moved.elapsed() > PATIENCE {
                let reason = format!("the broker has taken none of {left} for {} s", PATIENCE.as_secs());
                return Err(self.lost("messages can't be delivered", &reason));
            }
        }
        self.check_deliveries()
    }

    /// Aborts the transaction, if the broker answers soon. If it doesn't, the transaction times out there.
    pub fn abort(&self) {
        if !self.in_transactions {
            return;
        }
        let begun = Instant::now();
        loop {
            // An abort waits until the reports of its messages are taken.
            let aborted = self.producer.abort_transaction(SHORT);
            self.producer.poll(SHORT);
            match aborted {
                Ok(()) => return,
                Err(error) if may_continue(&error) && !is_conflict(&error) && begun.elapsed() < ABORT => {}
                Err(error) => {
                    tracing::debug!(%error, "a transaction is left to time out");
                    return;
                }
            }
        }
    }

    /// Fails if a message could not be delivered.
    fn check_deliveries(&self) -> Result<()> {
        let failure = self.producer.context().failure.lock().ok().and_then(|mut failure| failure.take());
        let Some(error) = failure else { return Ok(()) };
        let remedy = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                "raise max.message.bytes of the topic, or lower properties.batch.size"
            }
            Some(RDKafkaErrorCode::InvalidRecord) => {
                "a compacted topic takes messages with a key only: set option key"
            }
            Some(RDKafkaErrorCode::InvalidTimestamp) => {
                "leave out option timestamp, or change the topic's limits of times"
            }
            _ => return Err(self.failed("messages can't be delivered", &error)),
        };
        let SinkSettings { sink, topic, .. } = self.settings.as_ref();
        Err(Error::Invalid(format!(
            "topic '{topic}' at {} refuses a message of sink '{sink}': {}: {remedy}",
            self.settings.servers(),
            error.rdkafka_error_code().map_or_else(String::new, |code| code.to_string())
        )))
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
        let took = self.begun.get().elapsed();
        let remedy = match self.in_transactions && took >= self.settings.transaction_timeout() {
            true => format!(
                "; the transaction took {} s: raise properties.transaction.timeout.ms, and transaction.max.timeout.ms of the \
                 broker",
                took.as_secs()
            ),
            false => String::new(),
        };
        Error::External(format!(
            "sink '{}' of topic '{}' at {}: {what}: {reason}{remedy}",
            self.settings.sink,
            self.settings.topic,
            self.settings.servers()
        ))
    }
}

/// Returns true if a commit of the transaction was begun, so that it can't be aborted.
fn is_conflict(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::Conflict)
}

/// Returns true if the same call continues what it has begun.
fn may_continue(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        other => other.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut),
    }
}
