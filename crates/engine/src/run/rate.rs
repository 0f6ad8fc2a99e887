//! The limit of a source's rows a second: a token bucket, filled by batch time.

use std::time::Duration;

use millstream_delta::Timestamp;

use crate::settings::{ClockKind, Pace, Settings};

/// At auto pace, a limited source gives at most the rows of this time at once.
const BURST: Duration = Duration::from_millis(100);

/// The token bucket of a source.
#[derive(Debug)]
pub(crate) struct Rate {
    /// The rows that the source may give at `since`.
    left: f64,
    since: Timestamp,
    /// The rows taken since about the beginning of the present second, and the rate of the second before.
    counted: u64,
    counted_since: Timestamp,
    before: f64,
}

/// The bound of one source that is in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// The rows a second.
    per_second: f64,
    /// The maximum of rows at once.
    burst: f64,
}

/// The limit that a source declares, and the number of receivers to which it applies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    /// The rows a second and receiver; `None` means the setting.
    declared: Option<f64>,
    receivers: usize,
}

impl RateLimit {
    pub(crate) fn new(declared: Option<f64>, receivers: usize) -> RateLimit {
        RateLimit { declared, receivers }
    }

    /// Returns true if the setting doesn't apply.
    pub(crate) fn is_declared(&self) -> bool {
        self.declared.is_some()
    }

    /// Returns the rows a second that epochs may take of the source, if they are limited.
    pub(crate) fn per_second(&self, settings: &Settings) -> Option<f64> {
        Some(self.declared.or(settings.sources.rate_limit)? * self.receivers as f64)
    }

    /// Returns the bound that is in force.
    pub(crate) fn bound(&self, settings: &Settings) -> Option<Bound> {
        Some(Bound::new(self.per_second(settings)?, settings))
    }
}

impl Bound {
    /// Returns the bound for a number of rows a second, under the pace in force.
    pub(crate) fn new(per_second: f64, settings: &Settings) -> Bound {
        let burst = match (settings.pace, settings.clock) {
            (Pace::Fixed(interval), _) => whole(per_second * interval.as_secs_f64()),
            (Pace::Auto, ClockKind::System) => whole(per_second * BURST.as_secs_f64()),
            // Only ADVANCE moves the time, and all of that time counts.
            (Pace::Auto, ClockKind::Manual) => f64::INFINITY,
        };
        Bound { per_second, burst }
    }

    /// Returns the maximum of rows in one batch.
    pub(crate) fn batch_rows(&self) -> usize {
        self.burst as usize
    }
}

/// Rounds up to whole rows, or to at least one; the bucket keeps the fraction that a batch leaves.
fn whole(rows: f64) -> f64 {
    if rows < 1.0 { 1.0 + rows } else { rows.ceil() }
}

impl Rate {
    /// Starts the bucket of a source, empty.
    pub(crate) fn new(now: Timestamp) -> Rate {
        Rate { left: 0.0, since: now, counted: 0, counted_since: now, before: 0.0 }
    }

    /// Empties the bucket under a new limit: neither debt nor savings remain.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        (self.left, self.since) = (0.0, now);
    }

    /// Returns the rows that the source may give at `now`.
    pub(crate) fn available(&self, bound: &Bound, now: Timestamp) -> f64 {
        let seconds = (now.0 - self.since.0).max(0) as f64 / 1e6;
        // Sums of fractions may lack a millionth of a row.
        (self.left + bound.per_second * seconds + 1e-6).min(bound.burst)
    }

    /// Returns true if the source may give these rows at `now`. More rows than the bucket holds need a full one.
    pub(crate) fn allows(&self, rows: usize, bound: &Bound, now: Timestamp) -> bool {
        self.available(bound, now) >= (rows as f64).min(bound.burst.floor())
    }

    /// Returns the time from `now` until the source may give these rows.
    pub(crate) fn wait(&self, rows: usize, bound: &Bound, now: Timestamp) -> Duration {
        let missing = (rows as f64).min(bound.burst.floor()) - self.available(bound, now);
        Duration::try_from_secs_f64((missing / bound.per_second).max(0.0)).unwrap_or(Duration::MAX)
    }

    /// Records rows that the source gave.
    pub(crate) fn take(&mut self, rows: usize, bound: Option<&Bound>, now: Timestamp) {
        self.left = bound.map_or(0.0, |bound| self.available(bound, now) - rows as f64);
        self.since = now;
        if now.0 - self.counted_since.0 >= 1_000_000 {
            self.before = self.measured(now);
            (self.counted, self.counted_since) = (0, now);
        }
        self.counted += rows as u64;
    }

    /// Returns the rows a second that the source gave lately.
    pub(crate) fn measured(&self, now: Timestamp) -> f64 {
        let seconds = (now.0 - self.counted_since.0) as f64 / 1e6;
        if seconds >= 1.0 { self.counted as f64 / seconds } else { self.before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SourceSettings;

    fn settings(interval_ms: Option<u64>, clock: ClockKind) -> Settings {
        let pace = interval_ms.map_or(Pace::Auto, |ms| Pace::Fixed(Duration::from_millis(ms)));
        Settings { pace, clock, ..Settings::default() }
    }

    #[test]
    fn the_setting_limits_sources_without_a_limit_of_their_own() {
        let sources = SourceSettings { rate_limit: Some(5.0), ..SourceSettings::default() };
        let settings = Settings { sources, ..Settings::default() };
        assert_eq!(RateLimit::new(Some(2.0), 3).per_second(&settings), Some(6.0));
        assert_eq!(RateLimit::new(None, 3).per_second(&settings), Some(15.0));
        assert!(RateLimit::new(None, 3).bound(&Settings::default()).is_none());
    }

    #[test]
    fn a_fixed_interval_takes_the_rows_of_its_length() {
        for (per_second, interval_ms, batches, expect) in [
            (5.0, 1000, 4, vec![5, 5, 5, 5]),
            (1.5, 1000, 4, vec![1, 2, 1, 2]),
            (4.0, 100, 6, vec![0, 0, 1, 0, 1, 0]),
        ] {
            let bound = Bound::new(per_second, &settings(Some(interval_ms), ClockKind::Manual));
            let mut rate = Rate::new(Timestamp(0));
            let mut taken = Vec::new();
            for batch in 1..=batches {
                let now = Timestamp(batch * interval_ms as i64 * 1000);
                let mut rows = 0;
                while rate.allows(1, &bound, now) {
                    rate.take(1, Some(&bound), now);
                    rows += 1;
                }
                taken.push(rows);
            }
            assert_eq!(taken, expect, "{per_second} a second");
        }
    }

    #[test]
    fn what_was_not_given_is_kept_for_one_batch_only() {
        let bound = Bound::new(10.0, &settings(Some(1000), ClockKind::System));
        let rate = Rate::new(Timestamp(0));
        assert!(rate.allows(10, &bound, Timestamp(60_000_000)));
        assert_eq!(rate.available(&bound, Timestamp(60_000_000)), 10.0);
    }

    #[test]
    fn a_large_piece_is_given_when_all_may_be_and_paid_for_later() {
        let bound = Bound::new(10.0, &settings(Some(1000), ClockKind::System));
        let mut rate = Rate::new(Timestamp(0));
        assert!(!rate.allows(30, &bound, Timestamp(500_000)));
        assert!(rate.allows(30, &bound, Timestamp(1_000_000)));
        rate.take(30, Some(&bound), Timestamp(1_000_000));
        let wait = rate.wait(10, &bound, Timestamp(1_000_000));
        assert_eq!(wait.as_millis(), 2999);
    }
}
