//! Counters of a flow's nodes.

use std::time::{Duration, Instant};

use crate::operator::Output;

/// The counters of a node since the flow was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// The number of steps.
    pub steps: u64,
    /// The number of rows of the input deltas.
    pub rows_in: u64,
    /// The number of rows of the output deltas.
    pub rows_out: u64,
    /// The number of rows that fail now.
    pub errors: i64,
    /// The duration of all steps.
    pub time: Duration,
    /// The bytes of spilled state, as of the last measurement.
    pub spilled_bytes: usize,
    /// The time at which the last step ended.
    pub ended: Option<Instant>,
}

impl Meter {
    /// Returns the difference to an earlier state of the counters; `errors`, `spilled_bytes` and `ended` stay
    /// as they are.
    pub fn since(&self, before: &Meter) -> Meter {
        Meter {
            steps: self.steps.saturating_sub(before.steps),
            rows_in: self.rows_in.saturating_sub(before.rows_in),
            rows_out: self.rows_out.saturating_sub(before.rows_out),
            errors: self.errors,
            time: self.time.saturating_sub(before.time),
            spilled_bytes: self.spilled_bytes,
            ended: self.ended,
        }
    }

    /// Counts rows that the node would have forwarded if anybody read them.
    pub(crate) fn hand_on(&mut self, rows: u64) {
        self.steps += 1;
        self.rows_in += rows;
        self.rows_out += rows;
    }

    pub(crate) fn count(&mut self, given: u64, output: &Output, begun: Instant) {
        self.steps += 1;
        self.rows_in += given;
        self.rows_out += output.rows.num_rows() as u64 + output.left_out;
        self.errors += output.failures.iter().map(|failure| failure.weight).sum::<i64>();
        self.errors += output.failing.iter().map(|failing| failing.rows.weight()).sum::<i64>();
        let time = begun.elapsed();
        self.time += time;
        self.ended = Some(begun + time);
    }
}
