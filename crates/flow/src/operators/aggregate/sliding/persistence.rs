//! Saves a window as tables: its blocks, their totals, and the panes that are not yet in it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::datatypes::Int64Type;
use millstream_state::Tables;

use super::window::{Block, Column, Totals, Window, fresh};
use super::{Pane, SlidingAggregate, slots_of};
use crate::failure::{put_failures, take_failures};
use crate::operators::aggregate::call::CallState;
use crate::operators::aggregate::persistence::{
    GROUP, GROUPS, all_taken, in_part, load_part, part, slots_of as slots_at,
};
use crate::operators::aggregate::slot::{Absorb, SlotAggregate};
use crate::persistence::incomplete;
use crate::{Error, Result};

/// The column with the number of a group's rows in a block.
const ROWS: &str = "_rows";
/// The failures of a block or pane.
const FAILURES: &str = "failures";

impl SlidingAggregate {
    pub(super) fn kept(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("total", self.total.save_some(|values| !is_of_blocks(values))?);
        let slots: Vec<u32> = self.total.groups.live().iter().map(|group| group.slot).collect();
        kept.put_part("window", self.window.save(&slots)?);
        let panes = self.closed.iter().chain(&self.open).map(Pane::save).collect::<Result<_>>()?;
        kept.put_parts("panes", panes)?;
        kept.put_number("open", i64::from(self.open.is_some()));
        Ok(kept)
    }

    pub(super) fn go_on(&mut self, kept: &mut Tables) -> Result<()> {
        let total = &mut self.total;
        let slots = in_part(kept, "total", |kept| total.load_some(kept, |values| !is_of_blocks(values)))?;
        self.window.resize(self.total.groups.end());
        let columns: Vec<Option<&dyn SlotAggregate>> = self.total.calls.iter().map(slots_of).collect();
        let window = &mut self.window;
        in_part(kept, "window", |kept| window.load(&slots, &columns, kept))?;
        for block in self.window.blocks() {
            let pairs = block.pairs();
            for (column, call) in block.columns.iter().zip(&mut self.total.calls) {
                if let (Some(column), CallState::Slots(sum)) = (column, &mut call.kept)
                    && is_of_blocks(sum.as_ref())
                {
                    sum.absorb(column.as_ref(), &pairs, Absorb::Add)?;
                }
            }
        }
        for mut of in kept.take_parts("panes")? {
            let mut pane = self.pane(of.take_number("end")?)?;
            pane.load(&mut of)?;
            all_taken(&of)?;
            self.closed.push(pane);
        }
        if kept.take_number("open")? != 0 {
            self.open = self.closed.pop();
        }
        Ok(())
    }
}

impl Pane {
    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_number("end", self.end);
        let slots = self.groups.save(&mut kept)?;
        save_columns(&self.columns, &slots, |_| true, &mut kept)?;
        put_failures(&mut kept, FAILURES, &self.failures)?;
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        let slots = self.groups.load(kept)?;
        let end = self.groups.end();
        self.columns.iter_mut().flatten().for_each(|column| column.resize(end));
        load_columns(&mut self.columns, &slots, |_| true, kept)?;
        self.failures = take_failures(kept, FAILURES)?;
        Ok(())
    }
}

impl Block {
    /// Saves a block; `place_of` has the places of the window's slots.
    fn save(&self, place_of: &HashMap<u32, u32>) -> Result<Tables> {
        let places: Option<Vec<u32>> = self.slots.iter().map(|slot| place_of.get(slot).copied()).collect();
        let places =
            places.ok_or_else(|| Error::Bug("a pane has a group that isn't in its window".into()))?;
        let rows: ArrayRef = Arc::new(Int64Array::from(self.rows.clone()));
        let mut kept = Tables::default();
        kept.put_number("end", self.end);
        kept.put_columns(GROUPS, vec![(GROUP, Arc::new(UInt32Array::from(places))), (ROWS, rows)])?;
        let own: Vec<u32> = (0..self.slots.len() as u32).collect();
        save_columns(&self.columns, &own, |column| !column.keeps_rows(), &mut kept)?;
        put_failures(&mut kept, FAILURES, &self.failures)?;
        Ok(kept)
    }

