//! XML of Spark: `xpath(xml, 'a/b/text()')`, `from_xml`, `to_xml` and `schema_of_xml`.
//!
//! A name with a prefix is compared as it is written; namespaces aren't resolved. A document type is refused.

mod eval;
mod functions;
mod parser;
mod tree;
mod typed;

use super::Registry;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    functions::register(registry);
    typed::register(registry);
}
