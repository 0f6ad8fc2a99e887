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
        all.put_number("rows", self.rows as i64);
        all.put_number("duplicates", self.duplicates as i64);
        all.put_number("upserted_in", self.upserted.rows_in as i64);
        all.put_number("upserted_out", self.upserted.rows_out as i64);
        all.put("put", self.inserts.taken().to_vec());
        all.put_part("bad", self.bad.save()?);
        all.put_part("ahead", self.ahead.save()?);
        if let Some(retained) = &self.retained {
            all.put_part("retained", retained.save()?);
        }
        Ok(all)
    }

    /// Loads the saved state; `taken` are the spans that had been taken.
    pub(crate) fn load(&mut self, all: &mut Tables, taken: &[Span]) -> Result<()> {
        taken.iter().for_each(|span| self.position.advance(span));
        self.rows = number(all, "rows")? as u64;
        self.duplicates = number(all, "duplicates")? as u64;
        self.upserted.rows_in = number(all, "upserted_in")? as u64;
        self.upserted.rows_out = number(all, "upserted_out")? as u64;
        self.inserts.replay(all.take("put").map_err(error::state)?);
        self.bad.load(&mut all.take_part("bad"))?;
        self.ahead.load(&mut all.take_part("ahead"))?;
        if let Some(retained) = &mut self.retained {
            retained.load(&mut all.take_part("retained"))?;
        }
        // Later spans are replayed next: the source's task must know what they follow.
        if self.replayable && !self.position.splits.is_empty() {
            let _ = self.commands.send(Command::Seek(self.position.clone()));
        }
        Ok(())
    }
}
