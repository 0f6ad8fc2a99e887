//! Test suites in the sqllogictest format (`.slt`): the engine as its database, and the runner of files.
//!
//! ```no_run
//! # async fn example() -> Result<(), millstream::Error> {
//! use millstream::Engine;
//!
//! let report = millstream_cli::slt::run_file("sql-tests/join/inner.slt".as_ref(), Engine::start).await;
//! assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
//! # Ok(())
//! # }
//! ```

mod command;
mod engine_db;
mod suite;

pub(crate) use command::test;
pub use engine_db::{EngineDb, column_type, rows_as_text};
pub use suite::{Report, complete_file, find, run_file, run_file_on, validate_columns, validate_values};
