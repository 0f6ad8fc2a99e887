//! Tracking of changes since a checkpoint.
//!
//! A structure takes part in incremental checkpoints by a [`Lineage`], which it shares with the writer of
//! checkpoints. The lineage records the version in the newest checkpoint. Changes mark what they touch. Marks
//! are grouped by the checkpoints begun meanwhile, so that a failed checkpoint loses none.
//!
//! ```
//! use millstream_state::SlotMarks;
//!
//! let mut marks = SlotMarks::default();
//! marks.touch(3);
//! let first = marks.run();
//! assert!(first.is_whole());
//! first.publish(false);
//! marks.touch(70);
//! assert_eq!(marks.touched(&marks.run()), [70]);
//! ```
//!
//! Deliberately absent: the content before a change. A checkpoint has that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of consecutive failed checkpoints after which the next one holds the complete state.
const FAILED_MAX: usize = 4;

/// The versions of a structure in checkpoints.
#[derive(Debug, Default)]
pub struct Lineage {
    /// The number of times it was saved.
    saved: AtomicU64,
    published: Mutex<Published>,
}

/// The version in the newest checkpoint. The thread that writes checkpoints sets it, not the one that changes
/// the structure.
#[derive(Debug, Default)]
struct Published {
    /// The version; 0 if the next checkpoint must hold the complete state.
    version: u64,
    /// Later runs must not continue from versions up to this one.
    barred: u64,
}

/// A saved version of a structure: its complete state, or the changes since another run.
#[derive(Clone, Debug)]
pub struct Run {
    lineage: Arc<Lineage>,
    version: u64,
    since: u64,
}

impl Lineage {
    /// Makes the next checkpoint hold the complete state, whatever the one being written contains.
    fn bar(&self) {
        *self.published() = Published { version: 0, barred: self.saved.load(Ordering::Acquire) };
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Returns true if it holds the complete state.
    pub fn is_whole(&self) -> bool {
        self.since == 0
    }

    /// Returns the identity of the lineage, unique while a run of it exists.
    pub fn lineage(&self) -> usize {
        Arc::as_ptr(&self.lineage) as usize
    }

    /// Records that the newest checkpoint contains this run; `anew` is true if the next one must hold the
    /// complete state.
    pub fn publish(&self, anew: bool) {
        let mut published = self.lineage.published();
        let is_usable = !anew && self.version > published.barred;
        published.version = if is_usable { self.version } else { 0 };
    }
}

/// Marks of one kind.
pub(crate) trait Marked: Default {
    /// Returns empty marks; `next_id` is the id that the next row gets.
    fn begun(next_id: u64) -> Self;
}

/// Marks, grouped by the checkpoints that contain them.
#[derive(Debug, Default)]
pub(crate) struct Marks<S> {
    lineage: Arc<Lineage>,
    /// The number of saves when `now` was begun.
    turned: u64,
    now: S,
    /// Earlier marks, each with the first version that contains them.
    before: Vec<(u64, S)>,
}

impl<S: Marked> Marks<S> {
    /// Returns marks in the lineage of `other`.
    pub(crate) fn beside<T>(other: &Marks<T>) -> Marks<S> {
        Marks { lineage: other.lineage.clone(), ..Marks::default() }
    }

    /// Returns the marks for the next change.
    #[inline]
    pub(crate) fn now(&mut self, next_id: u64) -> &mut S {
        let saved = self.lineage.saved.load(Ordering::Acquire);
        if saved > self.turned {
            self.turn(saved, next_id);
        }
        &mut self.now
    }

    #[cold]
    fn turn(&mut self, saved: u64, next_id: u64) {
        let published = self.lineage.published().version;
        self.before.push((self.turned + 1, std::mem::replace(&mut self.now, S::begun(next_id))));
        self.turned = saved;
        // If none is published, the next one holds the complete state.
        self.before.retain(|(version, _)| published > 0 && *version > published);
        if self.before.len() > FAILED_MAX {
            self.bar();
        }
    }

    /// Makes the next checkpoint hold the complete state.
    pub(crate) fn bar(&mut self) {
        self.lineage.bar();
        self.before.clear();
    }

    /// Begins to save.
    pub(crate) fn run(&self) -> Run {
        let version = self.lineage.saved.fetch_add(1, Ordering::AcqRel) + 1;
        let since = self.lineage.published().version;
        Run { lineage: self.lineage.clone(), version, since }
    }

    /// Returns the marks that a run must contain, oldest first.
    pub(crate) fn since(&self, run: &Run) -> impl Iterator<Item = &S> {
        let before = self.before.iter().filter(|(version, _)| *version > run.since).map(|(_, marks)| marks);
        // Marks saved after the last change are not new to a later run.
        before.chain((self.turned + 1 > run.since).then_some(&self.now))
    }
}

/// One bit per slot.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Marked for Bits {
    fn begun(_next_id: u64) -> Bits {
        Bits::default()
    }
}

