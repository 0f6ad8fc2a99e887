//! A result as a file: CSV, or Parquet.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use axum::body::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tokio::sync::mpsc::Sender;

use crate::results::Spool;

/// Bytes of a piece that is sent.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes of rows that become a row group of Parquet, about.
const GROUP_BYTES: usize = 16 << 20;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Parquet,
}

impl Format {
    /// Returns the format of this name.
    pub(crate) fn find(name: &str) -> Option<Format> {
        match name {
            "csv" => Some(Format::Csv),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }

    /// Returns the type of the content.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Fails if a result can't be saved in this format.
    pub(crate) fn check(self, spool: &Spool) -> Result<(), String> {
        match self {
            Format::Csv => Ok(()),
            Format::Parquet => writer(io::sink(), &writable(spool.schema())).map(|_| ()),
        }
    }

    /// Writes a result, and sends its bytes. It blocks while the reader is slow, and fails once it is gone.
    pub(crate) fn write(self, spool: &Spool, sender: Sender<io::Result<Bytes>>) -> Result<(), String> {
        let mut pieces = Pieces { sender, piece: Vec::with_capacity(PIECE_BYTES) };
        match self {
            Format::Csv => write_csv(spool, &mut pieces)?,
            Format::Parquet => write_parquet(spool, &mut pieces)?,
        }
        pieces.flush().map_err(|error| error.to_string())
    }
}

/// Sends what is written in pieces.
struct Pieces {
    sender: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Writes rows as CSV. NULL is an empty field, an empty text is `""`.
fn write_csv(spool: &Spool, output: &mut impl Write) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let names: Vec<Option<String>> = spool.texts().names().map(|name| Some(name.to_string())).collect();
    output.write_all(csv_line(&names).as_bytes()).map_err(failed)?;
    let mut result = Ok(());
    spool.read(0, usize::MAX, &mut |row| {
        result = output.write_all(csv_line(&row).as_bytes()).map_err(failed);
        result.is_ok()
    })?;
    result
}

fn csv_line(row: &[Option<String>]) -> String {
    let field = |value: &Option<String>| match value {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\r', '\n']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.clone(),
    };
    row.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

fn writer<W: Write + Send>(output: W, schema: &SchemaRef) -> Result<ArrowWriter<W>, String> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    ArrowWriter::try_new(output, schema.clone(), Some(properties))
        .map_err(|error| format!("the result can't be saved as Parquet: {error}; CSV takes all types"))
}

/// Returns the columns with types that Parquet's writer takes: intervals become text.
fn writable(schema: &SchemaRef) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Interval(_) | DataType::Duration(_) => Field::new(field.name(), DataType::Utf8, true),
        _ => field.as_ref().clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn write_parquet(spool: &Spool, output: &mut (impl Write + Send)) -> Result<(), String> {
    let schema = writable(spool.schema());
    let mut writer = writer(output, &schema)?;
    let text = |error: parquet::errors::ParquetError| error.to_string();
    spool.each(&mut |batch| {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast(column, field.data_type()),
        });
        let columns = columns.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|error| error.to_string())?;
        writer.write(&batch).map_err(text)?;
        if writer.in_progress_size() > GROUP_BYTES { writer.flush().map_err(text) } else { Ok(()) }
    })?;
    writer.close().map(|_| ()).map_err(text)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, IntervalMonthDayNanoArray, StringViewArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    /// Returns a result in a format.
    fn saved(spool: Spool, format: Format) -> Vec<u8> {
        format.check(&spool).unwrap();
        let (sender, mut pieces) = tokio::sync::mpsc::channel(1);
        let writing = std::thread::spawn(move || format.write(&spool, sender));
        let mut all = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            all.extend_from_slice(&piece.unwrap());
        }
        writing.join().unwrap().unwrap();
        all
    }

    fn spool(rows: i64) -> Spool {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let halves: ArrayRef =
            Arc::new(Float64Array::from_iter((0..rows).map(|id| (id != 1).then(|| id as f64 / 2.0))));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (0..rows).map(|id| if id == 0 { String::new() } else { format!("a \"text\", {id}") }),
        ));
        let hour = IntervalMonthDayNano::new(0, 0, 3_600_000_000_000);
        let hours: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from_iter_values((0..rows).map(|_| hour)));
        let columns = [("id", ids, true), ("half", halves, true), ("v", texts, true), ("hour", hours, true)];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let mut spool = Spool::new(&batch.schema(), Arc::default());
        assert!(spool.add(&batch).unwrap());
        spool.finish().unwrap();
        spool
    }

    #[test]
    fn csv_quotes_texts_and_leaves_null_empty() {
        let text = String::from_utf8(saved(spool(2), Format::Csv)).unwrap();
        assert_eq!(text, "id,half,v,hour\r\n0,0,\"\",01:00:00\r\n1,,\"a \"\"text\"\", 1\",01:00:00\r\n");
    }

    #[test]
    fn parquet_has_all_rows_with_their_types() {
        let rows = 100_000;
        let bytes = Bytes::from(saved(spool(rows), Format::Parquet));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
        let ids = batches.iter().flat_map(|batch| {
            let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            ids.values().to_vec()
        });
        assert!(ids.eq(0..rows));
        assert_eq!(batches[0].column(1).null_count(), 1);
        assert_eq!(batches[0].schema().field(3).data_type(), &DataType::Utf8);
    }
}
