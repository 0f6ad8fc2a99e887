//! How an engine ends when its process is asked to: `shutdown_timeout`, `stop_gracefully`.

use std::time::Duration;

use millstream_sql::{Error, Result};

use super::{interval, interval_text};

/// How an engine ends when a signal asks its process to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// `shutdown_timeout`: how long running statements and sinks may go on.
    pub timeout: Duration,
    /// `stop_gracefully`: true if rows that sources have received are processed first.
    pub gracefully: bool,
}

impl Default for ShutdownSettings {
    fn default() -> ShutdownSettings {
        ShutdownSettings { timeout: Duration::from_secs(30), gracefully: false }
    }
}

/// The value of `shutdown_timeout`.
pub(super) fn timeout(value: &str) -> Result<Duration> {
    if value.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    interval("shutdown_timeout", value, "0 or ")
}

/// `shutdown_timeout` as it is set.
pub(super) fn timeout_text(timeout: Duration) -> String {
    if timeout.is_zero() { "0".into() } else { interval_text(timeout) }
}

/// A setting that is on or off; the words are PostgreSQL's.
pub(super) fn on_or_off(name: &str, value: &str) -> Result<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(Error::invalid(format!("{name} is '{value}', but on or off was expected"))),
    }
}

/// The same as it is set.
pub(super) fn on_or_off_text(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
