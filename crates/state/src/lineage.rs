//! What has changed since a checkpoint.
//!
//! What is kept takes part in checkpoints of what has changed by a [`Lineage`], which it shares with who writes them: it
//! says what the newest checkpoint has of it. Marks are made where something is changed anyway, and are sorted by the
//! checkpoints that were begun meanwhile, so that one that fails loses none.
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
//! Deliberately absent: what was there before a change. A checkpoint has that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many checkpoints may fail one after the other before the next one is of everything.
const FAILED_MAX: usize = 4;

/// What checkpoints have of something that is kept.
#[derive(Debug, Default)]
pub struct Lineage {
    /// How often it was saved.
    saved: AtomicU64,
    published: Mutex<Published>,
}

/// What the newest checkpoint has; it is written on another thread than that which changes what is kept.
#[derive(Debug, Default)]
struct Published {
    /// The version; 0 where the next one is to have everything.
    version: u64,
    /// Versions up to this one are of no use to go on from.
    barred: u64,
}

/// What is saved of something at one time: all of it, or what has changed since another run.
#[derive(Clone, Debug)]
pub struct Run {
    lineage: Arc<Lineage>,
    version: u64,
    since: u64,
}

impl Lineage {
    /// Lets the next checkpoint have everything, whatever the one that is being written has.
    fn bar(&self) {
        *self.published() = Published { version: 0, barred: self.saved.load(Ordering::Acquire) };
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Whether all is in it.
    pub fn is_whole(&self) -> bool {
        self.since == 0
    }

    /// By what runs of the same that is kept are known, as long as there is one.
    pub fn lineage(&self) -> usize {
        Arc::as_ptr(&self.lineage) as usize
    }

    /// Says that the newest checkpoint has it, and whether the next one is to have everything.
    pub fn publish(&self, anew: bool) {
        let mut published = self.lineage.published();
        let is_usable = !anew && self.version > published.barred;
        published.version = if is_usable { self.version } else { 0 };
    }
}

/// Marks of one kind.
pub(crate) trait Marked: Default {
    /// Those of rows that come, and go, when so many have come by then.
    fn begun(next_id: u64) -> Self;
}

/// Marks by the checkpoints that have what they stand for.
#[derive(Debug, Default)]
pub(crate) struct Marks<S> {
    lineage: Arc<Lineage>,
    /// How often it had been saved when `now` was begun.
    turned: u64,
    now: S,
    /// Those before, each with the first version that has them.
    before: Vec<(u64, S)>,
}

impl<S: Marked> Marks<S> {
    /// The marks that are no part of a lineage of their own.
    pub(crate) fn beside<T>(other: &Marks<T>) -> Marks<S> {
        Marks { lineage: other.lineage.clone(), ..Marks::default() }
    }

    /// Those to which the next change adds.
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
        // Where none is published the next one has everything.
        self.before.retain(|(version, _)| published > 0 && *version > published);
        if self.before.len() > FAILED_MAX {
            self.bar();
        }
    }

    /// Lets the next checkpoint have everything.
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

    /// The marks that a run is to have, the oldest first.
    pub(crate) fn since(&self, run: &Run) -> impl Iterator<Item = &S> {
        let before = self.before.iter().filter(|(version, _)| *version > run.since).map(|(_, marks)| marks);
        // What was saved since the last change is no news to a later run.
        before.chain((self.turned + 1 > run.since).then_some(&self.now))
    }
}

/// A bit a slot.
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

    /// Marks what has a bit in these words, which stand for the slots from 0 on.
    fn set_words(&mut self, words: &[u64]) {
        if self.0.len() < words.len() {
            self.0.resize(words.len(), 0);
        }
        self.0.iter_mut().zip(words).for_each(|(now, word)| *now |= word);
    }

    /// The slots with a mark in any of these, ascending.
    pub(crate) fn slots<'a>(all: impl Iterator<Item = &'a Bits>) -> Vec<u32> {
        let mut sum = Bits::default();
        for Bits(words) in all {
            sum.set_words(words);
        }
        let mut slots = Vec::new();
        for (place, word) in sum.0.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                slots.push(place as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        slots
    }
}

/// Marks of slots, of which something has changed.
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

    /// Marks the slots that have a bit in these words, 64 slots a word from slot 0 on.
    pub fn touch_words(&mut self, words: &[u64]) {
        self.0.now(0).set_words(words);
    }

    /// Lets the next checkpoint have everything: slots stand for something else now.
    pub fn bar(&mut self) {
        self.0.bar();
    }

    /// Begins to save.
    pub fn run(&self) -> Run {
        self.0.run()
    }

    /// The slots that have changed since what a run goes on from, ascending.
    pub fn touched(&self, run: &Run) -> Vec<u32> {
        Bits::slots(self.0.since(run))
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
        // It isn't published yet: what comes meanwhile is in none.
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
        // It was begun before.
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
