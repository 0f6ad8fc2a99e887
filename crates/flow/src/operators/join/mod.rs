//! A join of any kind, at the cost of the changes and their matches.
//!
//! Both sides are kept by key. A change of one side is joined with the other side's rows of its keys. First
//! the left side's changes are joined with the right side as it was, then the right side's changes with the
//! changed left side. So each pair is counted once (the join of DBSP; Budiu et al., VLDB 2023).
//!
//! Unpaired rows in the result are those without a match in an outer or anti join, and those with one in a
//! semi join. They depend on the number of their matches, for which the *whole* ON condition is true, and
//! change only when this number becomes zero or positive. Without a condition beyond the equalities it is the
//! key's number of rows, stored once per key; with one it is stored with each row.
//!
//! A pair for which the condition fails doesn't match; it is a failure, until one of its rows is deleted.
//!
//! A side in an arrangement ([`crate::Arrangement`]) is visible in two versions, before this epoch and after
//! it. The changes of a side that the join keeps itself meet the other's rows before the epoch, and are then
//! applied; the changes of the other side meet the result. If both sides are in arrangements, the second's
//! changes meet the first's rows after the epoch.

mod interval_bounds;
mod keys;
mod lookup;
mod output_budget;
mod pairs;
mod persistence;
mod probe;
mod shape;
mod shared_side;
mod side;
#[cfg(test)]
mod tests;
mod views;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{prep_null_mask_filter, take_record_batch};
use arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta, consolidate};
use millstream_state::{Arranged, NO_SLOT, Placed, Size, Spillable, Tables};

use interval_bounds::Arrived;
pub use interval_bounds::{IntervalBounds, Own, Side as IntervalBoundsSide, Until};
use keys::JoinKeys;
use output_budget::OutputBudget;
use pairs::Batch;
use probe::ProbeResult;
pub use shape::{Alone, Shape};
use side::{Change, Keyed, Side};
use views::{SideArrangements, Views};

use crate::arrangement::Versions;
use crate::limits::Limits;
use crate::operator::{
    Abilities, ArrangesSides, Description, Forgotten, Growth, KeyedBy, KeyedState, Operator, Output,
    Properties, State, Timers,
};
use crate::parallelism::Threads;
use crate::{Error, Result};

/// The maximum number of pairs to make at once.
const PAIRS: Size = Size::of(16_384);

/// The parts of a Join operator.
#[derive(Debug)]
pub struct JoinSpec {
    /// The properties of the output.
    pub properties: Properties,
    /// The composition of the result.
    pub shape: Shape,
    /// The key's expressions as text, with their types; empty: every row has the same key.
    pub keys: Vec<(String, DataType)>,
    /// The key's expressions over each side.
    pub exprs: [Vec<Arc<dyn PhysicalExpr>>; 2],
    /// True if NULL equals NULL.
    pub nulls_match: bool,
    /// The further condition on a pair, over the columns of both sides.
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// The kind of join and its condition, for EXPLAIN.
    pub detail: String,
    /// Limits of the output.
    pub limits: Limits,
    /// The expiry of rows, if the condition bounds their times.
    pub interval_bounds: Option<IntervalBounds>,
    /// The threads for large changes.
    pub threads: Threads,
}

/// Joins two inputs.
#[derive(Debug)]
pub struct Join {
    properties: Properties,
    shape: Shape,
    /// The shape of a pair, before its columns become those of the result.
    pairs: Shape,
    keys: JoinKeys,
    condition: Option<Arc<dyn PhysicalExpr>>,
    sides: [Side; 2],
    /// True after the first step.
    started: bool,
    detail: String,
    budget: OutputBudget,
    interval_bounds: Option<IntervalBounds>,
    /// The threads for large changes.
    threads: Threads,
}

