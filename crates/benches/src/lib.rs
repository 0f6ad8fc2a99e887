//! What the benches share: clocks of the process, text to work on, DataFusion as the yardstick, medians.
//!
//! Every bench is a program: `cargo run --release --bin word_count -- --help`.
//! A figure is only worth its yardstick: both are taken in the same run, in turn, and the median is printed.

pub mod generated;
pub mod measure;
pub mod options;
pub mod parquet_table;
pub mod sent_lines;
pub mod text;
pub mod yardstick;

/// What a bench ends with.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
