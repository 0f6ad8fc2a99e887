//! Reading spans again, with a consumer of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{Arrival, Error, Health, Limit, More, Result};
use millstream_delta::Span;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::consumer::{Context, Reader};
use crate::lost::{Lost, WITHOUT, cannot_replay};
use crate::options::Settings;
use crate::partition::{Partition, Split};
use crate::rows::{Columns, Gathered};
use crate::topic_ids::{TopicIds, topic_ids};

/// How long a record may take to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a partition that was open before may bring nothing before it is opened again.
const REOPEN: Duration = Duration::from_secs(1);

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
    /// The ids that topics had, and those that they have.
    ids: TopicIds,
    now: BTreeMap<String, String>,
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
        let (ids, now) = (TopicIds::default(), BTreeMap::new());
        Ok(Replay { reader, columns, skips_lost, ids, now, open: BTreeMap::new() })
    }

    /// Reads a span, or its first part, again.
    pub fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let nothing = || Arrival { spans: vec![span.clone()], ..Arrival::nothing(More::Never) };
        if TopicIds::is_id(&span.split) {
            return self.compare_id(span).map(|()| nothing());
        }
        let Split { partition, start, jumps } = Split::parse(&span.split)?;
        // The part before the split's beginning has no records.
        let from = span.from.max(start);
        if from >= span.to || self.is_of_former_topic(&partition, jumps) {
            return Ok(nothing());
        }
        let mut gathered = Gathered::new(&self.columns, partition.clone(), span.split.clone(), from);
        let missing = self.gather(&mut gathered, span.to, limit)?;
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
        let mut arrival = Arrival { spans: vec![read], bad_rows: piece.bad_rows, ..Arrival::nothing(more) };
        arrival.rows.extend(piece.rows);
        Ok(arrival)
    }

    /// Reads records up to an offset, within the limit. Returns true if no further record is before the offset.
    fn gather(&mut self, gathered: &mut Gathered, to: u64, limit: Limit) -> Result<bool> {
        let partition = gathered.partition().clone();
        let mut is_fresh = self.open(&partition, gathered.end())?;
        let (mut waited, mut bytes, bytes_max) = (Instant::now(), 0, limit.bytes.min(BYTES_MAX));
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
                    if let Some(lost) = self.lost(&partition, to)? {
                        self.pass_over(&lost)?;
                    }
                    return Ok(true);
                }
                Some(Err(error)) => match self.refused(&partition, gathered.end(), error)? {
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

    /// Takes in the id that a topic had. Fails if it has another one now, unless lost records are passed over.
    fn compare_id(&mut self, span: &Span) -> Result<()> {
        let Some((topic, id)) = span.split.split_once('#') else { return Ok(()) };
        let now = topic_ids(&self.reader, [topic])?;
        self.ids.take(span);
        match now.get(topic) {
            Some(other) if other != id && !self.skips_lost => Err(Error::Invalid(format!(
                "topic '{topic}' was deleted and created again, and its former records are read again for a start or for a new \
                 query. {WITHOUT}"
            ))),
            _ => {
                self.now.extend(now);
                Ok(())
            }
        }
    }

    /// Returns true if a split belongs to a topic that was deleted.
    fn is_of_former_topic(&self, partition: &Partition, jumps: u32) -> bool {
        let id = self.ids.of(&partition.topic, jumps);
        id.zip(self.now.get(&partition.topic)).is_some_and(|(id, now)| id != now)
    }

    /// Closes a partition that can't be read from an offset on. Returns the offset that comes after the lost records, if
    /// these are passed over.
    fn refused(&mut self, partition: &Partition, wanted: u64, error: KafkaError) -> Result<u64> {
        self.close(partition);
        let is_gone = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        match if is_gone { self.lost(partition, wanted)? } else { None } {
            Some(lost) => {
                self.pass_over(&lost)?;
                Ok(if lost.is_removed() { lost.bounds.0 } else { u64::MAX })
            }
            None => Err(self.reader.failed(&format!("{partition} can't be read"), error)),
        }
    }

    /// Returns an offset as lost if a partition doesn't have it.
    fn lost(&self, partition: &Partition, wanted: u64) -> Result<Option<Lost>> {
        Ok(Lost::among(&self.reader, &BTreeMap::from([(partition.clone(), wanted)]))?.pop())
    }

    /// Fails for lost records, unless they are passed over.
    fn pass_over(&mut self, lost: &Lost) -> Result<()> {
        if !self.skips_lost {
            self.close(&lost.partition);
            return Err(cannot_replay(lost));
        }
        tracing::warn!(reason = lost.reason(), "lost records are not read again");
        Ok(())
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
