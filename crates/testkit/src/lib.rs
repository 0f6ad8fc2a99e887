//! Test kit: proves that Millstream's maintained results equal the answers of batch queries.
//!
//! - [`slt`] runs the files of `sql-tests/` unchanged.
//! - [`oracle`] runs every query in them again as a materialized view over the same rows in random
//!   micro-batches.
//! - [`generate`] does the same with random queries over random tables.
//! - [`suites`] does the same with the sqllogictest files of DataFusion itself.
//! - [`compatibility`] compares lists of other systems' functions with the engine.
//! - [`docs`] generates the tables of the reference pages from the code.
//! - [`tidy`] checks the sources themselves: crate dependencies, sizes, versions.
//! - [`drive`], [`parts`] and [`broker`] are building blocks of scenario tests; [`postgres`] is a server to
//!   deliver to, [`moto`] an object store, [`kafka`] a broker.
//!
//! Only tests use this crate.

pub mod broker;
pub mod compatibility;
pub mod conformance;
pub mod docs;
pub mod drive;
pub mod generate;
mod http;
pub mod kafka;
pub mod lanes;
pub mod moto;
pub mod operations;
pub mod oracle;
pub mod parts;
pub mod postgres;
pub mod registry;
pub mod slt;
pub mod suites;
pub mod tidy;
pub mod tokens;
pub mod tpch;
pub mod watchdog;
pub mod wire;
