//! COPY without its bytes: which rows go in or out, and in which format a front end reads or writes them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::SendableRecordBatchStream;
use millstream_delta::under_schema;
use millstream_sql::{Error, Result, checked_rows, sqlstate};

use crate::deadline::Deadline;
use crate::event::Modification;
use crate::session::{Session, Tag};

/// What a COPY may bring before it is taken in.
const COPY_BYTES_MAX: usize = 4 << 30;

/// In which form the rows of a COPY are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's own: columns between tabs, `\N` for NULL.
    Text,
    /// Comma-separated values.
    Csv,
    /// PostgreSQL's binary.
    Binary,
}

/// Whether the first line names the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyHeader {
    /// There is none.
    No,
    /// It does; what is read isn't looked at.
    Yes,
    /// It does, and what is read must name the columns in their order.
    Match,
}

/// How the bytes of a COPY are written, as PostgreSQL has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The form.
    pub format: CopyFormat,
    /// What stands between two columns.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// The first line.
    pub header: CopyHeader,
    /// What stands around values (CSV).
    pub quote: u8,
    /// What stands before a quote within a value (CSV).
    pub escape: u8,
    /// By column: whether its values always stand in quotes (CSV, out).
    pub force_quote: Vec<bool>,
    /// By column: whether what isn't in quotes is never NULL (CSV, in).
    pub force_not_null: Vec<bool>,
    /// By column: whether the text for NULL is NULL in quotes too (CSV, in).
    pub force_null: Vec<bool>,
}

/// A COPY … FROM STDIN that waits for its rows. Nothing of it is done before [`CopyIn::finish`]; one that is dropped has
/// done nothing, and the transaction that it is part of has failed.
pub struct CopyIn {
    pub(crate) table: Arc<str>,
    /// All columns of the table.
    pub(crate) schema: SchemaRef,
    /// Those that come, in their order.
    pub(crate) columns: SchemaRef,
    /// For each column of the table its place among those that come.
    pub(crate) places: Vec<Option<usize>>,
    /// What each of them has where nothing comes.
    pub(crate) defaults: Vec<ScalarValue>,
    pub(crate) options: CopyOptions,
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) bytes: usize,
    /// Set unless it is finished.
    pub(crate) failed: Option<Arc<AtomicBool>>,
    pub(crate) deadline: Deadline,
}

/// The rows of a COPY … TO STDOUT.
pub struct CopyOut {
    /// How they are to be written.
    pub options: CopyOptions,
    /// The rows.
    pub rows: SendableRecordBatchStream,
    /// Whether they may come for ever.
    pub is_endless: bool,
}

impl CopyIn {
    /// The columns that come, in their order.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// How they are written.
    pub fn options(&self) -> &CopyOptions {
        &self.options
    }

    /// How many rows have come so far.
    pub fn num_rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// Waits for what brings rows, as long as the statement may take.
    pub async fn within_its_time<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        self.deadline.within(work).await
    }

    /// Takes rows: a batch of the columns that come. Batches of some thousand rows go fastest.
    pub fn push(&mut self, rows: RecordBatch) -> Result<()> {
        let rows = checked_rows(self.whole(&rows)?, &self.schema)?;
        self.bytes += rows.get_array_memory_size();
        if self.bytes > COPY_BYTES_MAX {
            return Err(Error::external(format!(
                "COPY into \"{}\" has brought {} bytes of rows, which are kept in memory until its end, up to \
                 {COPY_BYTES_MAX}",
                self.table, self.bytes
            ))
            .hint("Split it into several.")
            .code(sqlstate::OUT_OF_MEMORY));
        }
        self.batches.push(rows);
        Ok(())
    }

    /// Takes in all rows that came, in one epoch; inside a transaction they are part of it. `session` is the one that
    /// gave it.
    pub async fn finish(mut self, session: &mut Session) -> Result<Tag> {
        let batches = std::mem::take(&mut self.batches);
        let modification = Modification::Insert { table: self.table.clone(), rows: batches };
        let deadline = self.deadline.clone();
        let count = deadline.within(session.modify_alone(modification)).await.and_then(|count| count)?;
        self.failed = None;
        Ok(Tag::new(format!("COPY {count}")))
    }

    /// Rows with all columns of the table, the default in those that don't come.
    fn whole(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let fits = under_schema(rows, &self.columns).map_err(|error| {
            Error::invalid(format!("the rows don't fit the columns of COPY into \"{}\": {error}", self.table))
        });
        let rows = match self.null_at(rows) {
            None => fits?,
            Some(column) => return Err(null_in(column, &self.table)),
        };
        let columns: Vec<ArrayRef> = self
            .schema
            .fields()
            .iter()
            .zip(&self.places)
            .zip(&self.defaults)
            .map(|((field, place), default)| match place {
                Some(place) => Ok(rows.column(*place).clone()),
                None if default.is_null() => Ok(new_null_array(field.data_type(), rows.num_rows())),
                None => default.to_array_of_size(rows.num_rows()).map_err(Error::from),
            })
            .collect::<Result<_>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(crate::error::arrow)
    }

    /// A column in which a value is missing that must be there.
    fn null_at(&self, rows: &RecordBatch) -> Option<&str> {
        let columns = self.columns.fields().iter().zip(rows.columns());
        let mut needed = columns.filter(|(field, _)| !field.is_nullable());
        let (field, _) = needed.find(|(_, column)| column.logical_null_count() > 0)?;
        Some(field.name())
    }
}

/// A value must be there.
pub(crate) fn null_in(column: &str, table: &str) -> Error {
    Error::invalid(format!("column \"{column}\" of \"{table}\" is NOT NULL and a row has no value for it"))
}

impl Drop for CopyIn {
    fn drop(&mut self) {
        if let Some(failed) = &self.failed {
            failed.store(true, Ordering::Release);
        }
    }
}
