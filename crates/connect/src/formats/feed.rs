//! Encodes the changes of an epoch as a change feed: one record a key, readable by a source of the same
//! format.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, StructArray, UInt32Array, new_null_array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow::error::ArrowError;
use millstream_delta::Delta;

use super::changes::Changes;
use crate::by_key::{ByKey, Paired, Places};
use crate::{Error, Result, SinkSpec};

/// Records of one kind of change, with the rows that they describe: the new ones, or the old ones of deletes.
#[derive(Debug)]
pub(crate) struct FeedBatch {
    pub rows: RecordBatch,
    pub records: RecordBatch,
    /// True if the rows are deleted.
    pub deletes: bool,
}

/// Converts the changes of a relation with a key to records.
#[derive(Debug)]
pub(crate) struct Feed {
    changes: Changes,
    by_key: ByKey,
}

impl Feed {
    /// Creates the feed of a sink. Fails if the sink has no key: the message names `who` as the part that needs it, and ends
    /// with `otherwise`.
    pub fn new(changes: &Changes, spec: &SinkSpec, who: &str, otherwise: &str) -> Result<Feed> {
        let by_key = ByKey::new(spec, who, otherwise)?;
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

    /// Returns the column numbers of the key.
    pub fn key(&self) -> &[usize] {
        self.by_key.key()
    }

    /// Returns the records of the net changes of an epoch.
    pub fn records(&self, delta: &Delta) -> Result<Vec<RecordBatch>> {
        Ok(self.batches(delta)?.into_iter().map(|batch| batch.records).collect())
    }

    /// Returns the records of the net changes of an epoch, with their rows.
    pub fn batches(&self, delta: &Delta) -> Result<Vec<FeedBatch>> {
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
    ) -> Result<Vec<FeedBatch>, ArrowError> {
        let mut batches = Vec::new();
        for (word, rows, places) in [("delete", old, places.deleted.clone()), ("upsert", new, places.put())] {
            if places.is_empty() {
                continue;
            }
            let rows = take_record_batch(rows, &UInt32Array::from(places))?;
            let sent = if word == "delete" { rows.project(self.by_key.key())? } else { rows.clone() };
            let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(operation, DataType::Utf8View, false))];
            fields.extend(sent.schema().fields().iter().cloned());
            let words = StringViewArray::from_iter_values(std::iter::repeat_n(word, rows.num_rows()));
            let mut columns: Vec<ArrayRef> = vec![Arc::new(words)];
            columns.extend(sent.columns().iter().cloned());
            let records = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
            batches.push(FeedBatch { rows, records, deletes: word == "delete" });
        }
        Ok(batches)
    }
}

/// Returns the fields of the envelopes of rows with these columns.
pub(crate) fn envelope_fields(columns: &Fields) -> Vec<Field> {
    let rows = DataType::Struct(columns.clone());
    vec![
        Field::new("before", rows.clone(), true),
        Field::new("after", rows, true),
        Field::new("op", DataType::Utf8View, false),
    ]
}

/// Returns Debezium's envelopes: deletes first, then updates, then inserts.
fn envelopes(old: &RecordBatch, new: &RecordBatch, places: Places) -> Result<Vec<FeedBatch>, ArrowError> {
    let (updated_old, updated_new): (Vec<u32>, Vec<u32>) = places.updated.into_iter().unzip();
    let schema = Arc::new(Schema::new(envelope_fields(new.schema().fields())));
    let none = schema.field(0).data_type();
    let taken = |rows: &RecordBatch, places| take_record_batch(rows, &UInt32Array::from(places));
    let (deleted, inserted) = (taken(old, places.deleted)?, taken(new, places.inserted)?);
    let (before, after) = (taken(old, updated_old)?, taken(new, updated_new)?);
    let batch = |operation: &str, before: Option<&RecordBatch>, after: Option<&RecordBatch>| {
        let Some(rows) = after.or(before).filter(|rows| rows.num_rows() > 0) else { return Ok(None) };
        let of = |rows: Option<&RecordBatch>, count: usize| -> ArrayRef {
            match rows {
                Some(rows) => Arc::new(StructArray::from(rows.clone())),
                None => new_null_array(none, count),
            }
        };
        let count = rows.num_rows();
        let operations = StringViewArray::from_iter_values(std::iter::repeat_n(operation, count));
        let columns: Vec<ArrayRef> = vec![of(before, count), of(after, count), Arc::new(operations)];
        let records = RecordBatch::try_new(schema.clone(), columns)?;
        Ok(Some(FeedBatch { rows: rows.clone(), records, deletes: operation == "d" }))
    };
    let batches = [
        batch("d", Some(&deleted), None),
        batch("u", Some(&before), Some(&after)),
        batch("c", None, Some(&inserted)),
    ];
    batches.into_iter().filter_map(Result::transpose).collect()
}
