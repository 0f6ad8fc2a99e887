//! The setting `source_idle_timeout_action`.

use millstream_sql::{Error, Result};

/// The behaviour of the watermark of a source whose partitions are all idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleTimeoutAction {
    /// It stays until rows arrive.
    Hold,
    /// It moves at the speed of the clock.
    Advance,
}

impl IdleTimeoutAction {
    /// Parses the value of the setting or of the option.
    pub(crate) fn parse(value: &str) -> Result<IdleTimeoutAction> {
        match value.trim().to_ascii_lowercase().as_str() {
            "hold" => Ok(IdleTimeoutAction::Hold),
            "advance" => Ok(IdleTimeoutAction::Advance),
            _ => Err(Error::invalid(format!(
                "source_idle_timeout_action is '{value}', but 'hold' or 'advance' was expected"
            ))),
        }
    }

    /// Returns the value as SET accepts it.
    pub(super) fn name(self) -> &'static str {
        match self {
            IdleTimeoutAction::Hold => "hold",
            IdleTimeoutAction::Advance => "advance",
        }
    }
}
