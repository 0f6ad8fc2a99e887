//! Any aggregate whose accumulator can retract rows in the order in which they arrived, over a moving window.
//!
//! A pane keeps the rows of its groups. The window has one accumulator per group, which takes in the rows of
//! entering panes and retracts those of leaving panes, the oldest first. DataFusion's `retract_batch`
//! promises that for sliding frames, and so does PostgreSQL's MINVFUNC. A group whose accumulator fails is
//! recomputed when rows of it have left.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_empty_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use millstream_state::Tables;

use super::persistence::{GROUP, slots_of};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::failure::reason;
use crate::persistence::incomplete;
use crate::{Error, Result};

/// The table of saved rows.
const ROWS: &str = "rows";

/// The prefix of the aliases of our replacements of DataFusion's functions.
const OURS: &str = "millstream.";

/// The rows of a pane, or the accumulators of a window.
pub(super) struct RetractableStates {
    function: Arc<AggregateFunctionExpr>,
    output: DataType,
    /// A pane has one block; a window has one for each of its panes, the oldest first.
    blocks: VecDeque<Vec<Piece>>,
    window: Option<Window>,
}

/// Some rows, each with the slot of its group.
#[derive(Clone)]
struct Piece {
    slots: Vec<u32>,
    values: Vec<ArrayRef>,
}

/// The accumulators of a window's groups.
#[derive(Default)]
struct Window {
    /// The accumulators; a mutex, since reading a value may change an accumulator.
    accumulators: Mutex<HashMap<u32, Box<dyn Accumulator>>>,
    /// The groups whose accumulator failed, with the reason.
    failed: HashMap<u32, String>,
    /// The saved results of groups, until their rows change. Accumulators that retract may round, so
    /// recomputing them from the remaining rows may give other results than those emitted.
    told: HashMap<u32, ScalarValue>,
}

impl Window {
    fn accumulators(&self) -> MutexGuard<'_, HashMap<u32, Box<dyn Accumulator>>> {
        self.accumulators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RetractableStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetractableStates").field("function", &self.function.name()).finish_non_exhaustive()
    }
}

/// Returns true if a function may retract rows by its accumulators: only user-defined ones. DataFusion's own
/// functions also claim so for accumulators that are not sound for windows, and have other forms here.
pub(super) fn is_of_users(function: &AggregateUDF) -> bool {
    let known = all_default_aggregate_functions();
    let ours = function.aliases().iter().any(|alias| alias.starts_with(OURS));
    !ours && !known.iter().any(|known| known.as_ref() == function)
}

impl RetractableStates {
    /// Returns the window's form of `function`; `None` if its accumulators can't retract rows.
    pub(super) fn new(function: Arc<AggregateFunctionExpr>, output: DataType) -> Option<RetractableStates> {
        let order = function.order_bys();
        let able = order.is_empty() && function.create_sliding_accumulator().is_ok();
        able.then(|| RetractableStates {
            function,
            output,
            blocks: VecDeque::new(),
            window: Some(Window::default()),
        })
    }

    /// Returns the accumulators' arguments.
    pub(super) fn arguments(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.function.expressions()
    }

    /// Returns the pieces of another column with their slots in this one.
    fn placed(other: &RetractableStates, pairs: &[Pair]) -> Result<Vec<Piece>> {
        let into: HashMap<u32, u32> = pairs.iter().copied().collect();
        let placed = |piece: &Piece| {
            let slots = piece.slots.iter().map(|slot| into.get(slot).copied()).collect::<Option<Vec<u32>>>();
            let slots = slots.ok_or_else(|| Error::Bug("rows of a group that is not in its pane".into()))?;
            Ok(Piece { slots, values: piece.values.clone() })
        };
        other.blocks.iter().flatten().map(placed).collect()
    }

    /// Returns the places of the slots that have a result, and the results.
    fn results(&self, slots: &[u32]) -> Result<(Vec<u32>, ArrayRef)> {
        let error = match self.evaluate(slots) {
            Ok(results) => return Ok(((0..slots.len() as u32).collect(), results)),
            Err(error) => error,
        };
        if reason(&error).is_none() {
            return Err(error);
        }
        let has_result = |(slot, _): &(&u32, u32)| self.evaluate(std::slice::from_ref(*slot)).is_ok();
        let (good, places): (Vec<u32>, Vec<u32>) = slots.iter().zip(0..).filter(has_result).unzip();
        Ok((places, self.evaluate(&good)?))
    }

    /// Adds the rows of a pane.
    fn enter(&mut self, block: Vec<Piece>) -> Result<()> {
        let Some(window) = &mut self.window else {
            // A pane that is compacted.
            self.blocks.push_back(block);
            return Ok(());
        };
        for piece in &block {
            for (slot, rows) in piece.by_slot()? {
                if !window.failed.contains_key(&slot) {
                    window.update(&self.function, slot, &rows)?;
                }
            }
        }
        self.blocks.push_back(block);
        Ok(())
    }

