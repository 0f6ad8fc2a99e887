//! Feeds: the rows that a query takes of its inputs.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_delta::Delta;
use millstream_sql::Result;

use super::window::Window;
use crate::stamp::{Batch, stamp_all};

#[derive(Debug)]
pub(crate) struct Feed {
    /// The relation whose rows it takes.
    pub(crate) of: Arc<str>,
    /// The relation's schema with the columns of the batch, if the query reads one.
    pub(crate) stamped: Option<SchemaRef>,
    /// The columns of the relation that the query reads; none for all.
    pub(crate) columns: Option<Vec<usize>>,
    /// The window of rows, if the query runs once per batch; none for the changes as they arrive.
    pub(crate) window: Option<Window>,
}

impl Feed {
    /// True if it takes all changes as they arrive, whatever their batch.
    pub(crate) fn is_plain(&self) -> bool {
        self.stamped.is_none() && self.window.is_none()
    }

    /// Returns a copy for a thread, with the rows of its window. The window is empty here meanwhile.
    pub(crate) fn lend(&mut self) -> Feed {
        let (of, stamped, columns) = (self.of.clone(), self.stamped.clone(), self.columns.clone());
        Feed { of, stamped, columns, window: self.window.as_mut().map(Window::lend) }
    }

    /// Returns a change of a batch in the form that the query's flow takes.
    pub(crate) fn stamp<'a>(&self, delta: &'a Delta, batch: Batch) -> Result<Cow<'a, Delta>> {
        Ok(match &self.stamped {
            Some(schema) => Cow::Owned(stamp_all(delta, batch, schema)?),
            None => Cow::Borrowed(delta),
        })
    }
}
