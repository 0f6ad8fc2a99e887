//! Saving a source as tables, and loading it.

use millstream_delta::Span;
use millstream_sql::Result;
use millstream_state::Tables;

use super::RunningSource;
use crate::error;
use crate::run::receive::Command;
use crate::run::saving::number;

impl RunningSource {
    /// Saves all its state except its position.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        self.counts.save(&mut all);
        all.put_number("duplicates", self.position.duplicates() as i64);
        all.put("put", self.inserts.taken().to_vec());
        all.put_part("bad", self.bad.save()?);
        all.put_part("ahead", self.times.ahead().save()?);
        if let Some(retained) = &self.retained {
            all.put_part("retained", retained.save()?);
        }
        Ok(all)
    }

    /// Loads the saved state; `taken` are the spans that had been taken.
    pub(crate) fn load(&mut self, all: &mut Tables, taken: &[Span]) -> Result<()> {
        self.position.load(taken, number(all, "duplicates")? as u64);
        self.counts.load(all)?;
        self.inserts.replay(all.take("put").map_err(error::state)?);
        self.bad.load(&mut all.take_part("bad"))?;
        self.times.ahead_mut().load(&mut all.take_part("ahead"))?;
        if let Some(retained) = &mut self.retained {
            retained.load(&mut all.take_part("retained"))?;
        }
        // Later spans are replayed next: the source's task must know what they follow.
        if self.properties.replayable && !self.position.is_start() {
            self.pulls.send(Command::Seek(self.position.taken().clone()));
        }
        Ok(())
    }
}
