//! Records of Kafka as rows: the declared columns, and hidden ones that describe the record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{
    Array, ArrayRef, BinaryViewBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, StringViewBuilder,
    StructBuilder, TimestampMicrosecondBuilder, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use millstream_connect::{
    BadRow, DecodedMessages, Error, HIDDEN, Message as Read, MessageDecoder, MessageFormat, Messages,
    Options, Result, SchemaRegistry, SourceSpec, deleted_field,
};
use millstream_delta::Span;
use millstream_registry::Registry;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use crate::partition::Partition;

/// The zone of record times.
const UTC: &str = "UTC";

/// The hidden columns, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Headers,
}

const ALL: [Hidden; 6] =
    [Hidden::Topic, Hidden::Partition, Hidden::Offset, Hidden::Timestamp, Hidden::Key, Hidden::Headers];

impl Hidden {
    fn name(self) -> &'static str {
        match self {
            Hidden::Topic => "_topic",
            Hidden::Partition => "_partition",
            Hidden::Offset => "_offset",
            Hidden::Timestamp => "_timestamp",
            Hidden::Key => "_key",
            Hidden::Headers => "_headers",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Hidden::Topic => DataType::Utf8View,
            Hidden::Partition => DataType::Int32,
            Hidden::Offset => DataType::Int64,
            Hidden::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Hidden::Key => DataType::BinaryView,
            Hidden::Headers => DataType::List(header_item()),
        }
    }
}

impl Hidden {
    /// Returns the column of a word after INCLUDE.
    fn of(word: &str) -> Option<Hidden> {
        let word = if word == "header" { "headers" } else { word };
        ALL.into_iter().find(|hidden| hidden.name().strip_prefix('_') == Some(word))
    }

    fn field(self, name: &str) -> Field {
        Field::new(name, self.data_type(), true)
    }
}

/// Returns the columns that options include: those of INCLUDE in their order, then those of WITH by name.
fn included(options: &Options) -> Result<Vec<(&str, Hidden)>> {
    let mut all = Vec::new();
    for (option, value) in &options.0 {
        let Some(name) = option.strip_prefix("include.") else { continue };
        let (word, place) = match value.split_once('#') {
            Some((word, place)) => (word, place.parse().unwrap_or(usize::MAX)),
            None => (value.as_str(), usize::MAX),
        };
        let hidden = Hidden::of(&word.to_lowercase()).ok_or_else(|| {
            Error::Invalid(format!(
                "column '{name}' includes '{word}', but topic, partition, offset, timestamp, key or headers was expected"
            ))
        })?;
        all.push((place, name, hidden));
    }
    all.sort_by_key(|(place, ..)| *place);
    Ok(all.into_iter().map(|(_, name, hidden)| (name, hidden)).collect())
}

/// Returns the columns that sources have after the declared ones.
pub(crate) fn more_columns(options: &Options) -> Result<Vec<FieldRef>> {
    Ok(beside_declared(&included(options)?).map(|(field, _)| field).collect())
}

/// Returns the included columns, then the hidden ones, each with the part of the record that it is.
fn beside_declared(included: &[(&str, Hidden)]) -> impl Iterator<Item = (FieldRef, Hidden)> {
    let metadata = || [(HIDDEN.to_string(), "true".to_string())].into();
    let hidden =
        ALL.into_iter().filter(move |hidden| included.iter().all(|(name, _)| *name != hidden.name()));
    let hidden = hidden.map(move |hidden| {
        let field = hidden.field(hidden.name()).with_metadata(metadata());
        (Arc::new(field), hidden)
    });
    included.iter().map(|(name, hidden)| (Arc::new(hidden.field(name)), *hidden)).chain(hidden)
}

fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8View, false),
        Field::new("value", DataType::BinaryView, true),
    ])
}

fn header_item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(header_fields()), true))
}

/// The columns of a source, and the decoder of its records.
pub(crate) struct Columns {
    decoder: MessageDecoder,
    /// The declared columns, then the hidden ones.
    pub schema: SchemaRef,
    /// The columns of the batches: in change feeds one more.
    batch: SchemaRef,
    /// The parts of the record that are the columns after the declared ones.
    more: Vec<Hidden>,
    wanted: Wanted,
}

/// The parts of records that some query reads: others are not copied.
#[derive(Debug)]
struct Wanted {
    times: AtomicBool,
    keys: AtomicBool,
    headers: AtomicBool,
}

impl Default for Wanted {
    fn default() -> Wanted {
        let yes = || AtomicBool::new(true);
        Wanted { times: yes(), keys: yes(), headers: yes() }
    }
}

