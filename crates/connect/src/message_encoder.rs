//! Encoding of changes as messages: each has a value, and may have a key, such as those of Kafka.

mod json_schema;
mod pieces;
mod row_events;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{can_cast_types, cast, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_delta::{Delta, Epoch, Timestamp, sql_type};

use crate::by_key::{ByKey, Paired, columns_named};
use crate::formats::changes::Changes;
use crate::formats::csv::Csv;
use crate::formats::encode::check_columns;
use crate::formats::feed::{Feed, FeedBatch, envelope_fields};
use crate::formats::{AvroEncoder, Format, ProtobufEncoder};
use crate::messages::Dialect;
use crate::{Error, MESSAGE_OPTIONS, OptionDoc, Options, Result, SchemaRegistry, SinkSpec};
use json_schema::JsonEncoder;
use pieces::Pieces;
use row_events::{RowEventEncoder, refuse_names};

/// The format options of a sink that sends messages.
pub const ENCODER_OPTIONS: [OptionDoc; 12] = [
    OptionDoc {
        name: "format",
        default: Some("json"),
        doc: "Of append-only relations: json (an object a message), avro, protobuf, csv, text (one column) or bytes (one \
              BYTEA column; NULL is a message without a value, as in text). Of others: upsert_json, upsert_avro or \
              upsert_protobuf (the row under its key; a message without a value deletes it), debezium_json or \
              debezium_avro, maxwell_json or canal_json.",
    },
    OptionDoc {
        name: "key",
        default: Some("none"),
        doc: "json, avro, protobuf, csv, text, bytes: the columns, separated by commas, that are the key of a message. Messages with one key \
              stay in order.",
    },
    OptionDoc {
        name: "primary_key",
        default: Some("the key of the relation, if known"),
        doc: "upsert_…, debezium_…, maxwell_json and canal_json: the columns, separated by commas, by which rows are changed and deleted. They are \
              the key of each message.",
    },
    OptionDoc {
        name: "key_format",
        default: Some("avro, if the values are Avro, or else json"),
        doc: "json: the key of a message is an object of the key columns; avro: a record of them; text: the value of the \
              only key column.",
    },
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
        doc: "debezium_…: each delete is followed by a message without a value, so that compaction removes the key.",
    },
    MESSAGE_OPTIONS[4],
    MESSAGE_OPTIONS[5],
    MESSAGE_OPTIONS[6],
    OptionDoc {
        name: "database",
        default: Some("millstream"),
        doc: "maxwell_json, canal_json: the name of the database that the events are of.",
    },
    OptionDoc { name: "table", default: Some("the topic"), doc: "The same for the table." },
];

/// The epoch of changes and its batch time. Some formats show them.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTime {
    /// The epoch.
    pub epoch: Epoch,
    /// Its batch time.
    pub now: Timestamp,
}

/// The encoder of the changes of one sink.
#[derive(Debug)]
pub struct MessageEncoder {
    columns: SchemaRef,
    shape: Shape,
    values: Encoding,
    /// The key columns; empty if messages have no key.
    key: Vec<usize>,
    keys: Encoding,
}

/// The messages that changes become.
#[derive(Debug)]
enum Shape {
    /// One a row of an append-only relation.
    Rows,
    /// The row under its key, or no value for a deleted row.
    Upsert(ByKey),
    /// Debezium's envelopes. True: a message without a value follows each delete.
    Debezium(Feed, bool),
    /// Envelopes that become row events of MySQL.
    RowEvents(Feed),
}

/// The encoding of keys or values.
#[derive(Debug)]
enum Encoding {
    Text,
    Csv(Csv),
    Json,
    Binary(Binary),
    RowEvents(Box<RowEventEncoder>),
}

/// Messages behind the id of their schema.
#[derive(Debug)]
struct Binary {
    encoder: RowEncoder,
    /// Absent until the schema is registered.
    id: Option<u32>,
}

#[derive(Debug)]
enum RowEncoder {
    Avro(AvroEncoder),
    Protobuf(ProtobufEncoder),
    Json(JsonEncoder),
}

