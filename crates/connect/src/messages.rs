//! Decoding of messages: records that arrive one by one, each with a position of its own, such as those of Kafka.

mod format;
mod keyed;
mod row_events;
mod row_values;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;

use crate::formats::changes::tell_origins;
use crate::formats::decode::{Decoded, decode_run};
use crate::formats::framing::{BadRecord, Record, Run};
use crate::formats::schemas::Fetch;
use crate::{BadRow, Error, Result, SourceSpec};
use format::{Decoder, Opened};
pub use format::{MESSAGE_OPTIONS, MessageFormat};
use keyed::{Keyed, KeyedRun};
pub(crate) use row_events::Dialect;
use row_events::{RowChange, RowEvents};

/// Messages of one split, in order, to be decoded together.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// The position of each record in the split.
    positions: Vec<u64>,
    /// The key of each record, if the format reads keys.
    keyed: Vec<Keyed>,
    bad: Vec<BadRow>,
    is_prepared: bool,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its position in the split.
    pub position: u64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// The rows of messages.
#[derive(Debug)]
pub struct DecodedMessages {
    /// One row a message that could be decoded: the declared columns. In change feeds a
    /// [`crate::deleted_field`] follows.
    pub columns: Vec<ArrayRef>,
    /// The positions of the rows' messages, ascending.
    pub positions: Vec<u64>,
    /// The messages that could not be decoded.
    pub bad_rows: Vec<BadRow>,
}

/// Decodes the messages of a source with its declared columns, in the format of its options.
pub struct MessageDecoder {
    columns: SchemaRef,
    decoder: Decoder,
    brings_changes: bool,
    passes_over: fn(&[u8]) -> bool,
    schemas: Option<Arc<dyn Fetch>>,
    row_events: Option<RowEvents>,
    /// True if the messages are text behind the id of a schema, which reading doesn't need.
    skips_ids: bool,
    message_bytes_max: usize,
}

impl Messages {
    /// Returns the size of the messages in bytes.
    pub fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.bad.is_empty()
    }

    /// Appends bytes, and returns their place.
    fn push(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len() as u32;
        // Text is validated across adjacent records. Two invalid ones must not become a valid one.
        self.bytes.push(b'\n');
        (start, end)
    }

    fn push_record(&mut self, position: u64, bytes: &[u8]) {
        let (start, end) = self.push(bytes);
        self.records.push(Record { start, end, next: end + 1 });
        self.positions.push(position);
    }

    /// Appends a message with its key. Its record is the value, or the key if there is no value.
    fn push_keyed(&mut self, message: Message<'_>) {
        let record = message.value.or(message.key).unwrap_or_default();
        self.push_record(message.position, record);
        let start = self.records.last().map_or(0, |record| record.start);
        let key = match (message.key, message.value) {
            (None, _) => None,
            (Some(key), None) => Some((start, start + key.len() as u32)),
            (Some(key), Some(_)) => Some(self.push(key)),
        };
        let has_value = message.value.is_some();
        self.keyed.push(Keyed { start, key, has_value, deletes: !has_value });
    }

    /// Appends the change of one row of a message.
    fn push_change(&mut self, position: u64, change: RowChange<'_>) {
        self.push_record(position, change.row);
        let start = self.records.last().map_or(0, |record| record.start);
        let key = change.rest.map(|rest| self.push(rest));
        self.keyed.push(Keyed { start, key, has_value: true, deletes: change.deletes });
    }
}

impl MessageDecoder {
    /// Creates the decoder of a source.
    pub fn new(spec: &SourceSpec, format: MessageFormat) -> Result<MessageDecoder> {
        let Opened { columns, decoder, brings_changes, passes_over, schemas, row_events, skips_ids } =
            format.open(spec)?;
        Ok(MessageDecoder {
            columns,
            decoder,
            brings_changes,
            passes_over,
            schemas,
            row_events,
            skips_ids,
            message_bytes_max: spec.max_record_bytes,
        })
    }

    /// Returns the declared columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    /// Returns true if the rows are changes by key.
    pub fn brings_changes(&self) -> bool {
        self.brings_changes
    }

