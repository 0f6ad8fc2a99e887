//! The rate of sources that generate rows.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Options, Result};

/// Time that rows gather before a source returns them, if its rate is low enough for that to matter.
const GATHER: Duration = Duration::from_millis(10);

/// A fixed rate from the first request on, or no limit.
pub(crate) struct Pace {
    per_second: Option<f64>,
    /// The time of the first request, and the number that it asked for.
    began: Option<(Instant, u64)>,
}

impl Pace {
    /// Returns the pace given by the option `name`. The default is `usual` for an unbounded source, else no
    /// limit.
    pub fn of(options: &Options, name: &str, usual: f64, bounded: bool) -> Result<Pace> {
        let given: Option<f64> = options.parse(name, "a number above 0")?;
        if let Some(rate) = given
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(Error::Invalid(format!(
                "option '{name}' is '{rate}', but a number above 0 was expected"
            )));
        }
        let per_second = if bounded { given } else { given.or(Some(usual)) };
        Ok(Pace { per_second, began: None })
    }

    /// Returns the end of the numbers that are due by now, at most `end`; `next` is the next number.
    pub fn due(&mut self, next: u64, end: u64) -> u64 {
        let Some(rate) = self.per_second else { return end };
        let (began, first) = *self.began.get_or_insert((Instant::now(), next));
        let since = began.elapsed().as_secs_f64() * rate;
        // The first one is due at once.
        end.min(first.saturating_add(since as u64).saturating_add(1))
    }

    /// Waits until some numbers from `next` on are due.
    pub async fn ready(&self, next: u64) {
        let (Some(rate), Some((began, first))) = (self.per_second, self.began) else { return };
        let gathered = ((rate * GATHER.as_secs_f64()) as u64).max(1);
        let seconds = (next - first + gathered - 1) as f64 / rate;
        // If the rate is so low that the time has no representation, wait for a year at a time.
        let wait = Duration::try_from_secs_f64(seconds)
            .unwrap_or(Duration::MAX)
            .min(Duration::from_secs(31_536_000));
        tokio::time::sleep_until(began + wait).await;
    }
}
