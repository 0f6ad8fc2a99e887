//! The progress of closing sessions.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use millstream_delta::Cut;
use millstream_state::Tables;

use crate::Result;
use crate::event_time::EventTime;
use crate::late_rows::Late;
use crate::persistence::{incomplete, put_value, take_value};

/// Decides by the event time which sessions are closed, and counts the rows that come too late for theirs.
#[derive(Debug)]
pub(super) struct SessionClosing {
    /// The event time, if sessions close.
    clock: Option<EventTime>,
    /// True if sessions are emitted when they close.
    on_close: bool,
    closed: Option<Closed>,
    /// The number of late rows.
    late: u64,
}

#[derive(Debug)]
struct Closed {
    /// The time up to which ended sessions are closed.
    up_to: i64,
    /// The watermark behind the time.
    watermark: ScalarValue,
}

impl SessionClosing {
    pub(super) fn new(clock: Option<EventTime>, on_close: bool) -> SessionClosing {
        SessionClosing { clock, on_close, closed: None, late: 0 }
    }

    /// Forgets the progress.
    pub(super) fn reset(&mut self) {
        (self.closed, self.late) = (None, 0);
    }

    /// Returns true if sessions close.
    pub(super) fn closes(&self) -> bool {
        self.clock.is_some()
    }

    /// Returns true if sessions are emitted when they close.
    pub(super) fn is_on_close(&self) -> bool {
        self.on_close
    }

    /// Returns the time up to which ended sessions are closed.
    pub(super) fn up_to(&self) -> Option<i64> {
        self.closed.as_ref().map(|closed| closed.up_to)
    }

    /// Returns the watermark behind that time.
    pub(super) fn watermark(&self) -> Option<ScalarValue> {
        self.closed.as_ref().map(|closed| closed.watermark.clone())
    }

    /// The same, or NULL if none has closed; `None` if sessions don't close.
    pub(super) fn watermark_or_null(&self) -> Result<Option<ScalarValue>> {
        let Some(clock) = &self.clock else { return Ok(None) };
        match self.watermark() {
            Some(watermark) => Ok(Some(watermark)),
            None => Ok(Some(ScalarValue::try_from(&clock.watermark_type())?)),
        }
    }

    pub(super) fn watermark_type(&self) -> DataType {
        self.clock.as_ref().map_or(DataType::Null, EventTime::watermark_type)
    }

    /// Moves to the time of a cut. Returns the time up to which sessions are to be closed, also if it hasn't moved: a
    /// session that has lost rows may end earlier than before.
    pub(super) fn advance(&mut self, cut: &Cut) -> Result<Option<i64>> {
        let Some(clock) = &self.clock else { return Ok(None) };
        let (Some(now), Some(watermark)) = (clock.at(cut)?, clock.watermark_at(cut)?) else {
            return Ok(None);
        };
        if self.up_to().is_some_and(|up_to| now < up_to) {
            return Ok(None);
        }
        self.closed = Some(Closed { up_to: now, watermark });
        Ok(Some(now))
    }

    /// Returns true if a session with this end is closed at a cut.
    pub(super) fn is_due(&self, cut: &Cut, end: i64) -> bool {
        let now = self.clock.as_ref().and_then(|clock| clock.at(cut).ok().flatten());
        now.is_some_and(|now| end <= now)
    }

    /// Counts late rows.
    pub(super) fn count(&mut self, late: &Late) {
        self.late += late.count();
    }

    /// Returns the number of late rows.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    pub(super) fn save(&self, kept: &mut Tables) -> Result<()> {
        if let Some(Closed { up_to, watermark }) = &self.closed {
            kept.put_number("closed_up_to", *up_to);
            put_value(kept, "watermark", watermark)?;
        }
        kept.put_number("late", self.late as i64);
        Ok(())
    }

    pub(super) fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.closed = match (kept.take_number_if("closed_up_to"), &self.clock) {
            (Some(up_to), Some(clock)) => {
                let watermark = take_value(kept, "watermark", &clock.watermark_type())?;
                Some(Closed { up_to, watermark })
            }
            (Some(_), None) => return Err(incomplete("sessions have closed, but there is no clock".into())),
            (None, _) => None,
        };
        self.late = kept.take_number("late")? as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use millstream_delta::{Epoch, Timestamp};

    use super::*;

    #[test]
    fn the_clock_closes_sessions_and_never_goes_back() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let cut = |watermark: i64| Cut {
            watermarks: vec![("t".into(), watermark)],
            ..Cut::new(Epoch(1), Timestamp(0))
        };
        let clock = || Some(EventTime::watermark(crate::Called::new("t".into()), micros.clone()));
        let mut closing = SessionClosing::new(clock(), true);
        assert!(closing.closes() && closing.up_to().is_none());
        assert!(closing.watermark_or_null().unwrap().is_some_and(|watermark| watermark.is_null()));
        assert!(closing.is_due(&cut(10), 10) && !closing.is_due(&cut(10), 11));
        assert_eq!(closing.advance(&cut(10)).unwrap(), Some(10));
        assert_eq!((closing.advance(&cut(10)).unwrap(), closing.advance(&cut(9)).unwrap()), (Some(10), None));
        let mut saved = Tables::default();
        closing.save(&mut saved).unwrap();
        let mut loaded = SessionClosing::new(clock(), true);
        loaded.load(&mut saved).unwrap();
        assert_eq!((loaded.up_to(), loaded.watermark()), (Some(10), closing.watermark()));
        loaded.reset();
        assert!(loaded.up_to().is_none());
        // Without a clock nothing closes.
        let mut never = SessionClosing::new(None, false);
        assert_eq!((never.advance(&cut(10)).unwrap(), never.watermark_or_null().unwrap()), (None, None));
    }
}
