//! The statements that run: whose they are, since when, how far they have come, and how another session cancels them.

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

/// Characters of a statement that are shown.
const SHOWN_MAX: usize = 1000;

/// Characters of a statement in which secrets are looked for.
const READ_MAX: usize = 100 * SHOWN_MAX;

/// The statements of an engine that run.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    last: AtomicU64,
    running: Mutex<BTreeMap<u64, Weak<Job>>>,
}

/// A statement that runs, or whose rows are still being read.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) number: u64,
    /// The number of its session, as `pg_backend_pid()` tells it.
    pub(crate) backend: i64,
    pub(crate) user: String,
    pub(crate) statement: String,
    pub(crate) began: Timestamp,
    /// Rows that it has taken in and, where that is known, how many there are.
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
    /// Adds a statement that begins.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (backend, user): (i64, &str),
        statement: &str,
        began: Timestamp,
    ) -> Arc<Job> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        // A secret that a cut goes through wouldn't be found.
        let begin: String = statement.chars().take(READ_MAX).collect();
        let shown = without_secrets(&begin).chars().take(SHOWN_MAX).collect();
        let job = Arc::new(Job {
            number,
            backend,
            user: user.into(),
            statement: shown,
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

    /// The statements that run, in the order in which they began.
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().filter_map(Weak::upgrade).collect()
    }

    /// Cancels what a session runs; true if it runs something.
    pub(crate) fn cancel(&self, backend: i64) -> bool {
        let of_session: Vec<Arc<Job>> = self.all().into_iter().filter(|job| job.backend == backend).collect();
        of_session.iter().for_each(|job| job.cancel());
        !of_session.is_empty()
    }
}

impl Job {
    /// Ends it: from now on nothing of it takes effect.
    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.cancelled.notify_waiters();
    }

    /// True once nobody waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Ready when it is cancelled from another session.
    async fn cancelled(&self) {
        let notified = self.cancelled.notified();
        if !self.is_cancelled.load(Ordering::Acquire) {
            notified.await;
        }
    }

    /// Does `work` as this statement, until that is cancelled.
    pub(crate) async fn run<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(cancelled()),
            done = CURRENT.scope(self.clone(), work) => Ok(done),
        }
    }

    /// The bytes of memory that it has taken.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.get().and_then(Weak::upgrade).map_or(0, |memory| memory.reserved())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The statement that runs on this task, where one does.
pub(crate) fn current() -> Option<Arc<Job>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Says of the statement that runs here where its memory is counted.
pub(crate) fn counts_memory(memory: &Arc<dyn MemoryPool>) {
    if let Some(job) = current() {
        let _ = job.memory.set(Arc::downgrade(memory));
    }
}

/// Rows of the statement that runs here, which goes on until they end or are dropped, and ends when it is cancelled.
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

/// What a statement fails with that was cancelled.
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
        assert!(job.statement.contains("***"), "{}", job.statement);
    }
}
