//! Saving a durable subscription as tables, and loading it.

use millstream_delta::Epoch;
use millstream_durable::Entry;
use millstream_sql::Result;
use millstream_state::Tables;

use super::DurableSubscription;
use crate::run::log::{Log, Place};
use crate::run::saving::{number, put_first, put_place, take_first, take_place};

impl DurableSubscription {
    /// Saves its state. Its position is relative to the first saved entry of the log; the content that its reader gets
    /// first is added to `entries`.
    pub(crate) fn save(&self, log: Option<(&Log, Place)>, entries: &mut Vec<Entry>) -> Tables {
        let mut all = Tables::default();
        put_place(&mut all, "place", log, self.place);
        all.put_number("position", self.position.0 as i64);
        all.put_number_if("lost", self.lost.map(|lost| lost.0 as i64));
        put_first(&mut all, self.first.rows.as_ref(), entries);
        all
    }

    /// Loads the saved state.
    pub(crate) fn load(&mut self, all: &mut Tables, entries: &[Entry]) -> Result<()> {
        self.place = take_place(all, "place")?;
        self.position = Epoch(number(all, "position")? as u64);
        self.lost = all.take_number_if("lost").map(|lost| Epoch(lost as u64));
        self.awaits = false;
        self.first.rows = take_first(all, entries)?;
        Ok(())
    }
}
