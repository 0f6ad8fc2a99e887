//! The listings of a source's directories: when the next one is due, and which new files may be read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::intake::{Order, Settings};
use super::reading::stat;

/// The state of listing a source's directories.
pub(super) struct Listings {
    due: Instant,
    /// True if one has succeeded.
    succeeded: bool,
    /// True if the files that `start = 'new'` leaves out were noted.
    start_noted: bool,
    /// Files that were found, but changed a moment ago.
    unsettled: BTreeSet<Arc<str>>,
}

impl Listings {
    pub(super) fn new() -> Listings {
        Listings { due: Instant::now(), succeeded: false, start_noted: false, unsettled: BTreeSet::new() }
    }

    /// Returns the time of the next listing.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Waits before the next listing.
    pub(super) fn wait(&mut self, interval: Duration) {
        self.due = Instant::now() + interval;
    }

    /// Returns true if one has succeeded.
    pub(super) fn have_succeeded(&self) -> bool {
        self.succeeded
    }

    /// Returns true if the next listing leaves out the files that it finds.
    pub(super) fn leave_out(&self, settings: &Settings) -> bool {
        settings.only_new && !self.start_noted
    }

    /// Records that the files at the start were noted, in this run or before.
    pub(super) fn note_start(&mut self) {
        self.start_noted = true;
    }

    /// Records a successful listing.
    pub(super) fn succeed(&mut self) {
        (self.succeeded, self.start_noted) = (true, true);
    }

    /// Returns the new files of a successful listing, with those that were not settled before, in the order of their
    /// paths.
    pub(super) fn fresh(&mut self, mut found: Vec<Arc<str>>) -> Vec<Arc<str>> {
        found.extend(std::mem::take(&mut self.unsettled));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns the time to order a new file by, once it may be read. Checks the file only if that matters.
    pub(super) fn settled(&mut self, settings: &Settings, path: &Arc<str>) -> Option<Option<SystemTime>> {
        let waits = !settings.bounded && !settings.settle_time.is_zero();
        if !waits && settings.order == Order::Name {
            return Some(None);
        }
        // Opening the file will report that it is gone or unreadable.
        let Ok(found) = stat(path) else { return Some(None) };
        let modified = found.modified().ok();
        let recent = |at: SystemTime| at.elapsed().is_ok_and(|age| age < settings.settle_time);
        if waits && modified.is_some_and(recent) {
            self.unsettled.insert(path.clone());
            return None;
        }
        Some(modified.filter(|_| settings.order == Order::Modified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Health;
    use crate::connectors::file::on_change::OnChange;

    #[test]
    fn a_file_that_changed_a_moment_ago_is_fresh_again_at_the_next_listing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path: Arc<str> = file.path().to_str().unwrap().into();
        let mut settings = Settings {
            source: "s".into(),
            order: Order::Name,
            only_new: true,
            bounded: false,
            settle_time: Duration::from_secs(600),
            tail_timeout: Duration::ZERO,
            on_change: OnChange::Ignore,
            poll_interval: Duration::ZERO,
            health: Health::default(),
        };
        let mut listings = Listings::new();
        assert!(listings.leave_out(&settings) && !listings.have_succeeded());
        listings.succeed();
        assert!(!listings.leave_out(&settings) && listings.have_succeeded());
        assert_eq!(listings.settled(&settings, &path), None);
        assert_eq!(listings.fresh(vec!["/z".into(), path.clone()]), [path.clone(), "/z".into()]);
        // Without a time to settle, the order by name needs no look at the file.
        settings.settle_time = Duration::ZERO;
        assert_eq!(listings.settled(&settings, &path), Some(None));
        settings.order = Order::Modified;
        assert!(listings.settled(&settings, &path).is_some_and(|time| time.is_some()));
        assert!(listings.fresh(Vec::new()).is_empty());
    }
}
