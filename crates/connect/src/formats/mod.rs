//! Formats: decoding bytes to rows and encoding rows as bytes.
//!
//! A line format has a framing, which splits a stream into records, and a decoder, which turns records into
//! columns. All line formats share one pipeline, so a bad record is the same in each. Parquet has a
//! pipeline of its own. Deliberately absent: reading and writing the bytes, which is the task of
//! connectors.

mod absent;
pub(crate) mod avro;
mod block_reader;
pub(crate) mod changes;
pub(crate) mod csv;
pub(crate) mod debezium;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod feed;
#[cfg(test)]
mod fixture;
pub(crate) mod framing;
pub(crate) mod json;
pub(crate) mod json_grammar;
pub(crate) mod json_schema;
pub(crate) mod parquet;
pub(crate) mod protobuf;
mod read_ahead;
pub(crate) mod schemas;
pub(crate) mod target;
pub(crate) mod text;
pub(crate) mod upsert_json;
mod varint;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_delta::sql_type;

use crate::{Error, OptionDoc, Options, Result, SourceSpec};
pub use avro::encoder::AvroEncoder;
use changes::Changes;
use csv::Csv;
use framing::Framing;
pub(crate) use protobuf::encoder::ProtobufEncoder;
pub(crate) use upsert_json::goes;

/// A format with its options.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// One value a line.
    Text,
    /// Fields between delimiters.
    Csv(Csv),
    /// One object a line.
    Json,
    /// One object a line that changes the row with its key.
    Changes(Changes),
    /// Parquet's columns.
    Parquet,
}

/// The formats whose records need boundaries of their own, as messages have.
pub(crate) const MESSAGE_FORMATS: [&str; 7] =
    ["avro", "bytes", "upsert_avro", "debezium_avro", "protobuf", "maxwell_json", "canal_json"];

/// The option of a change feed that names the field of the operation.
pub(crate) const OP_FIELD: OptionDoc = OptionDoc {
    name: "op_field",
    default: Some("_op"),
    doc: "upsert_json: the field with the operation of a record: 'delete' (or d), or 'upsert' (or insert, \
          update, c, r, u), which is the default.",
};

impl Format {
    /// Returns the format of option `format`, or that of `file`'s extension if the option is absent.
    pub fn from_options(options: &Options, file: &str) -> Result<Format> {
        let stem = Compression::of(file).map_or(file, |(_, stem)| stem);
        let extension = stem.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        let name = match (options.get("format"), extension.as_str()) {
            (Some(name), _) => name.to_ascii_lowercase(),
            (None, "csv" | "tsv") => "csv".into(),
            (None, "json" | "ndjson" | "jsonl") => "json".into(),
            (None, "parquet") => "parquet".into(),
            (None, _) => "text".into(),
        };
        let format = match name.as_str() {
            "text" => Format::Text,
            "csv" => Format::Csv(Csv {
                delimiter: delimiter(options, if extension == "tsv" { b'\t' } else { b',' })?,
                header: options.parse("header", "true or false")?.unwrap_or(true),
                null: options.get("null").unwrap_or("").to_string(),
            }),
            "json" => Format::Json,
            "parquet" => Format::Parquet,
            other => match Changes::named(other, options) {
                Some(changes) => Format::Changes(changes),
                None if MESSAGE_FORMATS.contains(&other) => {
                    return Err(Error::Invalid(format!(
                        "option 'format' is '{other}', which is for messages only, as Kafka's are: text, csv, json or a \
                         change feed's upsert_json or debezium_json was expected"
                    )));
                }
                None => {
                    return Err(Error::Invalid(format!(
                        "option 'format' is '{other}', but text, csv, json or parquet was expected, or a change feed's \
                         upsert_json or debezium_json"
                    )));
                }
            },
        };
        if options.get("op_field").is_some() && name != "upsert_json" {
            return Err(Error::Invalid(format!(
                "option 'op_field' is for format 'upsert_json' only, but the format is '{name}': leave it out"
            )));
        }
        for option in ["delimiter", "header", "null"] {
            if options.get(option).is_some() && !matches!(format, Format::Csv(_)) {
                return Err(Error::Invalid(format!(
                    "option '{option}' is for format 'csv' only, but the format is '{name}': leave it out"
                )));
            }
        }
        Ok(format)
    }

    /// Returns the name for option `format`.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Csv(_) => "csv",
            Format::Json => "json",
            Format::Changes(changes) => changes.name(),
            Format::Parquet => "parquet",
        }
    }

    /// Returns the extension of the format's files.
    pub fn extension(&self) -> &'static str {
        match self {
            Format::Text => "txt",
            Format::Changes(_) => "json",
            other => other.name(),
        }
    }

    /// Returns the framing of a stream's records.
    pub fn framing(&self) -> Framing {
        match self {
            Format::Csv(csv) => csv.framing(),
            _ => Framing::Line,
        }
    }

    /// Returns a function that returns true for records to skip.
    pub fn passes_over(&self) -> fn(&[u8]) -> bool {
        match self {
            Format::Text => |_| false,
            // Debezium sends Kafka a tombstone after a delete.
            Format::Changes(Changes::Debezium) => |record| matches!(record.trim_ascii(), b"" | b"null"),
            _ => |record| record.trim_ascii().is_empty(),
        }
    }

    /// Returns true if the format's records are changes by key.
    pub fn is_changes(&self) -> bool {
        matches!(self, Format::Changes(_))
    }
}

/// Returns the columns of a text source that declares none.
pub(crate) fn text_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8View, true)]))
}

/// Fails for columns that can't be read from `format`.
pub(crate) fn check_columns(format: &Format, columns: &SchemaRef, spec: &SourceSpec) -> Result<()> {
    match format {
        Format::Changes(changes) => changes.check(spec),
        Format::Text => {
            match columns.fields().iter().map(|field| field.data_type()).collect::<Vec<_>>()[..] {
                [DataType::Utf8View] => Ok(()),
                [other] => Err(Error::Invalid(format!(
                    "format 'text' has one column of type TEXT, but '{}' is {}: declare it TEXT and cast it in a query",
                    columns.field(0).name(),
                    sql_type(other)
                ))),
                _ => Err(Error::Invalid(format!(
                    "format 'text' has one column, but {} are declared: set format = 'csv' or 'json', or \
                     declare one",
                    columns.fields().len()
                ))),
            }
        }
        Format::Csv(_) => csv::check_columns(columns),
        Format::Json => json::JsonDecoder::new(columns).map(|_| ()),
        Format::Parquet => Ok(()),
    }
}

fn delimiter(options: &Options, default: u8) -> Result<u8> {
    let Some(text) = options.get("delimiter") else { return Ok(default) };
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err(Error::Invalid(format!(
            "option 'delimiter' is '{text}', but one ASCII character (or \\t) other than a quote was expected"
        ))),
    }
}

/// The compression of a file, determined by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// Returns the compression of a file with this name, and the name without the compression's extension.
    pub fn of(file: &str) -> Option<(Compression, &str)> {
        let (stem, extension) = file.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "gz" => Some((Compression::Gzip, stem)),
            "zst" => Some((Compression::Zstd, stem)),
            _ => None,
        }
    }
}
