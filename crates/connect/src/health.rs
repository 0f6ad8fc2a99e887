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
/// health.warns("right:9999", "slow");
/// assert_eq!(health.reason().as_deref(), Some("right:9999: slow"));
/// health.well("right:9999");
/// assert_eq!((health.reason(), health.restarts()), (None, 1));
/// health.has_read(25, 100);
/// assert_eq!(health.share(), Some(0.25));
/// health.ends("orders/0", 42);
/// assert_eq!(health.reach("orders/0").end, Some(42));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// The failing receivers, with the reason and the number of the attempt; 0 if nothing is restarted.
    troubles: BTreeMap<String, (String, u32)>,
    restarts: u64,
    /// Number of changes to files whose end was read.
    changes: u64,
    /// The amount read, and the total.
    read: Option<(u64, u64)>,
    reaches: BTreeMap<Arc<str>, Reach>,
    /// The source's name, if it is no longer that of its `SourceSpec`.
    renamed: Option<String>,
}

/// The facts about a split that its source learns beside the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The end of the split when the source last looked, in the units of its positions.
    pub end: Option<u64>,
    /// The time of the last record that the source has read, in microseconds since 1970.
    pub last_record: Option<i64>,
}

impl Health {
    /// Notes that `receiver` failed and restarts for the `attempt`-th time since it last worked.
    pub fn restarting(&self, receiver: &str, reason: impl Into<String>, attempt: u32) {
        let mut told = self.told();
        told.restarts += 1;
        told.troubles.insert(receiver.to_string(), (reason.into(), attempt));
    }

    /// Notes a problem of `part` that restarts nothing.
    pub fn warns(&self, part: &str, reason: impl Into<String>) {
        self.told().troubles.insert(part.to_string(), (reason.into(), 0));
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
            .map(|(receiver, (reason, attempt))| match attempt {
                0 => format!("{receiver}: {reason}"),
                _ => format!("{receiver}: {reason} (attempt {attempt})"),
            })
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

    /// Notes the present end of a split, in the units of its positions.
    pub fn ends(&self, split: &str, end: u64) {
        self.change_reach(split, |reach| reach.end = Some(end));
    }

    /// Notes the time of the last record that was read of a split, in microseconds since 1970.
    pub fn has_read_record_of(&self, split: &str, time: i64) {
        self.change_reach(split, |reach| reach.last_record = Some(time));
    }

    /// Returns the facts about a split.
    pub fn reach(&self, split: &str) -> Reach {
        self.told().reaches.get(split).copied().unwrap_or_default()
    }

    /// Notes the source's present name, for its messages.
    pub fn rename(&self, to: &str) {
        self.told().renamed = Some(to.to_string());
    }

    /// Returns the source's present name, if the source was renamed.
    pub fn renamed(&self) -> Option<String> {
        self.told().renamed.clone()
    }

    fn change_reach(&self, split: &str, change: impl FnOnce(&mut Reach)) {
        let mut told = self.told();
        match told.reaches.get_mut(split) {
            Some(reach) => change(reach),
            None => change(told.reaches.entry(split.into()).or_default()),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
