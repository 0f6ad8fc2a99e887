//! The content that a relation had when a sink or a durable subscription was created. The reader gets it before the
//! log's entries.

use millstream_delta::{Cut, Delta, Epoch};

use crate::content::AwaitedRows;

/// The content that a reader has yet to get before the entries of a log.
#[derive(Debug, Default)]
pub(crate) struct InitialContent {
    pub(super) rows: Option<(Cut, Delta)>,
    /// The same while a thread reads it. The relation's query lags then, so no checkpoint is taken.
    awaited: Option<(Cut, AwaitedRows)>,
}

impl InitialContent {
    pub(super) fn of(cut: Cut, content: Delta) -> InitialContent {
        InitialContent {
            rows: Some((cut, content)).filter(|(_, content)| !content.is_empty()),
            awaited: None,
        }
    }

    pub(super) fn awaited(cut: Cut, rows: AwaitedRows) -> InitialContent {
        InitialContent { rows: None, awaited: Some((cut, rows)) }
    }

    /// True while a thread reads it.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// True if the reader has it.
    pub(super) fn is_taken(&self) -> bool {
        self.rows.is_none() && self.awaited.is_none()
    }

    /// Takes the rows that a thread has read. If that has failed, the relation is suspended, and has no rows.
    pub(super) fn take_awaited(&mut self) {
        let Some((_, rows)) = &self.awaited else { return };
        let Some(content) = rows.batches_if_there() else { return };
        let content = content.unwrap_or_default();
        if let Some((cut, _)) = self.awaited.take() {
            *self = InitialContent::of(cut, Delta::from_iter(content));
        }
    }

    /// Drops it if its cut matches, and returns its epoch.
    pub(super) fn drop_if(&mut self, matches: impl Fn(&Cut) -> bool) -> Option<Epoch> {
        let read = self.rows.take_if(|(cut, _)| matches(cut)).map(|(cut, _)| cut.epoch);
        read.or_else(|| self.awaited.take_if(|(cut, _)| matches(cut)).map(|(cut, _)| cut.epoch))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use millstream_delta::Timestamp;
    use tokio::sync::oneshot;

    use super::*;

    fn cut() -> Cut {
        Cut::new(Epoch(3), Timestamp(30))
    }

    fn rows() -> Vec<RecordBatch> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        vec![RecordBatch::try_from_iter([("x", column)]).unwrap()]
    }

    #[test]
    fn rows_that_a_thread_reads_are_there_once_it_has_read_them() {
        let (sender, receiver) = oneshot::channel();
        let mut content = InitialContent::awaited(cut(), AwaitedRows::new(receiver));
        content.take_awaited();
        assert!(content.is_awaited() && !content.is_taken() && content.rows.is_none());
        sender.send(Ok(rows())).unwrap();
        content.take_awaited();
        assert!(!content.is_awaited());
        let read = content.rows.as_ref().map(|(cut, delta)| (cut.epoch, delta.num_rows()));
        assert_eq!(read, Some((Epoch(3), 2)));
        assert_eq!(content.drop_if(|cut| cut.epoch < Epoch(3)), None);
        assert_eq!(content.drop_if(|cut| cut.epoch <= Epoch(3)), Some(Epoch(3)));
        assert!(content.is_taken());
    }

    #[test]
    fn rows_of_a_thread_that_ends_without_an_answer_are_none() {
        let (sender, receiver) = oneshot::channel();
        let mut content = InitialContent::awaited(cut(), AwaitedRows::new(receiver));
        drop(sender);
        content.take_awaited();
        assert!(content.is_taken());
    }

    #[test]
    fn rows_that_nobody_wants_any_more_are_not_awaited() {
        let (_sender, receiver) = oneshot::channel();
        let mut content = InitialContent::awaited(cut(), AwaitedRows::new(receiver));
        assert_eq!(content.drop_if(|cut| cut.now <= Timestamp(30)), Some(Epoch(3)));
        assert!(content.is_taken());
    }
}
