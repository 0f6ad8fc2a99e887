//! How bytes become rows and rows become bytes.
//!
//! A line format is a framing, which splits a stream into records, with a decoder, which turns records into
//! columns; all line formats share one pipeline, so that a bad record is the same thing in each. Parquet has its
//! own. Deliberately absent: where bytes come from and go to, which is a connector's business.

mod absent;
pub(crate) mod changes;
pub(crate) mod csv;
mod debezium_json;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod feed;
pub(crate) mod framing;
pub(crate) mod json;
mod json_grammar;
pub(crate) mod parquet;
mod read_ahead;
pub(crate) mod text;
mod upsert_json;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_delta::sql_type;

use crate::{Error, OptionDoc, Options, Result, SourceSpec};
use changes::Changes;
use csv::Csv;
use framing::Framing;
pub(crate) use upsert_json::goes;

/// A format with its options.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// A line is a value.
    Text,
    /// Fields between delimiters.
    Csv(Csv),
    /// An object a line.
    Json,
    /// An object a line that says what becomes of the row with its key.
    Changes(Changes),
    /// Columns.
    Parquet,
}

/// The option of a change feed that names the field of the operation.
pub(crate) const OP_FIELD: OptionDoc = OptionDoc {
    name: "op_field",
    default: Some("_op"),
    doc: "upsert_json: the field that says what a record does: 'delete' (or d), or 'upsert' (or insert, update, c, r, u), \
          as which a record without it counts.",
};

impl Format {
    /// The format that option `format` names, or that `file`'s extension does where the option is not given.
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

    /// What option `format` says for it.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Csv(_) => "csv",
            Format::Json => "json",
            Format::Changes(changes) => changes.name(),
            Format::Parquet => "parquet",
        }
    }

    /// The extension of its files.
    pub fn extension(&self) -> &'static str {
        match self {
            Format::Text => "txt",
            Format::Changes(_) => "json",
            other => other.name(),
        }
    }

    /// How records follow each other, where a stream holds records.
    pub fn framing(&self) -> Framing {
        match self {
            Format::Csv(csv) => csv.framing(),
            _ => Framing::Line,
        }
    }

    /// Which records are none.
    pub fn passes_over(&self) -> fn(&[u8]) -> bool {
        match self {
            Format::Text => |_| false,
            // After a delete, Kafka is sent a tombstone.
            Format::Changes(Changes::Debezium) => |record| matches!(record.trim_ascii(), b"" | b"null"),
            _ => |record| record.trim_ascii().is_empty(),
        }
    }

    /// Whether its records are changes by key.
    pub fn is_changes(&self) -> bool {
        matches!(self, Format::Changes(_))
    }
}

/// The columns of a source of text that declares none.
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
                    "format 'text' has one column, but {} are declared: say format = 'csv' or 'json', or declare one",
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

/// How a file is compressed, which its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// The compression of a file of this name, and the name without its extension.
    pub fn of(file: &str) -> Option<(Compression, &str)> {
        let (stem, extension) = file.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "gz" => Some((Compression::Gzip, stem)),
            "zst" => Some((Compression::Zstd, stem)),
            _ => None,
        }
    }
}
