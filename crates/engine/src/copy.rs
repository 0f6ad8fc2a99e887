//! COPY without its bytes: the rows that go in or out, and the format that a front end reads or writes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::physical_plan::SendableRecordBatchStream;
use millstream_delta::under_schema;
use millstream_sql::{Checks, ColumnDefault, Error, GeneratedColumns, Result, checked_rows, sqlstate};

use crate::catalog::begins_with;
use crate::deadline::Deadline;
use crate::event::Modification;
use crate::session::{Session, Tag};
use crate::transaction::altered;

/// The maximum size of a COPY's rows before they are taken in.
const COPY_BYTES_MAX: usize = 4 << 30;

/// The format of a COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format: columns separated by tabs, `\N` for NULL.
    Text,
    /// Comma-separated values.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
}

/// The treatment of a header line with column names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyHeader {
    /// No header line.
    No,
    /// A header line; ignored on input.
    Yes,
    /// A header line; on input it must name the columns in order.
    Match,
}

/// The options of a COPY's format, as in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The format.
    pub format: CopyFormat,
    /// The separator of columns.
    pub delimiter: u8,
    /// The text for NULL.
    pub null: String,
    /// The header line.
    pub header: CopyHeader,
    /// The quote character (CSV).
    pub quote: u8,
    /// The escape character for a quote within a value (CSV).
    pub escape: u8,
    /// By column: true if its values are always quoted (CSV, output).
    pub force_quote: Vec<bool>,
    /// By column: true if an unquoted value is never NULL (CSV, input).
    pub force_not_null: Vec<bool>,
    /// By column: true if the quoted text for NULL is NULL too (CSV, input).
    pub force_null: Vec<bool>,
}

/// A COPY … FROM STDIN that waits for its rows. It changes nothing before [`CopyIn::finish`]. Dropping it
/// changes nothing and fails the open transaction.
pub struct CopyIn {
    pub(crate) table: Arc<str>,
    /// All columns of the table.
    pub(crate) schema: SchemaRef,
    /// The incoming columns, in their order.
    pub(crate) columns: SchemaRef,
    /// For each column of the table, its position among the incoming columns.
    pub(crate) places: Vec<Option<usize>>,
    /// The default of each column of the table, for columns that the COPY omits.
    pub(crate) defaults: Vec<ColumnDefault>,
    /// The generated columns, which the COPY omits.
    pub(crate) generated: Option<GeneratedColumns>,
    pub(crate) checks: Option<Checks>,
    pub(crate) options: CopyOptions,
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) bytes: usize,
    /// The flag to set on drop, unless the COPY has finished.
    pub(crate) failed: Option<Arc<AtomicBool>>,
    pub(crate) deadline: Deadline,
}

/// The rows of a COPY … TO STDOUT.
pub struct CopyOut {
    /// The options of the format.
    pub options: CopyOptions,
    /// The rows.
    pub rows: SendableRecordBatchStream,
    /// True if the rows may never end.
    pub is_endless: bool,
}

impl CopyIn {
    /// Returns the incoming columns, in their order.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Returns the options of the format.
    pub fn options(&self) -> &CopyOptions {
        &self.options
    }

    /// Returns the number of rows received.
    pub fn num_rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// Waits for incoming rows, within the statement's timeout.
    pub async fn within_its_time<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        self.deadline.within(work).await
    }

    /// Adds a batch with the incoming columns. Batches of some thousand rows are fastest.
    pub fn push(&mut self, rows: RecordBatch) -> Result<()> {
        let mut rows = self.whole(&rows)?;
        if let Some(generated) = &self.generated {
            rows = generated.recompute(&rows)?;
        }
        let rows = checked_rows(rows, &self.schema)?;
        if let Some(checks) = &self.checks {
            checks.verify(&rows)?;
        }
        self.bytes += rows.get_array_memory_size();
        if self.bytes > COPY_BYTES_MAX {
            return Err(Error::external(format!(
                "COPY into \"{}\" has sent {} bytes of rows, which are kept in memory until its end, up to \
                 {COPY_BYTES_MAX}",
                self.table, self.bytes
            ))
            .hint("Split it into several.")
            .code(sqlstate::OUT_OF_MEMORY));
        }
        self.batches.push(rows);
        Ok(())
    }

    /// Inserts all received rows in one epoch, or into the open transaction. `session` is the session that
    /// returned this COPY.
    pub async fn finish(mut self, session: &mut Session) -> Result<Tag> {
        let catalog = session.catalog();
        let now = catalog.find(&self.table).and_then(|object| object.definition.schema());
        let fits = |now: &SchemaRef| {
            let is_wider = now.fields().len() > self.schema.fields().len();
            Arc::ptr_eq(now, &self.schema) || is_wider && begins_with(now, &self.schema)
        };
        if now.is_some_and(|now| !fits(now)) {
            return Err(altered(&self.table));
        }
        let batches = std::mem::take(&mut self.batches);
        let modification = Modification::Insert { table: self.table.clone(), rows: batches };
        let deadline = self.deadline.clone();
        let count = deadline.within(session.modify_alone(modification)).await.and_then(|count| count)?;
        self.failed = None;
        Ok(Tag::new(format!("COPY {count}")))
    }

    /// Returns rows with all columns of the table. Columns that the COPY omits get their defaults.
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
                Some(place) => fitted(rows.column(*place).clone(), field),
                None => fitted(default.column(rows.num_rows())?, field),
            })
            .collect::<Result<_>>()?;
        let schema = match &self.generated {
            None => self.schema.clone(),
            // Not computed yet.
            Some(_) => all_nullable(&self.schema),
        };
        RecordBatch::try_new(schema, columns).map_err(crate::error::arrow)
    }

    /// Returns a NOT NULL column that lacks a value.
    fn null_at(&self, rows: &RecordBatch) -> Option<&str> {
        let columns = self.columns.fields().iter().zip(rows.columns());
        let mut needed = columns.filter(|(field, _)| !field.is_nullable());
        let (field, _) = needed.find(|(_, column)| column.logical_null_count() > 0)?;
        Some(field.name())
    }
}

/// Returns the error for a missing value in a NOT NULL column.
pub(crate) fn null_in(column: &str, table: &str) -> Error {
    Error::invalid(format!("column \"{column}\" of \"{table}\" is NOT NULL and a row has no value for it"))
}

fn all_nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl Drop for CopyIn {
    fn drop(&mut self) {
        if let Some(failed) = &self.failed {
            failed.store(true, Ordering::Release);
        }
    }
}

/// Returns values as those of a column, whose time zone may be another.
fn fitted(values: ArrayRef, field: &Field) -> Result<ArrayRef> {
    match values.data_type() == field.data_type() {
        true => Ok(values),
        false => arrow::compute::cast(&values, field.data_type()).map_err(crate::error::arrow),
    }
}