    /// Retracts the rows of the oldest pane.
    fn leave(&mut self) -> Result<()> {
        let block = self.blocks.pop_front();
        let Some(window) = &mut self.window else {
            return Err(Error::Bug("a pane is taken out of a pane".into()));
        };
        let mut anew: BTreeSet<u32> = BTreeSet::new();
        for piece in block.iter().flatten() {
            for (slot, rows) in piece.by_slot()? {
                window.told.remove(&slot);
                let mut accumulators = window.accumulators();
                let done = match accumulators.get_mut(&slot) {
                    Some(accumulator) => accumulator.retract_batch(&rows).is_ok(),
                    None => false,
                };
                if !done {
                    accumulators.remove(&slot);
                    anew.insert(slot);
                }
            }
        }
        anew.iter().for_each(|slot| drop(window.failed.remove(slot)));
        for piece in self.blocks.iter().flatten().filter(|_| !anew.is_empty()) {
            for (slot, rows) in piece.only(&anew)?.by_slot()? {
                if !window.failed.contains_key(&slot) {
                    window.update(&self.function, slot, &rows)?;
                }
            }
        }
        Ok(())
    }
}

impl Window {
    /// Adds rows of a group. If that fails because of the rows, the group has no result from then on.
    fn update(&mut self, function: &AggregateFunctionExpr, slot: u32, rows: &[ArrayRef]) -> Result<()> {
        self.told.remove(&slot);
        let accumulators = self.accumulators.get_mut().unwrap_or_else(PoisonError::into_inner);
        let accumulator = match accumulators.entry(slot) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(none) => none.insert(function.create_sliding_accumulator()?),
        };
        if let Err(error) = accumulator.update_batch(rows) {
            let error = Error::from(error);
            let message = reason(&error).ok_or(error)?;
            accumulators.remove(&slot);
            self.failed.insert(slot, message);
        }
        Ok(())
    }
}

impl Piece {
    /// Returns the rows of each group, in their order.
    fn by_slot(&self) -> Result<Vec<(u32, Vec<ArrayRef>)>> {
        let mut order: Vec<u32> = (0..self.slots.len() as u32).collect();
        order.sort_by_key(|row| self.slots[*row as usize]);
        let rows = UInt32Array::from(order.clone());
        let sorted = self.values.iter().map(|values| take(values, &rows, None));
        let sorted: Vec<ArrayRef> = sorted.collect::<std::result::Result<_, _>>()?;
        let mut groups = Vec::new();
        let mut start = 0;
        for same in order.chunk_by(|a, b| self.slots[*a as usize] == self.slots[*b as usize]) {
            let values = sorted.iter().map(|values| values.slice(start, same.len())).collect();
            groups.push((self.slots[same[0] as usize], values));
            start += same.len();
        }
        Ok(groups)
    }

    /// Returns the rows as a table with the pane, the number of the piece within it, and the places of the
    /// groups.
    fn table(&self, pane: usize, number: usize, place_of: &HashMap<u32, u32>) -> Result<RecordBatch> {
        let places: Option<Vec<u32>> = self.slots.iter().map(|slot| place_of.get(slot).copied()).collect();
        let places = places.ok_or_else(|| Error::Bug("rows of a group that isn't there".into()))?;
        let same = |number: usize| Arc::new(Int64Array::from_value(number as i64, self.slots.len()));
        let mut columns: Vec<ArrayRef> = vec![same(pane), same(number), Arc::new(UInt32Array::from(places))];
        columns.extend_from_slice(&self.values);
        let names = ["_pane", "_piece", GROUP].into_iter().map(String::from);
        let names = names.chain((0..self.values.len()).map(|place| format!("argument{place}")));
        Ok(RecordBatch::try_from_iter_with_nullable(
            names.zip(columns).map(|(name, column)| (name, column, true)),
        )?)
    }

    /// Returns the pieces of such a table, whose rows are consecutive, each with its pane.
    fn of_table(batch: &RecordBatch, slots: &[u32]) -> Result<Vec<(i64, Piece)>> {
        let wrong = || incomplete("rows have no pane and group".into());
        let [panes, numbers, places, values @ ..] = batch.columns() else { return Err(wrong()) };
        let panes = panes.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?.values();
        let numbers = numbers.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?.values();
        let places = places.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?.values();
        let mut pieces = Vec::new();
        let mut start = 0;
        while let Some(pane) = panes.get(start) {
            let same = |row: &usize| panes[*row] == *pane && numbers[*row] == numbers[start];
            let count = (start..panes.len()).take_while(same).count();
            let of = places[start..start + count].iter().map(|place| slots.get(*place as usize).copied());
            let of = of.collect::<Option<Vec<u32>>>().ok_or_else(wrong)?;
            let values = values.iter().map(|values| values.slice(start, count)).collect();
            pieces.push((*pane, Piece { slots: of, values }));
            start += count;
        }
        Ok(pieces)
    }