impl Columns {
    /// Evaluates the declared columns and the format. A declared column hides the hidden one of its name.
    pub fn of(spec: &SourceSpec) -> Result<Columns> {
        let format = format(spec)?;
        let mut spec = spec.clone();
        let included = included(&spec.options)?;
        // A source that is opened again declares the included columns, too.
        if let Some(columns) = &spec.columns {
            let is_declared = |field: &&FieldRef| included.iter().all(|(name, _)| name != field.name());
            let declared: Vec<FieldRef> = columns.fields().iter().filter(is_declared).cloned().collect();
            spec.columns = Some(Arc::new(Schema::new(declared)));
        }
        let decoder = MessageDecoder::new(&spec, format)?;
        let declared = decoder.schema();
        if let Some((name, _)) = included.iter().find(|(name, _)| declared.field_with_name(name).is_ok()) {
            return Err(Error::Invalid(format!(
                "column '{name}' is of the records' values, and included: name the included column otherwise, as in \
                 INCLUDE key AS k"
            )));
        }
        let is_new = |(field, _): &(FieldRef, Hidden)| declared.field_with_name(field.name()).is_err();
        let (beside, more): (Vec<FieldRef>, Vec<Hidden>) = beside_declared(&included).filter(is_new).unzip();
        let fields: Vec<FieldRef> = declared.fields().iter().cloned().chain(beside).collect();
        let schema = Arc::new(Schema::new(fields.clone()));
        let batch = match decoder.brings_changes() {
            true => {
                let nullable = |field: FieldRef| Arc::new(field.as_ref().clone().with_nullable(true));
                let mut fields: Vec<FieldRef> = fields.into_iter().map(nullable).collect();
                fields.push(Arc::new(deleted_field()));
                Arc::new(Schema::new(fields))
            }
            false => schema.clone(),
        };
        Ok(Columns { decoder, schema, batch, more, wanted: Wanted::default() })
    }

    /// Sets the columns that must be valid in later rows.
    pub fn want(&self, columns: &[bool]) {
        let first = self.schema.fields().len() - self.more.len();
        let is_wanted = |kind: Hidden| {
            let mut of_kind = self.more.iter().enumerate().filter(|(_, other)| **other == kind);
            of_kind.any(|(place, _)| columns.get(first + place).copied().unwrap_or(true))
        };
        self.wanted.times.store(is_wanted(Hidden::Timestamp), Ordering::Relaxed);
        self.wanted.keys.store(is_wanted(Hidden::Key), Ordering::Relaxed);
        self.wanted.headers.store(is_wanted(Hidden::Headers), Ordering::Relaxed);
    }

    /// Returns the number of a column that has the records' offsets, unless declared columns hide it.
    pub fn offsets(&self) -> Option<usize> {
        let first = self.schema.fields().len() - self.more.len();
        self.more.iter().position(|hidden| *hidden == Hidden::Offset).map(|place| first + place)
    }

    pub fn brings_changes(&self) -> bool {
        self.decoder.brings_changes()
    }
}

/// Evaluates the format of a source's messages.
pub(crate) fn format(spec: &SourceSpec) -> Result<MessageFormat> {
    let registry = Registry::from_options(&spec.options)?;
    MessageFormat::new(spec, registry.map(|registry| Arc::new(registry) as Arc<dyn SchemaRegistry>))
}

/// Waits for a registry, on a thread that may wait.
pub(crate) fn wait<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.block_on(answer),
        Err(error) => Err(Error::Bug(format!("Kafka is read on a thread of no runtime: {error}"))),
    }
}

/// Adds the headers of a record. Returns their size in bytes.
fn add_headers(all: &mut ListBuilder<StructBuilder>, message: &BorrowedMessage<'_>) -> usize {
    let mut bytes = 0;
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        let of = all.values();
        if let Some(keys) = of.field_builder::<StringViewBuilder>(0) {
            keys.append_value(header.key);
        }
        if let Some(values) = of.field_builder::<BinaryViewBuilder>(1) {
            values.append_option(header.value);
        }
        of.append(true);
        bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
    }
    all.append(true);
    bytes
}

/// Returns the values of a column, or NULLs if no query reads it.
fn array<A: Array + 'static>(values: Option<A>, of: Hidden, len: usize) -> ArrayRef {
    match values {
        Some(values) => Arc::new(values),
        None => new_null_array(&of.data_type(), len),
    }
}

/// Consecutive records of one partition.
pub(crate) struct Gathered {
    partition: Partition,
    split: Arc<str>,
    from: u64,
    to: u64,
    messages: Messages,
    offsets: Vec<u64>,
    /// The time of the last record, in microseconds since 1970.
    newest: Option<i64>,
    /// Absent if no query reads them, as keys and headers are.
    times: Option<TimestampMicrosecondBuilder>,
    keys: Option<BinaryViewBuilder>,
    headers: Option<ListBuilder<StructBuilder>>,
}

/// The rows of such records.
pub(crate) struct Piece {
    pub span: Span,
    pub rows: Option<RecordBatch>,
    pub bad_rows: Vec<BadRow>,
}

