//! Encoding of changes as messages: each has a value, and may have a key, such as those of Kafka.

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use millstream_delta::Delta;

use crate::by_key::{ByKey, Paired};
use crate::formats::changes::Changes;
use crate::formats::csv::Csv;
use crate::formats::encode::{check_columns, encode_csv, encode_json};
use crate::formats::feed::{Feed, FeedBatch};
use crate::formats::{Format, OP_FIELD};
use crate::{Error, OptionDoc, Options, Result, SinkSpec};

/// The format options of a sink that sends messages.
pub const MESSAGE_OPTIONS: [OptionDoc; 8] = [
    OptionDoc {
        name: "format",
        default: Some("json"),
        doc: "Of append-only relations: json (an object a message), csv or text (one column). Of others: upsert (the \
              row as JSON under its key; a message without a value deletes it), debezium_json or upsert_json.",
    },
    OptionDoc {
        name: "key",
        default: Some("none"),
        doc: "json, csv, text: the columns, separated by commas, that are the key of a message. Messages with one key \
              stay in order.",
    },
    OptionDoc {
        name: "primary_key",
        default: Some("the key of the relation, if known"),
        doc: "upsert, debezium_json and upsert_json: the columns, separated by commas, by which rows are changed and \
              deleted. They are the key of each message.",
    },
    OptionDoc {
        name: "key_format",
        default: Some("json"),
        doc: "json: the key of a message is an object of the key columns; text: the value of the only key column.",
    },
    OP_FIELD,
    OptionDoc {
        name: "delimiter",
        default: Some("','"),
        doc: "csv: the character between two fields; '\\t' is a tab.",
    },
    OptionDoc {
        name: "null",
        default: Some("'', the empty field"),
        doc: "csv: the text that stands for NULL.",
    },
    OptionDoc {
        name: "tombstones",
        default: Some("true"),
        doc: "debezium_json: each delete is followed by a message without a value, so that compaction removes the key.",
    },
];

/// The encoder of the changes of one sink.
#[derive(Debug)]
pub struct MessageEncoder {
    columns: SchemaRef,
    values: Values,
    /// The key columns; empty if messages have no key.
    key: Vec<usize>,
    key_is_text: bool,
}

/// The encoding of values.
#[derive(Debug)]
enum Values {
    Text,
    Csv(Csv),
    Json,
    /// The row under its key, or no value for a deleted row.
    Upsert(ByKey),
    /// Records that say what they change. True: a message without a value follows each delete.
    Feed(Feed, bool),
}

/// Changes in the order of their messages, before they are encoded.
#[derive(Clone, Debug)]
pub struct MessageRows {
    /// The rows that the messages describe: one message a row.
    pub rows: RecordBatch,
    /// The values, if they aren't the rows themselves.
    records: Option<RecordBatch>,
    /// True if the messages have no value.
    deletes: bool,
}

/// Encoded messages.
#[derive(Debug, Default)]
pub struct EncodedMessages {
    keys: Option<Pieces>,
    values: Option<Pieces>,
    len: usize,
}

/// Byte strings in one buffer; each may be absent.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// The start and the end of each.
    bounds: Vec<Option<(usize, usize)>>,
}

impl MessageRows {
    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns some of the messages.
    pub fn slice(&self, from: usize, len: usize) -> MessageRows {
        let records = self.records.as_ref().map(|records| records.slice(from, len));
        MessageRows { rows: self.rows.slice(from, len), records, deletes: self.deletes }
    }
}

impl EncodedMessages {
    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the key of a message, if it has one.
    pub fn key(&self, at: usize) -> Option<&[u8]> {
        self.keys.as_ref().and_then(|keys| keys.get(at))
    }

    /// Returns the value of a message, if it has one.
    pub fn value(&self, at: usize) -> Option<&[u8]> {
        self.values.as_ref().and_then(|values| values.get(at))
    }
}

impl Pieces {
    fn get(&self, at: usize) -> Option<&[u8]> {
        let (start, end) = (*self.bounds.get(at)?)?;
        self.bytes.get(start..end)
    }

