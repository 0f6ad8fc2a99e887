//! The backlog of a sink: the epochs that are not durable outside yet.

use arrow::error::ArrowError;
use millstream_delta::{Cut, Delta, Digest, Epoch};
use millstream_durable::{Digested, Entry};
use millstream_sql::Result;
use millstream_state::Tables;

use crate::run::initial_content::InitialContent;
use crate::run::log::{self, Log, Place};
use crate::run::saving::{put_first, put_place, take_first, take_place};

/// Maximum of epochs that one command hands to a sink.
const EPOCHS_MAX: usize = 64;

/// Maximum of bytes kept for a sink that has taken them and not yet reported them durable. Above it, the loop makes the
/// sink publish them.
const HELD_BYTES_MAX: usize = 256 << 20;

/// The epochs that a sink has not reported durable: the content of its relation, then the relation's log from a position
/// on. The sink's task was handed the first of them.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The number of the relation's first columns that the sink delivers; the relation may have more.
    columns: usize,
    /// The content of the relation when the sink was created: delivered first, and kept until that is durable outside.
    first: InitialContent,
    /// The position in the relation's log; later entries are not durable outside.
    place: Place,
    /// The number of epochs from the position on, including `first`, that the task was handed.
    handed: usize,
    /// The number of these that the task has not written yet.
    at_work: usize,
    /// True if the task was told to publish everything, and has not answered.
    flushing: bool,
    /// The epoch before the position: published by this engine, or skipped.
    passed: Epoch,
}

impl Backlog {
    /// Creates the backlog of a sink that follows a log from a place on; it is known to have published `passed`.
    pub(super) fn new(columns: usize, place: Place, passed: Epoch) -> Backlog {
        let first = InitialContent::default();
        Backlog { columns, first, place, handed: 0, at_work: 0, flushing: false, passed }
    }

    /// Delivers the content of the relation before the log.
    pub(super) fn begin_with(&mut self, content: InitialContent) {
        self.first = content;
    }

    /// Takes the content that a thread has read.
    pub(super) fn take_awaited(&mut self) {
        self.first.take_awaited();
    }

    /// True while a thread reads the content that is delivered first.
    pub(super) fn is_awaited(&self) -> bool {
        self.first.is_awaited()
    }

    /// Returns the position in the relation's log.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Returns the position after the epochs that the task has written.
    pub(super) fn unwritten(&self) -> Place {
        let of_log = self.handed - usize::from(self.first.rows.is_some() && self.handed > 0);
        self.place.after(of_log.saturating_sub(self.at_work))
    }

    /// Returns the epoch before the position.
    pub(super) fn passed(&self) -> Epoch {
        self.passed
    }

    /// Returns true if everything before a position is durable outside.
    pub(super) fn is_past(&self, place: Place) -> bool {
        self.first.is_taken() && self.place >= place
    }

    /// Returns true if the task has no epoch that is not durable outside.
    pub(super) fn is_in_hand(&self) -> bool {
        self.handed == 0
    }

    /// Returns true if the task can take more epochs now.
    pub(super) fn accepts(&self) -> bool {
        self.at_work == 0 && !self.is_awaited()
    }

    /// Returns all its epochs.
    fn epochs<'a>(&'a self, log: Option<&'a Log>) -> impl Iterator<Item = &'a (Cut, Delta)> {
        self.first.rows.iter().chain(log.into_iter().flat_map(|log| log.from(self.place)))
    }

    /// Skips epochs up to this one, since they were published before the engine was started. Epochs that the task was
    /// handed are durable outside, or will be reported so.
    pub(super) fn skip(&mut self, through: Epoch, log: Option<&Log>) {
        if let Some(epoch) = self.first.drop_if(|cut| cut.epoch <= through) {
            self.passed = epoch;
        }
        let Some(log) = log else { return };
        for (cut, _) in log.from(self.place).take_while(|(cut, _)| cut.epoch <= through) {
            (self.place, self.passed) = (self.place.after(1), cut.epoch);
        }
    }

    /// Takes the next epochs for the task, up to the first that must not go yet.
    pub(super) fn hand_over(
        &mut self,
        log: Option<&Log>,
        may_go: impl Fn(Epoch) -> bool,
    ) -> Result<Vec<(Cut, Delta)>, ArrowError> {
        let waiting = self.epochs(log).skip(self.handed).take_while(|(cut, _)| may_go(cut.epoch));
        let mut epochs: Vec<(Cut, Delta)> = waiting.take(EPOCHS_MAX).cloned().collect();
        log::cut_to_first(&mut epochs, self.columns)?;
        if !epochs.is_empty() {
            (self.handed, self.at_work) = (self.handed + epochs.len(), epochs.len());
        }
        Ok(epochs)
    }

    /// Returns true if the task is to publish what it holds: because a reader waits, or since it holds too much. The next
    /// call returns false until the task has answered.
    pub(super) fn begin_flush(&mut self, log: Option<&Log>, forced: bool) -> bool {
        let held = log.map_or(0, |log| log.bytes_between(self.place, self.place.after(self.handed)));
        let is_due =
            self.at_work == 0 && self.handed > 0 && !self.flushing && (forced || held > HELD_BYTES_MAX);
        self.flushing |= is_due;
        is_due
    }

    /// Records an answer of the task. `wrote`: it has written the newest epochs.
    pub(super) fn answer(&mut self, wrote: bool) {
        if wrote {
            self.at_work = 0;
        }
        // If it was handed more meanwhile, it gets another flush.
        self.flushing = false;
    }

    /// Records that the oldest epochs that the task was handed are durable outside, up to this one.
    pub(super) fn publish(&mut self, epochs: usize, through: Epoch) {
        self.handed = self.handed.saturating_sub(epochs);
        let of_log = epochs - usize::from(epochs > 0 && self.first.rows.take_if(|_| epochs > 0).is_some());
        self.place = self.place.after(of_log);
        self.passed = through;
    }

