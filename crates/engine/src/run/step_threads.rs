//! Threads that step queries, or sum up changes, beside the loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use millstream_delta::STACK_BYTES;
use millstream_sql::{Error, Result};

use super::Loop;
use super::behind::Done;
use crate::event::Event;
use crate::query_pool::{self, Priority};

/// The threads that step queries, so that the end can wait for them.
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

    /// What such a thread holds.
    pub(crate) fn alive(&self) -> Sender<()> {
        self.alive.clone()
    }

    /// Waits until the last of them has ended.
    pub(crate) fn wait(self) {
        let Threads { alive, ended } = self;
        drop(alive);
        let _ = ended.recv();
    }
}

/// Wakes the loop when a thread ends, however it does.
pub(super) struct Wake(pub(super) Sender<Event>);

impl Drop for Wake {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Stepped);
    }
}

impl Loop {
    /// Runs what steps a query on a thread of its own, which wakes the loop when it is done. It may take long.
    pub(super) fn on_a_thread(&self, work: impl FnOnce() -> Done + Send + 'static) -> Result<Receiver<Done>> {
        self.on_a_thread_for(Arc::default(), move || {
            query_pool::lower_this_thread();
            work()
        })
    }

    /// The same, with a priority that can be lowered later.
    pub(super) fn on_a_thread_for(
        &self,
        priority: Arc<Priority>,
        work: impl FnOnce() -> Done + Send + 'static,
    ) -> Result<Receiver<Done>> {
        let (sender, done) = channel();
        let (wake, alive) = (Wake(self.events.clone()), self.threads.alive());
        let thread = std::thread::Builder::new().name("millstream-step".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            // They go in this order: the loop is woken when it finds what it is woken for.
            let (_alive, _wake, sender) = (alive, wake, sender);
            priority.add_this_thread();
            let done = work();
            priority.remove_this_thread();
            let _ = sender.send(done);
        });
        let failed = |error| Error::external(format!("a thread to step it can't be started: {error}"));
        started.map(|_| done).map_err(failed)
    }
}