    /// Returns the rows of some groups.
    fn only(&self, wanted: &BTreeSet<u32>) -> Result<Piece> {
        let rows = (0..self.slots.len()).filter(|row| wanted.contains(&self.slots[*row]));
        let rows: Vec<u32> = rows.map(|row| row as u32).collect();
        let slots = rows.iter().map(|row| self.slots[*row as usize]).collect();
        let rows = UInt32Array::from(rows);
        let values =
            self.values.iter().map(|values| Ok(take(values, &rows, None)?)).collect::<Result<_>>()?;
        Ok(Piece { slots, values })
    }
}

impl SlotAggregate for RetractableStates {
    fn resize(&mut self, _end: usize) {}

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let (mut slots, mut rows, mut once) = (Vec::new(), Vec::new(), true);
        batch.for_each(|row, slot, weight| {
            once &= weight == 1;
            slots.push(slot as u32);
            rows.push(row as u32);
        });
        if !once {
            return Err(Error::Bug("a window was given rows with weights".into()));
        }
        if slots.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(rows);
        let values = batch.values.iter().map(|values| Ok(take(values, &rows, None)?));
        let piece = Piece { slots, values: values.collect::<Result<_>>()? };
        match self.blocks.back_mut() {
            Some(block) => block.push(piece),
            None => self.blocks.push_back(vec![piece]),
        }
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let Some(window) = &self.window else { return Err(Error::Bug("a pane has no results".into())) };
        if slots.is_empty() {
            return Ok(new_empty_array(&self.output));
        }
        if let Some(message) = slots.iter().find_map(|slot| window.failed.get(slot)) {
            return Err(exec_datafusion_err!("{message}").into());
        }
        let mut accumulators = window.accumulators();
        let values = slots.iter().map(|slot| match (window.told.get(slot), accumulators.get_mut(slot)) {
            (Some(told), _) => Ok(told.clone()),
            (None, Some(accumulator)) => Ok(accumulator.evaluate()?),
            (None, None) => Ok(self.function.create_sliding_accumulator()?.evaluate()?),
        });
        let values = ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>()?)?;
        if values.data_type() == &self.output { Ok(values) } else { Ok(cast(&values, &self.output)?) }
    }

    fn free(&mut self, slot: u32) {
        if let Some(window) = &mut self.window {
            window.accumulators().remove(&slot);
            window.failed.remove(&slot);
            window.told.remove(&slot);
        }
    }

    fn forget(&mut self) {
        self.blocks.clear();
    }
}

impl SlotState for RetractableStates {
    fn saves_some(&self) -> bool {
        false
    }

    /// Saves the rows, by the pane that they arrived in, and the results of a window. Its accumulators are
    /// recomputed from the rows.
    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let place_of: HashMap<u32, u32> = slots.iter().copied().zip(0..).collect();
        let mut batches = Vec::new();
        for (pane, block) in self.blocks.iter().enumerate() {
            for (number, piece) in block.iter().enumerate() {
                batches.push(piece.table(pane, number, &place_of)?);
            }
        }
        let mut kept = Tables::default();
        kept.put_number("panes", self.blocks.len() as i64);
        kept.put(ROWS, batches);
        if self.window.is_some() {
            let (places, results) = self.results(slots)?;
            let columns: Vec<(&str, ArrayRef)> =
                vec![(GROUP, Arc::new(UInt32Array::from(places))), ("result", results)];
            kept.put_columns("results", columns)?;
        }
        Ok(kept)
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let mut blocks: Vec<Vec<Piece>> = (0..kept.take_number("panes")?).map(|_| Vec::new()).collect();
        for batch in kept.take(ROWS)? {
            for (pane, piece) in Piece::of_table(&batch, slots)? {
                let block = usize::try_from(pane).ok().and_then(|pane| blocks.get_mut(pane));
                block.ok_or_else(|| incomplete(format!("there is no pane {pane}")))?.push(piece);
            }
        }
        blocks.into_iter().try_for_each(|block| self.enter(block))?;
        let results = kept.take_table("results")?;
        if let (Some(window), false) = (&mut self.window, results.is_empty()) {
            let values = results.typed("result", &self.output)?;
            for (row, slot) in slots_of(&results, slots)?.into_iter().enumerate() {
                window.told.insert(slot, ScalarValue::try_from_array(values, row)?);
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let piece = |piece: &Piece| {
            let values: usize = piece.values.iter().map(|values| values.get_array_memory_size()).sum();
            values + piece.slots.capacity() * size_of::<u32>()
        };
        let rows: usize = self.blocks.iter().flatten().map(piece).sum();
        let groups = self.window.as_ref().map_or(0, |window| window.accumulators().len());
        rows + groups * size_of::<(u32, Box<dyn Accumulator>)>()
    }

    fn keeps_rows(&self) -> bool {
        true
    }
}

impl Mergeable for RetractableStates {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        let (function, output) = (self.function.clone(), self.output.clone());
        Some(Box::new(RetractableStates { function, output, blocks: VecDeque::new(), window: None }))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        match change {
            Absorb::Add => {
                let block = RetractableStates::placed(same::<RetractableStates>(other)?, pairs)?;
                self.enter(block)
            }
            Absorb::Subtract => self.leave(),
        }
    }
}
