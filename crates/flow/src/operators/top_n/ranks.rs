//! Changes of ranks: the output of a step for rows whose neighbours were inserted or deleted.
//!
//! The difference is computed from the rows after the change. Rows between two changed rows have shifted by
//! the sum of the weights before them, so their old positions follow from the new ones. Only rows that have
//! crossed an end of the range, or have a new number to show, are read.

use std::ops::Range;

use millstream_state::Ordered;

use crate::sorted::{Change, Sorter};

/// The range of a partition's rows in the result, counted from 0, and true if their numbers are shown.
#[derive(Clone, Debug)]
pub(super) struct RankRange {
    pub(super) range: Range<u64>,
    pub(super) numbered: bool,
}

/// Rows to emit: their places, numbers and weights.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) places: Vec<u64>,
    pub(super) numbers: Vec<u64>,
    pub(super) weights: Vec<i64>,
}

/// The output of a step.
#[derive(Debug, Default)]
pub(super) struct Emission {
    /// Rows of the delta, by their places.
    pub(super) delta: Lines,
    /// Kept rows, by their ids.
    pub(super) kept: Lines,
}

/// Computes the difference in one partition after another.
pub(super) struct Difference<'a> {
    pub(super) rows: &'a Ordered,
    pub(super) sorter: &'a Sorter,
    pub(super) taken: &'a RankRange,
    pub(super) emission: Emission,
}

/// The place of a row.
#[derive(Clone, Copy)]
enum RowSource {
    Delta(u32),
    Kept(u64),
}

impl Difference<'_> {
    /// Numbers each row by its position: `row_number`, LIMIT. `changes` are those of one partition.
    pub(super) fn positions(&mut self, changes: &[Change<'_>]) {
        let Some(first) = changes.first() else { return };
        let all = self.rows.positions(first.partition);
        let mut position = self.rows.position(first.key) - all.start;
        let mut shift = 0;
        for (at, change) in changes.iter().enumerate() {
            let before = was(position, shift);
            if position.min(before) >= self.taken.range.end {
                return;
            }
            let copies = self.rows.copies(change.key);
            let had = was(copies, change.weight);
            self.put(RowSource::Delta(change.row), before..before + had, position..position + copies);
            shift += change.weight;
            let next = changes.get(at + 1).map_or(all.end, |next| self.rows.position(next.key)) - all.start;
            self.moved(all.start, position + copies..next, shift);
            position = next;
        }
    }

    /// Gives peers one rank, the position of the first: `rank`. `changes` are those of one partition.
    pub(super) fn ranks(&mut self, changes: &[Change<'_>]) {
        let Some(first) = changes.first() else { return };
        let all = self.rows.positions(first.partition);
        let (mut shift, mut rest) = (0, changes);
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|change| change.peers == first.peers).count();
            let (peers, later) = rest.split_at(count);
            let group = self.rows.positions(first.peers);
            let (now, end) = (group.start - all.start, group.end - all.start);
            let before = was(now, shift);
            if now.min(before) >= self.taken.range.end {
                return;
            }
            for change in peers {
                let copies = self.rows.copies(change.key);
                self.put_rank(
                    RowSource::Delta(change.row),
                    (before, was(copies, change.weight)),
                    (now, copies),
                );
            }
            if self.shows(before, now) {
                let unchanged = |key: &[u8]| peers.binary_search_by(|change| change.key.cmp(key)).is_err();
                self.rows.scan(group.start, &mut |start, entry| {
                    if start < group.end && unchanged(entry.key) {
                        let (rank, copies) = (RowSource::Kept(entry.id), entry.copies);
                        put_rank(self.taken, &mut self.emission, rank, (before, copies), (now, copies));
                    }
                    start + entry.copies < group.end
                });
            }
            shift += peers.iter().map(|change| change.weight).sum::<i64>();
            let next = later.first().map_or(all.end, |next| self.rows.position(next.peers)) - all.start;
            self.moved_ranks(all.start, end..next, shift);
            rest = later;
        }
    }

    /// Handles rows at `range` of the partition that begins at `start`, whose positions were lower by
    /// `shift`.
    fn moved(&mut self, start: u64, range: Range<u64>, shift: i64) {
        let mut done = range.start;
        for span in self.spans(shift) {
            let (from, to) = (span.start.max(done), span.end.min(range.end));
            if from >= to {
                continue;
            }
            self.rows.scan(start + from, &mut |position, entry| {
                let position = position - start;
                done = position + entry.copies;
                let before = was(position, shift);
                let (before, now) = (before..before + entry.copies, position..done);
                put(self.taken, &mut self.emission, RowSource::Kept(entry.id), before, now);
                done < to
            });
        }
    }

    /// Does the same for peers with one rank; `range` holds all peers of those in it.
    fn moved_ranks(&mut self, start: u64, range: Range<u64>, shift: i64) {
        for span in self.spans(shift) {
            let (from, to) = (span.start.max(range.start), span.end.min(range.end));
            if from >= to {
                continue;
            }
            let mut group: Option<(u64, &[u8])> = None;
            self.rows.scan(start + from, &mut |position, entry| {
                if position - start >= range.end {
                    return false;
                }
                let peers = self.sorter.peers(entry.key);
                let now = match group {
                    Some((now, known)) if known == peers => now,
                    // The first row may have peers before it.
                    None => self.rows.position(peers) - start,
                    Some(_) => position - start,
                };
                group = Some((now, peers));
                if now >= from && now < to {
                    let (rank, before) = (RowSource::Kept(entry.id), was(now, shift));
                    put_rank(
                        self.taken,
                        &mut self.emission,
                        rank,
                        (before, entry.copies),
                        (now, entry.copies),
                    );
                }
                now < to
            });
        }
    }

    /// Returns the positions to read if all rows have moved by `shift`: with numbers all that are or were in
    /// the range, else those that have entered or left it.
    fn spans(&self, shift: i64) -> Vec<Range<u64>> {
        let Range { start, end } = self.taken.range;
        let span = |bound: u64| {
            let moved = if bound == u64::MAX { bound } else { bound.saturating_add_signed(shift) };
            bound.min(moved)..bound.max(moved)
        };
        let (mut first, last) = (span(start), span(end));
        if shift == 0 {
            return Vec::new();
        }
        let mut spans = Vec::with_capacity(2);
        if self.taken.numbered || first.end >= last.start {
            first.end = last.end;
            spans.push(first);
        } else {
            spans.extend([first, last]);
        }
        spans
    }

    /// Returns true if the change of a row's rank is visible.
    fn shows(&self, before: u64, now: u64) -> bool {
        let (had, has) = (self.taken.range.contains(&before), self.taken.range.contains(&now));
        before != now && (had != has || (self.taken.numbered && has))
    }

    fn put(&mut self, place: RowSource, before: Range<u64>, now: Range<u64>) {
        put(self.taken, &mut self.emission, place, before, now);
    }

    fn put_rank(&mut self, place: RowSource, before: (u64, u64), now: (u64, u64)) {
        put_rank(self.taken, &mut self.emission, place, before, now);
    }
}

