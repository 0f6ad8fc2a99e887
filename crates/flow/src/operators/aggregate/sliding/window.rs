//! The parts of a window: one block of values for each pane, and totals over blocks.
//!
//! A block has a value of each aggregate for each group with rows in its pane. Aggregates that can subtract
//! have one sum over the window: entering blocks are added, leaving blocks are subtracted. The others
//! (minima, states of accumulators) are merged from three parts:
//!
//! | part | blocks | holds |
//! | --- | --- | --- |
//! | oldest | the next to leave | the total of the remaining blocks; each block, that of those behind it |
//! | middle | all stay for a while | their total; block by block from the newest on, their values as oldest |
//! | newest | the last to enter | their total |
//!
//! When the oldest part has no blocks left, the middle becomes the oldest part. The newest becomes the middle
//! once it is half as long as the window. So a step costs as much as its own groups, however long the window
//! is: a pane's groups are touched when it enters, once while it is in the middle, and when it leaves. (Two
//! stacks make a queue; filling the second one bit by bit is due to Tangwongsan, Hirzel and Schneider,
//! *In-Order Sliding-Window Aggregation in Worst-Case Constant Time*, VLDB Journal 2021. Here it works per
//! group, so blocks don't grow.)

use std::collections::VecDeque;

use crate::failure::Failure;
use crate::operators::aggregate::slot::{Absorb, Pair, SlotAggregate};
use crate::{Error, Result};

/// Values, or nothing for an aggregate that is just the number of rows.
pub(super) type Column = Option<Box<dyn SlotAggregate>>;

/// The groups of a pane.
#[derive(Debug)]
pub(super) struct Block {
    /// The end of the pane.
    pub(super) end: i64,
    /// Each group's slot in the window; its place here is its slot in the block.
    pub(super) slots: Vec<u32>,
    /// The number of rows of each group.
    pub(super) rows: Vec<i64>,
    /// A column for each aggregate. In the oldest part, for those that don't subtract, the total of the
    /// blocks behind.
    pub(super) columns: Vec<Column>,
    /// The rows of the pane for which an expression fails.
    pub(super) failures: Vec<Failure>,
}

/// The totals of an aggregate that can't subtract, by the slots of the window.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) oldest: Box<dyn SlotAggregate>,
    /// The total of the prepared blocks: the middle's total as the oldest part.
    pub(super) prepared: Box<dyn SlotAggregate>,
    pub(super) middle: Box<dyn SlotAggregate>,
    pub(super) newest: Box<dyn SlotAggregate>,
}

/// The blocks of a window.
#[derive(Debug)]
pub(super) struct Window {
    length: i64,
    /// The time of the last move.
    pub(super) last: i64,
    pub(super) oldest: VecDeque<Block>,
    pub(super) middle: VecDeque<Block>,
    /// The number of blocks of the middle, from the newest on, that are prepared for the oldest part.
    pub(super) prepared: usize,
    pub(super) newest: VecDeque<Block>,
    /// The totals of each aggregate that can't subtract.
    pub(super) totals: Vec<Option<Totals>>,
    end: usize,
}

impl Block {
    /// Returns its slots, each with that of the window.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        self.slots.iter().enumerate().map(|(place, slot)| (place as u32, *slot)).collect()
    }

    fn memory_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().flatten().map(|column| column.memory_bytes()).sum();
        columns + self.slots.capacity() * size_of::<u32>() + self.rows.capacity() * size_of::<i64>()
    }
}

/// Returns a new column of the same aggregate for slots below `end`.
pub(super) fn fresh(column: &dyn SlotAggregate, end: usize) -> Result<Box<dyn SlotAggregate>> {
    let mut fresh = column.fresh().ok_or_else(|| Error::Bug(format!("{column:?} can't be merged")))?;
    fresh.resize(end);
    Ok(fresh)
}

impl Window {
    /// Returns a window of `length`; `columns` have its aggregates.
    pub(super) fn new(length: i64, columns: &[Option<&dyn SlotAggregate>]) -> Result<Window> {
        let totals = columns.iter().map(|column| match column {
            Some(column) if !column.subtracts() => Ok(Some(Totals {
                oldest: fresh(*column, 0)?,
                prepared: fresh(*column, 0)?,
                middle: fresh(*column, 0)?,
                newest: fresh(*column, 0)?,
            })),
            _ => Ok(None),
        });
        let totals = totals.collect::<Result<_>>()?;
        let (oldest, middle, newest) = Default::default();
        Ok(Window { length, last: i64::MIN, oldest, middle, prepared: 0, newest, totals, end: 0 })
    }

    /// Grows the columns to slots below `end`.
    pub(super) fn resize(&mut self, end: usize) {
        self.end = end;
        for totals in self.totals.iter_mut().flatten() {
            let Totals { oldest, prepared, middle, newest } = totals;
            [oldest, prepared, middle, newest].into_iter().for_each(|column| column.resize(end));
        }
    }

    /// Returns the blocks that are outside of the window when it ends at `end`.
    pub(super) fn leaving(&self, end: i64) -> impl Iterator<Item = &Block> {
        self.blocks().take_while(move |block| block.end <= end - self.length)
    }

