//! Sinks into tables: queries whose changes are an input of a table in the same epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::Delta;
use millstream_sql::{Error, Result};

use super::Loop;
use super::epoch::Deltas;
use crate::catalog::{ALL_LATE_ROWS, late_rows_name};

/// Where the changes of a query go.
#[derive(Clone, Debug)]
pub(crate) struct IntoTable {
    /// The sink's name.
    pub(crate) sink: Arc<str>,
    pub(crate) table: Arc<str>,
    /// How many rows it has changed.
    pub(crate) rows: u64,
}

impl Loop {
    /// Takes the changes of a query into its table, within an epoch: who reads the table comes later in it.
    pub(super) fn bring_in(&mut self, place: usize, delta: Delta, deltas: &mut Deltas) {
        let Some(table) = self.table_of(place) else { return };
        let taken = self.tables.get_mut(&table).map(|table| table.bring_now(delta));
        if let Some(change) = self.brought(place, &table, taken) {
            self.watch_brought(&table, &change);
            deltas.entry(table).or_default().append(change);
        }
    }

    /// Takes changes of a query that isn't at the present yet: the next epoch has them, as if a statement had made
    /// them.
    pub(super) fn stage_in(&mut self, place: usize, delta: Delta) {
        let Some(table) = self.table_of(place) else { return };
        let taken = self.tables.get_mut(&table).map(|table| table.stage_brought(delta));
        self.brought(place, &table, taken);
    }

    fn table_of(&self, place: usize) -> Option<Arc<str>> {
        self.queries[place].into.as_ref().map(|into| into.table.clone())
    }

    /// Counts what was taken; a query whose rows the table can't take is suspended.
    fn brought(&mut self, place: usize, table: &str, taken: Option<Result<Delta>>) -> Option<Delta> {
        let epoch = self.epoch;
        let query = &mut self.queries[place];
        match taken? {
            Ok(change) => {
                if let Some(into) = &mut query.into {
                    into.rows += change.num_rows() as u64;
                }
                Some(change)
            }
            Err(error) => {
                let message = format!("table \"{table}\" can't take its rows: {}", error.message);
                query.suspend(Error { message, ..error }, epoch);
                None
            }
        }
    }

    /// Puts the newest query, which feeds a table or is a relation itself, before all that read that, directly or through
    /// others.
    pub(super) fn put_newest_before_readers(&mut self, relation: &Arc<str>) {
        let Some(newest) = self.queries.pop() else { return };
        let mut below = BTreeSet::from([relation.clone(), late_rows_name(relation).into()]);
        if newest.late().is_some() {
            let of_all = self.below(ALL_LATE_ROWS);
            // What depends on all late rows isn't among those whose late rows it reads.
            if !newest.reads().any(|name| of_all.contains(name)) {
                below.insert(ALL_LATE_ROWS.into());
            }
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for query in self.queries.drain(..) {
            if query.reads().any(|name| below.contains(name)) {
                below.insert(query.name.clone());
                below.extend(query.into.as_ref().map(|into| into.table.clone()));
                after.push(query);
            } else {
                before.push(query);
            }
        }
        before.push(newest);
        before.extend(after);
        self.queries = before;
    }
}
