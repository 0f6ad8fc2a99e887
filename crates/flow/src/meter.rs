//! What the nodes of a flow do, counted.

use std::time::Duration;

use crate::operator::Output;

/// What a node of a flow has done since the flow was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// How often it was stepped.
    pub steps: u64,
    /// Rows of the deltas that it was given.
    pub rows_in: u64,
    /// Rows of the deltas that it put out.
    pub rows_out: u64,
    /// Rows that it fails for now.
    pub errors: i64,
    /// How long its steps took.
    pub time: Duration,
    /// Bytes of its rows that are in files, as of the last time that it was looked.
    pub spilled_bytes: usize,
}

impl Meter {
    /// What was done since it stood at `before`.
    pub fn since(&self, before: &Meter) -> Meter {
        Meter {
            steps: self.steps - before.steps,
            rows_in: self.rows_in - before.rows_in,
            rows_out: self.rows_out - before.rows_out,
            errors: self.errors,
            time: self.time.saturating_sub(before.time),
            spilled_bytes: self.spilled_bytes,
        }
    }

    /// Of rows that it would have handed on, had somebody taken them.
    pub(crate) fn hand_on(&mut self, rows: u64) {
        self.steps += 1;
        self.rows_in += rows;
        self.rows_out += rows;
    }

    pub(crate) fn count(&mut self, given: u64, output: &Output, time: Duration) {
        self.steps += 1;
        self.rows_in += given;
        self.rows_out += output.rows.num_rows() as u64 + output.left_out;
        self.errors += output.failures.iter().map(|failure| failure.weight).sum::<i64>();
        self.time += time;
    }
}