    /// Returns the lines of a buffer without their ends.
    fn of_lines(bytes: Vec<u8>) -> Pieces {
        let mut start = 0;
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end);
        let bounds = ends.map(|end| Some((std::mem::replace(&mut start, end + 1), end))).collect();
        Pieces { bytes, bounds }
    }

    /// Returns the values of a column as text; NULL is absent.
    fn of_text(column: &dyn Array) -> Result<Pieces, ArrowError> {
        let text = cast(column, &DataType::Utf8View)?;
        let mut pieces = Pieces::default();
        for value in text.as_string_view() {
            let start = pieces.bytes.len();
            pieces.bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
            pieces.bounds.push(value.map(|_| (start, pieces.bytes.len())));
        }
        Ok(pieces)
    }

    fn of_csv(csv: &Csv, rows: &RecordBatch) -> Result<Pieces, String> {
        let mut pieces = Pieces::default();
        // A field may contain line breaks, so each row is written by itself.
        for row in 0..rows.num_rows() {
            let start = pieces.bytes.len();
            encode_csv(csv, &[rows.slice(row, 1)], &mut pieces.bytes)?;
            let end = pieces.bytes.len();
            let ended = pieces.bytes.ends_with(b"\n");
            pieces.bounds.push(Some((start, end - usize::from(ended && end > start))));
        }
        Ok(pieces)
    }

    fn of_json(rows: &RecordBatch) -> Result<Pieces, String> {
        let mut bytes = Vec::new();
        encode_json(std::slice::from_ref(rows), &mut bytes)?;
        Ok(Pieces::of_lines(bytes))
    }
}

impl MessageEncoder {
    /// Creates the encoder of a sink. `connector` is its connector's name, for messages.
    pub fn new(spec: &SinkSpec, connector: &str) -> Result<MessageEncoder> {
        let columns = spec.columns.clone();
        if columns.fields().is_empty() {
            return Err(Error::Invalid(format!(
                "the rows of sink '{}' have no columns, so they can't be messages: select one",
                spec.name
            )));
        }
        let values = Values::of(spec, connector)?;
        let key = match &values {
            Values::Upsert(by_key) => by_key.key().to_vec(),
            Values::Feed(feed, _) => feed.key().to_vec(),
            _ => key_columns(&spec.options, &columns)?,
        };
        let key_is_text = spec.options.choice("key_format", &["json", "text"])? == "text";
        if key_is_text && key.len() != 1 {
            return Err(Error::Invalid(format!(
                "option 'key_format' is 'text', which is for one key column, but the messages of sink '{}' have {}: \
                 use json",
                spec.name,
                key.len()
            )));
        }
        if !key_is_text && !key.is_empty() {
            let keys = columns.project(&key).map_err(|error| Error::Bug(error.to_string()))?;
            check_columns(&Format::Json, &keys.into())?;
        }
        Ok(MessageEncoder { columns, values, key, key_is_text })
    }

    /// Returns the messages of an epoch's changes, in their order.
    pub fn rows(&self, delta: &Delta) -> Result<Vec<MessageRows>> {
        let wrong = |error: ArrowError| Error::Bug(format!("messages got rows of another schema: {error}"));
        let plain = |rows, deletes| MessageRows { rows, records: None, deletes };
        match &self.values {
            Values::Text | Values::Csv(_) | Values::Json => {
                let expand = |chunk: &millstream_delta::Chunk| {
                    let rows = chunk.expand()?;
                    RecordBatch::try_new(self.columns.clone(), rows.columns().to_vec())
                };
                let rows = delta.chunks.iter().map(expand).map(|rows| rows.map(|rows| plain(rows, false)));
                rows.collect::<Result<_, ArrowError>>().map_err(wrong)
            }
            Values::Upsert(by_key) => {
                let Paired { old, new, places } = by_key.pair(delta)?;
                let put = places.put();
                let take = |rows, places| take_record_batch(rows, &UInt32Array::from(places)).map_err(wrong);
                Ok(vec![plain(take(&old, places.deleted)?, true), plain(take(&new, put)?, false)])
            }
            Values::Feed(feed, tombstones) => {
                let mut messages = Vec::new();
                for FeedBatch { rows, records } in feed.batches(delta)? {
                    let deleted = *tombstones && is_of_deletes(&records);
                    messages.push(MessageRows { rows: rows.clone(), records: Some(records), deletes: false });
                    messages.extend(deleted.then(|| plain(rows, true)));
                }
                Ok(messages)
            }
        }
    }

