//! The event time of the rows that a source brings.

use millstream_connect::Arrival;
use millstream_delta::Timestamp;
use millstream_sql::Result;

use super::ahead::Ahead;
use super::column::TimeColumn;
use super::marks::Seen;

/// Reads the event time of a source's rows as they arrive, and makes rows too far ahead of the clock bad rows.
#[derive(Debug, Default)]
pub(crate) struct TimeCheck {
    /// The column of the watermark, if the source has one.
    column: Option<TimeColumn>,
    ahead: Ahead,
}

impl TimeCheck {
    /// Creates a check without a watermark, for a source with this column of positions.
    pub(crate) fn new(position_column: Option<usize>) -> TimeCheck {
        TimeCheck { column: None, ahead: Ahead::new(position_column) }
    }

    /// Returns the column of the watermark.
    pub(crate) fn column(&self) -> Option<&TimeColumn> {
        self.column.as_ref()
    }

    /// Sets the column of the watermark.
    pub(crate) fn set_column(&mut self, column: Option<TimeColumn>) {
        self.column = column;
    }

    /// Returns the rows that became bad rows.
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Returns the rows that became bad rows, to load them.
    pub(crate) fn ahead_mut(&mut self) -> &mut Ahead {
        &mut self.ahead
    }

    /// Makes rows of an arrival later than `latest` bad rows. Returns the newest event time of the others by split.
    pub(crate) fn take_out(
        &mut self,
        arrival: &mut Arrival,
        brings_changes: bool,
        latest: Option<Timestamp>,
    ) -> Result<Seen> {
        self.ahead.take_out(arrival, self.column.as_ref(), brings_changes, latest)
    }
}
