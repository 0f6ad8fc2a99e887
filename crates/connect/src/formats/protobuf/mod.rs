//! Protobuf: one message a record, read with the schema that the reader knows by its id, or from a file: a `.proto`
//! or a descriptor set.
//!
//! Fields match the declared columns by name. A message is first split into its fields, then each column takes those of
//! its number, so that fields may come in any order, several times, or not at all.
//!
//! Deliberately absent: groups, extensions, `Any`, and the defaults that proto2 declares: an absent field is NULL there.

pub(crate) mod columns;
pub(crate) mod decoder;
mod descriptor;
pub(crate) mod encoder;
mod parser;
mod plan;
mod read;
pub(crate) mod schema;

#[cfg(test)]
mod tests;
