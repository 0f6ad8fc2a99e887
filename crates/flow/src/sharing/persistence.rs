//! Saves arrangements as tables: a shared one once, with a reference in each flow.

use std::sync::Arc;

use millstream_delta::Delta;
use millstream_state::Tables;

use super::{Lookups, Sharing};
use crate::Result;
use crate::arrangement::{Arrangement, projected};
use crate::persistence::incomplete;

/// The tables of an arrangement's rows, and of its columns' numbers in the relation.
const ROWS: &str = "rows";
const COLUMNS: &str = "columns";

/// The saved state of a shared arrangement.
#[derive(Debug)]
pub struct PersistedArrangement {
    columns: Vec<usize>,
    rows: Delta,
}

impl Arrangement {
    /// Saves the changes since the newest checkpoint; called between two epochs.
    pub fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.save_changed(ROWS, &mut kept)?;
        put_columns(COLUMNS, self.columns(), &mut kept)?;
        Ok(kept)
    }
}

impl PersistedArrangement {
    /// Takes an arrangement out of saved state.
    pub fn load(kept: &mut Tables) -> Result<PersistedArrangement> {
        Ok(PersistedArrangement { columns: take_columns(COLUMNS, kept)?, rows: kept.take_delta(ROWS)? })
    }

    /// Takes out the rows of a place that a flow keeps alone, with these columns.
    fn take_own(place: usize, columns: &[usize], kept: &mut Tables) -> Result<Delta> {
        let rows = kept.take_delta(&found(place))?;
        match take_columns(&found_columns(place), kept)? {
            all if all.is_empty() => Ok(rows),
            all => PersistedArrangement { columns: all, rows }.project(columns),
        }
    }

    /// Returns some columns of its rows, by their numbers in the relation.
    fn project(&self, columns: &[usize]) -> Result<Delta> {
        let place = |column: &usize| {
            let place = self.columns.iter().position(|kept| kept == column);
            place.ok_or_else(|| incomplete(format!("rows that several queries read lack column {column}")))
        };
        projected(&self.rows, &columns.iter().map(place).collect::<Result<Vec<_>>>()?)
    }
}

impl Lookups {
    /// Adds the rows of all arrangements.
    pub(crate) fn save(&self, to: &mut Tables) -> Result<()> {
        for place in 0..self.places.len() {
            if let Some(rows) = self.rows_of(place)? {
                to.put_delta(&found(place), &rows)?;
            }
        }
        Ok(())
    }

    /// Adds the arrangements: the changes of its own, and for those in `shared`, which are saved beside the
    /// flow, their places.
    pub(crate) fn save_changed(&self, shared: &[Arc<Arrangement>], to: &mut Tables) -> Result<()> {
        for (place, findables) in self.places.iter().enumerate() {
            let Some(kept) = &findables.kept else { continue };
            let at = shared.iter().position(|shared| Arc::ptr_eq(shared, &kept.arrangement));
            match at.filter(|_| kept.across) {
                Some(at) => to.put_number(&found_in(place), at as i64),
                None if kept.across => {
                    to.put_delta(&found(place), &self.rows_in(place, &kept.arrangement)?)?
                }
                None => {
                    kept.arrangement.save_changed(&found(place), to)?;
                    // It may still have columns of flows that have left it.
                    if kept.arrangement.columns() != self.own_columns(place) {
                        put_columns(&found_columns(place), kept.arrangement.columns(), to)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the rows of shared arrangements that were saved beside a flow to the flow's saved state.
    pub(crate) fn put_shared(&self, shared: &[PersistedArrangement], kept: &mut Tables) -> Result<()> {
        for place in 0..self.places.len() {
            let Some(at) = kept.take_number_if(&found_in(place)) else { continue };
            let saved = usize::try_from(at).ok().and_then(|at| shared.get(at));
            let saved = saved
                .ok_or_else(|| incomplete(format!("of what several queries read there is no part {at}")))?;
            kept.put_delta(&found(place), &saved.project(&self.own_columns(place))?)?;
        }
        Ok(())
    }
}

impl Sharing<'_> {
    /// Loads the rows that were in arrangements.
    pub(crate) fn load(&mut self, kept: &mut Tables) -> Result<()> {
        for place in 0..self.lookups.places.len() {
            let rows = PersistedArrangement::take_own(place, &self.lookups.own_columns(place), kept)?;
            self.find_elsewhere(place, rows)?;
        }
        Ok(())
    }
}

/// Returns the name of the table with a place's rows; `found_in` names the number of their arrangement.
fn found(place: usize) -> String {
    format!("found-{place}")
}

fn found_in(place: usize) -> String {
    format!("found-{place}.in")
}

fn found_columns(place: usize) -> String {
    format!("found-{place}.columns")
}

fn put_columns(name: &str, columns: &[usize], to: &mut Tables) -> Result<()> {
    let columns = columns.iter().map(|column| *column as i64).collect();
    Ok(to.put_numbers(name, vec![("column", columns)])?)
}

/// Takes out numbers of columns; a missing table has none.
fn take_columns(name: &str, from: &mut Tables) -> Result<Vec<usize>> {
    let numbers = from.take_numbers(name, 1)?.swap_remove(0);
    Ok(numbers.into_iter().map(|column| column as usize).collect())
}
