//! The type XML of PostgreSQL with its functions, and the XML of Spark: `xpath(xml, 'a/b/text()')`, `from_xml`, `to_xml` and
//! `schema_of_xml`.
//!
//! | part | |
//! | --- | --- |
//! | [`scan`], [`entities`], [`names`] | read a text as XML 1.0 |
//! | [`tree`], [`nodes`] | a document in memory, and nodes of it as XML |
//! | [`parser`], [`eval`], [`paths`] | XPath 1.0, and the functions with XPaths |
//! | [`value`], [`encode`], [`postgres`] | values of the type, SQL's values in them, and the functions |
//! | [`functions`], [`typed`] | Spark's functions |
//!
//! In Spark's functions, a name with a prefix is compared as it is written, and a document type is refused.

#[cfg(test)]
mod cases;
mod encode;
mod entities;
mod eval;
mod functions;
mod names;
mod nodes;
mod parser;
mod paths;
pub(crate) mod postgres;
mod scan;
mod tree;
mod typed;
mod value;

use super::Registry;
use crate::error::Result;

/// Registers Spark's functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    functions::register(registry);
    typed::register(registry);
}

/// Returns the form in which a value of type XML is stored.
pub(super) fn canonical(text: &str) -> Result<String> {
    value::canonical(text, scan::Form::Content)
}
