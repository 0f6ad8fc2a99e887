//! The end of the page: statements end as those of PostgreSQL's clients do.

use std::time::Duration;

use millstream_engine::{Error, sqlstate};
use tokio::sync::watch;

/// The time for which the page waits for its readers at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// The time in which the last bytes reach their readers.
const LAST_BYTES: Duration = Duration::from_millis(50);

/// The phase of the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// No end was requested.
    #[default]
    Serving,
    /// No new statement begins; running ones may finish, except those without an end.
    Draining,
    /// Running statements end with an error.
    Stopping,
}

/// The end of the page, as the page itself sees it.
#[derive(Debug, Default)]
pub(crate) struct Ending(watch::Sender<Phase>);

/// A running statement, which ends with the page.
#[derive(Clone, Debug)]
pub(crate) struct Running(watch::Receiver<Phase>);

impl Ending {
    /// Begins a statement; `None` if no new one may begin.
    pub(crate) fn begin(&self) -> Option<Running> {
        (*self.0.borrow() == Phase::Serving).then(|| Running(self.0.subscribe()))
    }

    pub(crate) fn raise(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let is_later = phase > *now;
            *now = phase.max(*now);
            is_later
        });
    }

    /// Waits until no statement runs.
    pub(crate) async fn finished(&self) {
        self.0.closed().await;
    }

    /// Ends all statements, and waits a short time for their readers.
    pub(crate) async fn stop(&self) {
        self.raise(Phase::Stopping);
        let had_readers = self.0.receiver_count() > 0;
        let _ = tokio::time::timeout(GOODBYE, self.finished()).await;
        if had_readers {
            tokio::time::sleep(LAST_BYTES).await;
        }
    }
}

impl Running {
    /// Waits until a phase is reached.
    pub(crate) async fn reached(&self, phase: Phase) {
        // The page keeps the sender for as long as statements run.
        if self.0.clone().wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns the error of a statement that ends with the page.
pub(crate) fn stopping() -> Error {
    Error::external("the server is stopping: connect again when it is back").code(sqlstate::ADMIN_SHUTDOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn statements_may_finish_until_the_page_stops() {
        let ending = Ending::default();
        let running = ending.begin().unwrap();
        ending.raise(Phase::Draining);
        assert!(ending.begin().is_none());
        running.reached(Phase::Draining).await;
        let more = tokio::time::timeout(Duration::from_millis(20), running.reached(Phase::Stopping)).await;
        assert!(more.is_err());
        ending.raise(Phase::Stopping);
        ending.raise(Phase::Draining);
        running.reached(Phase::Stopping).await;
        drop(running);
        ending.finished().await;
    }
}
