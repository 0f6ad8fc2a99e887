//! The progress of a source: its partitions with their offsets, and the records that librdkafka has brought.

mod discovery;
mod jump;
mod limit;
mod pull;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, Error, Health, Limit, More, Result};
use millstream_delta::{Position, Span};
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::Notify;

use crate::consumer::{ANSWER, Context, EVENTS, Reader, watch_token};
use crate::lost::{Identity, Lost, cannot_continue};
use crate::options::Settings;
use crate::partition::{Partition, Split};
use crate::rows::Columns;
use crate::topic_ids::TopicIds;
use limit::Limits;
use pull::{Decoded, Pull};

/// For how long after the newest record the rest up to the known ends is still expected: FLUSH waits for it. Records of a
/// transaction that is open do not come.
const QUIET: Duration = Duration::from_secs(2);

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
    /// The split of each known partition.
    splits: BTreeMap<Partition, Arc<str>>,
    /// The next offset of each partition that is read.
    next: BTreeMap<Partition, u64>,
    /// The offsets that the engine has from before.
    after: BTreeMap<Partition, u64>,
    /// How often a partition has got another split.
    jumps: BTreeMap<Partition, u32>,
    ids: TopicIds,
    limits: Option<Limits>,
    /// Partitions whose topic is gone, with their next offsets.
    gone: BTreeMap<Partition, u64>,
    /// Partitions whose topic was missing at the last look, with the time of the first look that missed it.
    missed: BTreeMap<Partition, Instant>,
    /// Partitions whose first offset the engine doesn't know yet.
    fresh: BTreeSet<Partition>,
    /// Splits that are read no longer, which the engine doesn't know yet.
    left: Vec<Span>,
    /// Offsets that are passed over, since the records are gone, which the engine doesn't know yet.
    lost: Vec<(Arc<str>, Lost)>,
    /// The end of each partition at the start of its reading, unless it was reached. A bounded source ends there.
    ends: BTreeMap<Partition, u64>,
    /// The time of the newest record, or of the connection.
    newest: Instant,
    /// Of a bounded source: the partitions whose end is not reached. Their queues say when the last record was read.
    queues: BTreeMap<Partition, PartitionQueue<Context>>,
    /// Of a bounded source: the partitions that have no queue yet, with their first offsets.
    waiting: BTreeMap<Partition, u64>,
    /// Of a bounded source: the partitions with nothing to read that the engine doesn't know yet.
    ended: Vec<Partition>,
    /// Of a bounded source: the partitions that were read to their ends.
    done: BTreeSet<Partition>,
    /// The number of pulls, which decides the partition that comes first.
    pulls: usize,
    /// The time of the last look at the offsets of all partitions.
    looked: Instant,
    committed: Option<Instant>,
    /// The time of the last look for partitions with this consumer.
    discovered: Option<Instant>,
    /// True after the first look, also one before a restart: option `start` no longer applies.
    begun: bool,
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
            splits: BTreeMap::new(),
            next: BTreeMap::new(),
            after: BTreeMap::new(),
            jumps: BTreeMap::new(),
            ids: TopicIds::default(),
            gone: BTreeMap::new(),
            missed: BTreeMap::new(),
            fresh: BTreeSet::new(),
            left: Vec::new(),
            lost: Vec::new(),
            ends: BTreeMap::new(),
            newest: Instant::now(),
            queues: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ended: Vec::new(),
            done: BTreeSet::new(),
            pulls: 0,
            looked: Instant::now(),
            committed: None,
            discovered: None,
            begun: false,
        }
    }

    /// Returns the ids that the topics have had.
    pub fn topic_ids(&self) -> &TopicIds {
        &self.ids
    }

    /// Continues after a position.
    pub fn seek(&mut self, after: &Position) -> Result<()> {
        for span in after.spans() {
            self.begun = true;
            if TopicIds::is_id(&span.split) {
                self.ids.take(&span);
                continue;
            }
            let Split { partition, jumps, .. } = Split::parse(&span.split)?;
            if self.jumps.get(&partition).is_some_and(|other| *other > jumps) {
                continue;
            }
            self.jumps.insert(partition.clone(), jumps);
            self.splits.insert(partition.clone(), span.split);
            self.done.remove(&partition);
            self.after.remove(&partition);
            self.gone.remove(&partition);
            match span.done {
                true if self.settings.bounded => {
                    self.done.insert(partition.clone());
                    self.after.insert(partition, span.to);
                }
                // A partition that a topic no longer had when it was created again.
                true if jumps < self.ids.jumps(&partition.topic) => {}
                true => drop(self.gone.insert(partition, span.to)),
                false => drop(self.after.insert(partition, span.to)),
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
        self.after.append(&mut self.next);
        self.queues.clear();
        self.waiting.clear();
        self.limits.iter_mut().for_each(Limits::restart);
        (self.reader, self.discovered) = (None, None);
    }

    fn pull(&mut self, limit: Limit) -> Result<Arrival> {
        self.discover()?;
        self.reader.iter().for_each(|reader| watch_token(&reader.consumer, &self.health));
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
        let mut arrival = Arrival::nothing(More::Now);
        arrival.bad_rows.append(&mut self.take_lost());
        arrival.spans.append(&mut self.left);
        pull.ended.append(&mut self.ended);
        for Decoded { partition, newest, piece } in decoded {
            self.fresh.remove(&partition);
            self.next.insert(partition, piece.span.to);
            newest.into_iter().for_each(|time| self.health.has_read_record_of(&piece.span.split, time));
            if let Some(rows) = piece.rows {
                arrival.splits.push(piece.span.split.clone());
                arrival.rows.push(rows);
            }
            arrival.spans.push(piece.span);
            arrival.bad_rows.extend(piece.bad_rows);
        }
        if !arrival.spans.is_empty() {
            self.newest = Instant::now();
        }
        if empty {
            arrival.more = self.more_to_come(arrival.spans.is_empty());
        }
        // A start that is not the beginning must survive, or records would be left out after a restart.
        for partition in std::mem::take(&mut self.fresh) {
            let at = self.next.get(&partition).copied().unwrap_or_default();
            arrival.spans.push(Span { split: self.split(&partition), from: at, to: at, done: false });
        }
        self.done.extend(pull.ended.iter().cloned());
        for partition in pull.ended {
            let split = self.split(&partition);
            match arrival.spans.iter_mut().find(|span| span.split == split) {
                Some(span) => span.done = true,
                None => {
                    let at = self.next.get(&partition).copied().unwrap_or_default();
                    arrival.spans.push(Span { split, from: at, to: at, done: true });
                }
            }
        }
        Ok(arrival)
    }

    fn split(&self, partition: &Partition) -> Arc<str> {
        self.splits.get(partition).cloned().unwrap_or_else(|| partition.split(0, 0))
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
        self.pulls = self.pulls.wrapping_add(1);
        let first = self.pulls % self.queues.len().max(1);
        for (partition, queue) in self.queues.iter().skip(first).chain(self.queues.iter().take(first)) {
            let end = self.ends.get(partition).copied().unwrap_or_default();
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
            self.queues.remove(partition);
            reader.unassign(partition)?;
        }
        self.open_waiting()?;
        Ok(empty)
    }

    /// Passes the ends of transactions, which take offsets as records do. Retention may remove them.
    fn pass_ends_of_transactions(&mut self, pull: &mut Pull) {
        let pause = LOOK_PER_PARTITION * u32::try_from(self.next.len()).unwrap_or(u32::MAX);
        if self.looked.elapsed() < pause {
            return;
        }
        self.looked = Instant::now();
        let Some(reader) = &self.reader else { return };
        for (partition, through) in reader.positions() {
            if self.next.get(&partition).is_some_and(|known| through > *known) {
                self.gathered(pull, &partition.topic, partition.number).pass(through);
            }
        }
    }

    /// Returns if more records are to come, after all that have arrived were taken.
    fn more_to_come(&mut self, is_idle: bool) -> More {
        if self.has_ended() {
            return More::Never;
        }
        if self.newest.elapsed() > QUIET {
            return More::Later;
        }
        let (done, next) = (&self.done, &self.next);
        let is_before = |partition: &Partition, end: u64| {
            !done.contains(partition) && next.get(partition).is_some_and(|next| *next < end)
        };
        match self.settings.bounded {
            true if !self.ends.iter().any(|(partition, end)| is_before(partition, *end)) => {
                return More::Later;
            }
            true => {}
            false => {
                self.ends.retain(|partition, end| is_before(partition, *end));
                if self.ends.is_empty() {
                    return More::Later;
                }
            }
        }
        if is_idle {
            std::thread::sleep(PAUSE);
        }
        More::Now
    }

    fn has_ended(&self) -> bool {
        self.settings.bounded
            && self.discovered.is_some()
            && self.queues.is_empty()
            && self.waiting.is_empty()
    }

    /// Returns an error if an event of librdkafka ends the reading for now, or for good.
    fn check(&self, reader: &Reader, error: KafkaError) -> Result<()> {
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            error => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    let same = self.same_topics(reader)?;
                    let lost = Lost::among(reader, &self.next, Identity::by(&same))?;
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
        let topics = self.next.keys().map(|partition| partition.topic.as_str());
        let now = self.ids.present(reader, topics, ANSWER)?;
        match self.ids.changed(&now).into_keys().next() {
            Some(topic) => Err(Error::External(format!("topic '{topic}' was deleted and created again"))),
            None => Ok(self.ids.same(&now)),
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
            if self.splits.get(&partition) == Some(&span.split) {
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