impl Gathered {
    /// Creates an empty run of records of a split, which begins at an offset.
    pub fn new(columns: &Columns, partition: Partition, split: Arc<str>, from: u64) -> Gathered {
        let Wanted { times, keys, headers } = &columns.wanted;
        let is = |wanted: &AtomicBool| wanted.load(Ordering::Relaxed);
        Gathered {
            partition,
            split,
            from,
            to: from,
            messages: Messages::default(),
            offsets: Vec::new(),
            newest: None,
            times: is(times).then(|| TimestampMicrosecondBuilder::new().with_timezone(UTC)),
            keys: is(keys).then(BinaryViewBuilder::new),
            headers: is(headers).then(|| {
                ListBuilder::new(StructBuilder::from_fields(header_fields(), 0)).with_field(header_item())
            }),
        }
    }

    /// Returns the partition.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Returns the number of records.
    pub fn num_records(&self) -> usize {
        self.offsets.len()
    }

    /// Returns the offset after the last record.
    pub fn end(&self) -> u64 {
        self.to
    }

    /// Returns the time of the last record in microseconds since 1970, if it has one.
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// Adds a record; returns its approximate size in bytes.
    pub fn add(&mut self, columns: &Columns, message: &BorrowedMessage<'_>) -> usize {
        let offset = message.offset().max(0) as u64;
        let length = message.payload_len().min(BadRow::BYTES_MAX);
        let before = self.messages.num_bytes();
        let mut bytes = message.key_len();
        let read = Read { position: offset, key: message.key(), value: message.payload() };
        columns.decoder.add(&mut self.messages, &self.split, read);
        self.offsets.push(offset);
        self.to = offset + 1;
        let time = message.timestamp().to_millis().map(|millis| millis.saturating_mul(1000));
        self.newest = time.or(self.newest);
        if let Some(times) = &mut self.times {
            times.append_option(time);
        }
        if let Some(keys) = &mut self.keys {
            keys.append_option(message.key());
        }
        if let Some(all) = &mut self.headers {
            bytes += add_headers(all, message);
        }
        bytes + (self.messages.num_bytes() - before).max(length)
    }

    /// Passes offsets without records.
    pub fn pass(&mut self, to: u64) {
        self.to = self.to.max(to);
    }

    /// Fetches the schemas of the records. Fails if that is not possible for now.
    pub fn prepare(&mut self, columns: &Columns) -> Result<()> {
        wait(columns.decoder.prepare(&mut self.messages))
    }

    /// Decodes the records.
    pub fn finish(mut self, columns: &Columns) -> Result<Piece> {
        let span = Span { split: self.split.clone(), from: self.from, to: self.to, done: false };
        let messages = std::mem::take(&mut self.messages);
        let decoded = columns.decoder.decode(&self.split, messages)?;
        let DecodedMessages { columns: mut all, positions, bad_rows } = decoded;
        if positions.is_empty() {
            return Ok(Piece { span, rows: None, bad_rows });
        }
        let deleted = if columns.brings_changes() { all.pop() } else { None };
        let taken = self.places_of(&positions);
        let mut known: Vec<(Hidden, ArrayRef)> = Vec::new();
        for kind in &columns.more {
            if let Some((_, column)) = known.iter().find(|(other, _)| other == kind) {
                all.push(column.clone());
                continue;
            }
            let column = self.column(*kind, &positions);
            let column = match (&taken, kind) {
                (Some(taken), Hidden::Timestamp | Hidden::Key | Hidden::Headers) => {
                    take(&column, taken, None).map_err(|error| {
                        Error::Bug(format!("records of {} can't be chosen: {error}", self.partition))
                    })?
                }
                _ => column,
            };
            known.push((*kind, column.clone()));
            all.push(column);
        }
        all.extend(deleted);
        let rows = MessageDecoder::batch(&columns.batch, all, positions.len())?;
        Ok(Piece { span, rows: Some(rows), bad_rows })
    }

    /// Returns the numbers of the records with these offsets, unless these are all.
    fn places_of(&self, offsets: &[u64]) -> Option<UInt32Array> {
        if offsets == self.offsets {
            return None;
        }
        let place = |offset: &u64| self.offsets.binary_search(offset).unwrap_or_default() as u32;
        Some(UInt32Array::from_iter_values(offsets.iter().map(place)))
    }

    /// Returns a hidden column: of the rows, or of all records if it can't be made from the rows' offsets.
    fn column(&mut self, hidden: Hidden, offsets: &[u64]) -> ArrayRef {
        match hidden {
            Hidden::Topic => {
                let mut topics = StringViewBuilder::new().with_deduplicate_strings();
                offsets.iter().for_each(|_| topics.append_value(&self.partition.topic));
                Arc::new(topics.finish())
            }
            Hidden::Partition => Arc::new(Int32Array::from_value(self.partition.number, offsets.len())),
            Hidden::Offset => {
                Arc::new(Int64Array::from_iter_values(offsets.iter().map(|offset| *offset as i64)))
            }
            Hidden::Timestamp => {
                array(self.times.as_mut().map(|times| times.finish()), hidden, self.offsets.len())
            }
            Hidden::Key => array(self.keys.as_mut().map(|keys| keys.finish()), hidden, self.offsets.len()),
            Hidden::Headers => {
                array(self.headers.as_mut().map(|all| all.finish()), hidden, self.offsets.len())
            }
        }
    }
}
