//! Parquet files; a position is a row number.

use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_delta::sql_type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::absent::Absent;
use super::framing::BadRecord;
use crate::Limit;

/// Returns true if a file ends as a Parquet file does. Rewinds the file to its beginning.
pub(crate) fn is_finished(file: &mut File) -> std::io::Result<bool> {
    const MAGIC: &[u8; 4] = b"PAR1";
    let mut end = [0; 4];
    let length = file.seek(SeekFrom::End(0))?;
    if length >= 12 {
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut end)?;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(end == *MAGIC)
}

/// Maximum rows decoded at once.
const BATCH_ROWS: usize = 8192;

/// Returns an error for a damaged file: on some bytes the decoder panics instead of returning one.
fn contained<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it doesn't say why");
        Err(format!("the file is damaged: its content can't be decoded ({said})"))
    })
}

/// Infers the schema of a file, with SQL's types.
pub(crate) fn infer(file: File) -> Result<SchemaRef, String> {
    contained(|| schema_of(file))
}

fn schema_of(file: File) -> Result<SchemaRef, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let fields: Vec<Field> = reader
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let data_type = match field.data_type() {
                DataType::Dictionary(_, value) => value.as_ref(),
                other => other,
            };
            let data_type = match data_type {
                DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
                other => other.clone(),
            };
            Field::new(field.name(), data_type, field.is_nullable())
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Reads the declared columns of one file in bounded pieces.
pub(crate) struct ParquetRows {
    columns: SchemaRef,
    reader: ParquetRecordBatchReader,
    /// The source of each declared column.
    read: Vec<Read>,
    /// Decoded rows that no pull has returned yet.
    waiting: Option<RecordBatch>,
    /// Approximate bytes per row in the last decoded batch. A slice doesn't know its size: its arrays hold
    /// the memory of the whole batch.
    row_bytes: usize,
    /// The number of the next row.
    row: u64,
    rows_total: u64,
}

/// The source of a column.
enum Read {
    /// A column number in the decoded batch.
    At(usize),
    /// A column that no query reads and that has no invalid values: it isn't decoded.
    Never(Absent),
}

/// The result of one pull: columns of consecutive rows without the bad ones.
pub(crate) struct ParquetPiece {
    /// The declared columns.
    pub columns: Vec<ArrayRef>,
    /// The row number of each row.
    pub rows: Vec<i64>,
    pub bad: Vec<BadRecord>,
    /// Approximate number of bytes decoded.
    pub bytes: usize,
}

impl ParquetRows {
    /// Opens `file` at row `from`, to be read up to row `to` at most. Skips the columns that are false in
    /// `wanted`. Fails with a description if the file isn't Parquet or has another schema.
    pub fn open(
        file: File,
        columns: &SchemaRef,
        wanted: Option<&[bool]>,
        from: u64,
        to: Option<u64>,
    ) -> Result<ParquetRows, String> {
        contained(|| ParquetRows::begin(file, columns, wanted, from, to))
    }

    fn begin(
        file: File,
        columns: &SchemaRef,
        wanted: Option<&[bool]>,
        from: u64,
        to: Option<u64>,
    ) -> Result<ParquetRows, String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|error| format!("not a Parquet file that can be read: {error}"))?;
        let found = builder.schema().clone();
        let (mut roots, mut kept) = (Vec::new(), Vec::with_capacity(columns.fields().len()));
        for (place, field) in columns.fields().iter().enumerate() {
            let Ok(at) = found.index_of(field.name()) else {
                let names: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(format!(
                    "another schema: the file has no column '{}', it has {}; the file is kept aside whole",
                    field.name(),
                    names.join(", ")
                ));
            };
            if !fits(found.field(at).data_type(), field.data_type()) {
                return Err(format!(
                    "another schema: column '{}' is {} in the file, expected {}; the file is kept aside whole",
                    field.name(),
                    sql_type(found.field(at).data_type()),
                    sql_type(field.data_type())
                ));
            }
            let is_wanted = wanted.is_none_or(|wanted| wanted.get(place).is_none_or(|wanted| *wanted));
            let absent = if is_wanted { None } else { absent(found.field(at), field) };
            if absent.is_none() {
                roots.push(at);
            }
            kept.push((at, absent));
        }
        roots.sort_unstable();
        let read = |(at, absent): (usize, Option<Absent>)| match absent {
            Some(absent) => Read::Never(absent),
            None => Read::At(roots.partition_point(|other| *other < at)),
        };
        let read = kept.into_iter().map(read).collect();
        let rows_total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let rows_total = to.map_or(rows_total, |to| to.min(rows_total));
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_offset(from as usize)
            .with_limit(rows_total.saturating_sub(from) as usize)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(ParquetRows {
            columns: columns.clone(),
            reader,
            read,
            waiting: None,
            row_bytes: 1,
            row: from,
            rows_total,
        })
    }

    /// Returns the number of the next row.
    pub fn position(&self) -> u64 {
        self.row
    }

    /// Returns true if all rows were read.
    pub fn is_exhausted(&self) -> bool {
        self.row >= self.rows_total
    }

    /// Returns the next rows; `None` at the end. Fails with a description if the rest of the file is
    /// damaged.
    pub fn next(&mut self, limit: Limit) -> Result<Option<ParquetPiece>, String> {
        contained(|| self.take(limit))
    }

    fn take(&mut self, limit: Limit) -> Result<Option<ParquetPiece>, String> {
        let batch = match self.waiting.take() {
            Some(batch) => batch,
            None if self.is_exhausted() => return Ok(None),
            None => match self.reader.next() {
                Some(batch) => {
                    let batch = batch.map_err(|error| error.to_string())?;
                    self.row_bytes = (batch.get_array_memory_size() / batch.num_rows().max(1)).max(1);
                    batch
                }
                None => {
                    return Err(format!("the file says it has {} rows, but ends here", self.rows_total));
                }
            },
        };
        let take = batch.num_rows().min(limit.rows).min((limit.bytes / self.row_bytes).max(1));
        let taken = batch.slice(0, take);
        if take < batch.num_rows() {
            self.waiting = Some(batch.slice(take, batch.num_rows() - take));
        }
        let first = self.row;
        self.row += take as u64;
        self.convert(&taken, first).map(Some)
    }

    /// Casts rows to the declared types. A value that doesn't fit makes its row bad.
    fn convert(&self, batch: &RecordBatch, first: u64) -> Result<ParquetPiece, String> {
        let bytes = self.row_bytes * batch.num_rows();
        let mut columns = Vec::with_capacity(self.read.len());
        let mut wrong: Vec<Option<String>> = Vec::new();
        for (field, read) in self.columns.fields().iter().zip(&self.read) {
            let place = match read {
                Read::At(place) => *place,
                Read::Never(absent) => {
                    columns.push(absent.rows(batch.num_rows()));
                    continue;
                }
            };
            let found = batch.column(place);
            let column = cast(found, field.data_type()).map_err(|error| error.to_string())?;
            if column.null_count() > if field.is_nullable() { found.logical_null_count() } else { 0 } {
                wrong.resize(batch.num_rows(), None);
                mark(&mut wrong, field, found, &column);
            }
            columns.push(column);
        }
        let rows = (0..batch.num_rows() as i64).map(|row| first as i64 + row);
        if wrong.iter().all(Option::is_none) {
            return Ok(ParquetPiece { columns, rows: rows.collect(), bad: Vec::new(), bytes });
        }
        let good: BooleanArray = wrong.iter().map(|reason| Some(reason.is_none())).collect();
        let rows = rows.zip(&wrong).filter(|(_, reason)| reason.is_none()).map(|(row, _)| row).collect();
        let nullable: Vec<Field> =
            self.columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let all = RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns);
        let kept = all.and_then(|all| filter_record_batch(&all, &good)).map_err(|error| error.to_string())?;
        let bad = wrong.into_iter().zip(first..);
        let bad = bad.filter_map(|(reason, row)| Some(BadRecord::new(row, reason?, b""))).collect();
        Ok(ParquetPiece { columns: kept.columns().to_vec(), rows, bad, bytes })
    }
}

