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
const PATIENCE: Duration = Duration::from_secs(30);

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
    pub fn new(settings: &Settings, columns: Arc<Columns>, health: &Health) -> Result<Replay> {
        let mut settings = Settings { group_id: None, bounded: true, ..settings.clone() };
        // Each partition has a queue of its own.
        settings.properties.insert("queued.max.messages.kbytes".into(), "4096".into());
        Ok(Replay { reader: Reader::new(&settings, health, None)?, columns, open: BTreeMap::new() })
    }

    /// Reads a span, or its first part, again.
    pub fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let (partition, start) = Partition::of_split(&span.split)?;
        // The part before the split's beginning has no records.
        let from = span.from.max(start);
        if from >= span.to {
            return Ok(Arrival { spans: vec![span.clone()], ..Arrival::nothing(More::Never) });
        }
        self.open(&partition, from)?;
        let mut gathered = Gathered::new(partition.clone(), span.split.clone(), from);
        let (begun, mut bytes) = (Instant::now(), 0);
        let mut missing = false;
        while gathered.end() < span.to && gathered.num_records() < limit.rows && bytes < limit.bytes {
            let _events = self.reader.consumer.poll(Duration::ZERO);
            let Some(open) = self.open.get(&partition) else { break };
            match open.queue.poll(Duration::from_millis(100)) {
                None if begun.elapsed() > PATIENCE => {
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
                Some(Ok(message)) => bytes += gathered.add(&self.columns, &message),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    missing = true;
                    break;
                }
                Some(Err(error)) => {
                    let is_gone = matches!(
                        error.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
                    );
                    let found =
                        if is_gone { self.reader.out_of_range(&partition, gathered.end())? } else { None };
                    let error = found
                        .unwrap_or_else(|| self.reader.failed(&format!("{partition} can't be read"), error));
                    self.close(&partition);
                    return Err(error);
                }
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
        let piece = gathered.finish(&self.columns)?;
        // Compaction may have removed the last records of the span.
        let read = Span { from: span.from, to: through, ..piece.span };
        let more = if through < span.to { More::Now } else { More::Never };
        let mut arrival = Arrival { spans: vec![read], bad_rows: piece.bad_rows, ..Arrival::nothing(more) };
        arrival.rows.extend(piece.rows);
        Ok(arrival)
    }

    /// Makes a partition's queue begin at an offset.
    fn open(&mut self, partition: &Partition, from: u64) -> Result<()> {
        match self.open.get(partition) {
            Some(open) if open.next == from => return Ok(()),
            Some(_) => self.close(partition),
            None => {}
        }
        let queue = self.reader.open(partition, from)?;
        self.open.insert(partition.clone(), Open { queue, next: from });
        Ok(())
    }

    fn close(&mut self, partition: &Partition) {
        if self.open.remove(partition).is_some()
            && let Err(error) = self.reader.unassign(partition)
        {
            tracing::warn!(%error, "a partition that was read again can't be released");
        }
    }
}
