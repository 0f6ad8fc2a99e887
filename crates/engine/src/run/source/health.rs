//! The health of a source: of its task, and of its receivers.

use millstream_connect::{Health, Reach};
use millstream_sql::Error;

use crate::run::task_failure::TaskFailure;

/// The failures of a source: that of its task, which the loop sees, and those of its receivers, which report themselves.
pub(in crate::run) struct SourceHealth {
    receivers: Health,
    failure: TaskFailure,
    /// The number of pulls that repeated a failed one.
    retries: u64,
}

impl SourceHealth {
    pub(super) fn new(receivers: Health) -> SourceHealth {
        SourceHealth { receivers, failure: TaskFailure::default(), retries: 0 }
    }

    /// Records that a pull failed.
    pub(super) fn fail(&mut self, error: Error) {
        let attempts = self.failure.attempts() + 1;
        self.retries += u64::from(attempts > 1);
        self.failure.fail(error.message, attempts, error.kind != crate::Kind::External);
    }

    /// Records that a pull succeeded.
    pub(super) fn pass(&mut self) {
        self.retries += u64::from(self.failure.pass());
    }

    /// Lets the source continue after a failure for good.
    pub(super) fn reset(&mut self) {
        self.failure.reset();
    }

    /// Returns true if its task failed for good.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_final()
    }

    /// Returns true if the last pull failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failure.reason().is_some()
    }

    /// Returns the present failure, of its task or else of a receiver.
    pub(in crate::run) fn trouble(&self) -> Option<String> {
        self.failure.text().or_else(|| self.receivers.reason())
    }

    /// Returns how often its task tried again, or a receiver was restarted.
    pub(in crate::run) fn restarts(&self) -> u64 {
        self.retries + self.receivers.restarts()
    }

    /// Returns the share of it that was read, if it knows its end.
    pub(super) fn share(&self) -> Option<f64> {
        self.receivers.share()
    }

    /// Returns how often files changed after their end was read.
    pub(in crate::run) fn changes(&self) -> u64 {
        self.receivers.changes()
    }

    /// Returns the facts about a split that its receivers learn beside the rows.
    pub(in crate::run) fn reach(&self, split: &str) -> Reach {
        self.receivers.reach(split)
    }

    /// Names the source in reports of its receivers.
    pub(in crate::run) fn rename(&self, to: &str) {
        self.receivers.rename(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_after_a_failure_are_retries() {
        let mut health = SourceHealth::new(Health::default());
        health.pass();
        assert_eq!((health.restarts(), health.trouble()), (0, None));
        let away = || Error { kind: crate::Kind::External, ..Error::invalid("away") };
        health.fail(away());
        health.fail(away());
        assert_eq!((health.restarts(), health.trouble().as_deref()), (1, Some("away (attempt 2)")));
        health.pass();
        assert_eq!((health.restarts(), health.is_failing()), (2, false));
        health.fail(Error::invalid("torn"));
        assert_eq!((health.has_failed(), health.trouble().as_deref()), (true, Some("torn")));
        health.reset();
        assert_eq!((health.has_failed(), health.restarts()), (false, 2));
    }
}
