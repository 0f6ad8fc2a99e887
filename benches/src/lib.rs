//! Shared parts of the benches: clocks of the process, generated text, DataFusion as the yardstick,
//! medians.
//!
//! Every bench is a program: `cargo run --release --bin word_count -- --help`. A figure means little
//! without its yardstick: both are measured alternately in the same run, and the medians are printed.

pub mod generated;
pub mod measure;
pub mod options;
pub mod parquet_table;
pub mod sent_lines;
pub mod text;
pub mod yardstick;

/// The result type of the benches.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
