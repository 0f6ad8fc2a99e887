//! The threads that run statements: planning, SELECT, the evaluation of INSERT, UPDATE and DELETE, VERIFY.
//!
//! Each running statement has its own worker: a small runtime whose threads serve no network, timer or epoch
//! loop. The operating system shares the processors between workers. So the pool is fair between sessions
//! even while a statement plans, folds a constant or sorts, where nothing yields. A statement that runs for
//! long gets a lower priority. A cancelled statement returns its session at once; its worker is reused when
//! the last of its tasks has ended.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use millstream_delta::STACK_BYTES;
use millstream_sql::{Error, Result};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};

use crate::jobs::Job;
use crate::run::system_time;
use crate::session::Session;
use crate::stack::contained;
use crate::transaction::Transaction;

/// The number of workers above which idle ones are stopped.
const IDLE_MAX: usize = 16;

/// The maximum number of workers checked for an idle one before a new one starts.
const LOOKED_AT_MAX: usize = 8;

/// The minimum and maximum number of threads of a worker; the minimum applies if there are many workers.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 16;
const WORKERS_MANY: usize = 64;

/// The maximum number of statements that run at once; others wait.
const RUNNING_MAX: usize = 1024;

/// The run times after which a statement's priority is lowered, with the `nice` values. At the last one,
/// twenty long statements leave the epoch loop and short statements most of a processor; among themselves
/// they are equal.
const LOWER: [(Duration, i32); 2] = [(Duration::from_millis(200), 10), (Duration::from_secs(2), 19)];

/// The maximum wait for the session of a cancelled statement. After that the session continues without the
/// state held only by the statement: an open transaction, cursors.
const RETURN_MAX: Duration = Duration::from_millis(50);

/// The workers of an engine.
#[derive(Debug)]
pub(crate) struct QueryPool {
    workers: Mutex<VecDeque<Arc<Worker>>>,
    /// One permit per statement that may run.
    running: Semaphore,
    /// The runtime whose timers are used.
    timers: Handle,
}

/// The threads reserved for one statement.
#[derive(Debug)]
struct Worker {
    /// `None` after shutdown.
    runtime: Option<Runtime>,
    priority: Arc<Priority>,
    /// The number of statements begun on it.
    runs: AtomicU64,
}

/// The priority of a group of threads.
#[derive(Debug, Default)]
pub(crate) struct Priority {
    #[cfg(target_os = "linux")]
    threads: Mutex<Vec<rustix::process::Pid>>,
    is_lower: AtomicBool,
}

impl Priority {
    /// Adds the calling thread.
    pub(crate) fn add_this_thread(&self) {
        #[cfg(target_os = "linux")]
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(rustix::thread::gettid());
    }

    /// Removes the calling thread, since another thread may get its number.
    pub(crate) fn remove_this_thread(&self) {
        #[cfg(target_os = "linux")]
        {
            let this = rustix::thread::gettid();
            self.threads.lock().unwrap_or_else(PoisonError::into_inner).retain(|thread| *thread != this);
        }
    }

    /// Lowers the priority to that of long tasks.
    pub(crate) fn lower_for_long(&self) {
        self.lower(LOWER[0].1);
    }

    /// Lowers the priority permanently: raising it again takes privileges.
    fn lower(&self, to: i32) {
        self.is_lower.store(true, Ordering::Release);
        #[cfg(target_os = "linux")]
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = rustix::process::setpriority_process(Some(*thread), to);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = to;
    }
}

impl Worker {
    fn start(others: usize) -> Result<Worker> {
        let threads = match std::thread::available_parallelism() {
            Ok(processors) if others < WORKERS_MANY => usize::from(processors),
            _ => THREADS_MIN,
        };
        let priority = Arc::new(Priority::default());
        let (started, stopped) = (priority.clone(), priority.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.clamp(THREADS_MIN, THREADS_MAX))
            .enable_all()
            .thread_stack_size(STACK_BYTES)
            .thread_name("millstream-query")
            .on_thread_start(move || started.add_this_thread())
            .on_thread_stop(move || stopped.remove_this_thread())
            .build()
            .map_err(|error| {
                Error::external(format!("no thread can be started to run the statement: {error}"))
                    .hint("Try again when fewer statements run, or let the process have more threads.")
            })?;
        Ok(Worker { runtime: Some(runtime), priority, runs: AtomicU64::new(0) })
    }

    /// True if no task of a statement is left on it.
    fn is_idle(&self) -> bool {
        self.runtime.as_ref().is_some_and(|runtime| runtime.metrics().num_alive_tasks() == 0)
    }

    /// Lowers the priority if the statement that begins now runs for long.
    fn lower_when_long(self: &Arc<Self>, timers: &Handle) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let worker = Arc::downgrade(self);
        timers.spawn(async move {
            let begun = tokio::time::Instant::now();
            for (after, to) in LOWER {
                tokio::time::sleep_until(begun + after).await;
                match worker.upgrade() {
                    Some(worker) if worker.runs.load(Ordering::Relaxed) == run && !worker.is_idle() => {
                        worker.priority.lower(to);
                    }
                    _ => return,
                }
            }
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(crate::engine::end);
    }
}

impl QueryPool {
    pub(crate) fn new(timers: Handle) -> QueryPool {
        QueryPool { workers: Mutex::default(), running: Semaphore::new(RUNNING_MAX), timers }
    }