    /// Returns all blocks, the oldest first.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.oldest.iter().chain(&self.middle).chain(&self.newest)
    }

    /// Adds the newest block; aggregates that subtract add it to `sums`.
    pub(super) fn enter(&mut self, block: Block, sums: &mut [Column]) -> Result<()> {
        let pairs = block.pairs();
        for ((column, totals), sum) in block.columns.iter().zip(&mut self.totals).zip(sums) {
            let Some(column) = column else { continue };
            match (totals, sum) {
                (Some(totals), _) => totals.newest.absorb(column.as_ref(), &pairs, Absorb::Add)?,
                (None, Some(sum)) => sum.absorb(column.as_ref(), &pairs, Absorb::Add)?,
                (None, None) => {}
            }
        }
        self.newest.push_back(block);
        Ok(())
    }

    /// Removes the blocks that are outside of the window when it ends at `end`, and prepares others.
    pub(super) fn leave(&mut self, end: i64, sums: &mut [Column]) -> Result<()> {
        while self.leaving(end).next().is_some() {
            if self.oldest.is_empty() {
                self.promote()?;
            }
            if let Some(block) = self.oldest.pop_front() {
                self.drop_block(&block, sums)?;
            }
        }
        if self.oldest.is_empty() && !self.middle.is_empty() && self.prepared == self.middle.len() {
            self.promote()?;
        }
        let half = self.length / 2;
        if self.middle.is_empty() && self.newest.front().is_some_and(|block| block.end <= end - half) {
            self.cut()?;
        }
        if let Some(first) = self.middle.front() {
            // The share of blocks to prepare equals the share of the remaining time that has passed.
            let time = first.end + self.length - self.last.max(first.end);
            let share = (end - self.last.max(first.end)) as f64 / time.max(1) as f64;
            let rest = self.middle.len() - self.prepared;
            let due = ((rest as f64 * share).ceil() as usize).min(rest);
            (0..due).try_for_each(|_| self.prepare())?;
        }
        self.last = end;
        Ok(())
    }

    /// Computes the values of some groups over all blocks, for aggregates that can't subtract.
    pub(super) fn total(&self, slots: &[u32], sums: &mut [Column]) -> Result<()> {
        let pairs: Vec<Pair> = slots.iter().map(|slot| (*slot, *slot)).collect();
        for (totals, sum) in self.totals.iter().zip(sums) {
            let (Some(totals), Some(sum)) = (totals, sum) else { continue };
            slots.iter().for_each(|slot| sum.free(*slot));
            for part in [&totals.oldest, &totals.middle, &totals.newest] {
                sum.absorb(part.as_ref(), &pairs, Absorb::Add)?;
            }
        }
        Ok(())
    }

    /// Makes the middle, or else the newest part, the oldest.
    fn promote(&mut self) -> Result<()> {
        if self.middle.is_empty() {
            self.cut()?;
        }
        while self.prepared < self.middle.len() {
            self.prepare()?;
        }
        self.oldest = std::mem::take(&mut self.middle);
        self.prepared = 0;
        for totals in self.totals.iter_mut().flatten() {
            let empty = fresh(totals.middle.as_ref(), self.end)?;
            totals.oldest = std::mem::replace(&mut totals.prepared, empty);
            totals.middle = fresh(totals.middle.as_ref(), self.end)?;
        }
        Ok(())
    }

    /// Makes the newest part the middle.
    fn cut(&mut self) -> Result<()> {
        self.middle = std::mem::take(&mut self.newest);
        self.prepared = 0;
        for totals in self.totals.iter_mut().flatten() {
            let empty = fresh(totals.newest.as_ref(), self.end)?;
            totals.middle = std::mem::replace(&mut totals.newest, empty);
        }
        Ok(())
    }

    /// Replaces the values of the next block of the middle by the totals of the blocks behind it.
    fn prepare(&mut self) -> Result<()> {
        let Some(place) = self.middle.len().checked_sub(self.prepared + 1) else { return Ok(()) };
        self.prepared += 1;
        let Some(block) = self.middle.get_mut(place) else { return Ok(()) };
        let inward = block.pairs();
        let outward: Vec<Pair> = inward.iter().map(|(here, there)| (*there, *here)).collect();
        for (column, totals) in block.columns.iter_mut().zip(&mut self.totals) {
            let (Some(column), Some(totals)) = (column, totals) else { continue };
            let mut behind = fresh(column.as_ref(), inward.len())?;
            behind.absorb(totals.prepared.as_ref(), &outward, Absorb::Add)?;
            totals.prepared.absorb(column.as_ref(), &inward, Absorb::Add)?;
            *column = behind;
        }
        Ok(())
    }

    fn drop_block(&mut self, block: &Block, sums: &mut [Column]) -> Result<()> {
        let pairs = block.pairs();
        for ((column, totals), sum) in block.columns.iter().zip(&mut self.totals).zip(sums) {
            let Some(column) = column else { continue };
            match (totals, sum) {
                (Some(totals), _) => {
                    block.slots.iter().for_each(|slot| totals.oldest.free(*slot));
                    totals.oldest.absorb(column.as_ref(), &pairs, Absorb::Add)?;
                }
                (None, Some(sum)) => sum.absorb(column.as_ref(), &pairs, Absorb::Subtract)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Returns the number of values: one for each group and pane.
    pub(super) fn len(&self) -> usize {
        self.blocks().map(|block| block.slots.len()).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let totals = self.totals.iter().flatten().map(|totals| {
            let parts = [&totals.oldest, &totals.prepared, &totals.middle, &totals.newest];
            parts.into_iter().map(|column| column.memory_bytes()).sum::<usize>()
        });
        totals.sum::<usize>() + self.blocks().map(Block::memory_bytes).sum::<usize>()
    }
}
