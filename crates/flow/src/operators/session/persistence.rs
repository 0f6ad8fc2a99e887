//! Saves the rows and the progress of closing. The open sessions follow from the rows.

use arrow::array::Array;
use millstream_delta::{Chunk, Delta, under_schema};
use millstream_state::{Moved, Tables};

use super::{Session, united};
use crate::Result;
use crate::persistence::incomplete;
use crate::sorted::Sorted;

impl Session {
    pub(super) fn saved(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_delta("rows", &self.rows.delta()?)?;
        self.save_beside(&mut kept)?;
        Ok(kept)
    }

    /// Saves the state for a checkpoint: only the changes of the rows.
    pub(super) fn changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.rows.save_changed("rows", &mut kept)?;
        self.save_beside(&mut kept)?;
        Ok(kept)
    }

    fn save_beside(&self, kept: &mut Tables) -> Result<()> {
        let mut late_members = Vec::with_capacity(self.late_members.len());
        for key in &self.late_members {
            let position = self.rows.position(key);
            self.rows.scan(position, &mut |_, entry| {
                late_members.extend((entry.key == key.as_ref()).then_some(entry.id));
                false
            });
        }
        kept.put("guests", vec![self.rows.gather(&late_members)?]);
        self.closing.save(kept)
    }

    pub(super) fn load_saved(&mut self, kept: &mut Tables) -> Result<()> {
        if let Some(sorted) = self.sorted(kept.take_delta("rows")?)? {
            self.load_rows(&sorted)?;
        }
        if let Some(sorted) = self.sorted(Delta::from_iter(kept.take("guests")?))? {
            self.late_members = sorted.changes().iter().map(|change| change.key.into()).collect();
        }
        self.closing.load(kept)
    }

    /// Sorts saved rows: no expression failed for them.
    fn sorted(&self, rows: Delta) -> Result<Option<Sorted>> {
        let mut delta = Delta::default();
        for chunk in rows.chunks {
            delta.push(Chunk { rows: under_schema(&chunk.rows, self.rows.schema())?, ..chunk });
        }
        let mut failures = Vec::new();
        let sorted = self.sorter.sort_together(&delta, &mut failures)?;
        match failures.first() {
            None => Ok(sorted),
            Some(failure) => Err(incomplete(format!("a row of a session fails: {}", failure.message))),
        }
    }

    /// Loads the rows of all sessions.
    fn load_rows(&mut self, sorted: &Sorted) -> Result<()> {
        let times = self.time.of(&sorted.rows)?;
        if times.null_count() > 0 {
            return Err(incomplete("a row of a session has no time".into()));
        }
        let changes = sorted.changes();
        let moved: Vec<Moved<'_>> = changes
            .iter()
            .map(|change| Moved { key: change.key, row: change.row, weight: change.weight })
            .collect();
        self.rows.apply(&sorted.rows, &moved)?;
        for changes in changes.chunk_by(|left, right| left.partition == right.partition) {
            let stretches =
                changes.iter().map(|change| self.time.alone(times.value(change.row as usize))).collect();
            let partition = changes[0].partition;
            united(stretches).into_iter().for_each(|bounds| self.open.add(partition, bounds));
        }
        Ok(())
    }
}