impl Join {
    /// Returns the operator without rows; fails if keys of these types can't be indexed.
    pub fn new(parts: JoinSpec) -> Result<Join> {
        let JoinSpec {
            properties,
            shape,
            keys,
            exprs,
            nulls_match,
            condition,
            detail,
            limits,
            interval_bounds,
            threads,
        } = parts;
        let [left, right] = exprs;
        let side = |at: usize, exprs| Side::new(&shape, condition.is_some(), at, exprs);
        let sides = [side(0, left), side(1, right)];
        Ok(Join {
            keys: JoinKeys::new(keys, nulls_match)?,
            pairs: shape.clone().all_pairs(),
            started: false,
            properties,
            shape,
            condition,
            sides,
            detail,
            budget: OutputBudget::new(limits),
            interval_bounds,
            threads,
        })
    }

    /// Processes the changes of both sides; records the new rows, if requested.
    fn advance(&mut self, inputs: &[&Delta], mut arrived: Option<&mut [Arrived; 2]>) -> Result<Output> {
        let first = !std::mem::replace(&mut self.started, true);
        self.budget.begin();
        let kept = SideArrangements::of(&self.sides);
        let views = kept.read()?;
        let mut output = Output::default();
        let mut changes = [Vec::new(), Vec::new()];
        // A side in an arrangement looks its keys up among those of the side that the join keeps.
        for at in views.order() {
            let from = (&mut self.keys, &views);
            let side = &self.sides[at];
            let Change { keyed, apart } =
                side.place(at, from, (inputs[at], &self.threads), &mut output.failures)?;
            for chunk in apart {
                match self.shape.alone[at] {
                    Alone::Never => {}
                    Alone::OnLeaving => self.put_apart(at, &chunk, &mut output.rows)?,
                    _ => self.put_alone(at, &chunk, |_| false, &mut output.rows)?,
                }
            }
            if let Some(arrived) = &mut arrived {
                arrived[at].slots.extend(keyed.iter().flat_map(|keyed: &Keyed| &keyed.placed.slots));
            }
            changes[at] = keyed;
        }
        let touched = deleted(&changes);
        let counted = self.counted(&changes);
        match self.condition {
            None => self.match_by_key(first, &views, changes, &mut output)?,
            Some(_) => self.match_by_condition(first, &views, changes, &mut output)?,
        }
        if let Some(index) = self.keys.index_mut() {
            index.touch_all(counted);
        }
        self.keys.free_empty(&touched, |slot| self.sides.iter().all(|side| side.is_empty(slot)));
        Ok(output)
    }

    /// Returns the slots of changes of sides that only count their rows by key.
    fn counted(&self, changes: &[Vec<Keyed>; 2]) -> Vec<u32> {
        let counts = self.sides.iter().zip(changes).filter(|(side, _)| side.counts_only());
        counts.flat_map(|(_, changes)| changes).flat_map(|keyed| &keyed.placed.slots).copied().collect()
    }

    /// Computes the output if rows match as soon as their keys are equal.
    fn match_by_key(
        &mut self,
        first: bool,
        views: &Views<'_>,
        changes: [Vec<Keyed>; 2],
        output: &mut Output,
    ) -> Result<()> {
        let counted = [0, 1].map(|at| self.sides[at].count(&changes[at]));
        let moved = [0, 1].map(|at| views.of(at).map_or(&counted[at], Versions::moved));
        for at in [0, 1].into_iter().filter(|at| self.shape.alone[*at] != Alone::Never) {
            // In the first step none of its rows was in the result before.
            let turns = views.of(at).is_none() || !first;
            for now in [false, true].into_iter().filter(|_| turns) {
                let turned = self.on_other_side(1 - at, moved[1 - at].turned(now), views)?;
                let rows = self.rows(at, views)?;
                let ids: Vec<u64> = turned.iter().flat_map(|slot| rows.ids(*slot)).copied().collect();
                self.turn(at, views, &ids, now, &mut output.rows)?;
            }
            for keyed in &changes[at] {
                let matched = |row: usize| self.total(1 - at, keyed.others()[row], views) > 0;
                self.put_alone(at, &keyed.placed.chunk, matched, &mut output.rows)?;
            }
        }
        let mut changes = changes;
        let mut made = ProbeResult { output: std::mem::take(output), ..ProbeResult::default() };
        for at in views.order() {
            let changes = std::mem::take(&mut changes[at]);
            if !self.shape.pairs || self.holds_already(at, first, views) {
                self.apply(at, changes)?;
                continue;
            }
            self.take_in(at, changes, false, &mut made, |join, keyed, made| {
                let chunk = &keyed.placed.chunk;
                let pairs = |batch: &Batch| Ok(join.pairs(at, chunk, batch, views)?.0);
                join.each_batch(at, keyed.others(), views, pairs, |_, pairs| join.put_pairs(pairs, made))
            })?;
        }
        *output = made.output;
        Ok(())
    }

