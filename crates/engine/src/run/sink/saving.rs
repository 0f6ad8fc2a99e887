//! Saving a sink as tables, and loading it.

use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_durable::protocol::Outside;
use millstream_durable::{Entry, Recorded};
use millstream_sql::{Error, Result};
use millstream_state::Tables;

use super::RunningSink;
use crate::run::log::{Log, Place};
use crate::run::saving::number;

impl RunningSink {
    /// Saves its state. Its position is relative to the first saved entry of the log; the content that it delivers
    /// first is added to `entries`.
    pub(crate) fn save(&self, log: Option<(&Log, Place)>, entries: &mut Vec<Entry>) -> Tables {
        let mut all = Tables::default();
        all.put_number("rows", self.rows as i64);
        all.put_number("published", self.delivered.0 as i64);
        let told = self.outside.as_ref().map_or(Epoch::default(), Outside::delivered);
        all.put_number("delivered", told.max(self.delivered).0 as i64);
        all.put_text_if("differs", self.differs.as_deref());
        self.backlog.save(&mut all, log, entries);
        all
    }

    /// Loads the saved state.
    pub(crate) fn load(&mut self, all: &mut Tables, entries: &[Entry]) -> Result<()> {
        self.rows = number(all, "rows")? as u64;
        self.delivered = Epoch(number(all, "published")? as u64);
        let delivered = Epoch(number(all, "delivered")? as u64);
        self.was_delivered(delivered);
        if let Some(reason) = all.take_text_if("differs") {
            self.stop_for_good(reason);
        }
        self.backlog.load(all, self.delivered, entries)
    }
}

/// Returns the change of a relation in an epoch as an entry.
pub(crate) fn entry(cut: &Cut, delta: &Delta) -> Entry {
    entry_of(cut, vec![("".into(), delta.clone())])
}

/// Returns the changes of an epoch, by name, as an entry.
pub(crate) fn entry_of(cut: &Cut, changes: Vec<(Arc<str>, Delta)>) -> Entry {
    let recorded =
        Recorded { cut: cut.clone(), changes, brought: Vec::new(), done: Vec::new(), delivered: Vec::new() };
    Entry::Epoch(Box::new(recorded))
}

/// Returns the change of a relation out of an entry.
pub(crate) fn of_entry(entry: Option<&Entry>) -> Result<(Cut, Delta)> {
    let Some(Entry::Epoch(recorded)) = entry else {
        return Err(Error::new(crate::Kind::Corrupt, "a checkpoint lacks an epoch of a log"));
    };
    let delta = recorded.changes.first().map(|(_, delta)| delta.clone()).unwrap_or_default();
    Ok((recorded.cut.clone(), delta))
}