    /// Adds a message of a split.
    pub fn add(&self, to: &mut Messages, split: &Arc<str>, message: Message<'_>) {
        let skip = |bytes| if self.skips_ids { without_id(bytes) } else { bytes };
        let (key, value) = (message.key.map(skip), message.value.map(skip));
        let message = Message { key, value, ..message };
        let position = message.position;
        let reads_keys = matches!(self.decoder, Decoder::Keyed(_));
        // Only a feed that skips `null` skips a message without a value.
        if !(reads_keys && value.is_none()) && (self.passes_over)(value.unwrap_or(b"null")) {
            return;
        }
        let length = value.map_or(0, <[u8]>::len).max(key.filter(|_| reads_keys).map_or(0, <[u8]>::len));
        let reason = match value {
            _ if length > self.message_bytes_max => {
                format!("the record is longer than max_record_bytes, which is {}", self.message_bytes_max)
            }
            Some(value) if !reads_keys => return to.push_record(position, value),
            None if !reads_keys => {
                "the message has no value: a tombstone deletes a key, and the source's format has none".into()
            }
            None if key.is_none() => "the message has neither a value nor a key".into(),
            _ => match (&self.row_events, value) {
                (None, _) => return to.push_keyed(message),
                (Some(_), None) => {
                    "the message has no value, but an event with an operation and rows was expected".into()
                }
                (Some(events), Some(value)) => match events.changes(value) {
                    Ok(changes) => {
                        return changes.into_iter().for_each(|change| to.push_change(position, change));
                    }
                    Err(reason) => reason,
                },
            },
        };
        to.bad.push(BadRow::of(split, BadRecord::new(position, reason, value.unwrap_or_default())));
    }

    /// Fetches the schemas of messages. Fails if that is not possible for now; the messages stay as they are.
    pub async fn prepare(&self, messages: &mut Messages) -> Result<()> {
        if let Some(schemas) = &self.schemas {
            let bytes = |(start, end): (u32, u32)| messages.bytes.get(start as usize..end as usize);
            let values = messages.records.iter().filter_map(|record| bytes((record.start, record.end)));
            let keys = messages.keyed.iter().filter_map(|keyed| bytes(keyed.key?));
            let all: Vec<&[u8]> = values.chain(keys).collect();
            schemas.fetch(&all).await?;
        }
        messages.is_prepared = true;
        Ok(())
    }

    /// Decodes the messages of a split, after [`MessageDecoder::prepare`].
    pub fn decode(&self, split: &Arc<str>, messages: Messages) -> Result<DecodedMessages> {
        let Messages { bytes, records, positions, keyed, mut bad, is_prepared } = messages;
        if self.schemas.is_some() && !is_prepared {
            return Err(Error::Bug("messages were to be decoded whose schemas were not fetched".into()));
        }
        let block = Buffer::from_vec(bytes);
        let starts: Vec<u32> = records.iter().map(|record| record.start).collect();
        let position_at = |start: u32| {
            let at = starts.partition_point(|known| *known < start);
            positions.get(at).copied().unwrap_or_default()
        };
        let run = Run { block: block.clone(), offset: 0, records, bad: Vec::new() };
        let decoded = match &self.decoder {
            Decoder::Values(decoder) => decode_run(decoder.as_ref(), run),
            Decoder::Keyed(decoder) => decode_run(&KeyedRun { decoder, messages: &keyed }, run),
        };
        let Decoded { mut columns, records: good, bad: undecoded } = decoded.map_err(Error::Bug)?;
        let of_messages = undecoded.into_iter().map(|record| {
            let offset = position_at(record.offset as u32);
            BadRow::of(split, BadRecord { offset, ..record })
        });
        bad.extend(of_messages);
        bad.sort_by_key(|bad| bad.offset);
        let positions = match good.len() == positions.len() {
            true => positions,
            false => good.iter().map(|record| position_at(record.start)).collect(),
        };
        if !good.is_empty() && self.brings_changes {
            tell_origins(&mut columns, &good, (&block, &positions), split)?;
            if let Decoder::Keyed(decoder) = &self.decoder {
                KeyedRun { decoder, messages: &keyed }.forgive(&mut columns, &good).map_err(Error::Bug)?;
            }
        }
        Ok(DecodedMessages { columns, positions, bad_rows: bad })
    }

    /// Returns columns of decoded messages as a batch of `schema`.
    pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| {
            Error::Bug(format!("messages were decoded to other columns than declared: {error}"))
        })
    }
}

/// Returns JSON without the id of its schema, if it begins with one. Other bytes that begin with zero may be a binary key.
fn without_id(message: &[u8]) -> &[u8] {
    match message {
        [0, _, _, _, _, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b' ', ..] => {
            &message[5..]
        }
        text => text,
    }
}

impl std::fmt::Debug for MessageDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageDecoder").field("columns", &self.columns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