    /// Does the same if a condition decides, pair by pair.
    fn match_by_condition(
        &mut self,
        first: bool,
        views: &Views<'_>,
        mut changes: [Vec<Keyed>; 2],
        output: &mut Output,
    ) -> Result<()> {
        let both = changes.iter().all(|changes| !changes.is_empty());
        let mut made = ProbeResult { output: std::mem::take(output), ..ProbeResult::default() };
        for at in views.order() {
            let changes = std::mem::take(&mut changes[at]);
            if self.holds_already(at, first, views) {
                self.apply(at, changes)?;
                continue;
            }
            let alone = self.shape.alone[at] != Alone::Never;
            self.take_in(at, changes, alone, &mut made, |join, keyed, made| {
                let mut mine = vec![0; keyed.placed.chunk.rows.num_rows()];
                let chunk = &keyed.placed.chunk;
                let examine = |batch: &Batch| join.examine(at, views, chunk, batch);
                join.each_batch(at, keyed.others(), views, examine, |batch, examined| {
                    join.count(chunk, &batch, examined, &mut mine, made)
                })?;
                if alone {
                    join.put_alone(at, chunk, |row| mine[row] > 0, &mut made.alone)?;
                    keyed.placed.tallies = Some(mine);
                }
                Ok(())
            })?;
            self.turn_theirs(at, views, &mut made)?;
        }
        let ProbeResult { output: all, alone, .. } = made;
        *output = all;
        // The other side's changes may have retracted unpaired rows that this side's changes have emitted.
        output.rows.append(if both { consolidate(alone, &self.shape.schema)? } else { alone });
        Ok(())
    }

    /// Returns true if the other side's changes make the pairs of this side's changes: in the first step an
    /// arrangement already holds all given rows.
    fn holds_already(&self, at: usize, first: bool, views: &Views<'_>) -> bool {
        first && views.of(at).is_some() && views.order()[1] == at
    }

    fn apply(&mut self, at: usize, changes: Vec<Keyed>) -> Result<()> {
        if let Some(rows) = &mut self.sides[at].rows {
            rows.apply(changes.into_iter().map(|keyed| keyed.placed).collect())?;
        }
        Ok(())
    }

