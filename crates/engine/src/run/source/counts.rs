//! The counters of a source.

use std::time::Duration;

use millstream_flow::Meter;
use millstream_sql::Result;
use millstream_state::Tables;

use crate::run::saving::number;

/// The counters of the rows that epochs took of a source, and of its Upsert, if it is a change feed.
#[derive(Debug, Default)]
pub(in crate::run) struct SourceCounts {
    rows: u64,
    upsert: Meter,
}

impl SourceCounts {
    /// Returns the number of rows taken, with those that statements inserted.
    pub(in crate::run) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the counters of the Upsert.
    pub(in crate::run) fn upsert(&self) -> Meter {
        self.upsert
    }

    /// Counts rows that a statement inserted.
    pub(in crate::run) fn insert(&mut self, rows: u64) {
        self.rows += rows;
    }

    /// Counts rows that are about to be applied.
    pub(super) fn read(&mut self, rows: u64) {
        self.upsert.rows_in += rows;
    }

    /// Counts rows that were applied.
    pub(super) fn apply(&mut self, rows: u64) {
        self.rows += rows;
    }

    /// Counts a step of the Upsert. `is_idle`: nothing had arrived.
    pub(super) fn step(&mut self, is_idle: bool, rows_out: usize, time: Duration) {
        self.upsert.steps += u64::from(!is_idle);
        self.upsert.rows_out += rows_out as u64;
        self.upsert.time += time;
    }

    pub(super) fn save(&self, all: &mut Tables) {
        all.put_number("rows", self.rows as i64);
        all.put_number("upserted_in", self.upsert.rows_in as i64);
        all.put_number("upserted_out", self.upsert.rows_out as i64);
    }

    pub(super) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.rows = number(all, "rows")? as u64;
        self.upsert.rows_in = number(all, "upserted_in")? as u64;
        self.upsert.rows_out = number(all, "upserted_out")? as u64;
        Ok(())
    }
}
