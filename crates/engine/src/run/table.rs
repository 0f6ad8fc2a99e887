//! A table's rows, as DML statements see them and as readers see them.

mod bring;
mod change;
mod commit;
mod extended;
mod feed;
mod index;
mod saving;
mod wanted;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use millstream_delta::{Delta, consolidate};
use millstream_sql::{Error, Result, TableIndex};
use millstream_state::{Conflict, Keyed, Rows, RowsSnapshot, Spillable, Spilling};

use crate::catalog::Intake;
use crate::error;
use crate::event::Reply;
use crate::sequences::TableSequences;
pub(crate) use bring::ToBring;
use change::Applying;
pub(crate) use change::{Applying as ApplyingChange, Change, TableWrite};
pub(crate) use commit::Undo;
pub(crate) use extended::{ExtendedTable, NewColumns, RowsAnew, extended, extended_delta};
pub(crate) use index::Indexes;

/// The rows of a table. Statements change the staged rows at once. The next epoch takes their changes in; readers see
/// the rows as of the last epoch.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Content,
    intake: Intake,
    pending: Delta,
    /// The number of pending chunks that are consolidated, if these are all of them.
    summed: usize,
    /// A change that is applied a piece at a time.
    applying: Option<Box<Applying>>,
    published: Option<RowsSnapshot>,
    replies: Waiting,
    /// A number that rises with every change.
    version: u64,
    /// The defaults of columns that were added after the table's creation: of its last columns, in order.
    added: Vec<ScalarValue>,
    /// The sequences of its identity columns.
    pub(super) sequences: TableSequences,
    pub(super) indexes: Indexes,
}

/// Statements that wait for their epoch, each with its number of rows.
pub(crate) type Waiting = Vec<(Reply<u64>, u64)>;

#[derive(Debug)]
enum Content {
    /// Without a primary key: a multiset.
    Bag(Box<Rows>),
    /// One row a key.
    Keyed(Box<Keyed>),
}

impl Content {
    /// Returns the columns of the primary key; none without one.
    fn key_columns(&self) -> &[usize] {
        match self {
            Content::Keyed(rows) => rows.key_columns(),
            Content::Bag(_) => &[],
        }
    }

    fn snapshot(&self) -> RowsSnapshot {
        match self {
            Content::Bag(rows) => rows.snapshot(),
            Content::Keyed(rows) => rows.snapshot(),
        }
    }
}

impl Table {
    /// Creates an empty table; `key` is empty if it has no primary key.
    pub(crate) fn new(name: &str, schema: &SchemaRef, key: &[usize], intake: Intake) -> Result<Table> {
        let rows = if key.is_empty() {
            Content::Bag(Box::new(Rows::new(schema.clone())))
        } else {
            Content::Keyed(Box::new(Keyed::new(schema.clone(), key.to_vec()).map_err(error::state)?))
        };
        Ok(Table {
            rows,
            intake,
            pending: Delta::default(),
            summed: 0,
            applying: None,
            published: None,
            replies: Vec::new(),
            version: 0,
            added: Vec::new(),
            sequences: TableSequences::default(),
            indexes: Indexes::new(name, TableIndex::all(schema), schema, key)?,
        })
    }

    /// True if it has a primary key.
    pub(crate) fn is_keyed(&self) -> bool {
        matches!(self.rows, Content::Keyed(_))
    }

    /// Returns true if a change or a statement waits for an epoch.
    pub(crate) fn is_changed(&self) -> bool {
        !self.pending.is_empty() || !self.replies.is_empty()
    }

    /// Returns the rows as of the last epoch.
    pub(crate) fn published(&self) -> RowsSnapshot {
        self.published.clone().unwrap_or_else(|| self.staged())
    }

    /// Returns the rows as a statement sees them.
    pub(crate) fn staged(&self) -> RowsSnapshot {
        match &self.applying {
            Some(applying) => applying.before.clone(),
            None => self.rows.snapshot(),
        }
    }

    /// Returns the number of the next new row, if the table is keyed.
    fn next_id(&self) -> u64 {
        match (&self.applying, &self.rows) {
            (Some(applying), _) => applying.next_id,
            (None, Content::Keyed(rows)) => rows.next_id(),
            (None, Content::Bag(_)) => 0,
        }
    }

    /// Returns the number of rows, and their approximate bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (rows, bytes) = match &self.rows {
            Content::Bag(rows) => (rows.num_rows(), rows.memory_bytes()),
            Content::Keyed(rows) => (rows.num_rows(), rows.memory_bytes()),
        };
        (rows, bytes + self.indexes.memory_bytes())
    }

    /// Fails if two rows have one key.
    pub(crate) fn check_distinct_keys(&self, rows: &RecordBatch) -> Result<()> {
        match &self.rows {
            Content::Keyed(keyed) => check_distinct_keys(rows, keyed.key_columns()),
            Content::Bag(_) => Ok(()),
        }
    }

    /// Applies a journalled change.
    pub(crate) fn replay(&mut self, delta: &Delta) -> Result<()> {
        let (inserts, deletes) = delta.split_by_sign().map_err(error::arrow)?;
        let expand = |delta: Delta| -> Result<Vec<RecordBatch>> {
            delta.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
        };
        self.change(Change::delete(&expand(deletes)?)?)?;
        self.change(Change::insert(&expand(inserts)?, Some(Conflict::Replace))?)?;
        Ok(())
    }

    /// Makes `reply` wait for the epoch that takes in the changes.
    pub(crate) fn wait(&mut self, reply: Reply<u64>, count: u64) {
        self.replies.push((reply, count));
    }

    /// Takes the changes since the last epoch, for the epoch that begins.
    pub(crate) fn take(&mut self) -> (Delta, Waiting) {
        self.published = None;
        let mut delta = std::mem::take(&mut self.pending);
        // Rows inserted and deleted between two epochs cancel out. Rows of a type that can't be compared stay as they
        // are: the sum is the same.
        let summed = std::mem::take(&mut self.summed) == delta.chunks.len();
        if delta.chunks.len() > 1 && !summed && !delta.is_append_only() {
            delta = consolidate(delta.clone(), self.staged().schema()).unwrap_or(delta);
        }
        (delta, std::mem::take(&mut self.replies))
    }

    /// Keeps the rows as readers see them before the first change of an epoch.
    fn stage(&mut self) {
        self.version += 1;
        if self.published.is_none() {
            self.published = Some(self.rows.snapshot());
        }
    }
}

/// Fails if two rows have one key.
pub(crate) fn check_distinct_keys(rows: &RecordBatch, key: &[usize]) -> Result<()> {
    let mut empty = Keyed::new(rows.schema(), key.to_vec()).map_err(error::state)?;
    match empty.upsert(rows, Conflict::Fail) {
        Ok(_) => Ok(()),
        Err(millstream_state::Error::DuplicateKey { .. }) => Err(Error::invalid(
            "two rows of the statement have one key, so ON CONFLICT DO UPDATE would change a row a second time",
        )
        .hint("Make the rows distinct by key first.")),
        Err(error) => Err(error::change(error)),
    }
}

impl Spillable for Table {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        match &mut self.rows {
            Content::Bag(rows) => rows.spill(spilling),
            Content::Keyed(rows) => rows.spill(spilling),
        }
        self.indexes.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        let rows = match &self.rows {
            Content::Bag(rows) => rows.spilled_bytes(),
            Content::Keyed(rows) => rows.spilled_bytes(),
        };
        rows + self.indexes.spilled_bytes()
    }
}
