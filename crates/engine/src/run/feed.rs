//! What a query takes of one of its inputs.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_delta::Delta;
use millstream_sql::Result;

use super::window::Window;
use crate::stamp::{Batch, stamp_all};

/// One input of a query.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The relation whose rows it takes.
    pub(crate) of: Arc<str>,
    /// The relation's schema with the columns of the batch, where the query reads one.
    pub(crate) stamped: Option<SchemaRef>,
    /// Which columns of the relation it looks at; `None`: all.
    pub(crate) columns: Option<Vec<usize>>,
    /// Which of the rows, where the query runs once per batch; none: its changes as they come.
    pub(crate) window: Option<Window>,
}

impl Feed {
    /// True if it takes all changes as they come, whatever their batch.
    pub(crate) fn is_plain(&self) -> bool {
        self.stamped.is_none() && self.window.is_none()
    }

    /// The same for a thread, with the rows of its window, of which none stay here.
    pub(crate) fn lend(&mut self) -> Feed {
        let (of, stamped, columns) = (self.of.clone(), self.stamped.clone(), self.columns.clone());
        Feed { of, stamped, columns, window: self.window.as_mut().map(Window::lend) }
    }

    /// A change that came with a batch, as the query's flow takes it.
    pub(crate) fn stamp<'a>(&self, delta: &'a Delta, batch: Batch) -> Result<Cow<'a, Delta>> {
        Ok(match &self.stamped {
            Some(schema) => Cow::Owned(stamp_all(delta, batch, schema)?),
            None => Cow::Borrowed(delta),
        })
    }
}
