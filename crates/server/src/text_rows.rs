//! Rows as texts, for front ends that don't speak the protocol.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::BytesMut;

use crate::oid::{Column, columns};
use crate::rows::{Rows, canonical};

/// Writes rows of a result in PostgreSQL's text format.
#[derive(Debug)]
pub struct TextRows {
    columns: Vec<Column>,
}

impl TextRows {
    /// Creates a writer of rows of this schema, as a statement returns it.
    pub fn new(schema: &SchemaRef) -> TextRows {
        TextRows { columns: columns(schema, &[]) }
    }

    /// Returns the names of the columns, as users see them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Returns the values of a batch, row by row; `None` is NULL.
    pub fn rows(&self, batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, ArrowError> {
        let batch = canonical(batch, &self.columns)?;
        let rows = Rows::new(&batch, &self.columns)?;
        let mut bytes = BytesMut::new();
        let mut value = |column, row| {
            bytes.clear();
            rows.value(column, row, &mut bytes).then(|| String::from_utf8_lossy(&bytes).into_owned())
        };
        let columns = self.columns.len();
        Ok((0..batch.num_rows()).map(|row| (0..columns).map(|column| value(column, row)).collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};

    use super::*;

    #[test]
    fn values_are_postgres_texts() {
        let columns: [(&str, ArrayRef); 3] = [
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("f", Arc::new(Float64Array::from(vec![Some(f64::INFINITY), Some(0.5)]))),
            ("t", Arc::new(StringArray::from(vec![Some(""), Some("é")]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rows = TextRows::new(&batch.schema());
        assert_eq!(rows.names().collect::<Vec<_>>(), ["b", "f", "t"]);
        let some = |text: &str| Some(text.to_string());
        assert_eq!(
            rows.rows(&batch).unwrap(),
            [[some("t"), some("Infinity"), some("")], [None, some("0.5"), some("é")]]
        );
    }
}