impl RowEncoder {
    /// Returns the language of the schema, and its text.
    fn schema(&self) -> (&'static str, &str) {
        match self {
            RowEncoder::Avro(encoder) => ("AVRO", encoder.schema_json()),
            RowEncoder::Protobuf(encoder) => ("PROTOBUF", encoder.schema_text()),
            RowEncoder::Json(encoder) => ("JSON", encoder.schema_text()),
        }
    }

    /// Returns the bytes between the id of the schema and the value: Protobuf says which message of the schema it is.
    fn path(&self) -> &'static [u8] {
        match self {
            RowEncoder::Avro(_) | RowEncoder::Json(_) => &[],
            // The first one.
            RowEncoder::Protobuf(_) => &[0],
        }
    }

    fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, String> {
        match self {
            RowEncoder::Avro(encoder) => encoder.encode(rows),
            RowEncoder::Protobuf(encoder) => encoder.encode(rows),
            RowEncoder::Json(encoder) => encoder.encode(rows),
        }
    }
}

/// Returns true if the values of a type have a text, or are bytes.
pub fn has_text(data_type: &DataType) -> bool {
    data_type.is_binary() || can_cast_types(data_type, &DataType::Utf8View)
}

/// Returns the texts of values, or the bytes that they are, as an array of bytes.
pub fn texts_or_bytes(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        bytes if bytes.is_binary() => cast(column, &DataType::BinaryView),
        _ => cast(&cast(column, &DataType::Utf8View)?, &DataType::BinaryView),
    }
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
    at: EpochTime,
}

/// Encoded messages.
#[derive(Debug, Default)]
pub struct EncodedMessages {
    keys: Option<Pieces>,
    values: Option<Pieces>,
    len: usize,
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
        MessageRows { rows: self.rows.slice(from, len), records, ..*self }
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

impl Encoding {
    fn encode(&self, rows: &RecordBatch, at: EpochTime) -> Result<Pieces, String> {
        match self {
            Encoding::Text => Pieces::of_text(rows.column(0)).map_err(|error| error.to_string()),
            Encoding::Csv(csv) => Pieces::of_csv(csv, rows),
            Encoding::Json => Pieces::of_json(rows),
            Encoding::Binary(binary) => Pieces::of_binary(binary, rows),
            Encoding::RowEvents(events) => events.encode(rows, at),
        }
    }

    fn avro(columns: &SchemaRef, record: &str) -> Result<Encoding> {
        let encoder = RowEncoder::Avro(AvroEncoder::new(columns, record)?);
        Ok(Encoding::Binary(Binary { encoder, id: None }))
    }

    fn protobuf(columns: &SchemaRef) -> Result<Encoding> {
        let encoder = RowEncoder::Protobuf(ProtobufEncoder::new(columns, "Row")?);
        Ok(Encoding::Binary(Binary { encoder, id: None }))
    }

    /// Returns JSON behind the id of its schema, if `registered`.
    fn json(columns: &SchemaRef, registered: bool) -> Encoding {
        match registered {
            true => {
                Encoding::Binary(Binary { encoder: RowEncoder::Json(JsonEncoder::new(columns)), id: None })
            }
            false => Encoding::Json,
        }
    }

