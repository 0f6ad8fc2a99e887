//! The progress of a source: its partitions with their offsets, and the records that librdkafka has brought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, Error, Health, Limit, More, Result};
use millstream_delta::{Position, Span};
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::Notify;

use crate::consumer::{ANSWER, Context, Reader, out_of_bounds};
use crate::options::{Settings, Start};
use crate::partition::Partition;
use crate::rows::{Columns, Gathered};

/// How long a later look for partitions may take: records wait meanwhile.
const LATER_ANSWER: Duration = Duration::from_secs(1);

/// For how long after the newest record the rest up to the known ends is still expected: FLUSH waits for it. Records of a
/// transaction that is open do not come.
const QUIET: Duration = Duration::from_secs(2);

/// How long a pull without records waits if some are expected.
const PAUSE: Duration = Duration::from_millis(5);

/// How often offsets are committed to a group.
const COMMITS: Duration = Duration::from_secs(5);

/// Most bytes of one pull: the places of its records have 32 bits.
const BYTES_MAX: usize = 1 << 30;

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
    /// Partitions whose first offset the engine doesn't know yet.
    fresh: Vec<Partition>,
    /// The end of each partition at the start of its reading. A bounded source ends there.
    ends: BTreeMap<Partition, u64>,
    /// The time of the newest record, or of the connection.
    newest: Instant,
    /// Of a bounded source: the partitions whose end is not reached. Their queues say when the last record was read.
    queues: BTreeMap<Partition, PartitionQueue<Context>>,
    /// Of a bounded source: the partitions with nothing to read that the engine doesn't know yet.
    ended: Vec<Partition>,
    /// Of a bounded source: the partitions that were read to their ends.
    done: BTreeSet<Partition>,
    /// The number of pulls, which decides the partition that comes first.
    pulls: usize,
    committed: Option<Instant>,
    discovered: Option<Instant>,
}

/// The records of one pull, by partition.
struct Pull {
    /// By the number of the topic in the settings, and the number of the partition.
    gathered: BTreeMap<(usize, i32), Gathered>,
    left: Limit,
    /// Partitions of a bounded source whose end was reached.
    ended: Vec<Partition>,
}

impl Pull {
    fn is_full(&self) -> bool {
        self.left.rows == 0 || self.left.bytes == 0
    }
}

impl Intake {
    pub fn new(
        settings: Arc<Settings>,
        columns: Arc<Columns>,
        health: Health,
        arrived: Arc<Notify>,
    ) -> Intake {
        Intake {
            settings,
            columns,
            health,
            arrived,
            reader: None,
            splits: BTreeMap::new(),
            next: BTreeMap::new(),
            after: BTreeMap::new(),
            fresh: Vec::new(),
            ends: BTreeMap::new(),
            newest: Instant::now(),
            queues: BTreeMap::new(),
            ended: Vec::new(),
            done: BTreeSet::new(),
            pulls: 0,
            committed: None,
            discovered: None,
        }
    }

    /// Continues after a position.
    pub fn seek(&mut self, after: &Position) -> Result<()> {
        for span in after.spans() {
            let (partition, _) = Partition::of_split(&span.split)?;
            self.splits.insert(partition.clone(), span.split);
            if span.done {
                self.done.insert(partition.clone());
            }
            self.after.insert(partition, span.to);
        }
        Ok(())
    }

