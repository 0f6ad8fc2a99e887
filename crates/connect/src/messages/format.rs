//! The format of a source's messages, and the schemas that it needs.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::keyed::KeyedDecoder;
use super::row_events::{DATABASES, Dialect, RowEvents, TABLES};
use crate::formats::avro::decoder::AvroDecoder;
use crate::formats::avro::schema::AvroSchema;
use crate::formats::debezium::DebeziumDecoder;
use crate::formats::decode::Decode;
use crate::formats::framing::Record;
use crate::formats::json::infer_records;
use crate::formats::protobuf::decoder::ProtobufDecoder;
use crate::formats::protobuf::schema::ProtoSchema;
use crate::formats::schemas::{Fetch, Parse, Schemas};
use crate::formats::{MESSAGE_FORMATS, OP_FIELD, avro, json_schema, protobuf};
use crate::receiver::{FORMAT_OPTIONS, Layout};
use crate::{Error, OptionDoc, RegisteredSchema, Result, SchemaRegistry, SourceSpec};

/// The format options of a source of messages.
pub const MESSAGE_OPTIONS: [OptionDoc; 11] = [
    OptionDoc {
        name: "format",
        default: Some("text"),
        doc: "text (a message is one TEXT column), bytes (one BYTEA column), csv, json (an object a message), avro, \
              protobuf, or the change feeds upsert_json, upsert_avro, debezium_json, debezium_avro, maxwell_json and \
              canal_json.",
    },
    OP_FIELD,
    FORMAT_OPTIONS[2],
    FORMAT_OPTIONS[4],
    OptionDoc {
        name: "schema.registry",
        default: Some("none"),
        doc: "The address of a schema registry, such as 'http://host:8081'; several of the same registry are \
              separated by commas. Messages then begin with a zero byte and the id of their schema.",
    },
    OptionDoc {
        name: "schema.registry.username",
        default: Some("none"),
        doc: "The user for the registry (HTTP basic authentication).",
    },
    OptionDoc {
        name: "schema.registry.password",
        default: Some("none"),
        doc: "That user's password. Messages and SHOW CREATE do not show it.",
    },
    OptionDoc {
        name: "schema.location",
        default: Some("none"),
        doc: "Without a registry: the file with the schema that all messages were written with: an .avsc; a .proto, or a \
              descriptor set of protoc. It is read when the source opens; don't change it.",
    },
    OptionDoc {
        name: MESSAGE,
        default: Some("the first message of the schema"),
        doc: "Protobuf: the name of the message with its package, such as 'shop.Order'. Messages with a registry name theirs; \
              the option then only says which columns a source takes that declares none.",
    },
    OptionDoc {
        name: DATABASES,
        default: Some("all"),
        doc: "maxwell_json, canal_json: a regular expression for the whole name of the databases whose rows are read; others \
              are skipped.",
    },
    OptionDoc {
        name: TABLES,
        default: Some("all"),
        doc: "The same for tables, such as 'orders|items_[0-9]+'.",
    },
];

/// The formats of messages that lines have, too. Parquet gets an error of its own.
const LINE_FORMATS: [&str; 6] = ["text", "csv", "json", "upsert_json", "debezium_json", "parquet"];

/// The option that names a message.
const MESSAGE: &str = "message";

/// The option that names a file with a schema.
const LOCATION: &str = "schema.location";

/// The formats whose messages need schemas to be read.
const SCHEMA_FORMATS: [&str; 4] = ["avro", "upsert_avro", "debezium_avro", "protobuf"];

/// The formats whose messages may begin with the id of a schema.
const JSON_FORMATS: [&str; 3] = ["json", "upsert_json", "debezium_json"];

/// The format of messages, evaluated from a source's options.
pub struct MessageFormat {
    name: String,
    kind: Kind,
    registry: Option<Arc<dyn SchemaRegistry>>,
}

enum Kind {
    /// One that lines have, too.
    Line,
    Bytes,
    RowEvents(Dialect),
    Avro(Arc<Schemas<AvroSchema>>),
    UpsertAvro(Arc<Schemas<AvroSchema>>),
    DebeziumAvro(Arc<Schemas<AvroSchema>>),
    Protobuf(Arc<Schemas<ProtoSchema>>),
}

