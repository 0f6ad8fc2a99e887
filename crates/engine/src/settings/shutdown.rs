//! The settings for shutting down: `shutdown_timeout`, `stop_gracefully`.

use std::time::Duration;

use millstream_sql::{Error, Result};

use super::{interval, interval_text};

/// The settings that apply when a signal asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// `shutdown_timeout`: the time that running statements and sinks have to finish.
    pub timeout: Duration,
    /// `stop_gracefully`: true if rows that sources have received are processed first.
    pub gracefully: bool,
}

impl Default for ShutdownSettings {
    fn default() -> ShutdownSettings {
        ShutdownSettings { timeout: Duration::from_secs(30), gracefully: false }
    }
}

/// Parses the value of `shutdown_timeout`.
pub(super) fn timeout(value: &str) -> Result<Duration> {
    if value.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    interval("shutdown_timeout", value, "0 or ")
}

/// Returns `shutdown_timeout` in the syntax of SET.
pub(super) fn timeout_text(timeout: Duration) -> String {
    if timeout.is_zero() { "0".into() } else { interval_text(timeout) }
}

/// Parses a boolean setting, with PostgreSQL's words.
pub(super) fn on_or_off(name: &str, value: &str) -> Result<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(Error::invalid(format!("{name} is '{value}', but on or off was expected"))),
    }
}

/// Returns a boolean setting in the syntax of SET.
pub(super) fn on_or_off_text(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
