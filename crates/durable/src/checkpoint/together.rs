//! Merging the runs of a chain while a checkpoint adds another one.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use millstream_state::Runs;

use super::chain::{Chain, Pieces};
use super::{Checkpoints, Part, ending};
use crate::frame::Sequence;
use crate::{Error, Result, table};

impl Checkpoints {
    /// Writes runs of a chain and a checkpoint's changes as one run, and returns the bytes written. If the
    /// merge fails, the runs stay as they are, and the next checkpoint holds the complete state.
    pub(super) fn put_together(
        &self,
        through: Sequence,
        chain: &mut Chain,
        pieces: Pieces,
        file: &mut impl FnMut(&str) -> String,
    ) -> Result<u64> {
        let one = match self.in_one(through, &pieces) {
            Ok(one) => one,
            Err(error) => {
                tracing::warn!(%error, tables = pieces.prefix, "what has changed can't be merged");
                pieces.files.into_iter().for_each(|(own, part)| chain.push(&own, part));
                chain.begin_anew();
                pieces.added
            }
        };
        let mut written = 0;
        for (own, batches) in one {
            let name = format!("{}{own}", pieces.prefix);
            let part = self.write_table(&name, &file(&name), &batches)?;
            written += part.sum.bytes;
            chain.push(&own, Part { of: Some(through), ..part });
        }
        Ok(written)
    }

    /// Merges runs and changes into one run.
    fn in_one(&self, through: Sequence, pieces: &Pieces) -> Result<BTreeMap<String, Vec<RecordBatch>>> {
        let mut runs = Runs::default();
        for (own, part) in &pieces.files {
            let batches = table::read(self.read_whole(part)?, ending(&part.file))?;
            runs.put(own, part.of.map_or(0, |of| of.0), batches);
        }
        for (own, batches) in &pieces.added {
            runs.put(own, through.0, batches.clone());
        }
        let corrupt = |error: millstream_state::Error| Error::Corrupt {
            name: pieces.prefix.clone(),
            offset: 0,
            reason: error.to_string(),
        };
        runs.into_one().map_err(corrupt)
    }
}
