//! Rows that statements insert into a source, beside those that it reads: repaired bad rows, for example.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use millstream_connect::Inlet;
use millstream_delta::Delta;
use millstream_sql::{Result, is_hidden};

use super::table::Waiting;
use crate::catalog::Catalog;
use crate::error;

/// The rows that statements inserted into one source. The source can't read them again, so the engine keeps them, unless
/// the source takes rows by itself.
#[derive(Default)]
pub(crate) struct SourceInserts {
    /// The target of INSERT, if the source takes rows by itself.
    inlet: Option<Arc<dyn Inlet>>,
    pub(super) all: Vec<RecordBatch>,
    pub(super) pending: Vec<RecordBatch>,
    pub(super) replies: Waiting,
}

impl SourceInserts {
    pub(super) fn new(inlet: Option<Arc<dyn Inlet>>) -> SourceInserts {
        SourceInserts { inlet, ..SourceInserts::default() }
    }

    /// Returns the target of INSERT, if the source takes rows by itself.
    pub(super) fn inlet(&self) -> Option<&Arc<dyn Inlet>> {
        self.inlet.as_ref()
    }

    /// Returns the rows that epochs have taken.
    pub(crate) fn taken(&self) -> &[RecordBatch] {
        &self.all
    }

    /// Adds rows of the journal.
    pub(crate) fn replay(&mut self, rows: Vec<RecordBatch>) {
        self.all.extend(rows);
    }

    /// True if rows or replies wait for the next epoch.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty() || !self.replies.is_empty()
    }

    /// Takes the rows and replies that wait for the next epoch.
    pub(super) fn take(&mut self) -> (Delta, Waiting) {
        let rows = std::mem::take(&mut self.pending);
        self.all.extend(rows.iter().cloned());
        (Delta::from_iter(rows), std::mem::take(&mut self.replies))
    }
}

impl Catalog {
    /// Adds the hidden columns of the source, as nulls: they say where a row was read, and these rows weren't read.
    pub(super) fn with_hidden(&self, name: &str, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema: &SchemaRef =
            self.get(name)?.definition.schema().ok_or_else(|| crate::Error::bug("a source has columns"))?;
        let mut visible = rows.columns().iter().cloned();
        let columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .filter_map(|field| match is_hidden(field) {
                true => Some(new_null_array(field.data_type(), rows.num_rows())),
                false => visible.next(),
            })
            .collect();
        RecordBatch::try_new(schema.clone(), columns).map_err(error::arrow)
    }
}
