//! The format of a source's messages, and the schemas that it needs.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::keyed::KeyedDecoder;
use crate::formats::OP_FIELD;
use crate::formats::avro::columns::columns;
use crate::formats::avro::decoder::AvroDecoder;
use crate::formats::avro::schema::AvroSchema;
use crate::formats::avro::schemas::{Schemas, parsed};
use crate::formats::debezium::DebeziumDecoder;
use crate::formats::decode::Decode;
use crate::formats::framing::Record;
use crate::receiver::{FORMAT_OPTIONS, Layout};
use crate::{Error, OptionDoc, Result, SchemaRegistry, SourceSpec};

/// The format options of a source of messages.
pub const MESSAGE_OPTIONS: [OptionDoc; 8] = [
    OptionDoc {
        name: "format",
        default: Some("text"),
        doc: "text (a message is one TEXT column), bytes (one BYTEA column), csv, json (an object a message), avro, or \
              the change feeds upsert_json, upsert_avro, debezium_json and debezium_avro.",
    },
    OP_FIELD,
    FORMAT_OPTIONS[2],
    FORMAT_OPTIONS[4],
    OptionDoc {
        name: "schema.registry",
        default: Some("none"),
        doc: "Avro: the address of a schema registry, such as 'http://host:8081'; several of the same registry are \
              separated by commas. Messages then begin with a zero byte and the id of their schema.",
    },
    OptionDoc {
        name: "schema.registry.username",
        default: Some("none"),
        doc: "Avro: the user for the registry (HTTP basic authentication).",
    },
    OptionDoc {
        name: "schema.registry.password",
        default: Some("none"),
        doc: "Avro: that user's password. Messages and SHOW CREATE do not show it.",
    },
    OptionDoc {
        name: "schema.location",
        default: Some("none"),
        doc: "Avro without a registry: the file (.avsc) with the schema that all messages were written with. It is read \
              when the source opens; don't change it.",
    },
];

/// The option that names a file with a schema.
const LOCATION: &str = "schema.location";

/// The format of messages, evaluated from a source's options.
pub struct MessageFormat {
    kind: Kind,
    schemas: Option<Arc<Schemas>>,
    registry: Option<Arc<dyn SchemaRegistry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One that lines have, too.
    Line,
    Bytes,
    Avro,
    UpsertAvro,
    DebeziumAvro,
}

/// What decodes messages.
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
    pub schemas: Option<Arc<Schemas>>,
}

impl MessageFormat {
    /// Evaluates the options of a source. `registry` is the schema registry of its options, if they name one.
    pub fn new(spec: &SourceSpec, registry: Option<Arc<dyn SchemaRegistry>>) -> Result<MessageFormat> {
        let name = spec.options.get("format").unwrap_or("text").to_ascii_lowercase();
        let kind = match name.as_str() {
            "bytes" => Kind::Bytes,
            "avro" => Kind::Avro,
            "upsert_avro" => Kind::UpsertAvro,
            "debezium_avro" => Kind::DebeziumAvro,
            _ => Kind::Line,
        };
        if kind != Kind::Line {
            let foreign = ["op_field", "delimiter", "header", "null"];
            if let Some(option) = foreign.into_iter().find(|option| spec.options.get(option).is_some()) {
                return Err(Error::Invalid(format!(
                    "option '{option}' is not for format '{name}': leave it out"
                )));
            }
        }
        let location = spec.options.get(LOCATION);
        let schemas = match (kind, registry.clone(), location) {
            (Kind::Line | Kind::Bytes, None, None) => None,
            (Kind::Line | Kind::Bytes, ..) => {
                return Err(Error::Invalid(format!(
                    "options 'schema.…' are for the formats avro, upsert_avro and debezium_avro, but the format is \
                     '{name}': leave them out"
                )));
            }
            (_, Some(registry), None) => Some(Arc::new(Schemas::of_registry(registry))),
            (_, None, Some(location)) => Some(Arc::new(Schemas::of_file(read_schema(location)?))),
            (_, Some(_), Some(_)) => {
                return Err(Error::Invalid(
                    "options 'schema.registry' and 'schema.location' are both set, but messages either name a schema of a \
                     registry or don't: leave one of them out"
                        .into(),
                ));
            }
            (_, None, None) => {
                return Err(Error::Invalid(format!(
                    "format '{name}' needs the schemas of the messages: add schema.registry = 'http://host:8081', or \
                     schema.location = 'file.avsc'"
                )));
            }
        };
        Ok(MessageFormat { kind, schemas, registry })
    }