    fn is_avro(&self) -> bool {
        matches!(self, Encoding::Binary(Binary { encoder: RowEncoder::Avro(_), .. }))
    }
}

impl MessageEncoder {
    /// Creates the encoder of a sink. `connector` is its connector's name, for messages.
    pub fn new(spec: &SinkSpec, connector: &str) -> Result<MessageEncoder> {
        let (options, columns) = (&spec.options, spec.columns.clone());
        if columns.fields().is_empty() {
            return Err(Error::Invalid(format!(
                "the rows of sink '{}' have no columns, so they can't be messages: select one",
                spec.name
            )));
        }
        let name = options.get("format").unwrap_or("json").to_ascii_lowercase();
        let (shape, values) = match name.as_str() {
            "avro" => (Shape::Rows, Encoding::avro(&columns, "Row")?),
            "upsert_avro" => (Shape::upsert(spec, &name)?, Encoding::avro(&columns, "Row")?),
            "protobuf" => (Shape::Rows, Encoding::protobuf(&columns)?),
            "upsert_protobuf" => (Shape::upsert(spec, &name)?, Encoding::protobuf(&columns)?),
            "debezium_avro" => {
                let envelope = Schema::new(envelope_fields(columns.fields()));
                (Shape::debezium(spec, &name)?, Encoding::avro(&envelope.into(), "Envelope")?)
            }
            "bytes" => (Shape::Rows, bytes_encoding(spec)?),
            _ => match Dialect::named(&name) {
                Some(dialect) => {
                    let feed = Feed::new(&Changes::Debezium, spec, &format!("format '{name}'"), "")?;
                    let events = Box::new(RowEventEncoder::new(spec, dialect, feed.key())?);
                    (Shape::RowEvents(feed), Encoding::RowEvents(events))
                }
                None => (Shape::of(spec, &name)?, text_encoding(spec, &name, connector)?),
            },
        };
        check_options(spec, &name, &shape, &values)?;
        let key = match &shape {
            Shape::Upsert(by_key) => by_key.key().to_vec(),
            Shape::Debezium(feed, _) | Shape::RowEvents(feed) => feed.key().to_vec(),
            Shape::Rows => columns_named("key", options, &columns)?.unwrap_or_default(),
        };
        let keys = keys(spec, &key, values.is_avro())?;
        Ok(MessageEncoder { columns, shape, values, key, keys })
    }

    /// Returns true if [`MessageEncoder::register`] must be called before messages are encoded.
    pub fn needs_registry(&self) -> bool {
        let has_none = |encoding: &Encoding| matches!(encoding, Encoding::Binary(Binary { id: None, .. }));
        has_none(&self.values) || (!self.key.is_empty() && has_none(&self.keys))
    }

    /// Registers the schemas under the subjects `<topic>-value` and `<topic>-key`.
    pub async fn register(&mut self, registry: &dyn SchemaRegistry, topic: &str) -> Result<()> {
        let has_key = !self.key.is_empty();
        for (encoding, of, wanted) in [(&mut self.values, "value", true), (&mut self.keys, "key", has_key)] {
            if let (true, Encoding::Binary(Binary { encoder, id })) = (wanted, encoding) {
                let (kind, schema) = encoder.schema();
                *id = Some(registry.register(&format!("{topic}-{of}"), kind, schema).await?);
            }
        }
        Ok(())
    }

    /// Returns the messages of an epoch's changes, in their order.
    pub fn rows(&self, delta: &Delta, at: EpochTime) -> Result<Vec<MessageRows>> {
        let wrong = |error: ArrowError| Error::Bug(format!("messages got rows of another schema: {error}"));
        let plain = |rows, deletes| MessageRows { rows, records: None, deletes, at };
        let described = |rows, records| MessageRows { rows, records: Some(records), deletes: false, at };
        match &self.shape {
            Shape::Rows => {
                let expand = |chunk: &millstream_delta::Chunk| {
                    let rows = chunk.expand()?;
                    RecordBatch::try_new(self.columns.clone(), rows.columns().to_vec())
                };
                let rows = delta.chunks.iter().map(expand).map(|rows| rows.map(|rows| plain(rows, false)));
                rows.collect::<Result<_, ArrowError>>().map_err(wrong)
            }
            Shape::Upsert(by_key) => {
                let Paired { old, new, places } = by_key.pair(delta)?;
                let put = places.put();
                let take = |rows, places| take_record_batch(rows, &UInt32Array::from(places)).map_err(wrong);
                Ok(vec![plain(take(&old, places.deleted)?, true), plain(take(&new, put)?, false)])
            }
            Shape::Debezium(feed, tombstones) => {
                let mut messages = Vec::new();
                for FeedBatch { rows, records, deletes } in feed.batches(delta)? {
                    messages.push(described(rows.clone(), records));
                    messages.extend((*tombstones && deletes).then(|| plain(rows, true)));
                }
                Ok(messages)
            }
            Shape::RowEvents(feed) => {
                let batches = feed.batches(delta)?.into_iter();
                Ok(batches.map(|batch| described(batch.rows, batch.records)).collect())
            }
        }
    }

