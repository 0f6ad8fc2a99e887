//! Comma-separated values.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::buffer::Buffer;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::{Decoder, Format};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use memchr::{memchr, memchr2};
use millstream_delta::sql_type;
use regex::Regex;

use super::decode::Decode;
use super::framing::{Framing, Record, quoted_end};
use crate::{Error, Result};

/// The options of CSV.
#[derive(Clone, Debug)]
pub(crate) struct Csv {
    /// The byte between two fields.
    pub delimiter: u8,
    /// True if the first record holds the column names.
    pub header: bool,
    /// The text that stands for NULL.
    pub null: String,
}

/// The byte around fields that hold delimiters, quotes or newlines.
const QUOTE: u8 = b'"';

impl Csv {
    /// Returns the framing of records.
    pub fn framing(&self) -> Framing {
        Framing::Quoted { delimiter: self.delimiter, quote: QUOTE }
    }

    /// Returns the fields of one record; `None` if it can't be split.
    pub fn fields(&self, record: &[u8]) -> Option<Vec<String>> {
        let text = std::str::from_utf8(record).ok()?;
        let format = Format::default().with_header(true).with_delimiter(self.delimiter).with_quote(QUOTE);
        let (schema, _) = format.infer_schema(Cursor::new(text), Some(0)).ok()?;
        Some(schema.fields().iter().map(|field| field.name().trim().to_string()).collect())
    }

    /// Infers names and types from the first records of a file.
    pub fn infer(&self, sample: &[u8]) -> Result<SchemaRef, String> {
        let format = Format::default()
            .with_header(self.header)
            .with_delimiter(self.delimiter)
            .with_quote(QUOTE)
            .with_null_regex(self.null_regex()?);
        let (schema, _) = format.infer_schema(sample, None).map_err(|error| error.to_string())?;
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| Field::new(field.name().trim(), inferred(field.data_type()), true))
            .collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    fn null_regex(&self) -> Result<Regex, String> {
        Regex::new(&format!("^{}$", regex::escape(&self.null))).map_err(|error| error.to_string())
    }
}

/// Maps an inferred type to SQL's: text and timestamps, and text if nothing was found.
fn inferred(found: &DataType) -> DataType {
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null => DataType::Utf8View,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    }
}

/// Fails for columns that CSV can't hold.
pub(crate) fn check_columns(columns: &SchemaRef) -> Result<()> {
    for field in columns.fields() {
        let unit_fits = match field.data_type() {
            DataType::Time32(unit) => matches!(unit, TimeUnit::Second | TimeUnit::Millisecond),
            DataType::Time64(unit) => matches!(unit, TimeUnit::Microsecond | TimeUnit::Nanosecond),
            _ => true,
        };
        let fits = field.data_type().is_numeric()
            || matches!(
                field.data_type(),
                DataType::Boolean
                    | DataType::Utf8
                    | DataType::Utf8View
                    | DataType::Date32
                    | DataType::Date64
                    | DataType::Time32(_)
                    | DataType::Time64(_)
                    | DataType::Timestamp(..)
            );
        if !fits || !unit_fits {
            return Err(Error::Invalid(format!(
                "column '{}' has type {}, which format 'csv' can't hold: declare it TEXT, or use json or parquet",
                field.name(),
                sql_type(field.data_type())
            )));
        }
    }
    Ok(())
}

/// Decodes records of one file, whose columns may be in any order.
pub(crate) struct CsvDecoder {
    csv: Csv,
    null: Regex,
    /// The columns of the file; undeclared ones are text.
    file: SchemaRef,
    /// The declared columns' numbers in the file.
    projection: Vec<usize>,
}

impl CsvDecoder {
    /// Creates a decoder for a file with `header`. Without a header, the file has exactly the declared
    /// columns, in order. Fails with a description if the file has another schema.
    pub fn new(csv: &Csv, columns: &SchemaRef, header: Option<&[String]>) -> Result<CsvDecoder, String> {
        let null = csv.null_regex()?;
        let Some(header) = header else {
            let projection = (0..columns.fields().len()).collect();
            return Ok(CsvDecoder { csv: csv.clone(), null, file: columns.clone(), projection });
        };
        let mut file: Vec<FieldRef> =
            header.iter().map(|name| Arc::new(Field::new(name, DataType::Utf8View, true))).collect();
        let mut projection = Vec::with_capacity(columns.fields().len());
        for field in columns.fields() {
            let at = find_column(header, field.name())?;
            file[at] = field.clone();
            projection.push(at);
        }
        Ok(CsvDecoder { csv: csv.clone(), null, file: Arc::new(Schema::new(file)), projection })
    }

