//! Avro: one datum a record, written with a schema that the reader knows by its id or from a file.
//!
//! The declared columns are the reader's schema. [`plan`] resolves a writer's schema against them once. [`decoder`] then
//! reads records of several writers into the same columns. Every length and every count is checked against the bytes
//! that are there, so that hostile bytes cost no more than their size.
//!
//! Deliberately absent: object container files, aliases, and defaults of the reader's schema: an absent field is NULL.

pub(crate) mod columns;
pub(crate) mod decoder;
pub(crate) mod encoder;
mod input;
mod plan;
mod read;
pub(crate) mod schema;

#[cfg(test)]
mod tests;
