//! How much an epoch takes.

use std::time::Duration;

use millstream_connect::Limit;

use crate::settings::{ClockKind, Pace, Settings};

/// The budget of rows that the first epochs take of sources, and its bounds.
const BUDGET_ROWS_START: usize = 64 * 1024;
const BUDGET_ROWS_MIN: usize = 8 * 1024;
const BUDGET_ROWS_MAX: usize = 512 * 1024;

/// Epochs shorter than the first may take more rows. Epochs longer than the second must take fewer.
const EPOCH_SHORT: Duration = Duration::from_millis(50);
const EPOCH_LONG: Duration = Duration::from_millis(200);

/// The share of a fixed interval that a batch may need.
const INTERVAL_SHARE: f64 = 0.7;

/// Bounds the work of an epoch, and adapts the bounds to the duration of epochs.
#[derive(Debug)]
pub(super) struct Budget {
    /// Most rows that an epoch takes of sources, unless the user has set a number.
    pub(super) rows: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { rows: BUDGET_ROWS_START }
    }
}

impl Budget {
    /// Returns the limit of one pull.
    pub(super) fn limit(&self, settings: &Settings) -> Limit {
        let rows = settings.batches.rows_max.unwrap_or(self.rows);
        Limit { rows, bytes: settings.batches.bytes_max }
    }

    /// Adapts the budget to the room in an interval, at most twofold from one batch to the next.
    fn adapt_to(&mut self, interval: Duration, rows: usize, took: Duration) {
        if rows * 2 < self.rows {
            // A partial batch says little about a full one.
            return;
        }
        let room = interval.as_secs_f64() * INTERVAL_SHARE / took.as_secs_f64().max(1e-6);
        let fitting = (rows as f64 * room) as usize;
        let rows_max =
            (BUDGET_ROWS_MAX as f64 * (interval.as_secs_f64() / EPOCH_LONG.as_secs_f64()).max(1.0)) as usize;
        self.rows = fitting.clamp(self.rows / 2, self.rows * 2).clamp(BUDGET_ROWS_MIN, rows_max);
    }

    /// Adapts the budget: it grows while epochs stay short. A query that recomputes everything costs the same for any
    /// batch, so with one (`recomputes`) the budget never shrinks. Under a fixed interval, a batch may need most of the interval,
    /// since no epoch runs in between.
    pub(super) fn adapt(&mut self, recomputes: bool, settings: &Settings, rows: usize, took: Duration) {
        if let (Pace::Fixed(interval), ClockKind::System) = (settings.pace, settings.clock) {
            return self.adapt_to(interval, rows, took);
        }
        if took < EPOCH_SHORT && rows * 2 >= self.rows {
            self.rows = (self.rows * 2).min(BUDGET_ROWS_MAX);
        } else if took > EPOCH_LONG && !recomputes {
            self.rows = (self.rows / 2).max(BUDGET_ROWS_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::BatchSettings;

    #[test]
    fn the_budget_follows_the_duration_of_full_epochs() {
        let (settings, mut budget) =
            (Settings { pace: Pace::Auto, ..Settings::default() }, Budget::default());
        budget.adapt(false, &settings, BUDGET_ROWS_START, Duration::from_millis(1));
        assert_eq!(budget.rows, 2 * BUDGET_ROWS_START);
        // A partial batch says little.
        budget.adapt(false, &settings, 10, Duration::from_millis(1));
        assert_eq!(budget.rows, 2 * BUDGET_ROWS_START);
        budget.adapt(true, &settings, budget.rows, Duration::from_secs(1));
        assert_eq!(budget.rows, 2 * BUDGET_ROWS_START);
        budget.adapt(false, &settings, budget.rows, Duration::from_secs(1));
        assert_eq!(budget.rows, BUDGET_ROWS_START);
    }

    #[test]
    fn a_number_of_rows_that_the_user_has_set_is_the_limit() {
        let settings = Settings {
            batches: BatchSettings { rows_max: Some(7), ..BatchSettings::default() },
            ..Settings::default()
        };
        assert_eq!(Budget::default().limit(&settings).rows, 7);
        assert_eq!(Budget::default().limit(&Settings::default()).rows, BUDGET_ROWS_START);
    }
}
