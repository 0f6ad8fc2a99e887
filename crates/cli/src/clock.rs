//! The time of day for titles.

use std::time::{SystemTime, UNIX_EPOCH};

use arrow::temporal_conversions::timestamp_s_to_datetime;

/// Returns the present second in UTC, `2026-11-20 17:35:00`.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    timestamp_s_to_datetime(seconds as i64).map_or_else(String::new, |time| time.to_string())
}