    /// Encodes messages.
    pub fn encode(&self, messages: &MessageRows) -> Result<EncodedMessages> {
        let wrong = |error: String| Error::Invalid(format!("rows can't be encoded as messages: {error}"));
        let MessageRows { rows, records, deletes } = messages;
        let keys = match self.key.as_slice() {
            [] => None,
            [only] if self.key_is_text => {
                Some(Pieces::of_text(rows.column(*only)).map_err(|error| error.to_string()))
            }
            key => Some(
                rows.project(key).map_err(|error| error.to_string()).and_then(|keys| Pieces::of_json(&keys)),
            ),
        };
        let values = match (&self.values, records) {
            _ if *deletes => None,
            (_, Some(records)) => Some(Pieces::of_json(records)),
            (Values::Csv(csv), _) => Some(Pieces::of_csv(csv, rows)),
            (Values::Text, _) => Some(Pieces::of_text(rows.column(0)).map_err(|error| error.to_string())),
            _ => Some(Pieces::of_json(rows)),
        };
        let (keys, values) = (keys.transpose().map_err(wrong)?, values.transpose().map_err(wrong)?);
        let len = rows.num_rows();
        if [&keys, &values].into_iter().flatten().any(|pieces| pieces.bounds.len() != len) {
            return Err(Error::Bug(format!("{len} rows were encoded as another number of messages")));
        }
        Ok(EncodedMessages { keys, values, len })
    }
}

impl Values {
    fn of(spec: &SinkSpec, connector: &str) -> Result<Values> {
        let options = &spec.options;
        let name = options.get("format").unwrap_or("json").to_ascii_lowercase();
        let values = match name.as_str() {
            "upsert" => {
                refuse(options, &["op_field", "delimiter", "null"], &name)?;
                check_columns(&Format::Json, &spec.columns)?;
                Values::Upsert(ByKey::new(spec, "format 'upsert'", "")?)
            }
            _ => {
                let mut with_format = options.clone();
                with_format.0.insert("format".into(), name.clone());
                let format = Format::from_options(&with_format, "")?;
                check_columns(&format, &spec.columns)?;
                match format {
                    Format::Text => Values::Text,
                    Format::Csv(csv) => Values::Csv(Csv { header: false, ..csv }),
                    Format::Json => Values::Json,
                    Format::Changes(changes) => {
                        let tombstones = options.parse("tombstones", "true or false")?.unwrap_or(true);
                        let tombstones = tombstones && changes == Changes::Debezium;
                        Values::Feed(Feed::new(&changes, spec)?, tombstones)
                    }
                    Format::Parquet => {
                        return Err(Error::Invalid(format!(
                            "option 'format' is 'parquet', which is for whole files only: json, csv, text, upsert, \
                             debezium_json or upsert_json was expected by connector '{connector}'"
                        )));
                    }
                }
            }
        };
        let is_debezium = name == "debezium_json";
        if !is_debezium {
            refuse(options, &["tombstones"], &name)?;
        }
        match &values {
            Values::Upsert(_) | Values::Feed(..) => refuse(options, &["key"], &name)?,
            _ if !spec.append_only => {
                return Err(Error::Invalid(format!(
                    "the rows that sink '{}' delivers are updated or deleted, which messages of format '{name}' can't \
                     express: set format = 'upsert', 'debezium_json' or 'upsert_json', which change rows by their \
                     key, or deliver a query FOR EACH BATCH, which is append-only",
                    spec.name
                )));
            }
            _ => refuse(options, &["primary_key"], &name)?,
        }
        Ok(values)
    }
}

/// Fails if an option is given that a format doesn't have.
fn refuse(options: &Options, names: &[&str], format: &str) -> Result<()> {
    match names.iter().find(|name| options.get(name).is_some()) {
        None => Ok(()),
        Some(name) => {
            let instead = match *name {
                "key" => ": the key of its messages is that of the rows, or option primary_key",
                "primary_key" => ": name the columns of the messages' key with option key",
                _ => ": leave it out",
            };
            Err(Error::Invalid(format!("option '{name}' isn't for format '{format}'{instead}")))
        }
    }
}

/// Returns the columns of option `key`.
fn key_columns(options: &Options, columns: &SchemaRef) -> Result<Vec<usize>> {
    crate::by_key::columns_named("key", options, columns).map(Option::unwrap_or_default)
}