    /// Encodes messages.
    pub fn encode(&self, messages: &MessageRows) -> Result<EncodedMessages> {
        let wrong = |error: String| Error::Invalid(format!("rows can't be encoded as messages: {error}"));
        let MessageRows { rows, records, deletes, at } = messages;
        let keys = match self.key.as_slice() {
            [] => None,
            key => {
                let keys = rows.project(key).map_err(|error| wrong(error.to_string()))?;
                self.check_keys(&keys)?;
                Some(self.keys.encode(&keys, *at).map_err(wrong)?)
            }
        };
        let values = match deletes {
            true => None,
            false => Some(self.values.encode(records.as_ref().unwrap_or(rows), *at).map_err(wrong)?),
        };
        let len = rows.num_rows();
        if [&keys, &values].into_iter().flatten().any(|pieces| pieces.bounds.len() != len) {
            return Err(Error::Bug(format!("{len} rows were encoded as another number of messages")));
        }
        Ok(EncodedMessages { keys, values, len })
    }
}

impl MessageEncoder {
    /// Fails for a NULL that would be no key, in a format whose messages change rows by their key.
    fn check_keys(&self, keys: &RecordBatch) -> Result<()> {
        let has_null = keys.columns().iter().any(|column| column.logical_null_count() > 0);
        match (&self.shape, &self.keys) {
            (Shape::Upsert(_) | Shape::Debezium(..) | Shape::RowEvents(_), Encoding::Text) if has_null => {
                Err(Error::Invalid(format!(
                    "the key column '{}' is NULL in a row, and NULL has no text, so that the message would have no key: set \
                 key_format = 'json', or leave such rows out",
                    keys.schema_ref().field(0).name()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Shape {
    fn of(spec: &SinkSpec, format: &str) -> Result<Shape> {
        match format {
            "upsert_json" => Shape::upsert(spec, format),
            "debezium_json" => Shape::debezium(spec, format),
            _ => Ok(Shape::Rows),
        }
    }

    fn upsert(spec: &SinkSpec, format: &str) -> Result<Shape> {
        Ok(Shape::Upsert(ByKey::new(spec, &format!("format '{format}'"), "")?))
    }

    fn debezium(spec: &SinkSpec, format: &str) -> Result<Shape> {
        let tombstones = spec.options.parse("tombstones", "true or false")?.unwrap_or(true);
        let feed = Feed::new(&Changes::Debezium, spec, &format!("format '{format}'"), "")?;
        Ok(Shape::Debezium(feed, tombstones))
    }
}

/// Returns the encoding of values as text.
fn text_encoding(spec: &SinkSpec, format: &str, connector: &str) -> Result<Encoding> {
    if !["json", "csv", "text", "upsert_json", "debezium_json"].contains(&format) {
        return Err(Error::Invalid(format!(
            "option 'format' is '{format}', but connector '{connector}' writes json, avro, protobuf, csv, text, \
             bytes, upsert_json, upsert_avro, upsert_protobuf, debezium_json, debezium_avro, maxwell_json or canal_json"
        )));
    }
    let registered = spec.options.get("schema.registry").is_some()
        && !has_avro_keys(&spec.options)
        && ["json", "upsert_json"].contains(&format);
    let mut options = spec.options.clone();
    options.0.insert("format".into(), format.into());
    let format = Format::from_options(&options, "")?;
    check_columns(&format, &spec.columns)?;
    Ok(match format {
        Format::Text => Encoding::Text,
        Format::Csv(csv) => Encoding::Csv(Csv { header: false, ..csv }),
        Format::Json | Format::Changes(_) | Format::Parquet => Encoding::json(&spec.columns, registered),
    })
}

/// Returns the encoding of the only column as it is.
fn bytes_encoding(spec: &SinkSpec) -> Result<Encoding> {
    match spec.columns.fields().as_ref() {
        [only] if only.data_type().is_binary() => Ok(Encoding::Text),
        [only] => Err(Error::Invalid(format!(
            "format 'bytes' writes one column of type BYTEA, but '{}' of sink '{}' is {}: cast it, or set format = 'text'",
            only.name(),
            spec.name,
            sql_type(only.data_type())
        ))),
        all => Err(Error::Invalid(format!(
            "format 'bytes' writes one column of type BYTEA, but sink '{}' has {}: select one, or set another format",
            spec.name,
            all.len()
        ))),
    }
}

/// Returns the encoding of keys.
fn keys(spec: &SinkSpec, key: &[usize], values_are_avro: bool) -> Result<Encoding> {
    let known: &[&'static str] =
        if values_are_avro { &["avro", "json", "text"] } else { &["json", "text", "avro"] };
    let format = spec.options.choice("key_format", known)?;
    let columns: SchemaRef = spec.columns.project(key).map_err(|error| Error::Bug(error.to_string()))?.into();
    match format {
        "text" if key.len() != 1 => Err(Error::Invalid(format!(
            "option 'key_format' is 'text', which is for one key column, but the messages of sink '{}' have {}: use json",
            spec.name,
            key.len()
        ))),
        "text" => match columns.fields().as_ref() {
            [field] if !has_text(field.data_type()) => Err(Error::Invalid(format!(
                "option 'key_format' is 'text', but column '{}' has type {}, which has no text: use json",
                field.name(),
                sql_type(field.data_type())
            ))),
            _ => Ok(Encoding::Text),
        },
        "avro" if !key.is_empty() => Encoding::avro(&columns, "Key"),
        _ => check_columns(&Format::Json, &columns).map(|()| Encoding::Json),
    }
}

/// Fails for options that the format doesn't have, and for a relation whose changes it can't express.
fn check_options(spec: &SinkSpec, name: &str, shape: &Shape, values: &Encoding) -> Result<()> {
    let refuse = |options: &[&str]| refuse(&spec.options, options, name);
    if !matches!(values, Encoding::Csv(_)) {
        refuse(&["delimiter", "null"])?;
    }
    if !matches!(shape, Shape::RowEvents(_)) {
        refuse_names(spec, name)?;
    }
    match shape {
        Shape::Debezium(..) => refuse(&["key"])?,
        Shape::Upsert(_) | Shape::RowEvents(_) => refuse(&["key", "tombstones"])?,
        Shape::Rows if !spec.append_only => {
            return Err(Error::Invalid(format!(
                "the rows that sink '{}' delivers are updated or deleted, which messages of format '{name}' can't express: \
                 set format = 'upsert_json', 'debezium_json', or the same in Avro, which change rows by their key, or \
                 deliver a query FOR EACH BATCH, which is append-only",
                spec.name
            )));
        }
        Shape::Rows => refuse(&["primary_key", "tombstones"])?,
    }
    match (
        spec.options.get("schema.registry").is_some(),
        matches!(values, Encoding::Binary(_)) || has_avro_keys(&spec.options),
    ) {
        (false, true) => Err(Error::Invalid(format!(
            "format '{name}' of sink '{}' registers its schemas: add schema.registry = 'http://host:8081'",
            spec.name
        ))),
        (true, false) => refuse(&["schema.registry"]),
        _ => Ok(()),
    }
}

fn has_avro_keys(options: &Options) -> bool {
    options.get("key_format").is_some_and(|format| format.eq_ignore_ascii_case("avro"))
}

/// Fails if an option is given that a format doesn't have.
fn refuse(options: &Options, names: &[&str], format: &str) -> Result<()> {
    match names.iter().find(|name| options.get(name).is_some()) {
        None => Ok(()),
        Some(name) => {
            let instead = match *name {
                "key" => "the key of its messages is that of the rows, or option primary_key",
                "primary_key" => "name the columns of the messages' key with option key",
                _ => "leave it out",
            };
            Err(Error::Invalid(format!("option '{name}' isn't for format '{format}': {instead}")))
        }
    }
}

#[cfg(test)]
mod tests;