    /// Returns the columns of a source that declares none, by the latest schema of a subject or the file's schema.
    /// `None` if the format's schemas don't say them.
    pub async fn columns(&self, spec: &SourceSpec, subject: &str) -> Result<Option<SchemaRef>> {
        let wrong = |error: String| {
            Error::Invalid(format!("source '{}' declares no columns, and {error}", spec.name))
        };
        if self.kind != Kind::Avro {
            return Ok(None);
        }
        let Some(registry) = &self.registry else {
            let location = spec.options.get(LOCATION).unwrap_or_default();
            let schema = read_schema(location)?;
            return columns(&schema).map(Some).map_err(|error| wrong(format!("in '{location}' {error}")));
        };
        let Some(latest) = registry.latest(subject).await? else {
            return Err(wrong(format!(
                "the schema registry has no subject '{subject}' to take them from: declare the columns"
            )));
        };
        let found = parsed(&latest).and_then(|schema| columns(&schema));
        found.map(Some).map_err(|error| {
            wrong(format!("in the latest schema of subject '{subject}' (id {}) {error}", latest.id))
        })
    }

    /// Creates the decoder of a source.
    pub(super) fn open(self, spec: &SourceSpec) -> Result<Opened> {
        let MessageFormat { kind, schemas, .. } = self;
        let declared = || {
            spec.columns.clone().ok_or_else(|| {
                Error::Invalid(format!(
                    "source '{}' declares no columns: CREATE SOURCE {} (column type, …) WITH …",
                    spec.name, spec.name
                ))
            })
        };
        let no_schemas = || Error::Bug("Avro has no schemas".into());
        let (columns, decoder): (SchemaRef, Decoder) = match kind {
            Kind::Line => return of_lines(spec),
            Kind::Bytes => (bytes_column(spec)?, Decoder::Values(Box::new(BytesDecoder))),
            Kind::Avro => {
                let columns = declared()?;
                let decoder = AvroDecoder::new(&columns, schemas.as_ref().ok_or_else(no_schemas)?)?;
                (columns, Decoder::Values(Box::new(decoder)))
            }
            Kind::UpsertAvro | Kind::DebeziumAvro => {
                let schemas = schemas.as_ref().ok_or_else(no_schemas)?;
                check_key(spec)?;
                let columns = declared()?;
                let decoder = match kind {
                    Kind::UpsertAvro => Decoder::Keyed(KeyedDecoder::of_avro(&columns, &spec.key, schemas)?),
                    _ => {
                        let decoder = DebeziumDecoder::of_avro(&columns, &spec.key, schemas)?;
                        Decoder::Values(Box::new(decoder))
                    }
                };
                (columns, decoder)
            }
        };
        let passes_over: fn(&[u8]) -> bool = match kind {
            // Debezium sends Kafka a tombstone after a delete.
            Kind::DebeziumAvro => |value| value == b"null",
            _ => |_| false,
        };
        let brings_changes = matches!(kind, Kind::UpsertAvro | Kind::DebeziumAvro);
        Ok(Opened { columns, decoder, brings_changes, passes_over, schemas })
    }
}

/// Creates the decoder of a format that lines have, too.
fn of_lines(spec: &SourceSpec) -> Result<Opened> {
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

fn read_schema(location: &str) -> Result<AvroSchema> {
    let text = std::fs::read_to_string(location).map_err(|error| {
        Error::Invalid(format!("option 'schema.location' is '{location}', which can't be read: {error}"))
    })?;
    AvroSchema::parse(&text, &[])
        .map_err(|error| Error::Invalid(format!("the file '{location}' is no Avro schema: {error}")))
}

/// Returns the column of format `bytes`.
fn bytes_column(spec: &SourceSpec) -> Result<SchemaRef> {
    let Some(columns) = &spec.columns else {
        return Ok(Arc::new(Schema::new(vec![Field::new("data", DataType::BinaryView, true)])));
    };
    match columns.fields().as_ref() {
        [only] if *only.data_type() == DataType::BinaryView => Ok(columns.clone()),
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

/// Decodes each message to one BYTEA value.
struct BytesDecoder;

impl Decode for BytesDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let mut values = arrow::array::BinaryViewBuilder::with_capacity(records.len());
        let in_block = values.append_block(block.clone());
        for record in records {
            let length = record.end - record.start;
            values.try_append_view(in_block, record.start, length).map_err(|error| error.to_string())?;
        }
        Ok(vec![Arc::new(values.finish())])
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
        f.debug_struct("MessageFormat").field("kind", &self.kind).field("schemas", &self.schemas).finish()
    }
}