/// Returns true if the records of a feed are Debezium's deletes.
fn is_of_deletes(records: &RecordBatch) -> bool {
    records.column_by_name("after").is_some_and(|after| after.null_count() == after.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Schema};
    use millstream_delta::Chunk;

    use super::*;

    fn rows(rows: &[(i64, Option<&str>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringViewArray>()),
        ];
        let fields = vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8View, true)];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn spec(options: &[(&str, &str)], append_only: bool) -> SinkSpec {
        SinkSpec {
            name: "s".into(),
            columns: rows(&[]).schema(),
            append_only,
            key: (!append_only).then(|| vec![0]),
            auto_pace: false,
            options: Options(
                options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            ),
        }
    }

    fn sent(spec: &SinkSpec, delta: &Delta) -> Vec<String> {
        let encoder = MessageEncoder::new(spec, "c").unwrap();
        let mut sent = Vec::new();
        for rows in encoder.rows(delta).unwrap() {
            for from in 0..rows.len() {
                let messages = encoder.encode(&rows.slice(from, 1)).unwrap();
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
                sent.push(format!("{} {}", text(messages.key(0)), text(messages.value(0))));
            }
            assert_eq!(encoder.encode(&rows).unwrap().len(), rows.len());
        }
        sent
    }

    fn changes() -> Delta {
        let mut delta = Delta::insert(rows(&[(1, Some("b")), (3, None)]));
        delta.push(Chunk::delete(rows(&[(1, Some("a")), (2, Some("x"))])));
        delta
    }

    #[test]
    fn rows_have_a_key_of_columns() {
        let delta = Delta::insert(rows(&[(1, Some("a\nb,\"c\"")), (2, None)]));
        let check = |options: &[(&str, &str)], expect: [&str; 2]| {
            assert_eq!(sent(&spec(options, true), &delta), expect, "{options:?}");
        };
        check(&[], ["- {\"k\":1,\"v\":\"a\\nb,\\\"c\\\"\"}", "- {\"k\":2,\"v\":null}"]);
        check(
            &[("key", "v, k"), ("format", "csv")],
            ["{\"v\":\"a\\nb,\\\"c\\\"\",\"k\":1} 1,\"a\nb,\"\"c\"\"\"", "{\"v\":null,\"k\":2} 2,"],
        );
        check(
            &[("key", "v"), ("key_format", "text")],
            ["a\nb,\"c\" {\"k\":1,\"v\":\"a\\nb,\\\"c\\\"\"}", "- {\"k\":2,\"v\":null}"],
        );
    }

    #[test]
    fn deletes_are_messages_without_a_value() {
        let expect = ["{\"k\":2} -", "{\"k\":1} {\"k\":1,\"v\":\"b\"}", "{\"k\":3} {\"k\":3,\"v\":null}"];
        assert_eq!(sent(&spec(&[("format", "upsert")], false), &changes()), expect);
        let expect = [
            "2 {\"before\":{\"k\":2,\"v\":\"x\"},\"after\":null,\"op\":\"d\"}",
            "2 -",
            "1 {\"before\":{\"k\":1,\"v\":\"a\"},\"after\":{\"k\":1,\"v\":\"b\"},\"op\":\"u\"}",
            "3 {\"before\":null,\"after\":{\"k\":3,\"v\":null},\"op\":\"c\"}",
        ];
        let options = [("format", "debezium_json"), ("key_format", "text")];
        assert_eq!(sent(&spec(&options, false), &changes()), expect);
        let options = [("format", "upsert_json"), ("op_field", "o")];
        let expect = [
            "{\"k\":2} {\"o\":\"delete\",\"k\":2}",
            "{\"k\":1} {\"o\":\"upsert\",\"k\":1,\"v\":\"b\"}",
            "{\"k\":3} {\"o\":\"upsert\",\"k\":3,\"v\":null}",
        ];
        assert_eq!(sent(&spec(&options, false), &changes()), expect);
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let error = |options: &[(&str, &str)], append_only| {
            MessageEncoder::new(&spec(options, append_only), "c").map(drop).unwrap_err().to_string()
        };
        assert!(error(&[], false).contains("updated or deleted"));
        assert!(error(&[("format", "parquet")], true).contains("whole files only"));
        assert!(error(&[("format", "text")], true).contains("writes one column"));
        assert!(error(&[("key", "x")], true).contains("option 'key' names column 'x', but there are k, v"));
        assert!(error(&[("primary_key", "k")], true).contains("with option key"));
        assert!(error(&[("format", "upsert"), ("key", "k")], false).contains("primary_key"));
        assert!(error(&[("key_format", "text")], true).contains("have 0"));
        assert!(error(&[("tombstones", "false")], true).contains("isn't for format 'json'"));
        assert!(error(&[("format", "upsert"), ("delimiter", ";")], false).contains("leave it out"));
    }
}
