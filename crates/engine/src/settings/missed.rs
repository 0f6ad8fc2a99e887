//! The setting `missed_batches`.

use millstream_sql::{Error, Result};

/// What becomes of batches that were due while nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissedBatches {
    /// Each is run.
    Run,
    /// None is.
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