    fn decoder(&self, schema: SchemaRef, projection: Vec<usize>, rows: usize) -> Decoder {
        ReaderBuilder::new(schema)
            .with_delimiter(self.csv.delimiter)
            .with_quote(QUOTE)
            .with_null_regex(self.null.clone())
            // One row more than expected, to notice a record that holds two rows.
            .with_batch_size(rows + 1)
            .with_projection(projection)
            .build_decoder()
    }
}

/// Returns the header field with exactly this name, or else the only one that matches without regard to
/// case.
fn find_column(header: &[String], name: &str) -> Result<usize, String> {
    let equal: Vec<usize> = (0..header.len()).filter(|at| header[*at] == name).collect();
    let alike: Vec<usize> = (0..header.len()).filter(|at| header[*at].eq_ignore_ascii_case(name)).collect();
    match (&equal[..], &alike[..]) {
        ([at], _) | ([], [at]) => Ok(*at),
        ([], []) => Err(format!(
            "another schema: the header has no column '{name}', it has {}; the file is kept aside whole",
            header.join(", ")
        )),
        _ => Err(format!(
            "another schema: the header has column '{name}' more than once; the file is kept aside whole"
        )),
    }
}

/// Returns true if a carriage return outside of quotes ends a row within the record: the CSV reader takes it for a line
/// end, the framing doesn't.
fn holds_more_rows(record: &[u8], delimiter: u8) -> bool {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    // The reader passes over empty lines.
    let mut rest = &record[record.iter().take_while(|byte| is_line_end(byte)).count()..];
    loop {
        if let Some(quoted) = rest.strip_prefix(&[QUOTE]) {
            let Some(end) = quoted_end(quoted, QUOTE) else { return false };
            rest = &quoted[end + 1..];
        }
        let Some(at) = memchr2(delimiter, b'\r', rest) else { return false };
        if rest[at] == b'\r' {
            return !rest[at..].iter().all(is_line_end);
        }
        rest = &rest[at + 1..];
    }
}

/// Feeds records to `decoder`; each must yield exactly one row.
fn feed<'a>(
    decoder: &mut Decoder,
    delimiter: u8,
    records: impl Iterator<Item = &'a [u8]>,
) -> Result<(), String> {
    // At its very beginning the reader skips a byte-order mark. The framing has removed that of the input; another one
    // belongs to its record, wherever a group of records begins.
    decoder.decode(b"\n").map_err(|error| error.to_string())?;
    for record in records {
        if memchr(b'\r', record).is_some() && holds_more_rows(record, delimiter) {
            return Err(
                "a carriage return within it, outside of quotes, ends its row: put the field in quotes"
                    .into(),
            );
        }
        let before = decoder.capacity();
        let end: &[u8] = if record.ends_with(b"\n") { b"" } else { b"\n" };
        for mut part in [record, end] {
            while !part.is_empty() {
                let taken = decoder.decode(part).map_err(|error| error.to_string())?;
                if taken == 0 {
                    break;
                }
                part = &part[taken..];
            }
        }
        let rows = before - decoder.capacity();
        if rows != 1 {
            return Err(format!("the record holds {rows} rows; expected one"));
        }
    }
    Ok(())
}

impl Decode for CsvDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let mut decoder = self.decoder(self.file.clone(), self.projection.clone(), records.len());
        feed(
            &mut decoder,
            self.csv.delimiter,
            records.iter().map(|record| &block[record.start as usize..record.next as usize]),
        )?;
        let batch = decoder.flush().map_err(|error| error.to_string())?;
        Ok(batch.map(|batch| batch.columns().to_vec()).unwrap_or_default())
    }

    fn explain(&self, record: &[u8], error: String) -> String {
        let text: Vec<Field> = self
            .file
            .fields()
            .iter()
            .map(|field| Field::new(field.name(), DataType::Utf8View, true))
            .collect();
        let one = |schema: SchemaRef, at: usize| {
            let mut decoder = self.decoder(schema, vec![at], 1);
            feed(&mut decoder, self.csv.delimiter, std::iter::once(record))?;
            decoder.flush().map_err(|error| error.to_string())
        };
        let text = Arc::new(Schema::new(text));
        for at in &self.projection {
            if one(self.file.clone(), *at).is_ok() {
                continue;
            }
            let Ok(Some(found)) = one(text.clone(), *at) else { break };
            let field = self.file.field(*at);
            let found = match found.column(0).as_string_view() {
                values if arrow::array::Array::is_null(values, 0) => "NULL".to_string(),
                values => format!("'{}'", values.value(0)),
            };
            let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
            return format!(
                "column '{}': found {found}, expected {}{not_null}",
                field.name(),
                sql_type(field.data_type())
            );
        }
        match error.split_once("incorrect number of fields for line ") {
            Some((_, counts)) => {
                let counts = counts.split_once(", ").map_or(counts, |(_, counts)| counts);
                format!("wrong number of fields: {counts}")
            }
            None => error,
        }
    }
}
