//! The tasks of sources and sinks: what becomes of them when they panic, and when the engine ends.

use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::event::Event;

/// How long the end of an engine waits for its tasks to let go of connections and programs.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts tasks, and waits for their end.
pub(crate) struct Tasks {
    handle: Handle,
    events: Sender<Event>,
    /// Each task holds a copy; when all are gone, `ended` says so.
    alive: Sender<()>,
    ended: Receiver<()>,
}

impl Tasks {
    /// None yet; they will run on `handle` and speak to the loop by `events`.
    pub(crate) fn new(handle: Handle, events: Sender<Event>) -> Tasks {
        let (alive, ended) = channel();
        Tasks { handle, events, alive, ended }
    }

    /// Where tasks speak to the loop.
    pub(crate) fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// Starts a task. Should it panic, the loop gets the event that `panicked` makes of that.
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

    /// Waits, for a while, until all tasks have ended.
    pub(crate) fn wait(self) {
        let Tasks { alive, ended, .. } = self;
        drop(alive);
        let _ = ended.recv_timeout(END_TIMEOUT);
    }
}

/// Tells the loop when a task has panicked: whoever waits for it must hear that it is gone.
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
