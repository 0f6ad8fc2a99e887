//! Tables as files: Parquet, or Arrow IPC streams for types that Parquet lacks.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::disk::Growing;

/// Number of rows written, and read, at a time.
const BATCH_ROWS: usize = 8192;

/// The file extensions of tables that Parquet can hold, and of other tables.
const PARQUET: &str = "parquet";
const ARROW: &str = "arrows";

/// A length in bytes, and a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

impl Sum {
    /// Returns the sum of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Sum {
        Sum { bytes: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }
}

/// A file written sequentially, with its sum computed along the way.
pub(crate) struct Summed<'a> {
    file: &'a mut dyn Growing,
    hasher: crc32fast::Hasher,
    bytes: u64,
    /// The error of a failed write. Writers of formats keep no more than its text.
    failed: Option<io::Error>,
}

impl<'a> Summed<'a> {
    pub(crate) fn new(file: &'a mut dyn Growing) -> Summed<'a> {
        Summed { file, hasher: crc32fast::Hasher::new(), bytes: 0, failed: None }
    }

    /// Returns the disk's error, if a write has failed.
    pub(crate) fn failed(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    pub(crate) fn sum(self) -> Sum {
        Sum { bytes: self.bytes, crc: self.hasher.finalize() }
    }
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.file.append(bytes) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the extension for a table with these columns; the extension identifies the format.
pub(crate) fn ending(schema: &SchemaRef) -> &'static str {
    match comes_back(schema) {
        Ok(true) => PARQUET,
        Ok(false) | Err(_) => ARROW,
    }
}

/// Returns true if a row of nulls survives a round trip through Parquet with the same types. Parquet rejects
/// some types only if there are rows.
fn comes_back(schema: &SchemaRef) -> Result<bool, ArrowError> {
    if schema.fields().iter().any(|field| holds_union(field.data_type())) {
        return Ok(false);
    }
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    let row = RecordBatch::try_new(nullable.clone(), columns)?;
    let mut bytes = Vec::new();
    write(&mut bytes, PARQUET, &nullable, &[row])?;
    let read = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))?;
    Ok(read.schema().fields() == nullable.fields())
}

/// Returns true if a type is or contains a union, on which the Parquet writer panics.
fn holds_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => holds_union(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_union(field.data_type())),
        DataType::Dictionary(_, value) => holds_union(value),
        DataType::RunEndEncoded(_, value) => holds_union(value.data_type()),
        _ => false,
    }
}

/// Writes batches of one schema in the format of an extension.
pub(crate) fn write(
    to: &mut (impl Write + Send),
    ending: &str,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<(), ArrowError> {
    if ending == ARROW {
        let mut writer = StreamWriter::try_new(to, schema)?;
        batches.iter().try_for_each(|batch| writer.write(batch))?;
        return writer.finish();
    }
    // Higher levels cost more than they save.
    let level = ZstdLevel::try_new(1).map_err(ArrowError::from)?;
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(level));
    if let Some(name) = rising(schema) {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    let mut writer = ArrowWriter::try_new(to, schema.clone(), Some(properties.build()))?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.close()?;
    Ok(())
}

/// Returns the last column if it holds ascending numbers of rows or slots: their differences take little
/// space.
fn rising(schema: &SchemaRef) -> Option<&str> {
    let last = schema.fields().last()?;
    let is_number = matches!(last.data_type(), DataType::Int64 | DataType::UInt32);
    let is_alone = schema.fields().iter().filter(|field| field.name() == last.name()).count() == 1;
    (is_number && is_alone && ["_row", "_slot"].contains(&last.name().as_str())).then_some(last.name())
}

/// Reads the batches of a file in the format of an extension.
pub(crate) fn read(bytes: Vec<u8>, ending: &str) -> Result<Vec<RecordBatch>, ArrowError> {
    match ending {
        PARQUET => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))?;
            reader.with_batch_size(BATCH_ROWS).build()?.collect()
        }
        ARROW => StreamReader::try_new(bytes.as_slice(), None)?.collect(),
        other => {
            Err(ArrowError::InvalidArgumentError(format!("this version reads no file that ends in {other}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, Decimal256Array, Float64Array, Int64Array, IntervalMonthDayNanoArray, StringViewArray,
        StructArray, TimestampMicrosecondArray, UInt32Array, UnionArray,
    };
    use arrow::datatypes::{Field, IntervalMonthDayNano, UnionFields, i256};

    use super::*;

    #[test]
    fn all_types_come_back_as_they_were() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let kinds = UnionFields::try_new([0], [Field::new("n", DataType::Int64, true)]).unwrap();
        let union = UnionArray::try_new(kinds, vec![0, 0].into(), None, vec![numbers]).unwrap();
        let union: ArrayRef = Arc::new(union);
        let within = Field::new("u", union.data_type().clone(), true);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("u", union.clone()),
            ("_row", Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]))),
            ("_slot", Arc::new(UInt32Array::from(vec![u32::MAX, 0]))),
            ("s", Arc::new(StructArray::from(vec![(Arc::new(within), union)]))),
            ("t", Arc::new(StringViewArray::from(vec![Some("a longer text than twelve bytes"), None]))),
            ("f", Arc::new(Float64Array::from(vec![-0.0, f64::NAN]))),
            ("d", Arc::new(Decimal256Array::from(vec![Some(i256::MAX), None]))),
            ("z", Arc::new(TimestampMicrosecondArray::from(vec![1, -1]).with_timezone("Europe/Vienna"))),
            (
                "i",
                Arc::new(IntervalMonthDayNanoArray::from(vec![
                    IntervalMonthDayNano::new(1, -2, 3),
                    IntervalMonthDayNano::new(0, 0, i64::MIN),
                ])),
            ),
        ];
        for (name, column) in columns {
            let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
            let ending = ending(&batch.schema());
            assert_eq!(ending == ARROW, ["i", "s", "u"].contains(&name), "{name}");
            let mut bytes = Vec::new();
            write(&mut bytes, ending, &batch.schema(), std::slice::from_ref(&batch)).unwrap();
            let read = read(bytes, ending).unwrap();
            assert_eq!(read[0].schema().fields(), batch.schema().fields(), "{name}");
            // The comparison is bit for bit, since NaN equals nothing.
            assert_eq!(format!("{:?}", read[0].columns()), format!("{:?}", batch.columns()));
        }
    }
}
