//! The progress of a source: its partitions with their offsets, and the records that librdkafka has brought.

mod bounded;
mod discovery;
mod expected;
mod jump;
mod limit;
mod offsets;
mod pull;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, Error, Health, Limit, More, Result};
use millstream_delta::{Position, Span};
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::Notify;

use crate::consumer::{ANSWER, EVENTS, Reader};
use crate::lost::{Identity, Lost, cannot_continue};
use crate::options::Settings;
use crate::partition::{Partition, Split};
use crate::rows::Columns;
use crate::topic_ids::TopicIds;
use bounded::Bounded;
use discovery::Looks;
use expected::Expected;
use limit::Limits;
use offsets::Offsets;
use pull::{Decoded, Pull};

/// How long a pull without records waits if some are expected.
const PAUSE: Duration = Duration::from_millis(5);

/// How often offsets are committed to a group.
const COMMITS: Duration = Duration::from_secs(5);

/// Most bytes of one pull: the places of its records have 32 bits.
const BYTES_MAX: usize = 1 << 30;

/// The least time between two looks at the offsets of all partitions, for each partition.
const LOOK_PER_PARTITION: Duration = Duration::from_micros(10);

/// The partitions of a source and their records.
pub(crate) struct Intake {
    settings: Arc<Settings>,
    columns: Arc<Columns>,
    health: Health,
    arrived: Arc<Notify>,
    reader: Option<Reader>,
    offsets: Offsets,
    limits: Option<Limits>,
    expected: Expected,
    bounded: Bounded,
    /// The time of the last look at the offsets of all partitions.
    looked: Instant,
    committed: Option<Instant>,
    looks: Looks,
}

impl Intake {
    pub fn new(
        settings: Arc<Settings>,
        columns: Arc<Columns>,
        health: Health,
        arrived: Arc<Notify>,
    ) -> Intake {
        Intake {
            limits: settings.per_partition.map(Limits::new),
            settings,
            columns,
            health,
            arrived,
            reader: None,
            offsets: Offsets::default(),
            expected: Expected::new(Instant::now()),
            bounded: Bounded::default(),
            looked: Instant::now(),
            committed: None,
            looks: Looks::default(),
        }
    }

    /// Returns the ids that the topics have had.
    pub fn topic_ids(&self) -> &TopicIds {
        &self.offsets.ids
    }

    /// Continues after a position.
    pub fn seek(&mut self, after: &Position) -> Result<()> {
        for span in after.spans() {
            self.looks.begun = true;
            if TopicIds::is_id(&span.split) {
                self.offsets.ids.take(&span);
                continue;
            }
            let split = Split::parse(&span.split)?;
            if !self.offsets.restore(&split, span.split) {
                continue;
            }
            let Split { partition, jumps, .. } = split;
            self.bounded.reopen(&partition);
            match span.done {
                true if self.settings.bounded => {
                    self.bounded.finish([partition.clone()]);
                    self.offsets.after.insert(partition, span.to);
                }
                true => self.offsets.restore_end(partition, jumps, span.to),
                false => drop(self.offsets.after.insert(partition, span.to)),
            }
        }
        Ok(())
    }

