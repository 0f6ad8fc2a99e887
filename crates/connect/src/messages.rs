//! Decoding of messages: records that arrive one by one, each with a position of its own, such as those of Kafka.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;

use crate::formats::changes::tell_origins;
use crate::formats::decode::{Decode, Decoded, decode_run};
use crate::formats::framing::{BadRecord, Record, Run};
use crate::receiver::Layout;
use crate::{BadRow, Error, Result, SourceSpec};

/// Messages of one split, in order, to be decoded together.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// The position of each record in the split.
    positions: Vec<u64>,
    bad: Vec<BadRow>,
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
    layout: Layout,
    decoder: Box<dyn Decode>,
    passes_over: fn(&[u8]) -> bool,
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
}

impl MessageDecoder {
    /// Creates the decoder of a source.
    pub fn new(spec: &SourceSpec) -> Result<MessageDecoder> {
        let layout = Layout::new(spec)?;
        let Some(decoder) = layout.decoder()? else {
            return Err(Error::Invalid(
                "option 'header' is 'true', but each message is one record, and none of them is a header: leave it out"
                    .into(),
            ));
        };
        let passes_over = layout.passes_over();
        Ok(MessageDecoder { layout, decoder, passes_over, message_bytes_max: spec.max_record_bytes })
    }

    /// Returns the declared columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.layout.columns
    }

    /// Returns true if the rows are changes by key.
    pub fn brings_changes(&self) -> bool {
        self.layout.brings_changes()
    }

    /// Adds a message of a split. `value` is `None` for a message without a value, a tombstone.
    pub fn add(&self, to: &mut Messages, split: &Arc<str>, position: u64, value: Option<&[u8]>) {
        // Only a feed that skips `null` skips a message without a value.
        if (self.passes_over)(value.unwrap_or(b"null")) {
            return;
        }
        let reason = match value {
            None => {
                "the message has no value: a tombstone deletes a key, and the source's format has none".into()
            }
            Some(value) if value.len() > self.message_bytes_max => {
                format!("the record is longer than max_record_bytes, which is {}", self.message_bytes_max)
            }
            Some(value) => {
                let start = to.bytes.len() as u32;
                to.bytes.extend_from_slice(value);
                let end = to.bytes.len() as u32;
                // Text is validated across adjacent records. Two invalid ones must not become a valid one.
                to.bytes.push(b'\n');
                to.records.push(Record { start, end, next: end + 1 });
                to.positions.push(position);
                return;
            }
        };
        to.bad.push(BadRow::of(split, BadRecord::new(position, reason, value.unwrap_or_default())));
    }

    /// Decodes the messages of a split.
    pub fn decode(&self, split: &Arc<str>, messages: Messages) -> Result<DecodedMessages> {
        let Messages { bytes, records, positions, mut bad } = messages;
        let block = Buffer::from_vec(bytes);
        let starts: Vec<u32> = records.iter().map(|record| record.start).collect();
        let position_at = |start: u32| {
            let at = starts.partition_point(|known| *known < start);
            positions.get(at).copied().unwrap_or_default()
        };
        let run = Run { block: block.clone(), offset: 0, records, bad: Vec::new() };
        let Decoded { mut columns, records: good, bad: undecoded } =
            decode_run(self.decoder.as_ref(), run).map_err(Error::Bug)?;
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
        if !good.is_empty() && self.brings_changes() {
            tell_origins(&mut columns, &good, (&block, &positions), split)?;
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

impl std::fmt::Debug for MessageDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.layout.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::{Health, Options};

    fn decoder(format: &str, key: Vec<usize>) -> MessageDecoder {
        let columns =
            vec![Field::new("id", DataType::Int64, true), Field::new("t", DataType::Utf8View, true)];
        let options = Options([("format".to_string(), format.to_string())].into());
        let spec = SourceSpec {
            name: "s".into(),
            columns: Some(Arc::new(Schema::new(columns))),
            key,
            options,
            max_record_bytes: 30,
            health: Health::default(),
        };
        MessageDecoder::new(&spec).unwrap()
    }

    fn decoded(decoder: &MessageDecoder, values: &[Option<&[u8]>]) -> DecodedMessages {
        let (split, mut messages) = (Arc::from("t/0"), Messages::default());
        for (position, value) in values.iter().enumerate() {
            decoder.add(&mut messages, &split, 10 + 2 * position as u64, *value);
        }
        decoder.decode(&split, messages).unwrap()
    }

    #[test]
    fn each_message_is_a_row_or_a_bad_row_under_its_position() {
        let decoder = decoder("json", Vec::new());
        let values: [Option<&[u8]>; 7] = [
            Some(b"{\"id\": 1}"),
            Some(b"{\"id\": "),
            None,
            Some(b"{\"id\": 2, \"t\": \"\xc3\"}"),
            Some(b"{\"id\": 3, \"t\": \"x\\ny\"}"),
            Some(b"{\"id\": 4, \"t\": \"0123456789ABC\"}"),
            Some(b"{\"id\": 5}\n"),
        ];
        let found = decoded(&decoder, &values);
        assert_eq!(found.columns[0].as_primitive::<Int64Type>().values(), &[1, 3, 5]);
        assert_eq!(found.positions, [10, 18, 22]);
        let bad: Vec<u64> = found.bad_rows.iter().map(|bad| bad.offset).collect();
        assert_eq!(bad, [12, 14, 16, 20]);
        assert!(found.bad_rows[1].reason.contains("tombstone"), "{:?}", found.bad_rows[1]);
        assert!(found.bad_rows[3].reason.contains("max_record_bytes"), "{:?}", found.bad_rows[3]);
    }

    #[test]
    fn deletes_name_the_position_of_their_message() {
        let decoder = decoder("upsert_json", vec![0]);
        let values: [Option<&[u8]>; 3] =
            [Some(b"{\"id\": 1, \"t\": \"a\"}"), Some(b"{\"id\": 2}"), Some(b"{\"id\": 1, \"_op\": \"d\"}")];
        let found = decoded(&decoder, &values);
        assert_eq!(decoded(&decoder, &[None]).bad_rows.len(), 1);
        let origins = found.columns[2].as_struct();
        assert_eq!(origins.column(1).as_primitive::<Int64Type>().value(2), 14);
        assert_eq!(found.positions, [10, 12, 14]);
    }
}