    /// Loads a block of the window. `slots` are those of the window's groups; the values have the same form
    /// as `columns`.
    fn load(slots: &[u32], columns: &[Option<&dyn SlotAggregate>], mut kept: Tables) -> Result<Block> {
        let groups = kept.take_table(GROUPS)?;
        let slots = slots_at(&groups, slots)?;
        let columns =
            columns.iter().map(|column| column.map(|column| fresh(column, slots.len())).transpose());
        let mut block = Block {
            end: kept.take_number("end")?,
            rows: groups.numbers::<Int64Type>(ROWS)?.values().to_vec(),
            columns: columns.collect::<Result<_>>()?,
            failures: take_failures(&mut kept, FAILURES)?,
            slots,
        };
        let own: Vec<u32> = (0..block.slots.len() as u32).collect();
        load_columns(&mut block.columns, &own, |column| !column.keeps_rows(), &mut kept)?;
        all_taken(&kept)?;
        Ok(block)
    }
}

impl Totals {
    fn parts(&self) -> [(&'static str, &dyn SlotAggregate); 4] {
        let Totals { oldest, prepared, middle, newest } = self;
        [("oldest", oldest), ("prepared", prepared), ("middle", middle), ("newest", newest)]
            .map(|(name, column)| (name, column.as_ref()))
    }

    fn parts_mut(&mut self) -> [(&'static str, &mut Box<dyn SlotAggregate>); 4] {
        let Totals { oldest, prepared, middle, newest } = self;
        [("oldest", oldest), ("prepared", prepared), ("middle", middle), ("newest", newest)]
    }
}

impl Window {
    /// Saves the window; its groups have these slots.
    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let place_of: HashMap<u32, u32> = slots.iter().copied().zip(0..).collect();
        let mut kept = Tables::default();
        kept.put_number("last", self.last);
        kept.put_number("oldest", self.oldest.len() as i64);
        kept.put_number("middle", self.middle.len() as i64);
        kept.put_number("prepared", self.prepared as i64);
        let blocks = self.blocks().map(|block| block.save(&place_of)).collect::<Result<_>>()?;
        kept.put_parts("blocks", blocks)?;
        for (place, totals) in self.totals.iter().enumerate() {
            for (name, column) in totals.iter().flat_map(Totals::parts) {
                kept.put_part(&format!("{}.{name}", part(place)), column.save(slots)?);
            }
        }
        Ok(kept)
    }

    /// Loads the saved state of another window, whose groups have these slots here; the columns are already
    /// large enough.
    fn load(
        &mut self,
        slots: &[u32],
        columns: &[Option<&dyn SlotAggregate>],
        kept: &mut Tables,
    ) -> Result<()> {
        self.last = kept.take_number("last")?;
        let mut count = |name: &str| {
            let count = kept.take_number(name)?;
            usize::try_from(count).map_err(|_| incomplete(format!("'{name}' is below zero")))
        };
        let (oldest, middle, prepared) = (count("oldest")?, count("middle")?, count("prepared")?);
        let blocks = kept.take_parts("blocks")?.into_iter();
        let mut blocks =
            blocks.map(|kept| Block::load(slots, columns, kept)).collect::<Result<VecDeque<_>>>()?;
        if oldest.saturating_add(middle) > blocks.len() || prepared > middle {
            return Err(incomplete(format!("a window has {} blocks", blocks.len())));
        }
        self.newest = blocks.split_off(oldest + middle);
        self.middle = blocks.split_off(oldest);
        (self.oldest, self.prepared) = (blocks, prepared);
        for (place, totals) in self.totals.iter_mut().enumerate() {
            for (name, column) in totals.iter_mut().flat_map(Totals::parts_mut) {
                load_part(column.as_mut(), slots, kept, &format!("{}.{name}", part(place)))?;
            }
        }
        Ok(())
    }
}

/// Returns true if a window's values are the sum of those of its blocks: then only the blocks are saved.
/// Stored rows are the opposite: the window saves those of its blocks.
fn is_of_blocks(values: &dyn SlotAggregate) -> bool {
    values.subtracts() && !values.keeps_rows()
}

fn save_columns(
    columns: &[Column],
    slots: &[u32],
    wanted: impl Fn(&dyn SlotAggregate) -> bool,
    kept: &mut Tables,
) -> Result<()> {
    for (place, column) in columns.iter().enumerate() {
        if let Some(column) = column.as_deref().filter(|column| wanted(*column)) {
            kept.put_part(&part(place), column.save(slots)?);
        }
    }
    Ok(())
}

fn load_columns(
    columns: &mut [Column],
    slots: &[u32],
    wanted: impl Fn(&dyn SlotAggregate) -> bool,
    kept: &mut Tables,
) -> Result<()> {
    for (place, column) in columns.iter_mut().enumerate() {
        if let Some(column) = column
            && wanted(column.as_ref())
        {
            load_part(column.as_mut(), slots, kept, &part(place))?;
        }
    }
    Ok(())
}
