//! Reading spans again, with a consumer of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, BadRow, Error, Health, Limit, More, Result};
use millstream_delta::Span;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::consumer::{ANSWER, Context, Reader, renew_token};
use crate::lost::{Identity, Lost, cannot_replay};
use crate::options::Settings;
use crate::partition::{Partition, Split};
use crate::rows::{Columns, Gathered};
use crate::topic_ids::TopicIds;

/// How long a record may take to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a partition that was open before may bring nothing before it is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// For how long the id of a topic is taken to be the present one.
const PRESENT: Duration = Duration::from_secs(1);

/// For how long a topic may be unknown to the broker that answers, and the pause between two looks.
const UNKNOWN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Most partitions that stay assigned.
const OPEN_MAX: usize = 16;

/// Most bytes of one replay: the places of its records have 32 bits.
const BYTES_MAX: usize = 1 << 30;

/// A consumer that reads spans again. Spans of a partition are mostly asked for in their order, so each partition
/// stays assigned.
pub(crate) struct Replay {
    reader: Reader,
    columns: Arc<Columns>,
    /// True if lost records are passed over.
    skips_lost: bool,
    /// The ids that topics had, and those that they have, with the time of the look.
    ids: TopicIds,
    now: BTreeMap<String, (String, Instant)>,
    /// The offsets up to which bad rows say that the records of a split are lost.
    told: BTreeMap<Arc<str>, u64>,
    open: BTreeMap<Partition, Open>,
}

/// A partition that is being read again.
struct Open {
    queue: PartitionQueue<Context>,
    next: u64,
}

impl Replay {
    pub fn new(settings: &Settings, columns: Arc<Columns>) -> Result<Replay> {
        let settings = Settings { group_id: None, bounded: true, ..settings.clone() };
        let reader = Reader::new(&settings, &Health::default(), None)?;
        let skips_lost = settings.skips_lost;
        let (ids, now, told) = (TopicIds::default(), BTreeMap::new(), BTreeMap::new());
        Ok(Replay { reader, columns, skips_lost, ids, now, told, open: BTreeMap::new() })
    }

    /// Takes in ids that topics had: spans of a topic that has another one can't be read again.
    pub fn take_ids(&mut self, ids: &TopicIds) {
        self.ids.take_all(ids);
    }

