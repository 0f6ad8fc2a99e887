//! The running statements: their users, start times and progress, and their cancellation by other sessions.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use millstream_delta::Timestamp;
use millstream_sql::{Error, sqlstate};
use tokio::sync::Notify;

use crate::secrets::without_secrets;

/// The maximum number of characters of a statement to show.
const SHOWN_MAX: usize = 1000;

/// The maximum number of characters searched for secrets.
const READ_MAX: usize = 100 * SHOWN_MAX;

/// The running statements of an engine.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    last: AtomicU64,
    running: Mutex<BTreeMap<u64, Weak<Job>>>,
}

/// A statement that runs, or whose rows are still being read.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) number: u64,
    /// The number of its session, as in `pg_backend_pid()`.
    pub(crate) backend: i64,
    pub(crate) user: String,
    /// The beginning of the statement, with its secrets.
    statement: String,
    pub(crate) began: Timestamp,
    /// Rows processed, and the total number if known.
    pub(crate) rows_done: AtomicU64,
    pub(crate) rows_total: AtomicU64,
    memory: OnceLock<Weak<dyn MemoryPool>>,
    is_cancelled: AtomicBool,
    cancelled: Notify,
    jobs: Arc<Jobs>,
}

tokio::task_local! {
    /// The statement that runs on this task.
    static CURRENT: Arc<Job>;
}

impl Jobs {
    /// Registers a statement that begins.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (backend, user): (i64, &str),
        statement: &str,
        began: Timestamp,
    ) -> Arc<Job> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let job = Arc::new(Job {
            number,
            backend,
            user: user.into(),
            statement: statement.chars().take(READ_MAX).collect(),
            began,
            rows_done: AtomicU64::new(0),
            rows_total: AtomicU64::new(0),
            memory: OnceLock::new(),
            is_cancelled: AtomicBool::new(false),
            cancelled: Notify::new(),
            jobs: self.clone(),
        });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::downgrade(&job));
        job
    }

    /// Returns the running statements, in the order in which they began.
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().filter_map(Weak::upgrade).collect()
    }

    /// Cancels the statements of a session. Returns true if there were any.
    pub(crate) fn cancel(&self, backend: i64) -> bool {
        let of_session: Vec<Arc<Job>> = self.all().into_iter().filter(|job| job.backend == backend).collect();
        of_session.iter().for_each(|job| job.cancel());
        !of_session.is_empty()
    }
}

impl Job {
    /// Returns the beginning of the statement for display.
    pub(crate) fn shown_statement(&self) -> String {
        // A secret cut off by the limit wouldn't be recognized, so secrets are removed before the text is cut.
        self.text().chars().take(SHOWN_MAX).collect()
    }

    /// Returns the statement without its secrets, up to the number of characters that are searched for them.
    pub(crate) fn text(&self) -> String {
        without_secrets(&self.statement)
    }

    /// Cancels the statement: none of it takes effect from now on.
    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.cancelled.notify_waiters();
    }

    /// Returns true once the statement is cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Completes when the statement is cancelled.
    async fn cancelled(&self) {
        let notified = self.cancelled.notified();
        if !self.is_cancelled.load(Ordering::Acquire) {
            notified.await;
        }
    }

    /// Runs `work` as this statement until it is cancelled.
    pub(crate) async fn run<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(cancelled()),
            done = CURRENT.scope(self.clone(), work) => Ok(done),
        }
    }

    /// Registers its memory pool.
    pub(crate) fn counts_memory(&self, memory: &Arc<dyn MemoryPool>) {
        let _ = self.memory.set(Arc::downgrade(memory));
    }

    /// Returns the bytes of memory that it has reserved.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.get().and_then(Weak::upgrade).map_or(0, |memory| memory.reserved())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Returns the statement that runs on this task, if any.
pub(crate) fn current() -> Option<Arc<Job>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Registers the memory pool of the statement that runs here.
pub(crate) fn counts_memory(memory: &Arc<dyn MemoryPool>) {
    if let Some(job) = current() {
        job.counts_memory(memory);
    }
}

/// Wraps the rows of the statement that runs here. The statement lasts until they end or are dropped. A
/// cancellation ends them.
pub(crate) fn with_rows(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let Some(job) = current() else { return rows };
    let schema = rows.schema();
    let rows = stream::unfold(Some((rows, job)), |state| async {
        let (mut rows, job) = state?;
        tokio::select! {
            biased;
            () = job.cancelled() => Some((Err(DataFusionError::from(cancelled())), None)),
            next = rows.next() => {
                let next = next?;
                let count = next.as_ref().map_or(0, |batch| batch.num_rows() as u64);
                job.rows_done.fetch_add(count, Ordering::Relaxed);
                Some((next, Some((rows, job))))
            }
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Returns the error of a cancelled statement.
pub(crate) fn cancelled() -> Error {
    Error::external("canceling statement due to user request").code(sqlstate::QUERY_CANCELED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_listed_while_it_runs_and_can_be_cancelled() {
        let jobs = Arc::new(Jobs::default());
        let job = jobs.begin((7, "ann"), "SELECT 1", Timestamp(0));
        assert_eq!(jobs.all().len(), 1);
        assert!(!jobs.cancel(8));
        assert!(jobs.cancel(7));
        let done = futures::executor::block_on(job.run(std::future::pending::<()>()));
        assert_eq!(done.unwrap_err().code, Some(sqlstate::QUERY_CANCELED));
        drop(job);
        assert!(jobs.all().is_empty());
    }

    #[test]
    fn a_job_hides_secrets() {
        let jobs = Arc::new(Jobs::default());
        let job = jobs.begin((7, "ann"), "CREATE SINK k WITH (password = 'x')", Timestamp(0));
        let shown = job.shown_statement();
        assert!(shown.contains("***"), "{shown}");
    }
}
