//! Encodes rows as files.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, new_empty_array};
use arrow::compute::cast;
use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::datatypes::{DataType, FieldRef, IntervalUnit, SchemaRef};
use arrow::json::WriterBuilder as JsonWriterBuilder;
use arrow::json::writer::{EncoderOptions, LineDelimited, make_encoder};
use millstream_delta::sql_type;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::csv::Csv;
use super::{Format, csv};
use crate::{Error, Result};

/// Fails for rows with another number of columns than an encoder's.
pub(crate) fn check_width(columns: &SchemaRef, rows: &RecordBatch) -> Result<(), String> {
    let (found, expected) = (rows.num_columns(), columns.fields().len());
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found} columns were to be encoded, but the schema has {expected}")),
    }
}

/// Fails for columns that `format` can't hold.
pub(crate) fn check_columns(format: &Format, columns: &SchemaRef) -> Result<()> {
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    match format {
        Format::Text if names.len() != 1 => Err(Error::Invalid(format!(
            "format 'text' writes one column, but there are {} ({}): select one, or use csv, json or parquet",
            names.len(),
            names.join(", ")
        ))),
        Format::Text => Ok(()),
        Format::Csv(_) => csv::check_columns(columns),
        Format::Json => check_each(columns, "json", json_holds),
        Format::Changes(changes) => check_each(columns, changes.name(), json_holds),
        Format::Parquet => check_each(columns, "parquet", parquet_holds),
    }
}

fn check_each(columns: &SchemaRef, format: &str, holds: fn(&FieldRef) -> bool) -> Result<()> {
    match columns.fields().iter().find(|field| !holds(field)) {
        None => Ok(()),
        Some(field) => Err(Error::Invalid(format!(
            "column '{}' has type {}, which format '{format}' can't hold: cast it to TEXT",
            field.name(),
            sql_type(field.data_type())
        ))),
    }
}

fn json_holds(field: &FieldRef) -> bool {
    make_encoder(field, new_empty_array(field.data_type()).as_ref(), &EncoderOptions::default()).is_ok()
}

/// Returns true if the Parquet writer supports a type; for a union it would panic.
fn parquet_holds(field: &FieldRef) -> bool {
    match field.data_type() {
        DataType::Interval(unit) => *unit != IntervalUnit::MonthDayNano,
        DataType::Union(..) | DataType::RunEndEncoded(..) => false,
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => parquet_holds(inner),
        DataType::Struct(fields) => fields.iter().all(parquet_holds),
        _ => true,
    }
}

/// Writes `batches` to `out` as one file.
pub(crate) fn encode(
    format: &Format,
    columns: &SchemaRef,
    batches: &[RecordBatch],
    out: &mut (dyn Write + Send),
) -> Result<(), String> {
    match format {
        Format::Text => encode_text(batches, out),
        Format::Csv(csv) => encode_csv(csv, batches, out),
        Format::Json | Format::Changes(_) => encode_json(batches, out),
        Format::Parquet => {
            let properties = WriterProperties::builder()
                .set_compression(ParquetCompression::ZSTD(ZstdLevel::default()))
                .build();
            let writer = ArrowWriter::try_new(out, Arc::clone(columns), Some(properties));
            writer
                .and_then(|mut writer| {
                    batches.iter().try_for_each(|batch| writer.write(batch))?;
                    writer.close()
                })
                .map(|_| ())
                .map_err(|error| error.to_string())
        }
    }
}

/// Writes records as CSV.
pub(crate) fn encode_csv(
    csv: &Csv,
    batches: &[RecordBatch],
    out: &mut (dyn Write + Send),
) -> Result<(), String> {
    let mut writer = CsvWriterBuilder::new()
        .with_header(csv.header)
        .with_delimiter(csv.delimiter)
        .with_null(csv.null.clone())
        .build(out);
    batches.iter().try_for_each(|batch| writer.write(batch)).map_err(|error| error.to_string())
}

/// Writes one object a line. No line break is within an object.
pub(crate) fn encode_json(batches: &[RecordBatch], out: &mut (dyn Write + Send)) -> Result<(), String> {
    let builder = JsonWriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(out);
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    writer.write_batches(&batches).and_then(|()| writer.finish()).map_err(|error| error.to_string())
}

/// Writes one value a line; NULL is an empty line.
fn encode_text(batches: &[RecordBatch], out: &mut dyn Write) -> Result<(), String> {
    for batch in batches {
        let text = cast(batch.column(0), &DataType::Utf8View).map_err(|error| error.to_string())?;
        let text = text.as_string_view();
        for row in 0..text.len() {
            let value = if text.is_null(row) { "" } else { text.value(row) };
            out.write_all(value.as_bytes())
                .and_then(|()| out.write_all(b"\n"))
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
