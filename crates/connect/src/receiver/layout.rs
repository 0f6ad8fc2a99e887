//! The format and the columns of a stream of lines.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;

use crate::formats::changes::{Changes, decoded_schema, positions_in_stream, tell_origins};
use crate::formats::csv::CsvDecoder;
use crate::formats::decode::{Decode, Decoded};
use crate::formats::framing::Framer;
use crate::formats::json::JsonDecoder;
use crate::formats::text::TextDecoder;
use crate::formats::{Format, OP_FIELD, check_columns, text_columns};
use crate::{Error, OptionDoc, Result, SourceSpec};

/// The format options of a source of lines.
pub const FORMAT_OPTIONS: [OptionDoc; 5] = [
    OptionDoc {
        name: "format",
        default: Some("text"),
        doc: "text (a line is one TEXT column), csv, json (an object a line), or the change feeds upsert_json and \
              debezium_json.",
    },
    OP_FIELD,
    OptionDoc {
        name: "delimiter",
        default: Some("','"),
        doc: "csv: the character between two fields; '\\t' is a tab.",
    },
    OptionDoc {
        name: "header",
        default: Some("false"),
        doc: "csv: whether each connection, or start of the program, begins with a record that names the \
              columns, which are then matched by name.",
    },
    OptionDoc {
        name: "null",
        default: Some("'', the empty field"),
        doc: "csv: the text that stands for NULL.",
    },
];

/// The format and the columns of all connections of a source.
#[derive(Debug)]
pub(crate) struct Layout {
    format: Format,
    pub columns: SchemaRef,
    /// The columns of the decoded rows.
    decoded: SchemaRef,
    key: Vec<usize>,
    record_bytes_max: usize,
}

impl Layout {
    /// Evaluates the options of a source.
    pub fn new(spec: &SourceSpec) -> Result<Layout> {
        let mut format = Format::from_options(&spec.options, "")?;
        match &mut format {
            Format::Csv(csv) if spec.options.get("header").is_none() => csv.header = false,
            Format::Parquet => {
                return Err(Error::Invalid(
                    "option 'format' is 'parquet', which is for whole files only: text, csv, json, upsert_json or \
                     debezium_json was expected"
                        .into(),
                ));
            }
            _ => {}
        }
        let columns = match (&spec.columns, &format) {
            (Some(columns), _) => columns.clone(),
            (None, Format::Text) => text_columns(),
            (None, _) => {
                return Err(Error::Invalid(format!(
                    "source '{}' declares no columns, and format '{}' needs them: CREATE SOURCE {} (column type, …) WITH …",
                    spec.name,
                    format.name(),
                    spec.name
                )));
            }
        };
        check_columns(&format, &columns, spec)?;
        let decoded = if format.is_changes() { decoded_schema(&columns) } else { columns.clone() };
        let (key, record_bytes_max) = (spec.key.clone(), spec.max_record_bytes);
        Ok(Layout { format, columns, decoded, key, record_bytes_max })
    }

    /// Returns true if the rows are changes by key.
    pub fn brings_changes(&self) -> bool {
        self.format.is_changes()
    }

    /// Returns the field with the operation of upserts; `None` in other formats.
    pub fn operation_field(&self) -> Option<&str> {
        match &self.format {
            Format::Changes(Changes::Upsert { operation }) => Some(operation),
            _ => None,
        }
    }

    /// Returns a function that returns true for records to skip.
    pub fn passes_over(&self) -> fn(&[u8]) -> bool {
        self.format.passes_over()
    }

    /// Creates a framer for the bytes of one connection.
    pub fn framer(&self) -> Framer {
        let framer = Framer::pushed(self.format.framing(), self.record_bytes_max);
        framer.passing_over(self.passes_over())
    }

    /// Creates a decoder for the records of one connection; `None` if it needs the first record.
    pub fn decoder(&self) -> Result<Option<Box<dyn Decode>>> {
        Ok(match &self.format {
            Format::Csv(csv) if csv.header => None,
            Format::Csv(csv) => {
                let decoder = CsvDecoder::new(csv, &self.columns, None).map_err(Error::Bug)?;
                Some(Box::new(decoder))
            }
            Format::Json => Some(Box::new(JsonDecoder::new(&self.columns)?)),
            Format::Changes(changes) => Some(changes.decoder(&self.columns, &self.key)?),
            Format::Text | Format::Parquet => Some(Box::new(TextDecoder)),
        })
    }

    /// Returns the rows of one run of records from `peer`, which are in `block`, at `offset` of the stream.
    pub fn batch(
        &self,
        decoded: Decoded,
        (block, offset): (&Buffer, u64),
        peer: &str,
    ) -> Result<RecordBatch> {
        let Decoded { mut columns, records, .. } = decoded;
        if self.brings_changes() {
            let positions = positions_in_stream(&records, offset);
            tell_origins(&mut columns, &records, (block, &positions), peer)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
        RecordBatch::try_new_with_options(self.decoded.clone(), columns, &options).map_err(|error| {
            Error::Bug(format!("lines were decoded to other columns than declared: {error}"))
        })
    }

    /// Creates a decoder for the records after `header`. Fails with a description if the header doesn't
    /// fit.
    pub fn decoder_with(&self, header: &[u8]) -> Result<Box<dyn Decode>, String> {
        let Format::Csv(csv) = &self.format else { return Ok(Box::new(TextDecoder)) };
        let names = csv.fields(header).ok_or_else(|| "the header can't be split into names".to_string())?;
        Ok(Box::new(CsvDecoder::new(csv, &self.columns, Some(&names))?))
    }
}