impl Emission {
    fn line(&mut self, place: RowSource, number: u64, weight: i64) {
        let (lines, place) = match place {
            RowSource::Delta(row) => (&mut self.delta, u64::from(row)),
            RowSource::Kept(id) => (&mut self.kept, id),
        };
        if weight != 0 {
            lines.places.push(place);
            lines.numbers.push(number);
            lines.weights.push(weight);
        }
    }
}

/// Emits the change of the positions of a row's copies.
fn put(taken: &RankRange, emission: &mut Emission, place: RowSource, before: Range<u64>, now: Range<u64>) {
    let (before, now) = (within(&before, &taken.range), within(&now, &taken.range));
    if !taken.numbered {
        return emission.line(place, 0, length(&now) - length(&before));
    }
    before.clone().filter(|at| !now.contains(at)).for_each(|at| emission.line(place, at, -1));
    now.filter(|at| !before.contains(at)).for_each(|at| emission.line(place, at, 1));
}

/// Emits the change of a row's rank and number of copies.
fn put_rank(
    taken: &RankRange,
    emission: &mut Emission,
    place: RowSource,
    before: (u64, u64),
    now: (u64, u64),
) {
    let copies = |(rank, copies): (u64, u64)| {
        if taken.range.contains(&rank) { copies as i64 } else { 0 }
    };
    if !taken.numbered || before.0 == now.0 {
        return emission.line(place, now.0, copies(now) - copies(before));
    }
    emission.line(place, before.0, -copies(before));
    emission.line(place, now.0, copies(now));
}

fn within(range: &Range<u64>, bounds: &Range<u64>) -> Range<u64> {
    range.start.max(bounds.start)..range.end.min(bounds.end)
}

fn length(range: &Range<u64>) -> i64 {
    range.end.saturating_sub(range.start) as i64
}

/// Returns a number as it was before it rose by `shift`.
fn was(now: u64, shift: i64) -> u64 {
    now.wrapping_add_signed(-shift)
}
