//! Names of time zones.

use std::sync::Arc;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{OffsetComponents, OffsetName, TZ_VARIANTS};
use millstream_sql::{Error, Result, sqlstate};

use super::Variables;

/// The largest offset from UTC, in minutes: PostgreSQL's bound, too.
const MINUTES_MAX: u32 = 15 * 60 + 59;

/// The default zone.
pub(crate) const UTC: &str = "UTC";

/// Returns the canonical name of a zone: `Europe/Berlin` of `europe/berlin`, `+05:30` of `5.5`, `UTC` of `Z`.
pub(crate) fn read(value: &str) -> Result<String> {
    let name = value.trim().trim_matches('\'').trim();
    if is_utc(name) {
        return Ok(UTC.into());
    }
    if let Some(minutes) = offset(name) {
        return Ok(match minutes {
            0 => UTC.into(),
            _ => {
                let (sign, minutes) = (if minutes < 0 { '-' } else { '+' }, minutes.unsigned_abs());
                format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        });
    }
    let found = TZ_VARIANTS.iter().map(|zone| zone.name()).find(|zone| zone.eq_ignore_ascii_case(name));
    found.map(str::to_string).ok_or_else(|| {
        Error::invalid(format!("time zone \"{name}\" not found"))
            .hint("Write a name such as 'Europe/Berlin', or an offset such as '+02:00'. pg_timezone_names has the names.")
            .code(sqlstate::INVALID_PARAMETER_VALUE)
    })
}

/// A zone at a time.
pub(crate) struct ShownZone {
    pub(crate) name: &'static str,
    pub(crate) abbreviation: String,
    /// The seconds by which it is ahead of UTC.
    pub(crate) offset: i64,
    pub(crate) is_dst: bool,
}

/// Returns all zones at a time, in seconds since 1970 UTC.
pub(crate) fn shown_at(seconds: i64) -> impl Iterator<Item = ShownZone> {
    let now = DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc();
    TZ_VARIANTS.iter().map(move |zone| {
        let at = zone.offset_from_utc_datetime(&now);
        ShownZone {
            name: zone.name(),
            abbreviation: at.abbreviation().unwrap_or_default().to_string(),
            offset: at.fix().local_minus_utc().into(),
            is_dst: !at.dst_offset().is_zero(),
        }
    })
}

fn is_utc(name: &str) -> bool {
    const NAMES: [&str; 11] =
        ["utc", "gmt", "etc/utc", "etc/gmt", "zulu", "etc/zulu", "universal", "uct", "z", "gmt+0", "gmt0"];
    NAMES.contains(&name.to_lowercase().as_str())
}

/// Returns the minutes east of UTC of an offset: `+02:00`, `-0330`, `2`, `5.5`.
fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = |part: &str| match part.len() {
        1 | 2 if part.bytes().all(|byte| byte.is_ascii_digit()) => part.parse::<u32>().ok(),
        _ => None,
    };
    let minutes = match digits.split_once(':') {
        Some((hours, minutes)) => number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?,
        None if digits.len() == 4 && digits.is_ascii() && !digits.contains('.') => {
            let (hours, minutes) = digits.split_at(2);
            number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?
        }
        None => match digits.split_once('.') {
            Some((hours, "5")) => number(hours)? * 60 + 30,
            Some((hours, "25")) => number(hours)? * 60 + 15,
            Some((hours, "75")) => number(hours)? * 60 + 45,
            Some(_) => return None,
            None => number(digits)? * 60,
        },
    };
    (minutes <= MINUTES_MAX).then(|| sign * i32::try_from(minutes).unwrap_or(0))
}

impl Variables {
    /// Returns the session's time zone; none for UTC.
    pub(crate) fn time_zone(&self) -> Option<Arc<str>> {
        let zone = self.values.set.get("TimeZone").filter(|zone| *zone != UTC)?;
        Some(zone.as_str().into())
    }
}
