//! What a stream of lines is read as: its format and its columns.

use arrow::datatypes::SchemaRef;

use crate::formats::csv::CsvDecoder;
use crate::formats::decode::Decode;
use crate::formats::framing::{Framer, Framing};
use crate::formats::json::JsonDecoder;
use crate::formats::text::TextDecoder;
use crate::formats::{Format, check_columns, text_columns};
use crate::{Error, OptionDoc, Result, SourceSpec};

/// The options of a source of lines that say how they are read.
pub(crate) const FORMAT_OPTIONS: [OptionDoc; 4] = [
    OptionDoc {
        name: "format",
        default: Some("text"),
        doc: "text (a line is one TEXT column), csv, or json (an object a line).",
    },
    OptionDoc {
        name: "delimiter",
        default: Some("','"),
        doc: "csv: the character between two fields; '\\t' is a tab.",
    },
    OptionDoc {
        name: "header",
        default: Some("false"),
        doc: "csv: whether what is read begins, each time it begins, with a record that names the columns, which are \
              then matched by name.",
    },
    OptionDoc {
        name: "null",
        default: Some("'', the empty field"),
        doc: "csv: the text that stands for NULL.",
    },
];

/// What every connection of a source is read as.
#[derive(Debug)]
pub(crate) struct Layout {
    format: Format,
    pub columns: SchemaRef,
    record_bytes_max: usize,
}

impl Layout {
    /// What the options of a source say.
    pub fn new(spec: &SourceSpec) -> Result<Layout> {
        let mut format = Format::from_options(&spec.options, "")?;
        match &mut format {
            Format::Csv(csv) if spec.options.get("header").is_none() => csv.header = false,
            Format::Parquet => {
                return Err(Error::Invalid(
                    "option 'format' is 'parquet', which is for whole files only: text, csv or json was expected".into(),
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
        check_columns(&format, &columns)?;
        Ok(Layout { format, columns, record_bytes_max: spec.max_record_bytes })
    }

    /// Splits the bytes of one connection.
    pub fn framer(&self) -> Framer {
        let framing = match &self.format {
            Format::Csv(csv) => csv.framing(),
            _ => Framing::Line,
        };
        Framer::pushed(framing, self.record_bytes_max).skip_blank(!matches!(self.format, Format::Text))
    }

    /// Decodes the records of one connection; `None` where its first record must be seen before.
    pub fn decoder(&self) -> Result<Option<Box<dyn Decode>>> {
        Ok(match &self.format {
            Format::Csv(csv) if csv.header => None,
            Format::Csv(csv) => {
                let decoder = CsvDecoder::new(csv, &self.columns, None).map_err(Error::Bug)?;
                Some(Box::new(decoder))
            }
            Format::Json => Some(Box::new(JsonDecoder::new(&self.columns)?)),
            Format::Text | Format::Parquet => Some(Box::new(TextDecoder)),
        })
    }

    /// Decodes the records that follow `header`; fails with what is wrong with it.
    pub fn decoder_with(&self, header: &[u8]) -> Result<Box<dyn Decode>, String> {
        let Format::Csv(csv) = &self.format else { return Ok(Box::new(TextDecoder)) };
        let names = csv.fields(header).ok_or_else(|| "the header can't be split into names".to_string())?;
        Ok(Box::new(CsvDecoder::new(csv, &self.columns, Some(&names))?))
    }
}
