//! The way in which an engine runs queries.

use millstream_flow::{Choice, Driver};

/// The options of an engine by which queries run. They change no result; tests vary them to compare results.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExecutionOptions {
    /// The choice among operators.
    pub(crate) choice: Choice,
    /// True if every table is treated as append-only.
    pub(crate) append_only_tables: bool,
    /// The number of rows from which a change is spread over threads, if not the default.
    pub(crate) spread_from: Option<usize>,
    /// The number of epochs between two steps, if every query that may leave the loop must lag.
    pub(crate) apart: Option<u64>,
    /// A result that operators keep in more bytes is read on a thread, if not the default.
    pub(crate) read_bytes: Option<usize>,
    /// True if each query computes all its parts itself, also those that it has in common with others.
    pub(crate) separate_parts: bool,
    /// Statements wait for a lagging query that they feed while more bytes wait for it, if not the default.
    pub(crate) statement_bytes: Option<usize>,
}

impl ExecutionOptions {
    /// Returns a driver under these options.
    pub(crate) fn applied_to(&self, driver: Driver) -> Driver {
        match self.spread_from {
            Some(rows) => driver.spread_from(rows),
            None => driver,
        }
    }
}
