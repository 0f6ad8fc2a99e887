//! Saves rows, and the partitions that fail, as tables. The groups of peers follow from the rows, and the
//! states of frames are recomputed from the partition's first row on.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use millstream_state::Tables;

use super::Over;
use crate::persistence::{incomplete, texts};
use crate::{Error, Result};

impl Over {
    /// Saves all state.
    pub(super) fn told(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_delta("rows", &self.rows.delta()?)?;
        self.save_failed(&mut kept)?;
        Ok(kept)
    }

    /// Does the same for a checkpoint: only the changes of the rows.
    pub(super) fn changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.rows.save_changed("rows", &mut kept)?;
        self.save_failed(&mut kept)?;
        Ok(kept)
    }

    fn save_failed(&self, kept: &mut Tables) -> Result<()> {
        if !self.failed.is_empty() {
            kept.put_columns("failed", self.failed_columns()?)?;
        }
        Ok(())
    }

    /// Returns the values of the partitions that fail, the reasons, and the partitions' texts.
    fn failed_columns(&self) -> Result<Vec<(&str, ArrayRef)>> {
        let mut ids = Vec::with_capacity(self.failed.len());
        for prefix in self.failed.keys() {
            let first = self.rows.positions(prefix);
            if first.is_empty() {
                return Err(Error::Bug("a partition without rows fails".into()));
            }
            self.rows.scan(first.start, &mut |_, entry| {
                ids.push(entry.id);
                false
            });
        }
        let values = self.sorter.partition_of(&self.rows.gather(&ids)?)?;
        let names = self.partition.iter().map(String::as_str).chain(std::iter::repeat("key"));
        let mut columns: Vec<(&str, ArrayRef)> = names.zip(values.columns().iter().cloned()).collect();
        let texts = |of: fn(&(String, String)) -> &String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.failed.values().map(of)))
        };
        columns.push(("_message", texts(|(message, _)| message)));
        columns.push(("_row", texts(|(_, row)| row)));
        Ok(columns)
    }

    /// Loads saved state.
    pub(super) fn resume(&mut self, kept: &mut Tables) -> Result<()> {
        let (groups, counted) = (&mut self.groups, self.functions.counts_groups());
        self.sorter.load(kept, &mut self.rows, |change| {
            if counted {
                groups.set(change.peers, true);
            }
        })?;
        let partition = self.sorter.partition();
        let mut types = Vec::with_capacity(partition.len() + 2);
        for expr in partition {
            types.push(expr.data_type(self.rows.schema())?);
        }
        types.extend([DataType::Utf8, DataType::Utf8]);
        let mut columns = kept.take_columns("failed", &types)?;
        let shown = columns.split_off(partition.len());
        let (messages, rows) = (texts(&shown[0])?, texts(&shown[1])?);
        let prefixes = match columns.is_empty() {
            // All rows are in one partition then.
            true => vec![Vec::new(); messages.len()],
            false => self.sorter.prefixes(&columns)?,
        };
        for (prefix, failed) in prefixes.into_iter().zip(messages.into_iter().zip(rows)) {
            if self.rows.positions(&prefix).is_empty() {
                return Err(incomplete("a partition fails that has no rows".into()));
            }
            self.failed.insert(prefix.into(), failed);
        }
        Ok(())
    }
}