/// The decoder of messages, with or without their keys.
pub(super) enum Decoder {
    /// Each value by itself.
    Values(Box<dyn Decode>),
    /// Each value together with its key.
    Keyed(KeyedDecoder),
}

/// The decoder of a source, and its columns.
pub(super) struct Opened {
    pub columns: SchemaRef,
    pub decoder: Decoder,
    pub brings_changes: bool,
    pub passes_over: fn(&[u8]) -> bool,
    pub schemas: Option<Arc<dyn Fetch>>,
    pub row_events: Option<RowEvents>,
    /// True if the messages are text behind the id of a schema.
    pub skips_ids: bool,
}

impl MessageFormat {
    /// Evaluates the options of a source. `registry` is the schema registry of its options, if they name one.
    pub fn new(spec: &SourceSpec, registry: Option<Arc<dyn SchemaRegistry>>) -> Result<MessageFormat> {
        let name = spec.options.get("format").unwrap_or("text").to_ascii_lowercase();
        check_options(spec, &name, registry.is_some())?;
        let avro = || schemas(spec, registry.clone(), AvroSchema::registered, AvroSchema::of_file);
        let kind = match name.as_str() {
            "bytes" => Kind::Bytes,
            "maxwell_json" => Kind::RowEvents(Dialect::Maxwell),
            "canal_json" => Kind::RowEvents(Dialect::Canal),
            "avro" => Kind::Avro(avro()?),
            "upsert_avro" => Kind::UpsertAvro(avro()?),
            "debezium_avro" => Kind::DebeziumAvro(avro()?),
            "protobuf" => {
                let schemas = schemas(spec, registry.clone(), ProtoSchema::registered, ProtoSchema::of_file)?;
                if let Ok(schema) = schemas.get(None) {
                    let root = schema.as_ref().as_ref().map(|schema| schema.root(spec.options.get(MESSAGE)));
                    if let Ok(Err(error)) = root {
                        return Err(Error::Invalid(format!("option 'message' doesn't fit: {error}")));
                    }
                }
                Kind::Protobuf(schemas)
            }
            _ => Kind::Line,
        };
        Ok(MessageFormat { name, kind, registry })
    }

    /// Returns the columns of a source that declares none, by the latest schemas of a topic's messages or the file's
    /// schema. `None` if no schema says them.
    pub async fn columns(&self, spec: &SourceSpec, topic: &str) -> Result<Option<SchemaRef>> {
        let proto = |schema: &ProtoSchema| {
            protobuf::columns::columns(schema, schema.root(spec.options.get(MESSAGE))?)
        };
        let value = format!("{topic}-value");
        match &self.kind {
            Kind::Avro(schemas) => {
                self.columns_of(spec, &value, schemas, AvroSchema::registered, avro::columns::columns).await
            }
            Kind::UpsertAvro(schemas) => {
                let parse = AvroSchema::registered;
                let of_values = self.columns_of(spec, &value, schemas, parse, avro::columns::columns).await?;
                let key = format!("{topic}-key");
                let of_keys = match &self.registry {
                    Some(registry) => registry.latest(&key).await?,
                    None => None,
                };
                // A plain key is one of the value's columns.
                let of_keys = of_keys.and_then(|key| avro::columns::columns(&parse(&key).ok()?).ok());
                Ok(with_missing(of_keys, of_values))
            }
            Kind::DebeziumAvro(schemas) => {
                let after = avro::columns::columns_after;
                self.columns_of(spec, &value, schemas, AvroSchema::registered, after).await
            }
            Kind::Protobuf(schemas) => {
                self.columns_of(spec, &value, schemas, ProtoSchema::registered, proto).await
            }
            Kind::Line if self.registry.is_some() && self.name != "debezium_json" => {
                let columns = self.registered_columns(spec, &value, json_schema::columns).await?;
                Ok(Some(self.without_operation(spec, &columns)))
            }
            _ => Ok(None),
        }
    }

