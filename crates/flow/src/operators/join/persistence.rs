//! Saves a join as tables: its keys, the rows of the sides that it keeps itself, and the progress of their
//! event times.

use millstream_state::{Paged, Tables};

use super::Join;
use super::interval_bounds::NAMES;
use super::side::Side;
use crate::Result;
use crate::persistence::incomplete;

impl Join {
    /// Saves all state, except sides in arrangements, which the flow saves.
    pub(super) fn told(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_number("started", i64::from(self.started));
        let names = self.keys.names();
        let slots = match self.keys.index() {
            Some(index) => index.save("keys", &names, &mut kept)?,
            None => vec![0],
        };
        for (side, name) in self.sides.iter().zip(NAMES) {
            let mut part = Tables::default();
            side.save(&slots, &mut part)?;
            kept.put_part(name, part);
        }
        if let Some(interval_bounds) = &self.interval_bounds {
            interval_bounds.save(&mut kept)?;
        }
        Ok(kept)
    }

    /// Does the same for a checkpoint: the changes of keys, rows and numbers of rows by key.
    pub(super) fn changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_number("started", i64::from(self.started));
        let names = self.keys.names();
        let counted = |slots: &[u32], to: &mut Tables| {
            for (side, name) in self.sides.iter().zip(NAMES).filter(|(side, _)| side.counts_only()) {
                let mut part = Tables::default();
                side.save_totals(slots, &mut part)?;
                to.put_part(name, part);
            }
            Ok(())
        };
        match self.keys.index() {
            Some(index) if self.sides.iter().any(Side::counts_only) => {
                index.save_changed_with("keys", &names, counted, &mut kept)?;
            }
            Some(index) => index.save_changed("keys", &names, &mut kept)?,
            None => counted(&[0], &mut kept)?,
        }
        for (side, name) in self.sides.iter().zip(NAMES) {
            if let Some(rows) = &side.rows {
                let mut part = Tables::default();
                rows.save_changed(|| self.live(), "rows", &mut part)?;
                kept.put_part(name, part);
            }
        }
        if let Some(interval_bounds) = &self.interval_bounds {
            interval_bounds.save(&mut kept)?;
        }
        Ok(kept)
    }

    /// Loads saved state.
    pub(super) fn resume(&mut self, kept: &mut Tables) -> Result<()> {
        self.started = kept.take_number("started")? != 0;
        let slots = match self.keys.index_mut() {
            Some(index) => index.load("keys", kept)?,
            None => 1,
        };
        for (side, name) in self.sides.iter_mut().zip(NAMES) {
            let mut part = kept.take_part(name);
            side.load(slots, &mut part)?;
            kept.put_part(name, part);
        }
        let Some(mut interval_bounds) = self.interval_bounds.take() else { return Ok(()) };
        let resumed = interval_bounds.load(kept).and_then(|()| self.resume_ageing(&mut interval_bounds));
        self.interval_bounds = Some(interval_bounds);
        resumed
    }

    /// Returns the slots of all keys.
    pub(super) fn live(&self) -> Vec<u32> {
        self.keys.live()
    }
}

impl Side {
    /// Saves the rows by the places of their keys, or the number of rows of each key.
    fn save(&self, slots: &[u32], to: &mut Tables) -> Result<()> {
        match (&self.rows, &self.totals) {
            (Some(rows), _) => rows.save(slots, "rows", to)?,
            (None, Some(_)) => self.save_totals(slots, to)?,
            (None, None) => {}
        }
        Ok(())
    }

    /// Saves the number of rows of each key.
    fn save_totals(&self, slots: &[u32], to: &mut Tables) -> millstream_state::Result<()> {
        let totals = slots.iter().map(|slot| self.total(*slot)).collect();
        to.put_numbers("totals", vec![("rows", totals)])
    }

    /// Returns true if it has only the number of rows of each key, not the rows.
    pub(super) fn counts_only(&self) -> bool {
        self.rows.is_none() && self.totals.is_some()
    }

    /// Loads the saved state of a side; `slots` is the number of keys.
    fn load(&mut self, slots: usize, from: &mut Tables) -> Result<()> {
        if let Some(rows) = &mut self.rows {
            rows.load(slots, "rows", from)?;
        }
        let Some(totals) = &mut self.totals else { return Ok(()) };
        *totals = match &self.rows {
            Some(rows) => {
                let total = |slot| rows.ids(slot).iter().map(|id| rows.count(*id)).sum();
                (0..slots as u32).map(total).collect()
            }
            None => {
                let totals = from.take_numbers("totals", 1)?.swap_remove(0);
                if totals.len() != slots {
                    return Err(incomplete(format!("{slots} keys have {} numbers of rows", totals.len())));
                }
                totals.into_iter().collect::<Paged<i64>>()
            }
        };
        Ok(())
    }
}
