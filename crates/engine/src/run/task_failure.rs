//! The failure of a task: the one that reads a source, or the one that writes to a sink.

/// The present failure of a task, with the number of failures in a row, and whether the task tries again.
#[derive(Debug, Default)]
pub(crate) struct TaskFailure {
    present: Option<(String, u32)>,
    is_final: bool,
}

impl TaskFailure {
    /// Records a failure. `is_final`: the task doesn't try again.
    pub(super) fn fail(&mut self, reason: String, attempts: u32, is_final: bool) {
        self.present = Some((reason, attempts));
        self.is_final = is_final;
    }

    /// Ends the present failure, since the task succeeded. Returns true if there was one.
    pub(super) fn pass(&mut self) -> bool {
        self.present.take().is_some()
    }

    /// Lets a task that failed for good start again.
    pub(super) fn reset(&mut self) {
        *self = TaskFailure::default();
    }

    /// Returns the number of failures in a row, up to now.
    pub(super) fn attempts(&self) -> u32 {
        self.present.as_ref().map_or(0, |(_, attempts)| *attempts)
    }

    /// Returns the reason of the present failure.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.present.as_ref().map(|(reason, _)| reason.as_str())
    }

    /// Returns true if the task doesn't try again.
    pub(crate) fn is_final(&self) -> bool {
        self.is_final
    }

    /// Returns the reason, with the number of failures if the task tries again.
    pub(crate) fn text(&self) -> Option<String> {
        let (reason, attempts) = self.present.as_ref()?;
        Some(if self.is_final { reason.clone() } else { format!("{reason} (attempt {attempts})") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_its_attempts_until_it_is_final() {
        let mut failure = TaskFailure::default();
        assert_eq!((failure.attempts(), failure.text(), failure.pass()), (0, None, false));
        failure.fail("refused".into(), 2, false);
        assert_eq!((failure.attempts(), failure.text().as_deref()), (2, Some("refused (attempt 2)")));
        failure.fail("gone".into(), 3, true);
        assert_eq!((failure.is_final(), failure.text().as_deref()), (true, Some("gone")));
        // A late success of an earlier command doesn't start the task again.
        assert!(failure.pass() && failure.is_final() && failure.reason().is_none());
        failure.reset();
        assert!(!failure.is_final());
    }
}
