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
use crate::options::Settings;
use crate::partition::Partition;
use crate::rows::{Columns, Gathered};

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
        Ok(Replay { reader, columns, open: BTreeMap::new() })
    }

    /// Reads a span, or its first part, again.
    pub fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let (partition, start) = Partition::of_split(&span.split)?;
        // The part before the split's beginning has no records.
        let from = span.from.max(start);
        if from >= span.to {
            return Ok(Arrival { spans: vec![span.clone()], ..Arrival::nothing(More::Never) });
        }
        let mut is_fresh = self.open(&partition, from)?;
        let mut gathered = Gathered::new(&self.columns, partition.clone(), span.split.clone(), from);
        let (mut waited, mut bytes, bytes_max) = (Instant::now(), 0, limit.bytes.min(BYTES_MAX));
        let mut missing = false;
        while gathered.end() < span.to && gathered.num_records() < limit.rows && bytes < bytes_max {
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
                Some(Ok(message)) if message.offset() as u64 >= span.to => {
                    missing = true;
                    break;
                }
                Some(Ok(message)) => {
                    bytes += gathered.add(&self.columns, &message);
                    waited = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(_))) if !is_fresh => {}
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // Compaction may remove the last records of a span, but not offsets.
                    if let Some(error) = self.reader.out_of_range(&partition, span.to)? {
                        self.close(&partition);
                        return Err(error);
                    }
                    missing = true;
                    break;
                }
                Some(Err(error)) => return Err(self.refused(&partition, gathered.end(), error)?),
            }
        }
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

    /// Closes a partition that can't be read from an offset on, and returns the reason.
    fn refused(&mut self, partition: &Partition, wanted: u64, error: KafkaError) -> Result<Error> {
        self.close(partition);
        let is_gone = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        let found = if is_gone { self.reader.out_of_range(partition, wanted)? } else { None };
        Ok(found.unwrap_or_else(|| self.reader.failed(&format!("{partition} can't be read"), error)))
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