    /// Returns the rows of a side; for an arrangement those before this epoch.
    fn rows<'a>(&'a self, at: usize, views: &'a Views<'_>) -> Result<&'a Arranged> {
        match views.of(at) {
            Some(versions) => Ok(&versions.rows),
            None => self.sides[at].rows.as_ref().ok_or_else(no_rows),
        }
    }

    /// Returns the number of a side's rows of a key after this epoch, if it is kept.
    fn total(&self, at: usize, slot: u32, views: &Views<'_>) -> i64 {
        match views.of(at) {
            Some(versions) => versions.total(slot),
            None => self.sides[at].total(slot),
        }
    }

    /// Returns the other side's slots for the keys of a side's slots, if they exist there.
    fn on_other_side(&self, at: usize, slots: Vec<u32>, views: &Views<'_>) -> Result<Vec<u32>> {
        let (Some(own), true) = (self.keys.index(), !slots.is_empty()) else { return Ok(slots) };
        let (from, to) = match (views.of(at), views.of(1 - at)) {
            (None, None) => return Ok(slots),
            (from, to) => (from.map_or(own, |from| &from.index), to.map_or(own, |to| &to.index)),
        };
        let mut found = Vec::with_capacity(slots.len());
        to.find(&from.keys(&slots)?, &mut found)?;
        Ok(found)
    }

    /// Updates the numbers of matches of the other side's rows after a side's changes.
    fn turn_theirs(&mut self, at: usize, views: &Views<'_>, made: &mut ProbeResult) -> Result<()> {
        let theirs = std::mem::take(&mut made.theirs);
        if self.shape.alone[1 - at] == Alone::Never {
            return Ok(());
        }
        let mut changed: Vec<(u64, i64)> = theirs.into_iter().collect();
        changed.sort_unstable();
        let rows = self.sides[1 - at].rows.as_mut().ok_or_else(no_rows)?;
        let mut turned = [Vec::new(), Vec::new()];
        for (id, matches) in &mut changed {
            let before = rows.tally(*id);
            *matches += before;
            if (before > 0) != (*matches > 0) {
                turned[usize::from(*matches > 0)].push(*id);
            }
        }
        rows.set_tallies(&changed);
        for (now, ids) in [false, true].into_iter().zip(&turned) {
            self.turn(1 - at, views, ids, now, &mut made.alone)?;
        }
        Ok(())
    }

    /// Emits the unpaired rows of a change; `matched` returns true for rows with a match.
    fn put_alone(
        &self,
        at: usize,
        chunk: &Chunk,
        matched: impl Fn(usize) -> bool,
        into: &mut Delta,
    ) -> Result<()> {
        let matched: Vec<bool> = (0..chunk.rows.num_rows()).map(matched).collect();
        let weights: Vec<i64> = matched
            .iter()
            .enumerate()
            .map(|(row, matched)| self.shape.alone[at].weight(*matched, chunk.weight(row)))
            .collect();
        self.put_weighed(at, &chunk.rows, &matched, weights, into)
    }

    /// Emits the changes of a side's rows that have lost or gained their last or first match.
    fn turn(&self, at: usize, views: &Views<'_>, ids: &[u64], now: bool, into: &mut Delta) -> Result<()> {
        let side = self.rows(at, views)?;
        let turned = |some: &[u64], into: &mut Delta| -> Result<()> {
            let (rows, counts) = side.gather_counted(some, &self.sides[at].columns)?;
            for (matched, sign) in [(!now, -1), (now, 1)] {
                let weights =
                    counts.iter().map(|count| sign * self.shape.alone[at].weight(matched, *count)).collect();
                self.put_weighed(at, &rows, &vec![matched; some.len()], weights, into)?;
            }
            Ok(())
        };
        let most = self.threads.at_once(PAIRS.get());
        if ids.len() <= most {
            return if ids.is_empty() { Ok(()) } else { turned(ids, into) };
        }
        for made in self.threads.spread(ids.chunks(most).collect(), |some| {
            let mut made = Delta::default();
            turned(some, &mut made).map(|()| made)
        }) {
            into.append(made?);
            self.budget.check(into.num_rows())?;
        }
        Ok(())
    }

    fn put_weighed(
        &self,
        at: usize,
        rows: &RecordBatch,
        matched: &[bool],
        weights: Vec<i64>,
        into: &mut Delta,
    ) -> Result<()> {
        let there: Vec<u32> = (0..weights.len() as u32).filter(|row| weights[*row as usize] != 0).collect();
        if there.is_empty() {
            return Ok(());
        }
        if there.len() == weights.len() {
            let rows = self.shape.single(at, rows, matched)?;
            return self.put(Chunk { rows, weights: some_weights(weights) }, into);
        }
        let matched: Vec<bool> = there.iter().map(|row| matched[*row as usize]).collect();
        let weights = there.iter().map(|row| weights[*row as usize]).collect();
        let rows = take_record_batch(rows, &UInt32Array::from(there))?;
        let rows = self.shape.single(at, &rows, &matched)?;
        self.put(Chunk { rows, weights: some_weights(weights) }, into)
    }

    fn put(&self, mut chunk: Chunk, into: &mut Delta) -> Result<()> {
        if self.properties.append_only {
            chunk = Chunk::insert(chunk.expand()?);
        }
        into.push(chunk);
        self.budget.check(into.num_rows())
    }
}