    /// Returns an idle worker. It stays in the pool: it is idle again when its tasks have ended.
    fn idle_worker(&self) -> Result<Arc<Worker>> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..workers.len().min(LOOKED_AT_MAX) {
            let Some(worker) = workers.pop_front() else { break };
            // Only the pool hands out workers, under this lock, so the count is reliable.
            let is_free = Arc::strong_count(&worker) == 1 && worker.is_idle();
            if is_free && worker.priority.is_lower.load(Ordering::Acquire) {
                continue;
            }
            workers.push_back(worker.clone());
            if is_free {
                // If there are more than `IDLE_MAX` workers, stop one other idle worker.
                if workers.len() > IDLE_MAX
                    && let Some(idle) =
                        workers.iter().position(|other| Arc::strong_count(other) == 1 && other.is_idle())
                {
                    workers.remove(idle);
                }
                return Ok(worker);
            }
        }
        let worker = Arc::new(Worker::start(workers.len())?);
        workers.push_back(worker.clone());
        Ok(worker)
    }
}

/// Lowers the priority of the calling thread for a long task.
pub(crate) fn lower_this_thread() {
    let priority = Priority::default();
    priority.add_this_thread();
    priority.lower_for_long();
}

/// Returns the runtime for the tasks of the statement that runs here: its worker, else the engine's own
/// threads.
pub(crate) fn handle(otherwise: &Handle) -> Handle {
    Handle::try_current().unwrap_or_else(|_| otherwise.clone())
}

/// Cancels the statement on drop, since the client has disconnected.
struct Cancel(Option<Arc<Job>>);

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some(job) = self.0.take() {
            job.cancel();
        }
    }
}

impl Session {
    /// Runs part of a statement on a worker of the query pool. If the caller stops waiting, it has the
    /// session back at once, with its transaction failed. The work ends at its next yield.
    pub(crate) async fn apart<T, W>(&mut self, text: &str, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T>> + Send + 'static,
    {
        if self.is_apart || self.is_recovering {
            return contained(work(self)).await;
        }
        self.come_back().await;
        let shared = self.shared.clone();
        let turn = shared.statements.pool.running.acquire().await;
        let _turn = turn.map_err(|_| Error::bug("nothing closes the query pool"))?;
        let worker = shared.statements.pool.idle_worker()?;
        let Some(runtime) = &worker.runtime else { return Err(Error::bug("a worker was shut down")) };
        worker.lower_when_long(&shared.statements.pool.timers);
        let (returning, returned) = oneshot::channel();
        let (sender, answer) = oneshot::channel();
        let job = {
            let variables = self.variables();
            let (backend, user) = (variables.backend, variables.user.clone());
            drop(variables);
            self.shared.statements.jobs.begin((backend, &user), text, system_time())
        };
        let stand_in = self.stand_in(returned);
        let mut session = Box::new(std::mem::replace(self, stand_in));
        session.is_apart = true;
        let mut cancel = Cancel(Some(job.clone()));
        runtime.handle().spawn(async move {
            let done = job.run(contained(work(&mut session))).await;
            session.is_apart = false;
            // Whoever has the answer no longer finds the statement among those that run.
            drop(job);
            drop(returning.send(session));
            drop(sender.send(done.and_then(|done| done)));
        });
        let done =
            answer.await.map_err(|_| Error::bug("the statement's thread ended before the statement"))?;
        cancel.0 = None;
        if let Some(Ok(session)) = self.returning.as_mut().map(oneshot::Receiver::try_recv) {
            *self = *session;
        }
        done
    }

    /// Returns a substitute for the session while a statement runs elsewhere. It becomes the session if that
    /// one doesn't return.
    fn stand_in(&self, returned: oneshot::Receiver<Box<Session>>) -> Session {
        let failed = |transaction: &Transaction| {
            let mut failed = Transaction::new(transaction.modes);
            failed.fail();
            failed
        };
        Session {
            parameters: self.parameters.clone(),
            transaction: self.transaction.as_ref().map(failed),
            variables: self.variables.clone(),
            prepared: self.prepared.clone(),
            deadline: self.deadline.clone(),
            returning: Some(returned),
            ..Session::new(self.shared.clone())
        }
    }

    /// Takes back the session of a cancelled statement, as soon as the statement has noticed.
    pub(crate) async fn come_back(&mut self) {
        let Some(returned) = &mut self.returning else { return };
        let waited = {
            let _timers = self.shared.statements.pool.timers.enter();
            tokio::time::timeout(RETURN_MAX, returned)
        };
        let waited = waited.await;
        self.returning = None;
        if let Ok(Ok(session)) = waited {
            let deadline = self.deadline.clone();
            *self = Session { deadline, ..*session };
            self.fail_transaction();
        }
    }
}

/// Runs blocking work on its own thread, next to the statement's other tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    otherwise: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    spawned(handle(otherwise).spawn_blocking(work)).await
}

async fn spawned<T>(task: impl Future<Output = std::result::Result<T, tokio::task::JoinError>>) -> Result<T> {
    task.await.map_err(|error| Error::bug(format!("the statement panicked: {error}")))
}
