//! Functions of our own that stand in for the query engine's where those leave something open.

use std::sync::LazyLock;

pub mod canonical_float;
pub mod exact_moments;
pub mod exact_sum;
pub mod extreme;
pub mod in_frame;
pub(crate) mod single_row;

/// The alias that these functions carry, by which the crate `flow`, which doesn't know their types, tells them from a
/// user's function of the same name.
///
/// An aggregate with this alias promises that its result is a function of the multiset of its arguments, the one that
/// the operators of `flow` compute. The alias is no name in SQL: the functions are in no registry.
pub const EXACT: &str = "millstream.exact";

/// What `aliases` of these functions answers.
pub(crate) static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| [EXACT.to_string()]);
