//! The rows of a query's result beside its operators. A thread that steps the operators changes these rows, too: with
//! millions of changes, the loop would hold up all others.

use std::panic::AssertUnwindSafe;

use arrow::datatypes::SchemaRef;
use millstream_delta::Delta;
use millstream_sql::{Error, Result};
use millstream_state::{Rows, RowsSnapshot, Spillable};

use crate::error;
use crate::panics::panicked;

/// The rows of a result, here or lent to a thread.
#[derive(Debug)]
pub(in crate::run) enum Beside {
    Here(Rows),
    /// The rows as they were when they were lent.
    Lent(Lent),
}

/// The facts about rows that are available while a thread changes them.
#[derive(Debug)]
pub(in crate::run) struct Lent {
    rows: RowsSnapshot,
    memory_bytes: usize,
    spilled_bytes: usize,
}

impl Beside {
    /// Returns the rows; while they are lent, as they were before.
    pub(super) fn snapshot(&self) -> RowsSnapshot {
        match self {
            Beside::Here(rows) => rows.snapshot(),
            Beside::Lent(lent) => lent.rows.clone(),
        }
    }

    pub(in crate::run) fn schema(&self) -> &SchemaRef {
        match self {
            Beside::Here(rows) => rows.schema(),
            Beside::Lent(lent) => lent.rows.schema(),
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        match self {
            Beside::Here(rows) => rows.num_rows(),
            Beside::Lent(lent) => lent.rows.num_rows(),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Beside::Here(rows) => rows.memory_bytes(),
            Beside::Lent(lent) => lent.memory_bytes,
        }
    }

    pub(super) fn spilled_bytes(&self) -> usize {
        match self {
            Beside::Here(rows) => rows.spilled_bytes(),
            Beside::Lent(lent) => lent.spilled_bytes,
        }
    }

    /// Returns the number of rows that the next delete must index first.
    pub(super) fn num_unindexed(&self) -> usize {
        match self {
            Beside::Here(rows) => rows.num_unindexed(),
            Beside::Lent(_) => 0,
        }
    }

    /// Returns the rows, unless they are lent.
    pub(super) fn here(&self) -> Result<&Rows> {
        match self {
            Beside::Here(rows) => Ok(rows),
            Beside::Lent(_) => Err(lent()),
        }
    }

    /// Returns the rows for changes, unless they are lent.
    pub(super) fn here_mut(&mut self) -> Result<&mut Rows> {
        match self {
            Beside::Here(rows) => Ok(rows),
            Beside::Lent(_) => Err(lent()),
        }
    }

    /// Lends the rows to a thread.
    pub(super) fn lend(&mut self) -> Option<Rows> {
        let Beside::Here(rows) = &*self else { return None };
        let rows = Lent {
            rows: rows.snapshot(),
            memory_bytes: rows.memory_bytes(),
            spilled_bytes: rows.spilled_bytes(),
        };
        match std::mem::replace(self, Beside::Lent(rows)) {
            Beside::Here(rows) => Some(rows),
            Beside::Lent(_) => None,
        }
    }
}

/// Applies the change of a step to the rows of its result.
pub(in crate::run) fn apply(rows: &mut Rows, change: &Delta) -> Result<()> {
    let applied = std::panic::catch_unwind(AssertUnwindSafe(|| rows.apply(change).map_err(error::state)));
    applied.unwrap_or_else(|said| Err(panicked("keeping the result of the query", said.as_ref())))
}

fn lent() -> Error {
    Error::bug("the result of the query is being changed elsewhere")
}
