//! What a sink was sent before a crash, compared with what comes out when it is made again.
//!
//! Beside how far a sink has published the journal keeps digests of what it was handed, made by the task that hands it over.
//! A start makes these changes again, since what comes after them rests on their state, and passes over them. Where one
//! comes out otherwise, the target holds what this engine would never have sent, and nothing that comes later fits it.

use millstream_delta::{Delta, Digest, Epoch};
use millstream_durable::Digested;

use super::RunningSink;
use crate::run::log::Logs;

/// What a sink's task has done.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Whether the sink has taken what it was handed last, so that it may be handed more.
    pub(crate) took: bool,
    /// How many of the epochs that it was handed became durable outside, the oldest ones.
    pub(crate) epochs: usize,
    /// The last of them.
    pub(crate) through: Epoch,
    pub(crate) rows: u64,
    /// By epoch what it was handed; none of rows that have no digest.
    pub(crate) digests: Vec<(Epoch, Option<Digest>)>,
}

/// The digests of what was published, each with the epoch of what came before it: a query that is behind puts out several
/// epochs at once, which a start makes one by one.
pub(super) fn after(mut passed: Epoch, digests: Vec<(Epoch, Option<Digest>)>) -> Vec<Digested> {
    let mut all = Vec::with_capacity(digests.len());
    for (through, digest) in digests {
        all.extend(digest.map(|digest| Digested { after: passed, through, digest }));
        passed = through;
    }
    all
}

impl RunningSink {
    /// Stops it where what it was handed before the engine was started comes out otherwise now.
    pub(crate) fn compare(&mut self, logs: &Logs, digests: &[Digested]) {
        if self.failed {
            return;
        }
        let differs = digests.iter().find_map(|of| Some((of, self.made_again(logs, of)?)));
        if let Some((Digested { through, digest, .. }, found)) = differs {
            self.stop_for_good(format!(
                "what it was sent up to epoch {through} comes out otherwise when it is made again after a restart: its \
                 digest is {found}, but {digest} was published, so nothing more is sent; has a file been changed that was read \
                 before, or does a function answer otherwise each time? mend that, empty the place that it delivers to, then \
                 drop the sink and create it again"
            ));
        }
    }

    /// The digest of what is made again, where it is another one. None also where not all of it is, or it has no digest.
    fn made_again(&self, logs: &Logs, of: &Digested) -> Option<Digest> {
        if of.after < self.passed {
            return None;
        }
        let log = logs.get(&self.from).into_iter().flat_map(|log| log.from(self.place));
        let made = self.first.iter().chain(log).skip_while(|(cut, _)| cut.epoch <= of.after);
        let made = made.take_while(|(cut, _)| cut.epoch <= of.through);
        let digest = |delta: &Delta| Digest::of(delta.first_columns(self.columns).ok()?.as_ref()).ok();
        let found: Digest = made.map(|(_, delta)| digest(delta)).sum::<Option<Digest>>()?;
        (found != of.digest).then_some(found)
    }

    /// Sends nothing more, in this run and in those after it.
    pub(super) fn stop_for_good(&mut self, reason: String) {
        tracing::error!(%reason, "a sink is stopped");
        self.failure = Some((reason.clone(), 1));
        self.failed = true;
        self.differs = Some(reason);
    }
}
