//! The setting `missed_batches`.

use millstream_sql::{Error, Result};

/// The treatment of batches that were due while no process ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissedBatches {
    /// Run each of them.
    Run,
    /// Skip them.
    Skip,
}

impl MissedBatches {
    pub(super) fn parse(value: &str) -> Result<MissedBatches> {
        match value.to_ascii_lowercase().as_str() {
            "run" => Ok(MissedBatches::Run),
            "skip" => Ok(MissedBatches::Skip),
            _ => {
                Err(Error::invalid(format!("missed_batches is '{value}', but 'run' or 'skip' was expected")))
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            MissedBatches::Run => "run",
            MissedBatches::Skip => "skip",
        }
    }
}