    /// Returns true if [`MessageFormat::columns_of_records`] finds the columns of a source that declares none.
    pub fn has_columns_in_records(&self) -> bool {
        matches!(self.name.as_str(), "json" | "upsert_json")
    }

    /// Returns the columns of a source that declares none, by values of its messages.
    pub fn columns_of_records(
        &self,
        spec: &SourceSpec,
        topic: &str,
        values: &[Vec<u8>],
    ) -> Result<SchemaRef> {
        let wrong = |error: &str| {
            Error::Invalid(format!(
                "source '{}' declares no columns, and they can't be found in the first records of topic '{topic}': {error}. \
                 Declare the columns",
                spec.name
            ))
        };
        if values.is_empty() {
            return Err(wrong("it has none yet"));
        }
        let found = infer_records(values.iter().map(Vec::as_slice)).map_err(|error| wrong(&error))?;
        let columns = self.without_operation(spec, &found);
        match columns.fields().is_empty() {
            true => Err(wrong("they are objects without fields")),
            false => Ok(columns),
        }
    }

    /// Returns columns without the field that holds the operation of upserts.
    fn without_operation(&self, spec: &SourceSpec, columns: &SchemaRef) -> SchemaRef {
        if self.name != "upsert_json" {
            return columns.clone();
        }
        let operation = spec.options.get("op_field").unwrap_or("_op");
        let fields = columns.fields().iter().filter(|field| field.name() != operation);
        Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
    }

    async fn columns_of<S>(
        &self,
        spec: &SourceSpec,
        subject: &str,
        schemas: &Schemas<S>,
        parse: Parse<S>,
        columns: impl Fn(&S) -> std::result::Result<SchemaRef, String>,
    ) -> Result<Option<SchemaRef>> {
        if self.registry.is_some() {
            let columns = |latest: &RegisteredSchema| columns(&parse(latest)?);
            return self.registered_columns(spec, subject, columns).await.map(Some);
        }
        let schema = schemas.get(None).map_err(|error| no_columns(spec, &error))?;
        let found = schema.as_ref().as_ref().map_err(String::clone).and_then(columns);
        let location = spec.options.get(LOCATION).unwrap_or_default();
        found.map(Some).map_err(|error| no_columns(spec, &format!("in '{location}' {error}")))
    }

    /// Returns the columns that the latest schema of a subject describes.
    async fn registered_columns(
        &self,
        spec: &SourceSpec,
        subject: &str,
        columns: impl Fn(&RegisteredSchema) -> std::result::Result<SchemaRef, String>,
    ) -> Result<SchemaRef> {
        let latest = match &self.registry {
            Some(registry) => registry.latest(subject).await?,
            None => None,
        };
        let Some(latest) = latest else {
            let error = format!(
                "the schema registry has no subject '{subject}' to take them from: declare the columns"
            );
            return Err(no_columns(spec, &error));
        };
        columns(&latest).map_err(|error| {
            no_columns(
                spec,
                &format!("in the latest schema of subject '{subject}' (id {}) {error}", latest.id),
            )
        })
    }