    /// Reads a span, or its first part, again.
    pub fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let nothing = || Arrival { spans: vec![span.clone()], ..Arrival::nothing(More::Never) };
        if TopicIds::is_id(&span.split) {
            self.ids.take(span);
            return Ok(nothing());
        }
        renew_token(&self.reader.consumer)?;
        let Split { partition, start, jumps } = Split::parse(&span.split)?;
        // The part before the split's beginning has no records.
        let from = span.from.max(start);
        let mut lost = Vec::new();
        if from >= span.to {
            self.end(span, &partition, jumps, &mut lost)?;
            return Ok(Arrival { bad_rows: lost, ..nothing() });
        }
        let identity = self.identity(&partition, jumps)?;
        if identity == Identity::Other {
            let former = self.lost(&partition, from, identity)?;
            former.map(|former| self.pass_over(&former, &span.split, &mut lost)).transpose()?;
            return Ok(Arrival { bad_rows: lost, ..nothing() });
        }
        let mut gathered = Gathered::new(&self.columns, partition.clone(), span.split.clone(), from);
        let missing = self.gather(&mut gathered, (span, jumps), limit, &mut lost)?;
        let end = gathered.end();
        let through = if missing { span.to } else { end };
        match self.open.get_mut(&partition) {
            // A record beyond the span was taken.
            Some(_) if missing => self.close(&partition),
            Some(open) => open.next = end,
            None => {}
        }
        gathered.prepare(&self.columns)?;
        let piece = gathered.finish(&self.columns)?;
        let done = span.done && through >= span.to;
        let read = Span { from: span.from, to: through, done, ..piece.span };
        let more = if through < span.to { More::Now } else { More::Never };
        lost.extend(piece.bad_rows);
        let mut arrival = Arrival { spans: vec![read], bad_rows: lost, ..Arrival::nothing(more) };
        arrival.rows.extend(piece.rows);
        Ok(arrival)
    }

    /// Replays the end of a split. Adds the bad row that the source wrote if its topic had been created again.
    fn end(
        &mut self,
        span: &Span,
        partition: &Partition,
        jumps: u32,
        bad_rows: &mut Vec<BadRow>,
    ) -> Result<()> {
        let is_former = self.ids.of(&partition.topic, jumps) != self.ids.newest(&partition.topic);
        let ends_only = span.done && span.from == span.to;
        if is_former
            && ends_only
            && self.skips_lost
            && let Some(lost) = self.lost(partition, span.to, Identity::Other)?
        {
            self.pass_over(&lost, &span.split, bad_rows)?;
        }
        Ok(())
    }

    /// Reads records up to the end of a span, within the limit. Returns true if no further record is before the end. Adds a
    /// bad row for records that are lost.
    fn gather(
        &mut self,
        gathered: &mut Gathered,
        (span, jumps): (&Span, u32),
        limit: Limit,
        lost: &mut Vec<BadRow>,
    ) -> Result<bool> {
        let (partition, to) = (gathered.partition().clone(), span.to);
        let mut is_fresh = self.open(&partition, gathered.end())?;
        let (mut waited, mut bytes, bytes_max) = (Instant::now(), 0, limit.bytes.min(BYTES_MAX));
        let begun = Instant::now();
        while gathered.end() < to && gathered.num_records() < limit.rows && bytes < bytes_max {
            let _events = self.reader.consumer.poll(Duration::ZERO);
            let Some(open) = self.open.get(&partition) else { break };
            match open.queue.poll(Duration::from_millis(100)) {
                // An end that was reported before this call may be older than the span's records.
                None if !is_fresh && waited.elapsed() > REOPEN => {
                    self.close(&partition);
                    is_fresh = self.open(&partition, gathered.end())?;
                }
                None if waited.elapsed() > PATIENCE => {
                    self.close(&partition);
                    return Err(Error::External(format!(
                        "{partition} has brought no record for {} s: offset {} is next",
                        PATIENCE.as_secs(),
                        gathered.end()
                    )));
                }
                None => {}
                Some(Ok(message)) if message.offset() as u64 >= to => return Ok(true),
                Some(Ok(message)) => {
                    bytes += gathered.add(&self.columns, &message);
                    waited = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(_))) if !is_fresh => {}
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // Compaction may remove the last records of a span, but not offsets.
                    let identity = self.identity(&partition, jumps)?;
                    if let Some(cut) = self.lost(&partition, to, identity)? {
                        self.pass_over(&cut, &span.split, lost)?;
                    }
                    return Ok(true);
                }
                Some(Err(error)) if is_unknown(&error) && begun.elapsed() < UNKNOWN => {
                    self.close(&partition);
                    std::thread::sleep(PAUSE);
                    is_fresh = self.open(&partition, gathered.end())?;
                }
                Some(Err(error)) => match self.refused(gathered, (span, jumps), error, lost)? {
                    first if first < to => {
                        gathered.pass(first);
                        is_fresh = self.open(&partition, first)?;
                    }
                    _ => return Ok(true),
                },
            }
        }
        Ok(false)
    }

    /// Returns the relation of a partition's topic to the one that a split with a number of jumps belongs to.
    fn identity(&mut self, partition: &Partition, jumps: u32) -> Result<Identity> {
        let topic = &partition.topic;
        let Some(id) = self.ids.of(topic, jumps) else { return Ok(Identity::Unknown) };
        let begun = Instant::now();
        while self.now.get(topic).is_none_or(|(_, at)| at.elapsed() > PRESENT) {
            self.now.remove(topic);
            let now = self.reader.topic_ids([topic.as_str()], ANSWER)?.remove(topic);
            match now {
                Some(now) => drop(self.now.insert(topic.clone(), (now, Instant::now()))),
                // A broker that has just started doesn't know all topics yet.
                None if begun.elapsed() < UNKNOWN => std::thread::sleep(PAUSE),
                None => break,
            }
        }
        match self.now.get(topic) {
            Some((now, _)) if now == id => Ok(Identity::Same),
            Some(_) => Ok(Identity::Other),
            None => Err(Error::External(format!(
                "topic '{topic}', whose records are read again for a start or for a new query, isn't known at {} now",
                self.reader.servers()
            ))),
        }
    }

    /// Closes a partition that can't be read on. Returns the offset that comes after the lost records, if these are passed
    /// over.
    fn refused(
        &mut self,
        gathered: &Gathered,
        (span, jumps): (&Span, u32),
        error: KafkaError,
        lost: &mut Vec<BadRow>,
    ) -> Result<u64> {
        let (partition, wanted) = (gathered.partition(), gathered.end());
        self.close(partition);
        // The topic may have been created again since the last look.
        self.now.remove(&partition.topic);
        let identity = self.identity(partition, jumps)?;
        let is_gone = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        let found = match is_gone || identity == Identity::Other {
            true => self.lost(partition, wanted, identity)?,
            false => None,
        };
        match found {
            Some(found) => self.pass_over(&found, &span.split, lost),
            None => Err(self.reader.failed(&format!("{partition} can't be read"), error)),
        }
    }

    /// Returns an offset as lost if a partition doesn't have it.
    fn lost(&self, partition: &Partition, wanted: u64, topic: Identity) -> Result<Option<Lost>> {
        if topic == Identity::Other {
            // The other topic may have fewer partitions.
            let bounds = self.reader.bounds([partition].into_iter()).unwrap_or_default();
            let bounds = bounds.get(partition).copied().unwrap_or_default();
            return Ok(Lost::of(partition, bounds, wanted, topic));
        }
        let wanted = BTreeMap::from([(partition.clone(), wanted)]);
        Ok(Lost::among(&self.reader, &wanted, |_| topic)?.pop())
    }

    /// Passes over lost records of a split, if the source may. Returns the offset that comes after them. Adds a bad row,
    /// unless an earlier one says the same.
    fn pass_over(&mut self, lost: &Lost, split: &Arc<str>, bad_rows: &mut Vec<BadRow>) -> Result<u64> {
        if !self.skips_lost {
            self.close(&lost.partition);
            return Err(cannot_replay(lost));
        }
        let through = if lost.is_removed() { lost.bounds.0 } else { u64::MAX };
        if self.told.get(split).is_none_or(|told| *told <= lost.wanted) {
            tracing::warn!(reason = lost.reason(), "lost records are not read again");
            bad_rows.push(lost.bad_row(split.clone()));
            self.told.insert(split.clone(), through);
        }
        Ok(through)
    }

    /// Makes a partition's queue begin at an offset. Returns false if it was there already.
    fn open(&mut self, partition: &Partition, from: u64) -> Result<bool> {
        match self.open.get(partition) {
            Some(open) if open.next == from => return Ok(false),
            Some(_) => self.close(partition),
            None => {}
        }
        if self.open.len() >= OPEN_MAX {
            let open: Vec<Partition> = self.open.keys().cloned().collect();
            open.iter().for_each(|partition| self.close(partition));
        }
        let queue = self.reader.open(partition, from)?;
        self.open.insert(partition.clone(), Open { queue, next: from });
        Ok(true)
    }

    fn close(&mut self, partition: &Partition) {
        if self.open.remove(partition).is_some()
            && let Err(error) = self.reader.unassign(partition)
        {
            tracing::warn!(%error, "a partition that was read again can't be released");
        }
    }
}

/// Returns true if an error says that a broker doesn't know a topic or a partition.
fn is_unknown(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}