    /// Returns the first and the last of the epochs that the task has; without any, twice the last published one.
    pub(super) fn undelivered(&self, log: Option<&Log>) -> (Epoch, Epoch) {
        let mut epochs = self.epochs(log).take(self.handed).map(|(cut, _)| cut.epoch);
        let first = epochs.next().unwrap_or(self.passed);
        (first, epochs.last().unwrap_or(first))
    }

    /// Returns the digest of the replayed epochs if it differs from a published one; `None` also if the replay is
    /// incomplete or has no digest.
    pub(super) fn differing_digest(&self, log: Option<&Log>, of: &Digested) -> Option<Digest> {
        if of.after < self.passed {
            return None;
        }
        let made = self.epochs(log).skip_while(|(cut, _)| cut.epoch <= of.after);
        let made = made.take_while(|(cut, _)| cut.epoch <= of.through);
        let digest = |delta: &Delta| Digest::of(delta.first_columns(self.columns).ok()?.as_ref()).ok();
        let found: Digest = made.map(|(_, delta)| digest(delta)).sum::<Option<Digest>>()?;
        (found != of.digest).then_some(found)
    }

    /// Saves the position, relative to the first saved entry of the log; the content that is delivered first is added to
    /// `entries`.
    pub(super) fn save(&self, all: &mut Tables, log: Option<(&Log, Place)>, entries: &mut Vec<Entry>) {
        put_place(all, "place", log, self.place);
        all.put_number("passed", self.passed.0 as i64);
        put_first(all, self.first.rows.as_ref(), entries);
    }

    /// Loads the saved position. Checkpoints of versions without digests lack the epoch before it, `delivered`.
    pub(super) fn load(&mut self, all: &mut Tables, delivered: Epoch, entries: &[Entry]) -> Result<()> {
        self.place = take_place(all, "place")?;
        self.passed = all.take_number_if("passed").map_or(delivered, |passed| Epoch(passed as u64));
        self.first.rows = take_first(all, entries)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use millstream_delta::Timestamp;

    use super::*;

    fn delta(numbers: &[i64]) -> Delta {
        let column: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        Delta::insert(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }

    fn cut(epoch: u64) -> Cut {
        Cut::new(Epoch(epoch), Timestamp(epoch as i64))
    }

    fn log(epochs: impl IntoIterator<Item = u64>) -> Log {
        let mut log = Log::default();
        epochs.into_iter().for_each(|epoch| log.push(cut(epoch), delta(&[epoch as i64])));
        log
    }

    fn epochs(handed: &[(Cut, Delta)]) -> Vec<u64> {
        handed.iter().map(|(cut, _)| cut.epoch.0).collect()
    }

    #[test]
    fn the_content_goes_before_the_log_and_counts_as_one_epoch() {
        let mut backlog = Backlog::new(1, Place::default(), Epoch(2));
        backlog.begin_with(InitialContent::of(cut(3), delta(&[1, 2])));
        let log = log(4..8);
        let handed = backlog.hand_over(Some(&log), |epoch| epoch < Epoch(6)).unwrap();
        assert_eq!(epochs(&handed), [3, 4, 5]);
        assert!(!backlog.accepts() && backlog.unwritten() == Place::default());
        backlog.answer(true);
        assert_eq!(backlog.unwritten(), Place::default().after(2));
        assert_eq!(backlog.undelivered(Some(&log)), (Epoch(3), Epoch(5)));
        // The content and one epoch of the log become durable.
        backlog.publish(2, Epoch(4));
        assert_eq!((backlog.place(), backlog.passed()), (Place::default().after(1), Epoch(4)));
        assert_eq!(epochs(&backlog.hand_over(Some(&log), |_| true).unwrap()), [6, 7]);
        backlog.answer(true);
        backlog.publish(3, Epoch(7));
        assert!(backlog.is_past(log.end()) && backlog.is_in_hand());
        assert_eq!(backlog.undelivered(Some(&log)), (Epoch(7), Epoch(7)));
    }

    #[test]
    fn a_flush_is_asked_for_once_until_it_is_answered() {
        let (mut backlog, log) = (Backlog::new(1, Place::default(), Epoch(0)), log(1..3));
        assert!(!backlog.begin_flush(Some(&log), true));
        backlog.hand_over(Some(&log), |_| true).unwrap();
        assert!(!backlog.begin_flush(Some(&log), true));
        backlog.answer(true);
        assert!(!backlog.begin_flush(Some(&log), false));
        assert!(backlog.begin_flush(Some(&log), true) && !backlog.begin_flush(Some(&log), true));
        backlog.answer(false);
        assert!(backlog.begin_flush(Some(&log), true));
    }

    #[test]
    fn published_epochs_are_skipped_and_compared() {
        let (mut backlog, log) = (Backlog::new(1, Place::default(), Epoch(0)), log(1..5));
        let digest = Digest::of(&delta(&[2])).unwrap();
        let of = |after, through| Digested { after: Epoch(after), through: Epoch(through), digest };
        assert_eq!(backlog.differing_digest(Some(&log), &of(1, 2)), None);
        assert!(backlog.differing_digest(Some(&log), &of(2, 3)).is_some_and(|found| found != digest));
        backlog.skip(Epoch(3), Some(&log));
        assert_eq!((backlog.place(), backlog.passed()), (Place::default().after(3), Epoch(3)));
        // The replay begins after these epochs.
        assert_eq!(backlog.differing_digest(Some(&log), &of(2, 3)), None);
        assert_eq!(epochs(&backlog.hand_over(Some(&log), |_| true).unwrap()), [4]);
    }
}