/// Returns the slots of changes with deletes, each once.
fn deleted(changes: &[Vec<Keyed>; 2]) -> Vec<u32> {
    let mut slots = Vec::new();
    for Keyed { placed: Placed { chunk, slots: all, .. }, .. } in changes.iter().flatten() {
        if let Some(weights) = &chunk.weights {
            slots.extend(
                all.iter().zip(weights.values()).filter(|(_, weight)| **weight <= 0).map(|(slot, _)| slot),
            );
        }
    }
    slots.sort_unstable();
    slots.dedup();
    slots
}

fn no_rows() -> Error {
    Error::Bug("a join looks for rows of a side that it keeps none of".into())
}

/// Returns `None` if all weights are 1.
fn some_weights(weights: Vec<i64>) -> Option<Int64Array> {
    weights.iter().any(|weight| *weight != 1).then(|| Int64Array::from(weights))
}

/// Returns a mask that is true where the answer is true, and false for NULL.
fn truths(answers: &BooleanArray) -> BooleanArray {
    use arrow::array::Array;
    if answers.null_count() == 0 { answers.clone() } else { prep_null_mask_filter(answers) }
}

impl Operator for Join {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let names = format!("({})", self.keys.names().join(", "));
        let state = self.state_text();
        Description {
            name: "Join",
            detail: self.detail.clone(),
            state,
            state_key: (!self.keys.are_one()).then_some(names),
            growth: match &self.interval_bounds {
                Some(interval_bounds) => interval_bounds.growth(),
                None => Growth::With("its inputs".into()),
            },
            why: if self.keys.are_one() {
                "no equality tells which rows may match".into()
            } else {
                String::new()
            },
        }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let Some(mut interval_bounds) = self.interval_bounds.take() else {
            return self.advance(inputs, None);
        };
        let output = self.step_ageing(&mut interval_bounds, cut, inputs);
        self.interval_bounds = Some(interval_bounds);
        output
    }

    fn abilities(&self) -> Abilities<'_> {
        let interval_bounds = self.interval_bounds.as_ref();
        Abilities {
            timers: interval_bounds.map(|interval_bounds| interval_bounds as &dyn Timers),
            windows: interval_bounds.and_then(IntervalBounds::windows),
            ..Abilities::default()
        }
    }

    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        self.keys.index().is_some().then_some(self as _)
    }

    fn as_arranging(&mut self) -> Option<&mut dyn ArrangesSides> {
        Some(self)
    }
}

impl State for Join {
    fn reset(&mut self) -> Result<()> {
        self.started = false;
        self.keys.reset()?;
        self.sides.iter_mut().for_each(Side::reset);
        self.interval_bounds.iter_mut().for_each(IntervalBounds::reset);
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.told()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.resume(kept)
    }

    fn state_rows(&self) -> usize {
        self.sides.iter().map(Side::num_rows).sum()
    }

    fn state_bytes(&self) -> usize {
        let sides: usize = self.sides.iter().map(Side::memory_bytes).sum();
        let interval_bounds = self.interval_bounds.as_ref().map_or(0, IntervalBounds::memory_bytes);
        sides + interval_bounds + self.keys.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.keys.index_mut().into_iter().for_each(|index| show(index));
        self.sides.iter_mut().for_each(|side| side.each_store(show));
    }
}

impl KeyedState for Join {
    fn keyed_by(&self) -> Result<KeyedBy> {
        Ok(KeyedBy {
            types: self.keys.types(),
            keys: self.sides.iter().map(|side| side.keys.clone()).collect(),
            nulls_apart: !self.keys.nulls_match(),
            remembers: false,
            is_result: false,
        })
    }

    fn forget(&mut self, keys: &[ArrayRef]) -> Result<Forgotten> {
        let Some(index) = self.keys.index_mut() else { return Ok(Forgotten::default()) };
        let mut slots = Vec::new();
        index.find(keys, &mut slots)?;
        slots.retain(|slot| *slot != NO_SLOT);
        self.sides.iter_mut().try_for_each(|side| side.forget(&slots))?;
        slots.iter().for_each(|slot| index.free(*slot));
        Ok(Forgotten::default())
    }
}
