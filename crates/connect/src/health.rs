//! The state that a source reports beside its rows: problems of its receivers, and its progress.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state that a source reports: a slot that its threads write to and the engine reads. Clones share it.
///
/// ```
/// use millstream_connect::Health;
/// let health = Health::default();
/// health.restarting("left:9999", "connection refused", 3);
/// assert_eq!(health.reason().as_deref(), Some("left:9999: connection refused (attempt 3)"));
/// health.well("left:9999");
/// assert_eq!((health.reason(), health.restarts()), (None, 1));
/// health.has_read(25, 100);
/// assert_eq!(health.share(), Some(0.25));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// The failing receivers, with the reason and the number of the attempt.
    troubles: BTreeMap<String, (String, u32)>,
    restarts: u64,
    /// Number of changes to files whose end was read.
    changes: u64,
    /// The amount read, and the total.
    read: Option<(u64, u64)>,
}

impl Health {
    /// Notes that `receiver` failed and restarts for the `attempt`-th time since it last worked.
    pub fn restarting(&self, receiver: &str, reason: impl Into<String>, attempt: u32) {
        let mut told = self.told();
        told.restarts += 1;
        told.troubles.insert(receiver.to_string(), (reason.into(), attempt));
    }

    /// Notes that `receiver` works.
    pub fn well(&self, receiver: &str) {
        self.told().troubles.remove(receiver);
    }

    /// Returns the problems of all restarting receivers; `None` if everything works.
    pub fn reason(&self) -> Option<String> {
        let told = self.told();
        let texts: Vec<String> = told
            .troubles
            .iter()
            .map(|(receiver, (reason, attempt))| format!("{receiver}: {reason} (attempt {attempt})"))
            .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Returns the number of restarts of receivers.
    pub fn restarts(&self) -> u64 {
        self.told().restarts
    }

    /// Notes that a file changed after its end was read.
    pub fn changed_after_its_end(&self) {
        self.told().changes += 1;
    }

    /// Returns how often a file changed after its end was read.
    pub fn changes(&self) -> u64 {
        self.told().changes
    }

    /// Reports that `part` of `of` was read, in any unit. A bounded source that knows its size reports this
    /// for users who wait.
    pub fn has_read(&self, part: u64, of: u64) {
        self.told().read = Some((part.min(of), of));
    }

    /// Returns the share that was read, from 0 to 1; `None` if the source doesn't report it.
    pub fn share(&self) -> Option<f64> {
        let (part, of) = self.told().read?;
        (of > 0).then(|| part as f64 / of as f64)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
