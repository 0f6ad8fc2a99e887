//! Batches of a change feed: upserts and deletes by key.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray};
use arrow::compute::is_not_null;
use arrow::datatypes::{DataType, Field, Int64Type};

use crate::{BadRow, Error, Result};

/// Returns the field that follows the schema's columns in the batches of a change feed. It is NULL for an
/// upsert. For a delete, whose row needs only its key, it holds the position and the bytes of its record. The bytes are
/// NULL if a missing row is no mistake.
pub fn deleted_field() -> Field {
    let fields = vec![
        Field::new("split", DataType::Utf8View, true),
        Field::new("position", DataType::Int64, true),
        Field::new("record", DataType::BinaryView, true),
    ];
    Field::new("_deleted", DataType::Struct(fields.into()), true)
}

/// A batch of changes, split into rows and deletes.
#[derive(Debug)]
pub struct Changes {
    /// The declared columns.
    pub rows: RecordBatch,
    /// True for each row to delete.
    pub goes: BooleanArray,
    records: StructArray,
}

impl Changes {
    /// Splits a batch of a change feed.
    pub fn of(batch: &RecordBatch) -> Result<Changes> {
        let places: Vec<usize> = (0..batch.num_columns().saturating_sub(1)).collect();
        let (last, rows) = match (batch.columns().last(), batch.project(&places)) {
            (Some(last), Ok(rows)) if last.data_type() == deleted_field().data_type() => (last, rows),
            _ => {
                return Err(Error::Bug(
                    "the last column of a batch of changes doesn't say which rows go: it is no deleted_field"
                        .into(),
                ));
            }
        };
        let goes = is_not_null(last).map_err(|error| Error::Bug(error.to_string()))?;
        Ok(Changes { rows, goes, records: last.as_struct().clone() })
    }

    /// Returns the record of a delete of a missing row as a bad row; `None` if that is no mistake.
    pub fn bad_row(&self, row: usize, reason: impl FnOnce() -> String) -> Option<BadRow> {
        let column = |place: usize| -> &ArrayRef { self.records.column(place) };
        column(2).is_valid(row).then(|| BadRow {
            split: column(0).as_string_view().value(row).into(),
            offset: column(1).as_primitive::<Int64Type>().value(row).max(0) as u64,
            reason: reason(),
            bytes: column(2).as_binary_view().value(row).to_vec(),
        })
    }

    /// Returns the names and values of a row's columns, for a message.
    pub fn text(&self, row: usize, columns: &[usize]) -> String {
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let value = |place: usize| {
            let column = self.rows.column(place);
            arrow::util::display::ArrayFormatter::try_new(column, &options)
                .map_or_else(|_| "…".to_string(), |text| text.value(row).to_string())
        };
        let schema = self.rows.schema();
        let all: Vec<String> = columns
            .iter()
            .map(|place| format!("{} = {}", schema.field(*place).name(), value(*place)))
            .collect();
        all.join(", ")
    }
}
