//! Encodes rows for clients.

use arrow::array::RecordBatch;
use arrow::buffer::NullBuffer;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};

use crate::answer::close;
use crate::message::Format;
use crate::oid::Column;
use crate::{binary, text};

/// Appends the value of a row, which isn't NULL.
pub(crate) type Writer<'a> = Box<dyn Fn(usize, &mut BytesMut) + 'a>;

/// The columns of a batch, ready to be read row by row.
pub(crate) struct Rows<'a> {
    writers: Vec<(Writer<'a>, Option<NullBuffer>)>,
}

/// Converts the columns of a batch to the canonical types of their kinds.
pub(crate) fn canonical(batch: &RecordBatch, columns: &[Column]) -> Result<RecordBatch, ArrowError> {
    let arrays = batch.columns().iter().zip(columns).map(|(array, column)| column.kind.canonical(array));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    let named = columns
        .iter()
        .zip(&arrays)
        .map(|(column, array)| arrow::datatypes::Field::new(&column.name, array.data_type().clone(), true));
    let schema = arrow::datatypes::Schema::new(named.collect::<Vec<_>>());
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.into(), arrays, &options)
}

impl<'a> Rows<'a> {
    /// Creates the rows of a batch that is canonical for its columns.
    pub(crate) fn new(batch: &'a RecordBatch, columns: &[Column]) -> Result<Rows<'a>, ArrowError> {
        let writer = |(array, column): (&'a _, &Column)| {
            let writer = match column.format {
                Format::Text => text::writer(&column.kind, array)?,
                Format::Binary => binary::writer(&column.kind, array)?,
            };
            Ok((writer, array.logical_nulls()))
        };
        let writers = batch.columns().iter().zip(columns).map(writer).collect::<Result<_, ArrowError>>()?;
        Ok(Rows { writers })
    }

    /// Appends a row as a DataRow message.
    pub(crate) fn data_row(&self, row: usize, out: &mut BytesMut) {
        out.put_u8(b'D');
        let start = out.len();
        out.put_u32(0);
        self.fields(row, out);
        close(out, start);
    }

    /// Appends a value without its length. Returns false for NULL and for a missing column.
    pub(crate) fn value(&self, column: usize, row: usize, out: &mut BytesMut) -> bool {
        let Some((writer, nulls)) = self.writers.get(column) else { return false };
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return false;
        }
        writer(row, out);
        true
    }

    /// Appends a row: the number of its fields, then each with its length.
    pub(crate) fn fields(&self, row: usize, out: &mut BytesMut) {
        out.put_u16(self.writers.len() as u16);
        for (writer, nulls) in &self.writers {
            value(out, writer, nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)), row);
        }
    }
}

/// Appends a value with its length.
pub(crate) fn value(out: &mut BytesMut, write: &Writer<'_>, is_null: bool, row: usize) {
    if is_null {
        return out.put_i32(-1);
    }
    let start = out.len();
    out.put_u32(0);
    write(row, out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
