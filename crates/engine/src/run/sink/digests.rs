//! Comparing the rows that a sink was sent before a crash with those of the replay.
//!
//! Beside a sink's progress, the journal keeps digests of the rows it was handed, which its task computes. A start
//! recomputes these changes, since later ones depend on their state, and skips them. If a digest differs, the target
//! holds rows that this engine would not send now, and later changes don't fit them.

use millstream_delta::{Digest, Epoch};
use millstream_durable::Digested;

use super::RunningSink;
use crate::run::log::Logs;

/// The progress of a sink's task.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// True if the sink has taken the newest epochs, so it may get more.
    pub(crate) took: bool,
    /// The number of epochs that became durable outside, the oldest ones.
    pub(crate) epochs: usize,
    /// The last of these epochs.
    pub(crate) through: Epoch,
    pub(crate) rows: u64,
    /// The digest by epoch of the rows it was handed; `None` if they can't be digested.
    pub(crate) digests: Vec<(Epoch, Option<Digest>)>,
}

/// Pairs the digests of published epochs with the epoch before each. A lagging query emits several epochs at once,
/// which a start recomputes one by one.
pub(super) fn after(mut passed: Epoch, digests: Vec<(Epoch, Option<Digest>)>) -> Vec<Digested> {
    let mut all = Vec::with_capacity(digests.len());
    for (through, digest) in digests {
        all.extend(digest.map(|digest| Digested { after: passed, through, digest }));
        passed = through;
    }
    all
}

impl RunningSink {
    /// Stops the sink if the rows it was sent before the start differ from those of the replay.
    pub(crate) fn compare(&mut self, logs: &Logs, digests: &[Digested]) {
        if self.failure.is_final() {
            return;
        }
        let log = logs.get(&self.from);
        let differs = digests.iter().find_map(|of| Some((of, self.backlog.differing_digest(log, of)?)));
        if let Some((Digested { through, digest, .. }, found)) = differs {
            self.stop_for_good(format!(
                "its rows up to epoch {through} differ after a restart from those that were published: their digest is \
                 {found}, but {digest} was published, so delivery stops; was a file changed after it was read, or is \
                 a function not deterministic? fix that, empty the sink's target, then drop the sink and create it \
                 again"
            ));
        }
    }

    /// Stops sending, in this run and in later ones.
    pub(super) fn stop_for_good(&mut self, reason: String) {
        tracing::error!(%reason, "a sink is stopped");
        self.fail(reason.clone(), 1, true);
        self.differs = Some(reason);
    }
}
