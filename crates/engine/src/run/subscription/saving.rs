//! A durable subscription as tables: where it stands in the log of its relation.

use millstream_delta::Epoch;
use millstream_durable::Entry;
use millstream_sql::Result;
use millstream_state::Tables;

use super::DurableSubscription;
use crate::run::log::{Log, Place};
use crate::run::saving::number;
use crate::run::sink::{entry, of_entry};

impl DurableSubscription {
    /// What is kept of it. Its place counts from the first entry of the log that is saved; what its reader gets first is
    /// added to `entries`.
    pub(crate) fn save(&self, log: Option<(&Log, Place)>, entries: &mut Vec<Entry>) -> Tables {
        let mut all = Tables::default();
        all.put_number("place", log.map_or(0, |(log, from)| log.between(from, self.place)) as i64);
        all.put_number("position", self.position.0 as i64);
        all.put_number_if("lost", self.lost.map(|lost| lost.0 as i64));
        if let Some((cut, delta)) = &self.first {
            all.put_number("first", entries.len() as i64);
            entries.push(entry(cut, delta));
        }
        all
    }

    /// Goes on where it stood when it was saved.
    pub(crate) fn load(&mut self, all: &mut Tables, entries: &[Entry]) -> Result<()> {
        self.place = Place::default().after(number(all, "place")? as usize);
        self.position = Epoch(number(all, "position")? as u64);
        self.lost = all.take_number_if("lost").map(|lost| Epoch(lost as u64));
        self.awaits = false;
        self.first = match all.take_number_if("first") {
            Some(place) => Some(of_entry(entries.get(place as usize))?),
            None => None,
        };
        Ok(())
    }
}