/// Notes the reason for each row whose value in one column doesn't fit.
fn mark(wrong: &mut [Option<String>], field: &Field, found: &ArrayRef, column: &ArrayRef) {
    let nulls = found.logical_nulls();
    for (row, reason) in wrong.iter_mut().enumerate().filter(|(_, reason)| reason.is_none()) {
        let was_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        if column.is_null(row) && (!was_null || !field.is_nullable()) {
            let value = match was_null {
                true => "NULL".to_string(),
                false => arrow::util::display::array_value_to_string(found, row).unwrap_or_default(),
            };
            let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
            *reason = Some(format!(
                "column '{}': found {value}, expected {}{not_null}",
                field.name(),
                sql_type(field.data_type())
            ));
        }
    }
}

/// Returns the placeholder of an unread column, if none of its values could make a bad row.
fn absent(found: &Field, declared: &Field) -> Option<Absent> {
    let is_required = !declared.is_nullable() && found.is_nullable();
    // A time in another unit may be out of range.
    let may_fail = match (found.data_type(), declared.data_type()) {
        (DataType::Timestamp(unit, _), DataType::Timestamp(to_unit, _)) => unit != to_unit,
        _ => false,
    };
    if is_required || may_fail { None } else { Absent::of(declared) }
}

/// Returns true if type `found` fits a column of type `declared`: the same kind, and no wider.
fn fits(found: &DataType, declared: &DataType) -> bool {
    use DataType::*;
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    match (found, declared) {
        (found, declared) if found == declared => true,
        (Dictionary(_, value), declared) => fits(value, declared),
        (found, declared) if text(found) => text(declared),
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary | LargeBinary | BinaryView) => true,
        (Float16 | Float32, Float32 | Float64) => true,
        (found, declared) if found.is_integer() && declared.is_integer() => {
            let wider = declared.primitive_width() > found.primitive_width();
            let same_sign = found.is_signed_integer() == declared.is_signed_integer();
            wider && (same_sign || declared.is_signed_integer())
        }
        (
            Decimal128(p, s) | Decimal32(p, s) | Decimal64(p, s),
            Decimal128(to_p, to_s) | Decimal256(to_p, to_s),
        ) => s == to_s && p <= to_p,
        (Timestamp(_, zone), Timestamp(_, to_zone)) => zone.is_some() == to_zone.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn pieces_of_a_decoded_batch_are_of_one_size() {
        let numbers = Int64Array::from_iter_values(0..1000);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.parquet");
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let mut rows = ParquetRows::open(File::open(&path).unwrap(), &batch.schema(), None, 0, None).unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = rows.next(Limit { rows: usize::MAX, bytes: 1000 }).unwrap() {
            assert!(piece.bytes <= 1000, "{}", piece.bytes);
            pieces.push(piece.rows.len());
        }
        assert_eq!(pieces.iter().sum::<usize>(), 1000);
        let last = pieces.pop().unwrap();
        assert!(pieces.len() > 5 && pieces.iter().all(|rows| *rows == pieces[0]), "{pieces:?}");
        assert!(last <= pieces[0]);
    }
}
