//! Deadlines of statements: `statement_timeout`.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use millstream_sql::{Error, Result, sqlstate};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// The deadline of a session's running statement. Its results share the deadline, since a session runs one
/// statement at a time.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    at: Arc<Mutex<Option<Instant>>>,
    /// The runtime whose timers are used: the waiting thread may have none.
    handle: Handle,
}

impl Deadline {
    pub(crate) fn new(handle: Handle) -> Deadline {
        Deadline { at: Arc::default(), handle }
    }

    /// Starts the timeout of a statement.
    pub(crate) fn begin(&self, timeout: Option<Duration>) {
        let at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn get(&self) -> Option<Instant> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `work` until the deadline.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let Some(at) = self.get() else { return Ok(work.await) };
        // Check first: work that is always ready would never yield to the timer.
        if at <= Instant::now() {
            return Err(timed_out());
        }
        let timeout = {
            let _timers = self.handle.enter();
            tokio::time::timeout_at(at, work)
        };
        timeout.await.map_err(|_| timed_out())
    }

    /// Wraps rows: they end with an error at the deadline.
    pub(crate) fn over(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        if self.get().is_none() {
            return rows;
        }
        let schema = rows.schema();
        let rows = stream::unfold(Some((rows, self.clone())), |state| async {
            let (mut rows, deadline) = state?;
            match deadline.within(rows.next()).await {
                Ok(next) => Some((next?, Some((rows, deadline)))),
                Err(error) => Some((Err(DataFusionError::from(error)), None)),
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

fn timed_out() -> Error {
    Error::external("canceling statement due to statement timeout")
        .hint("SET statement_timeout = 0 lets statements take as long as they need.")
        .code(sqlstate::QUERY_CANCELED)
}
