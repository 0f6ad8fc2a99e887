//! Threads that step queries, or consolidate changes, beside the loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use millstream_delta::{STACK_BYTES, spawn_detached};
use millstream_sql::{Error, Result};

use super::tasks::Tasks;
use crate::event::Event;
use crate::query_pool::{self, Priority};

/// The threads that step queries; the end of the engine waits for them.
pub(crate) struct Threads {
    /// Each thread holds a copy.
    alive: Sender<()>,
    ended: Receiver<()>,
}

impl Threads {
    pub(crate) fn new() -> Threads {
        let (alive, ended) = channel();
        Threads { alive, ended }
    }

    /// Returns the handle that each such thread holds.
    pub(crate) fn alive(&self) -> Sender<()> {
        self.alive.clone()
    }

    /// Waits until the last thread has ended.
    pub(crate) fn wait(self) {
        let Threads { alive, ended } = self;
        drop(alive);
        let _ = ended.recv();
    }
}

/// Wakes the loop when a thread ends, even by a panic.
pub(super) struct Wake(pub(super) Sender<Event>);

impl Drop for Wake {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Stepped);
    }
}

impl Tasks {
    /// Runs work that may take long on a thread of its own, which wakes the loop when it is done.
    pub(super) fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        self.on_a_thread_for(Arc::default(), move || {
            query_pool::lower_this_thread();
            work()
        })
    }

    /// The same, with a priority that can be lowered later.
    pub(super) fn on_a_thread_for<T: Send + 'static>(
        &self,
        priority: Arc<Priority>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (sender, done) = channel();
        let (wake, alive) = (Wake(self.events.clone()), self.threads.alive());
        let thread = std::thread::Builder::new().name("millstream-step".into()).stack_size(STACK_BYTES);
        let started = spawn_detached(thread, move || {
            // They are dropped in reverse order: the loop is woken after the result is sent.
            let (_alive, _wake, sender) = (alive, wake, sender);
            priority.add_this_thread();
            let done = work();
            priority.remove_this_thread();
            let _ = sender.send(done);
        });
        let failed = |error| Error::external(format!("a thread to step it can't be started: {error}"));
        started.map(|()| done).map_err(failed)
    }
}
