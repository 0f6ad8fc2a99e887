//! bool_and and bool_or.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::Int64Type;
use millstream_state::{Paged, Spillable, Tables};

use super::persistence::{GROUPS, of_groups};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;

/// The numbers of true and of false values.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    yes: i64,
    no: i64,
}

/// Computes if all values are true, or if any is.
#[derive(Debug)]
pub(super) struct Truth {
    all: bool,
    cells: Paged<Cell>,
}

impl Truth {
    /// Returns the aggregate `bool_and`.
    pub(super) fn all() -> Truth {
        Truth { all: true, cells: Paged::default() }
    }

    /// Returns the aggregate `bool_or`.
    pub(super) fn any() -> Truth {
        Truth { all: false, cells: Paged::default() }
    }
}

impl SlotAggregate for Truth {
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Cell::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_boolean();
        batch.for_each(|row, slot, weight| {
            let cell = &mut self.cells[slot];
            *(if values.value(row) { &mut cell.yes } else { &mut cell.no }) += weight;
        });
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let truth = |slot: &u32| match self.cells[*slot as usize] {
            Cell { yes: 0, no: 0 } => None,
            Cell { no, .. } if self.all => Some(no == 0),
            Cell { yes, .. } => Some(yes != 0),
        };
        Ok(Arc::new(slots.iter().map(truth).collect::<BooleanArray>()))
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }
}

impl SlotState for Truth {
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(Truth { all: self.all, cells: self.cells.share() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let cells = || slots.iter().map(|slot| &self.cells[*slot as usize]);
        let yes = Int64Array::from_iter_values(cells().map(|cell| cell.yes));
        let no = Int64Array::from_iter_values(cells().map(|cell| cell.no));
        of_groups(vec![("true", Arc::new(yes)), ("false", Arc::new(no))])
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_rows(GROUPS, slots.len())?;
        let (yes, no) = (columns.numbers::<Int64Type>("true")?, columns.numbers::<Int64Type>("false")?);
        for ((slot, yes), no) in slots.iter().zip(yes.values()).zip(no.values()) {
            self.cells[*slot as usize] = Cell { yes: *yes, no: *no };
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        self.cells.memory_bytes()
    }
}

impl Mergeable for Truth {
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Truth { all: self.all, cells: Paged::default() }))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Truth>(other)?;
        for (from, into) in pairs {
            let (found, cell) = (other.cells[*from as usize], &mut self.cells[*into as usize]);
            cell.yes += change.sign() * found.yes;
            cell.no += change.sign() * found.no;
        }
        Ok(())
    }
}
