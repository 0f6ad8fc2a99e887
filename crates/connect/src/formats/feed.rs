//! Encodes the changes of an epoch as a change feed: one record a key, readable by a source of the same
//! format.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, StructArray, UInt32Array, new_null_array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use millstream_delta::Delta;

use super::changes::Changes;
use crate::by_key::{ByKey, Paired, Places};
use crate::{Error, Result, SinkSpec};

/// Converts the changes of a relation with a key to records.
#[derive(Debug)]
pub(crate) struct Feed {
    changes: Changes,
    by_key: ByKey,
}

impl Feed {
    /// Creates the feed of a sink. Fails if the sink has no key.
    pub fn new(changes: &Changes, spec: &SinkSpec) -> Result<Feed> {
        let by_key = ByKey::new(
            spec,
            &format!("format '{}'", changes.name()),
            "; or set format = 'json' with changelog = 'true', which needs none",
        )?;
        if let Changes::Upsert { operation } = changes
            && spec.columns.field_with_name(operation).is_ok()
        {
            return Err(Error::Invalid(format!(
                "column '{operation}' has the name of the operation field: name another field with option \
                 op_field, or rename the column"
            )));
        }
        Ok(Feed { changes: changes.clone(), by_key })
    }

    /// Returns the records of the net changes of an epoch.
    pub fn records(&self, delta: &Delta) -> Result<Vec<RecordBatch>> {
        let wrong =
            |error: ArrowError| Error::Bug(format!("a change feed got rows of another schema: {error}"));
        let Paired { old, new, places } = self.by_key.pair(delta)?;
        match &self.changes {
            Changes::Upsert { operation } => self.upserts(operation, &old, &new, places).map_err(wrong),
            Changes::Debezium => envelopes(&old, &new, places).map_err(wrong),
        }
    }

    fn upserts(
        &self,
        operation: &str,
        old: &RecordBatch,
        new: &RecordBatch,
        places: Places,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut records = Vec::new();
        let deleted = old.project(self.by_key.key())?;
        for (word, rows, places) in
            [("delete", &deleted, places.deleted.clone()), ("upsert", new, places.put())]
        {
            if places.is_empty() {
                continue;
            }
            let rows = take_record_batch(rows, &UInt32Array::from(places))?;
            let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(operation, DataType::Utf8View, false))];
            fields.extend(rows.schema().fields().iter().cloned());
            let words = StringViewArray::from_iter_values(std::iter::repeat_n(word, rows.num_rows()));
            let mut columns: Vec<ArrayRef> = vec![Arc::new(words)];
            columns.extend(rows.columns().iter().cloned());
            records.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        }
        Ok(records)
    }
}

/// Returns Debezium's envelopes: deletes first, then updates, then inserts.
fn envelopes(old: &RecordBatch, new: &RecordBatch, places: Places) -> Result<Vec<RecordBatch>, ArrowError> {
    let (updated_old, updated_new): (Vec<u32>, Vec<u32>) = places.updated.into_iter().unzip();
    let none = DataType::Struct(new.schema().fields().clone());
    let rows = |rows: &RecordBatch, places: Vec<u32>| -> Result<ArrayRef, ArrowError> {
        let rows = take_record_batch(rows, &UInt32Array::from(places))?;
        Ok(Arc::new(StructArray::from(rows)))
    };
    let mut records = Vec::new();
    let mut push = |operation: &str, before: ArrayRef, after: ArrayRef| -> Result<(), ArrowError> {
        let count = before.len();
        if count == 0 {
            return Ok(());
        }
        let fields = vec![
            Field::new("before", none.clone(), true),
            Field::new("after", none.clone(), true),
            Field::new("op", DataType::Utf8View, false),
        ];
        let operations = StringViewArray::from_iter_values(std::iter::repeat_n(operation, count));
        let columns: Vec<ArrayRef> = vec![before, after, Arc::new(operations)];
        records.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        Ok(())
    };
    let nothing = |count: usize| new_null_array(&none, count);
    let (deleted, inserted) = (places.deleted.len(), places.inserted.len());
    push("d", rows(old, places.deleted)?, nothing(deleted))?;
    push("u", rows(old, updated_old)?, rows(new, updated_new)?)?;
    push("c", nothing(inserted), rows(new, places.inserted)?)?;
    Ok(records)
}
