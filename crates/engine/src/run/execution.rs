//! The way in which queries run: their driver, and the options with which tests vary it.

use millstream_flow::{Choice, Driver};

/// The driver of all queries, and the options of this engine that never change.
pub(super) struct Execution {
    pub(super) driver: Driver,
    pub(super) choice: Choice,
    pub(super) append_only_tables: bool,
    /// The number of epochs between two steps, if every query that may leave the loop must lag.
    pub(super) apart: Option<u64>,
    /// A result that operators keep in more bytes is read on a thread, if not the default.
    pub(super) read_bytes: Option<usize>,
    /// Statements wait for a lagging query that they feed while more bytes wait for it, if not the default.
    pub(super) statement_bytes: Option<usize>,
}
