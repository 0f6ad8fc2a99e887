//! The offsets of time zones from UTC.

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use chrono::{DateTime, Days, LocalResult, Offset, TimeZone};

use crate::error::{Error, Result};
use crate::zones::is_utc;

/// Returns the zone of a name.
pub(crate) fn zone(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| {
        Error::invalid(format!("time zone '{name}' not found"))
            .hint("Write it as in 'Europe/Berlin', 'UTC' or '+02:00'.")
    })
}

/// Returns the zone's offset from UTC at a moment, in seconds since 1970; none out of range.
pub(crate) fn utc_offset(zone: &Tz, seconds: i64) -> Option<i64> {
    let at = DateTime::from_timestamp(seconds, 0)?.naive_utc();
    Some(seconds_of(&zone.offset_from_utc_datetime(&at)))
}

/// Returns the zone's offset from UTC at a local time, in seconds since 1970 as if it were in UTC; none out of range. An
/// ambiguous time is standard time; a skipped time has the offset before the change.
pub(crate) fn local_offset(zone: &Tz, seconds: i64) -> Option<i64> {
    let shown = DateTime::from_timestamp(seconds, 0)?.naive_utc();
    match zone.offset_from_local_datetime(&shown) {
        LocalResult::Single(offset) => Some(seconds_of(&offset)),
        LocalResult::Ambiguous(one, other) => Some(seconds_of(&one).min(seconds_of(&other))),
        LocalResult::None => {
            let before = shown.checked_sub_days(Days::new(1))?;
            zone.offset_from_local_datetime(&before).earliest().map(|offset| seconds_of(&offset))
        }
    }
}

fn seconds_of(offset: &impl Offset) -> i64 {
    offset.fix().local_minus_utc().into()
}

/// The offsets of one zone from UTC. The default is UTC.
#[derive(Default)]
pub struct ZoneOffsets(Option<Tz>);

impl ZoneOffsets {
    /// Looks up the zone of a column's type. Fails on a name that is no zone.
    pub fn new(name: &str) -> Result<ZoneOffsets> {
        Ok(ZoneOffsets(if is_utc(name) { None } else { Some(zone(name)?) }))
    }

    /// Returns true if the zone is UTC.
    pub fn is_utc(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the seconds by which the zone is ahead of UTC at a time, in seconds since 1970.
    pub fn at(&self, seconds: i64) -> i64 {
        self.0.as_ref().and_then(|zone| utc_offset(zone, seconds)).unwrap_or(0)
    }

    /// Returns the offset at a local time, see [`local_offset`].
    pub(crate) fn at_local(&self, seconds: i64) -> Option<i64> {
        match &self.0 {
            Some(zone) => local_offset(zone, seconds),
            None => Some(0),
        }
    }
}

/// The zones of a column of names, of which most columns have one.
pub(crate) struct Zones {
    names: ArrayRef,
    last: Option<(String, Tz)>,
}

impl Zones {
    /// Takes a column of texts.
    pub(crate) fn new(names: &ArrayRef) -> datafusion::error::Result<Zones> {
        Ok(Zones { names: cast(names, &DataType::Utf8View)?, last: None })
    }

    /// Returns the zone of a row; none for NULL. Fails on a name that is no zone.
    pub(crate) fn get(&mut self, row: usize) -> Result<Option<&Tz>> {
        let names = self.names.as_string_view();
        if names.is_null(row) {
            return Ok(None);
        }
        let name = names.value(row);
        if self.last.as_ref().is_none_or(|(last, _)| last != name) {
            self.last = Some((name.to_string(), zone(name)?));
        }
        Ok(self.last.as_ref().map(|(_, zone)| zone))
    }

    /// Returns the name of a row's zone, which is not NULL.
    pub(crate) fn name(&self, row: usize) -> &str {
        self.names.as_string_view().value(row)
    }
}
