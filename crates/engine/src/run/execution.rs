//! The way in which queries run: their driver, and the options with which tests vary it.

use millstream_flow::Driver;

use crate::execution_options::ExecutionOptions;

/// The driver of all queries, and the options of this engine that never change.
pub(super) struct Execution {
    pub(super) driver: Driver,
    pub(super) options: ExecutionOptions,
}
