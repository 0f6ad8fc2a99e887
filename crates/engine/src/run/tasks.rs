//! The tasks of sources and sinks, and the threads of steps: their start, their panics, and the wait for their end.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::runtime::Handle;

use super::step_threads::Threads;
use crate::event::Event;

/// Maximum wait for tasks to close connections and programs when an engine ends.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Copies of names that tasks hold, with the present names.
#[derive(Debug, Default)]
pub(super) struct Renamed(Vec<(Arc<str>, Arc<str>)>);

impl Renamed {
    /// Replaces a copy by the present name.
    pub(super) fn by_now(&self, name: &mut Arc<str>) {
        if let Some((_, now)) = self.0.iter().find(|(copy, _)| Arc::ptr_eq(copy, name)) {
            *name = now.clone();
        }
    }

    /// Records that a copy has another present name.
    pub(super) fn note(&mut self, copy: Arc<str>, now: &Arc<str>) {
        self.0
            .iter_mut()
            .filter(|(_, then)| Arc::ptr_eq(then, &copy))
            .for_each(|(_, then)| *then = now.clone());
        self.0.push((copy, now.clone()));
    }

    /// Forgets copies that no task holds any more.
    pub(super) fn forget(&mut self) {
        self.0.retain(|(copy, _)| Arc::strong_count(copy) > 1);
    }
}

/// Starts tasks and threads, and waits for their end.
pub(crate) struct Tasks {
    pub(super) handle: Handle,
    pub(super) events: Sender<Event>,
    /// The threads that step lagging queries.
    pub(super) threads: Threads,
    /// Names that tasks hold, and that have changed since.
    pub(super) renamed: Renamed,
    /// Each task holds a copy; once all are dropped, `ended` is disconnected.
    alive: Sender<()>,
    ended: Receiver<()>,
}

impl Tasks {
    /// Creates an empty set of tasks that run on `handle` and send `events` to the loop.
    pub(crate) fn new(handle: Handle, events: Sender<Event>) -> Tasks {
        let (alive, ended) = channel();
        Tasks { handle, events, threads: Threads::new(), renamed: Renamed::default(), alive, ended }
    }

    /// Returns the channel by which tasks reach the loop.
    pub(crate) fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// Starts a task. If it panics, the loop gets the event that `panicked` returns.
    pub(crate) fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
        panicked: impl FnOnce(crate::Error) -> Event + Send + 'static,
    ) {
        let alive = self.alive.clone();
        let task = self.handle.spawn(async move {
            let _alive = alive;
            task.await;
        });
        watch(&self.handle, task, self.events(), panicked);
    }

    /// Waits until all tasks have ended, or for a limited time, and then until all threads have.
    pub(crate) fn wait(self) {
        let Tasks { alive, ended, threads, .. } = self;
        drop(alive);
        let _ = ended.recv_timeout(END_TIMEOUT);
        threads.wait();
    }
}

/// Sends an event to the loop if a task panics: those who wait for the task must learn that it has ended.
pub(super) fn watch(
    handle: &Handle,
    task: tokio::task::JoinHandle<()>,
    events: Sender<Event>,
    event: impl FnOnce(crate::Error) -> Event + Send + 'static,
) {
    handle.spawn(async move {
        if let Err(error) = task.await
            && error.is_panic()
        {
            let _ = events.send(event(crate::Error::bug(format!("its task ended: {error}"))));
        }
    });
}