    /// Creates the decoder of a source.
    pub(super) fn open(self, spec: &SourceSpec) -> Result<Opened> {
        let columns = match (&self.kind, &spec.columns) {
            (Kind::Line, _) => return of_lines(spec, self.registry.is_some()),
            (Kind::Bytes, _) => bytes_column(spec)?,
            (_, Some(columns)) => columns.clone(),
            (_, None) => {
                return Err(Error::Invalid(format!(
                    "source '{}' declares no columns: CREATE SOURCE {} (column type, …) WITH …",
                    spec.name, spec.name
                )));
            }
        };
        let opened = |decoder, schemas| Opened {
            columns: columns.clone(),
            decoder,
            brings_changes: false,
            passes_over: |_| false,
            schemas,
            row_events: None,
            skips_ids: false,
        };
        Ok(match self.kind {
            Kind::Line | Kind::Bytes => {
                let decoder = BytesDecoder(columns.field(0).data_type().clone());
                opened(Decoder::Values(Box::new(decoder)), None)
            }
            Kind::Avro(schemas) => {
                let decoder = AvroDecoder::new(&columns, &schemas)?;
                opened(Decoder::Values(Box::new(decoder)), Some(schemas))
            }
            Kind::Protobuf(schemas) => {
                let decoder = ProtobufDecoder::new(&columns, &schemas, spec.options.get(MESSAGE))?;
                opened(Decoder::Values(Box::new(decoder)), Some(schemas))
            }
            Kind::RowEvents(dialect) => {
                check_key(spec)?;
                let decoder = KeyedDecoder::of_rows(&columns, &spec.key)?;
                let key = spec.key.iter().map(|place| columns.field(*place).name().clone()).collect();
                let row_events = Some(RowEvents::new(dialect, key, &spec.options)?);
                Opened { brings_changes: true, row_events, ..opened(Decoder::Keyed(decoder), None) }
            }
            Kind::UpsertAvro(schemas) => {
                check_key(spec)?;
                let decoder = KeyedDecoder::of_avro(&columns, &spec.key, &schemas)?;
                Opened { brings_changes: true, ..opened(Decoder::Keyed(decoder), Some(schemas)) }
            }
            Kind::DebeziumAvro(schemas) => {
                check_key(spec)?;
                let decoder = DebeziumDecoder::of_avro(&columns, &spec.key, &schemas)?;
                // Debezium sends Kafka a tombstone after a delete.
                let passes_over = |value: &[u8]| value == b"null";
                let opened = opened(Decoder::Values(Box::new(decoder)), Some(schemas));
                Opened { brings_changes: true, passes_over, ..opened }
            }
        })
    }
}

/// Fails for options that a format doesn't have, or lacks.
fn check_options(spec: &SourceSpec, name: &str, has_registry: bool) -> Result<()> {
    if !LINE_FORMATS.contains(&name) && !MESSAGE_FORMATS.contains(&name) {
        return Err(Error::Invalid(format!(
            "option 'format' is '{name}', but one of {}, {} was expected",
            LINE_FORMATS[..5].join(", "),
            MESSAGE_FORMATS.join(", ")
        )));
    }
    let is_set = |option: &&str| spec.options.get(option).is_some();
    let foreign = ["op_field", "delimiter", "header", "null"].into_iter();
    let foreign = foreign.filter(|_| MESSAGE_FORMATS.contains(&name));
    let foreign = foreign.chain([MESSAGE].into_iter().filter(|_| name != "protobuf"));
    let foreign = foreign.chain([DATABASES, TABLES].into_iter().filter(|_| Dialect::named(name).is_none()));
    if let Some(option) = foreign.into_iter().find(is_set) {
        return Err(Error::Invalid(format!("option '{option}' is not for format '{name}': leave it out")));
    }
    match (SCHEMA_FORMATS.contains(&name), has_registry, spec.options.get(LOCATION)) {
        (false, false, None) | (true, true, None) | (true, false, Some(_)) => Ok(()),
        (false, true, None) if JSON_FORMATS.contains(&name) => Ok(()),
        (false, ..) => Err(Error::Invalid(format!(
            "options 'schema.…' are for the formats {} and {} (schema.registry alone), but the format is '{name}': leave \
             them out",
            SCHEMA_FORMATS.join(", "),
            JSON_FORMATS.join(", ")
        ))),
        (true, true, Some(_)) => Err(Error::Invalid(
            "options 'schema.registry' and 'schema.location' are both set, but messages either name a schema of a registry \
             or don't: leave one of them out"
                .into(),
        )),
        (true, false, None) => Err(Error::Invalid(format!(
            "format '{name}' needs the schemas of the messages: add schema.registry = 'http://host:8081', or \
             schema.location = {}",
            if name == "protobuf" { "'file.proto' or a descriptor set of protoc" } else { "'file.avsc'" }
        ))),
    }
}

fn no_columns(spec: &SourceSpec, error: &str) -> Error {
    Error::Invalid(format!("source '{}' declares no columns, and {error}", spec.name))
}