    /// Returns the records that have arrived. After an error, a new consumer continues from the same offsets.
    pub fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let arrival = self.pull(limit);
        match &arrival {
            Ok(arrival) if arrival.spans.is_empty() => {}
            Ok(_) => self.health.well(&self.settings.properties.servers),
            Err(_) => self.disconnect(),
        }
        arrival
    }

    fn disconnect(&mut self) {
        self.after.append(&mut self.next);
        self.queues.clear();
        (self.reader, self.discovered) = (None, None);
    }

    fn pull(&mut self, limit: Limit) -> Result<Arrival> {
        self.discover()?;
        let left = Limit { bytes: limit.bytes.min(BYTES_MAX), ..limit };
        let mut pull = Pull { gathered: BTreeMap::new(), left, ended: Vec::new() };
        let empty = match self.settings.bounded {
            true => self.pull_bounded(&mut pull)?,
            false => self.pull_live(&mut pull)?,
        };
        if empty {
            self.pass_ends_of_transactions(&mut pull);
        }
        let mut arrival = Arrival::nothing(More::Now);
        pull.ended.append(&mut self.ended);
        // If a registry doesn't answer, nothing has changed yet: the records are read again.
        pull.gathered.values_mut().try_for_each(|gathered| gathered.prepare(&self.columns))?;
        for gathered in pull.gathered.into_values() {
            let partition = gathered.partition();
            self.fresh.retain(|fresh| fresh != partition);
            self.next.insert(partition.clone(), gathered.end());
            let piece = gathered.finish(&self.columns)?;
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
        self.splits.get(partition).cloned().unwrap_or_else(|| partition.split(0))
    }

    /// Finds the partitions, at the start and then from time to time, and begins to read new ones.
    fn discover(&mut self) -> Result<()> {
        let is_due = self.discovered.is_none_or(|at| at.elapsed() >= self.settings.discovery);
        if !is_due || (self.settings.bounded && self.discovered.is_some()) {
            return Ok(());
        }
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::new(&self.settings, &self.health, Some(self.arrived.clone()))?,
        };
        let found = self.discover_with(&reader);
        self.reader = Some(reader);
        // A broker that doesn't answer later is no reason to stop reading.
        match found {
            Err(error @ Error::External(_)) if self.discovered.is_some() => {
                tracing::warn!(%error, "no new partitions can be found");
            }
            other => other?,
        }
        self.discovered = Some(Instant::now());
        Ok(())
    }

    fn discover_with(&mut self, reader: &Reader) -> Result<()> {
        let mut new = Vec::new();
        let patience = if self.discovered.is_some() { LATER_ANSWER } else { ANSWER };
        for topic in &self.settings.topics {
            let found = reader.partitions(topic, patience)?;
            new.extend(found.into_iter().filter(|partition| !self.next.contains_key(partition)));
        }
        if self.settings.bounded && !self.after.is_empty() {
            // It was read before: no partitions come to it.
            new.retain(|partition| self.after.contains_key(partition) && !self.done.contains(partition));
        }
        self.health.well(&self.settings.properties.servers);
        if new.is_empty() {
            return Ok(());
        }
        // Partitions that appear while the source runs are read from their beginning.
        let is_new = self.after.is_empty() && self.discovered.is_none();
        let start = if is_new { &self.settings.start } else { &Start::Earliest };
        let (mut known, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for partition in new {
            let bounds = reader.bounds(&partition)?;
            // A record that is appended from now on is not expected before the end.
            self.ends.entry(partition.clone()).or_insert(bounds.1);
            let to = if self.after.contains_key(&partition) { &mut known } else { &mut unknown };
            to.insert(partition, bounds);
        }
        let mut offsets = reader.first_offsets(&unknown, start)?;
        self.splits
            .extend(offsets.iter().map(|(partition, from)| (partition.clone(), partition.split(*from))));
        for (partition, bounds) in known {
            let wanted = self.after.get(&partition).copied().unwrap_or_default();
            if let Some(error) = out_of_bounds(&partition, bounds, wanted) {
                return Err(error);
            }
            offsets.insert(partition, wanted);
        }
        if self.settings.bounded {
            offsets.iter().try_for_each(|(partition, from)| self.follow_to_end(reader, partition, *from))?;
        } else {
            reader.assign(&offsets)?;
        }
        self.newest = Instant::now();
        self.fresh.extend(unknown.into_keys());
        self.next.extend(offsets);
        Ok(())
    }

    /// Reads a partition of a bounded source from an offset to its end.
    fn follow_to_end(&mut self, reader: &Reader, partition: &Partition, from: u64) -> Result<()> {
        if self.ends.get(partition).is_none_or(|end| from >= *end) {
            self.ended.push(partition.clone());
            return Ok(());
        }
        let mut queue = reader.open(partition, from)?;
        let arrived = self.arrived.clone();
        queue.set_nonempty_callback(move || arrived.notify_one());
        self.queues.insert(partition.clone(), queue);
        Ok(())
    }

    /// Takes records of all partitions. Returns true if none are left for now.
    fn pull_live(&mut self, pull: &mut Pull) -> Result<bool> {
        let Some(reader) = &self.reader else { return Ok(true) };
        while !pull.is_full() {
            // An event that is no record gives none, but records may be behind it.
            match reader.consumer.poll(Duration::ZERO).or_else(|| reader.consumer.poll(Duration::ZERO)) {
                None => return Ok(true),
                Some(Ok(message)) => self.take(pull, &message),
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
            while let Some(polled) = queue.poll(Duration::ZERO) {
                let at_end = match polled {
                    Err(KafkaError::PartitionEOF(_)) => true,
                    Err(error) => self.check(reader, error).map(|()| false)?,
                    Ok(message) => {
                        let offset = message.offset().max(0) as u64;
                        if offset < end {
                            self.take(pull, &message);
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
        Ok(empty)
    }

    /// Passes the ends of transactions, which take offsets as records do. Retention may remove them.
    fn pass_ends_of_transactions(&self, pull: &mut Pull) {
        let Some(reader) = &self.reader else { return };
        for (partition, through) in reader.positions() {
            if self.next.get(&partition).is_some_and(|known| through > *known) {
                self.gathered(pull, &partition.topic, partition.number).pass(through);
            }
        }
    }

    /// Returns if more records are to come, after all that have arrived were taken.
    fn more_to_come(&self, is_idle: bool) -> More {
        if self.has_ended() {
            return More::Never;
        }
        let is_before = |(partition, end): (&Partition, &u64)| {
            !self.done.contains(partition) && self.next.get(partition).is_some_and(|next| next < end)
        };
        if self.newest.elapsed() > QUIET || !self.ends.iter().any(is_before) {
            return More::Later;
        }
        if is_idle {
            std::thread::sleep(PAUSE);
        }
        More::Now
    }

    fn has_ended(&self) -> bool {
        self.settings.bounded && self.discovered.is_some() && self.queues.is_empty()
    }

    /// Returns an error if an event of librdkafka ends the reading for now, or for good.
    fn check(&self, reader: &Reader, error: KafkaError) -> Result<()> {
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            error => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    for (partition, wanted) in &self.next {
                        if let Some(error) = reader.out_of_range(partition, *wanted)? {
                            return Err(error);
                        }
                    }
                    // A new consumer asks again.
                    Err(reader.failed("an offset was refused", error))
                }
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    // The message says which topic is gone.
                    self.settings
                        .topics
                        .iter()
                        .try_for_each(|topic| reader.partitions(topic, ANSWER).map(drop))
                }
                Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::Fatal) | None => {
                    Err(reader.failed("reading failed", error))
                }
                // librdkafka tries again by itself. Other brokers and partitions may go on.
                Some(code) => {
                    self.health.restarting(&self.settings.properties.servers, code.to_string(), 1);
                    Ok(())
                }
            },
        }
    }

    /// Commits durable offsets to the group, for lag monitors.
    pub fn commit(&mut self, through: &Position) -> Result<()> {
        // A commit under way delays new partitions.
        let is_due = self.committed.is_none_or(|at| at.elapsed() >= COMMITS);
        let Some(reader) = self.reader.as_ref().filter(|_| is_due && self.settings.group_id.is_some()) else {
            return Ok(());
        };
        self.committed = Some(Instant::now());
        let mut offsets = BTreeMap::new();
        for span in through.spans() {
            offsets.insert(Partition::of_split(&span.split)?.0, span.to);
        }
        let committed = reader.consumer.commit(&reader.list(&offsets)?, CommitMode::Async);
        committed.map_err(|error| reader.failed("offsets can't be committed", error))
    }

    /// Returns the records of a partition in a pull.
    fn gathered<'p>(&self, pull: &'p mut Pull, topic: &str, number: i32) -> &'p mut Gathered {
        let place = self.settings.topics.iter().position(|known| known == topic).unwrap_or_default();
        pull.gathered.entry((place, number)).or_insert_with(|| {
            let partition = Partition { topic: topic.into(), number };
            let from = self.next.get(&partition).copied().unwrap_or_default();
            let split = self.split(&partition);
            Gathered::new(&self.columns, partition, split, from)
        })
    }

    /// Adds a record to a pull.
    fn take(&self, pull: &mut Pull, message: &BorrowedMessage<'_>) {
        let bytes = self.gathered(pull, message.topic(), message.partition()).add(&self.columns, message);
        pull.left.rows -= 1;
        pull.left.bytes = pull.left.bytes.saturating_sub(bytes);
    }
}