impl Bits {
    #[inline]
    pub(crate) fn set(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    /// Marks the slots of the bits set in these words, from slot 0 on.
    fn set_words(&mut self, words: &[u64]) {
        if self.0.len() < words.len() {
            self.0.resize(words.len(), 0);
        }
        self.0.iter_mut().zip(words).for_each(|(now, word)| *now |= word);
    }

    /// Returns the slots marked in any of these, ascending.
    pub(crate) fn slots<'a>(all: impl Iterator<Item = &'a Bits>) -> Vec<u32> {
        Bits::sum(all).to_slots()
    }

    /// Returns the marks of all of these.
    fn sum<'a>(all: impl Iterator<Item = &'a Bits>) -> Bits {
        let mut sum = Bits::default();
        for Bits(words) in all {
            sum.set_words(words);
        }
        sum
    }

    /// Returns the number of marked slots.
    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns the marked slots, ascending.
    fn to_slots(&self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.count());
        for (place, word) in self.0.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                slots.push(place as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        slots
    }
}

/// Marks of changed slots.
#[derive(Debug, Default)]
pub struct SlotMarks(Marks<Bits>);

impl SlotMarks {
    /// Marks a slot.
    pub fn touch(&mut self, slot: u32) {
        self.0.now(0).set(slot);
    }

    /// Marks slots.
    pub fn touch_all(&mut self, slots: impl IntoIterator<Item = u32>) {
        let bits = self.0.now(0);
        slots.into_iter().for_each(|slot| bits.set(slot));
    }

    /// Marks the slots of the bits set in these words, 64 slots per word from slot 0 on.
    pub fn touch_words(&mut self, words: &[u64]) {
        self.0.now(0).set_words(words);
    }

    /// Makes the next checkpoint hold the complete state, because slots now have other meanings.
    pub fn bar(&mut self) {
        self.0.bar();
    }

    /// Begins to save.
    pub fn run(&self) -> Run {
        self.0.run()
    }

    /// Returns the slots changed since the predecessor of a run, ascending.
    pub fn touched(&self, run: &Run) -> Vec<u32> {
        self.touched_bits(run).slots()
    }

    /// Returns the marks of these slots.
    pub fn touched_bits(&self, run: &Run) -> TouchedSlots {
        TouchedSlots(Bits::sum(self.0.since(run)))
    }
}

/// The slots changed since the predecessor of a run, as marks: small, and made quickly.
#[derive(Debug)]
pub struct TouchedSlots(Bits);

impl TouchedSlots {
    /// Returns the number of slots.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Returns the slots, ascending.
    pub fn slots(&self) -> Vec<u32> {
        self.0.to_slots()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_checkpoint_is_in_the_next() {
        let mut marks = SlotMarks::default();
        marks.touch_all([1, 2]);
        let first = marks.run();
        assert!(first.is_whole());
        // The first run isn't published yet: it does not contain changes made meanwhile.
        marks.touch(3);
        first.publish(false);
        let second = marks.run();
        assert_eq!((second.is_whole(), marks.touched(&second)), (false, vec![3]));
        marks.touch(200);
        // The second one fails, and so does a third.
        assert_eq!(marks.touched(&marks.run()), [3, 200]);
        marks.touch_words(&[0, 1]);
        let fourth = marks.run();
        assert_eq!(marks.touched(&fourth), [3, 64, 200]);
        fourth.publish(false);
        assert!(marks.touched(&marks.run()).is_empty());
        assert!(marks.touched(&marks.run()).is_empty());
        marks.touch(5);
        assert_eq!(marks.touched(&marks.run()), [5]);
    }

    #[test]
    fn a_new_beginning_is_of_everything() {
        let mut marks = SlotMarks::default();
        marks.run().publish(false);
        marks.touch(1);
        let run = marks.run();
        assert!(!run.is_whole() && run.lineage() == marks.run().lineage());
        assert!(run.lineage() != SlotMarks::default().run().lineage());
        marks.bar();
        // The run was begun before.
        run.publish(false);
        let run = marks.run();
        assert!(run.is_whole());
        run.publish(true);
        assert!(marks.run().is_whole());
        for _ in 0..2 * FAILED_MAX {
            marks.touch(7);
            marks.run();
        }
        marks.run().publish(false);
        assert!(!marks.run().is_whole());
        for failed in 0..=FAILED_MAX + 1 {
            marks.touch(7);
            assert_eq!(marks.run().is_whole(), failed > FAILED_MAX);
        }
    }
}
