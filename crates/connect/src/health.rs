//! What a source tells of itself beside its rows: what is wrong with its receivers, how far it has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a source tells of itself: a slot that its threads write to and the engine reads. Clones share it.
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
    /// By receiver, why it is restarting and for which time.
    troubles: BTreeMap<String, (String, u32)>,
    restarts: u64,
    /// How often something changed whose end was read.
    changes: u64,
    /// How much was read, and of how much.
    read: Option<(u64, u64)>,
}

impl Health {
    /// `receiver` failed, and starts again for the `attempt`-th time since it last worked.
    pub fn restarting(&self, receiver: &str, reason: impl Into<String>, attempt: u32) {
        let mut told = self.told();
        told.restarts += 1;
        told.troubles.insert(receiver.to_string(), (reason.into(), attempt));
    }

    /// `receiver` works.
    pub fn well(&self, receiver: &str) {
        self.told().troubles.remove(receiver);
    }

    /// What is wrong now, with all that is restarting; `None` where everything works.
    pub fn reason(&self) -> Option<String> {
        let told = self.told();
        let texts: Vec<String> = told
            .troubles
            .iter()
            .map(|(receiver, (reason, attempt))| format!("{receiver}: {reason} (attempt {attempt})"))
            .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// How often a receiver was started again.
    pub fn restarts(&self) -> u64 {
        self.told().restarts
    }

    /// A file changed after its end was read.
    pub fn changed_after_its_end(&self) {
        self.told().changes += 1;
    }

    /// How often a file changed after its end was read.
    pub fn changes(&self) -> u64 {
        self.told().changes
    }

    /// So much was read of so much, in whatever unit the source counts: a source that ends by itself tells it, where
    /// it knows, for those who wait.
    pub fn has_read(&self, part: u64, of: u64) {
        self.told().read = Some((part.min(of), of));
    }

    /// The share of the whole that was read, from 0 to 1; `None` where the source doesn't tell.
    pub fn share(&self) -> Option<f64> {
        let (part, of) = self.told().read?;
        (of > 0).then(|| part as f64 / of as f64)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