/// Returns the columns of keys that those of values lack, then those of values.
fn with_missing(keys: Option<SchemaRef>, values: Option<SchemaRef>) -> Option<SchemaRef> {
    let (Some(keys), Some(values)) = (&keys, &values) else { return values };
    let is_missing = |field: &&FieldRef| values.field_with_name(field.name()).is_err();
    let missing = keys.fields().iter().filter(is_missing);
    Some(Arc::new(Schema::new(missing.chain(values.fields().iter()).cloned().collect::<Vec<_>>())))
}

/// Returns the schemas of a registry, or the one of a file.
fn schemas<S>(
    spec: &SourceSpec,
    registry: Option<Arc<dyn SchemaRegistry>>,
    parse_registered: Parse<S>,
    read: fn(&[u8]) -> std::result::Result<S, String>,
) -> Result<Arc<Schemas<S>>> {
    if let Some(registry) = registry {
        return Ok(Arc::new(Schemas::of_registry(registry, parse_registered)));
    }
    let location = spec.options.require(LOCATION)?;
    let content = std::fs::read(location).map_err(|error| {
        Error::Invalid(format!("option 'schema.location' is '{location}', which can't be read: {error}"))
    })?;
    let schema = read(&content).map_err(|error| {
        Error::Invalid(format!("the file '{location}' is no schema of the format: {error}"))
    })?;
    Ok(Arc::new(Schemas::of_file(schema)))
}

/// Creates the decoder of a format that lines have, too.
fn of_lines(spec: &SourceSpec, skips_ids: bool) -> Result<Opened> {
    let layout = Layout::new(spec)?;
    let Some(decoder) = layout.decoder()? else {
        return Err(Error::Invalid(
            "option 'header' is 'true', but each message is one record, and none of them is a header: leave it out".into(),
        ));
    };
    let decoder = match layout.operation_field() {
        Some(operation) => Decoder::Keyed(KeyedDecoder::of_json(&layout.columns, &spec.key, operation)?),
        None => Decoder::Values(decoder),
    };
    Ok(Opened {
        columns: layout.columns.clone(),
        decoder,
        brings_changes: layout.brings_changes(),
        passes_over: layout.passes_over(),
        schemas: None,
        row_events: None,
        skips_ids,
    })
}

fn check_key(spec: &SourceSpec) -> Result<()> {
    match spec.key.is_empty() {
        false => Ok(()),
        true => Err(Error::Invalid(format!(
            "source '{}' has no PRIMARY KEY, and format '{}' changes rows by their key: CREATE SOURCE {} (column type \
             PRIMARY KEY, …) WITH …",
            spec.name,
            spec.options.get("format").unwrap_or_default(),
            spec.name
        ))),
    }
}

/// Returns the column of format `bytes`.
fn bytes_column(spec: &SourceSpec) -> Result<SchemaRef> {
    let Some(columns) = &spec.columns else {
        return Ok(Arc::new(Schema::new(vec![Field::new("data", DataType::BinaryView, true)])));
    };
    match columns.fields().as_ref() {
        [only] if only.data_type().is_binary() => Ok(columns.clone()),
        _ => Err(Error::Invalid(format!(
            "format 'bytes' has one column of type BYTEA, but source '{}' declares {}: declare one, or set another format",
            spec.name,
            match columns.fields().as_ref() {
                [only] => format!("'{}' as {}", only.name(), millstream_delta::sql_type(only.data_type())),
                all => format!("{} columns", all.len()),
            }
        ))),
    }
}

/// Decodes each message to one BYTEA value of a type.
struct BytesDecoder(DataType);

impl Decode for BytesDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let mut values = arrow::array::BinaryViewBuilder::with_capacity(records.len());
        let in_block = values.append_block(block.clone());
        for record in records {
            let length = record.end - record.start;
            values.try_append_view(in_block, record.start, length).map_err(|error| error.to_string())?;
        }
        let values: ArrayRef = Arc::new(values.finish());
        Ok(vec![cast(&values, &self.0).map_err(|error| error.to_string())?])
    }

    fn explain(&self, _record: &[u8], error: String) -> String {
        error
    }

    fn is_text(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for MessageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageFormat").field("registry", &self.registry).finish_non_exhaustive()
    }
}