    /// Returns the records that have arrived. After an error, a new consumer continues from the same offsets.
    pub fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let arrival = self.pull(limit);
        match &arrival {
            Ok(arrival) if arrival.spans.is_empty() => {}
            Ok(_) => self.reader.iter().for_each(|reader| reader.consumer.context().is_well()),
            Err(_) => self.disconnect(),
        }
        arrival
    }

    /// Makes a new consumer continue from the same offsets.
    pub fn disconnect(&mut self) {
        self.offsets.stop_reading();
        self.bounded.close();
        self.limits.iter_mut().for_each(Limits::restart);
        (self.reader, self.looks.discovered) = (None, None);
    }

    fn pull(&mut self, limit: Limit) -> Result<Arrival> {
        self.discover()?;
        let mut pull = Pull::new(Limit { bytes: limit.bytes.min(BYTES_MAX), ..limit });
        self.pass_lost(&mut pull);
        let empty = match self.settings.bounded {
            true => self.pull_bounded(&mut pull)?,
            false => self.pull_live(&mut pull)?,
        };
        if empty {
            self.pass_ends_of_transactions(&mut pull);
        }
        // If records can't be decoded now, nothing has changed yet: they are read again.
        let decoded = pull.decode(&self.columns)?;
        let (spans, bad_rows) = self.offsets.news();
        let mut arrival = Arrival { spans, bad_rows, ..Arrival::nothing(More::Now) };
        pull.ended.append(&mut self.bounded.take_ended());
        for Decoded { partition, newest, piece } in decoded {
            self.offsets.advance(partition, piece.span.to);
            newest.into_iter().for_each(|time| self.health.has_read_record_of(&piece.span.split, time));
            if let Some(rows) = piece.rows {
                arrival.splits.push(piece.span.split.clone());
                arrival.rows.push(rows);
            }
            arrival.spans.push(piece.span);
            arrival.bad_rows.extend(piece.bad_rows);
        }
        if !arrival.spans.is_empty() {
            self.expected.is_busy(Instant::now());
        }
        if empty {
            arrival.more = self.more_to_come(arrival.spans.is_empty());
        }
        arrival.spans.extend(self.offsets.beginnings());
        self.bounded.finish(pull.ended.iter().cloned());
        for partition in pull.ended {
            let split = self.offsets.split(&partition);
            match arrival.spans.iter_mut().find(|span| span.split == split) {
                Some(span) => span.done = true,
                None => {
                    let at = self.offsets.next_of(&partition);
                    arrival.spans.push(Span { split, from: at, to: at, done: true });
                }
            }
        }
        Ok(arrival)
    }

    /// Takes records of all partitions. Returns true if none are left for now.
    fn pull_live(&mut self, pull: &mut Pull) -> Result<bool> {
        let Some(reader) = &self.reader else { return Ok(true) };
        if let Some(limits) = &mut self.limits {
            reader.pause(&limits.resumed(Instant::now()), false)?;
        }
        while !pull.is_full() {
            // An event that is no record gives none, but records may be behind it.
            match (0..EVENTS).find_map(|_| reader.consumer.poll(Duration::ZERO)) {
                None => return Ok(true),
                Some(Ok(message)) => {
                    self.take(pull, &message);
                    if let Some(limits) = &mut self.limits {
                        let partition =
                            Partition { topic: message.topic().into(), number: message.partition() };
                        if limits.take(&partition, Instant::now()) {
                            reader.pause(&[partition], true)?;
                        }
                    }
                }
                Some(Err(error)) => self.check(reader, error)?,
            }
        }
        Ok(false)
    }

    /// Takes records up to the ends of the partitions. Returns true if none are left for now.
    fn pull_bounded(&mut self, pull: &mut Pull) -> Result<bool> {
        let Some(reader) = &self.reader else { return Ok(true) };
        if let Some(Err(error)) = reader.consumer.poll(Duration::ZERO) {
            self.check(reader, error)?;
        }
        let mut empty = true;
        self.bounded.begin_turn();
        for (partition, queue) in self.bounded.queues_in_turn() {
            let end = self.expected.end_of(partition).unwrap_or_default();
            while self.limits.as_ref().is_none_or(|limits| limits.allows(partition, Instant::now()))
                && let Some(polled) = queue.poll(Duration::ZERO)
            {
                let at_end = match polled {
                    Err(KafkaError::PartitionEOF(_)) => true,
                    Err(error) => self.check(reader, error).map(|()| false)?,
                    Ok(message) => {
                        let offset = message.offset().max(0) as u64;
                        if offset < end {
                            self.take(pull, &message);
                            if let Some(limits) = &mut self.limits {
                                limits.take(partition, Instant::now());
                            }
                        }
                        offset + 1 >= end
                    }
                };
                if at_end {
                    pull.ended.push(partition.clone());
                    break;
                }
                if pull.is_full() {
                    empty = false;
                    break;
                }
            }
            if pull.is_full() {
                empty = false;
                break;
            }
        }
        for partition in &pull.ended {
            self.bounded.queues.remove(partition);
            reader.unassign(partition)?;
        }
        self.open_waiting()?;
        Ok(empty)
    }

    /// Passes the ends of transactions, which take offsets as records do. Retention may remove them.
    fn pass_ends_of_transactions(&mut self, pull: &mut Pull) {
        let pause = LOOK_PER_PARTITION * u32::try_from(self.offsets.next.len()).unwrap_or(u32::MAX);
        if self.looked.elapsed() < pause {
            return;
        }
        self.looked = Instant::now();
        let Some(reader) = &self.reader else { return };
        for (partition, through) in reader.positions() {
            if self.offsets.next.get(&partition).is_some_and(|known| through > *known) {
                self.gathered(pull, &partition.topic, partition.number).pass(through);
            }
        }
    }

    /// Returns if more records are to come, after all that have arrived were taken.
    fn more_to_come(&mut self, is_idle: bool) -> More {
        if self.has_ended() {
            return More::Never;
        }
        let (bounded, next) = (&self.bounded, &self.offsets.next);
        let is_before = |partition: &Partition, end: u64| {
            !bounded.is_done(partition) && next.get(partition).is_some_and(|next| *next < end)
        };
        if !self.expected.are_due(Instant::now(), !self.settings.bounded, is_before) {
            return More::Later;
        }
        if is_idle {
            std::thread::sleep(PAUSE);
        }
        More::Now
    }

    fn has_ended(&self) -> bool {
        self.settings.bounded && self.looks.discovered.is_some() && self.bounded.is_read()
    }

    /// Returns an error if an event of librdkafka ends the reading for now, or for good.
    fn check(&self, reader: &Reader, error: KafkaError) -> Result<()> {
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            error => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    let same = self.same_topics(reader)?;
                    let lost = Lost::among(reader, &self.offsets.next, Identity::by(&same))?;
                    // A new consumer asks again, and passes over lost records if the source may.
                    Err(match lost.is_empty() || self.settings.skips_lost {
                        true => reader.failed("an offset was refused", error),
                        false => self.cannot_continue(&lost),
                    })
                }
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    // The message says which topic is gone. If it is there, it may be another one.
                    self.found(reader, ANSWER)?;
                    self.same_topics(reader).map(drop)
                }
                Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::Fatal) | None => {
                    Err(reader.failed("reading failed", error))
                }
                // librdkafka tries again by itself. Other brokers and partitions may go on.
                Some(code) => {
                    reader.consumer.context().troubled(code.to_string());
                    Ok(())
                }
            },
        }
    }

    /// Returns the topics that are known to be those that are read. Fails if one is another topic now: a new consumer
    /// compares all ids, and continues or says what is lost.
    fn same_topics(&self, reader: &Reader) -> Result<BTreeSet<String>> {
        let topics = self.offsets.next.keys().map(|partition| partition.topic.as_str());
        let now = self.offsets.ids.present(reader, topics, ANSWER)?;
        match self.offsets.ids.changed(&now).into_keys().next() {
            Some(topic) => Err(Error::External(format!("topic '{topic}' was deleted and created again"))),
            None => Ok(self.offsets.ids.same(&now)),
        }
    }

    /// Returns the error for lost offsets, with the source's present name.
    fn cannot_continue(&self, lost: &[Lost]) -> Error {
        let renamed = self.health.renamed();
        cannot_continue(renamed.as_deref().unwrap_or(&self.settings.source), lost)
    }

    /// Commits durable offsets to the group, for lag monitors.
    pub fn commit(&mut self, through: &Position) -> Result<()> {
        // A commit under way delays new partitions.
        let is_due = self.committed.is_none_or(|at| at.elapsed() >= COMMITS);
        let Some(reader) = self.reader.as_ref().filter(|_| is_due) else { return Ok(()) };
        let Some(commits) = &reader.commits else { return Ok(()) };
        self.committed = Some(Instant::now());
        let mut offsets = BTreeMap::new();
        for span in through.spans() {
            if TopicIds::is_id(&span.split) {
                continue;
            }
            let Split { partition, .. } = Split::parse(&span.split)?;
            if self.offsets.is_present(&partition, &span.split) {
                offsets.insert(partition, span.to);
            }
        }
        commits.commit(reader.list(&offsets)?);
        Ok(())
    }

    /// Adds a record to a pull.
    fn take(&self, pull: &mut Pull, message: &BorrowedMessage<'_>) {
        let gathered = self.gathered(pull, message.topic(), message.partition());
        let bytes = gathered.add(&self.columns, message);
        pull.took(bytes);
    }
}
