//! The analyzer rules that make a query mean the same to a batch and to a stream.
//!
//! They make queries deterministic where SQL isn't. Equal inputs give equal results, byte for byte, for any
//! split and order of the input.

mod aggregate_filters;
pub mod casts;
pub mod conditions;
pub(crate) mod constants;
pub(crate) mod distribution;
pub mod equal_forms;
pub mod exact_aggregates;
mod exact_numbers;
mod interval_averages;
pub(crate) mod joins;
pub(crate) mod keys;
pub mod lateral_unnest;
mod marked_bits;
mod marked_geometry;
mod marked_order;
mod marked_pairs;
pub(crate) mod marked_types;
mod marked_xml;
pub(crate) mod names;
pub mod nested_order;
pub mod operand_types;
pub mod orderings;
pub mod peer_frames;
pub mod postgres_casts;
pub mod recursions;
mod retyped;
pub mod session_zone;
mod set_copies;
pub mod sliding;
mod sort_keys;
pub mod subqueries;
mod type_names;
pub mod using_joins;
pub mod wide_sums;

use std::sync::Arc;

use datafusion::optimizer::AnalyzerRule;

pub(crate) use orderings::{missing, orderable};

use crate::compatibility_level::CompatibilityLevel;

/// An analyzer rule.
pub type Rule = Arc<dyn AnalyzerRule + Send + Sync>;

/// Returns the rules that need the plan as it was written.
pub fn before_types(level: CompatibilityLevel) -> Vec<Rule> {
    let mut all: Vec<Rule> = vec![
        Arc::new(interval_averages::IntervalAverages),
        Arc::new(type_names::TypeNames),
        Arc::new(marked_types::MarkedTypes),
        Arc::new(operand_types::OperandTypes::new(level)),
        Arc::new(conditions::Conditions),
        Arc::new(distribution::Distribution),
        Arc::new(using_joins::UsingJoins),
        Arc::new(lateral_unnest::LateralUnnest),
        Arc::new(peer_frames::PeerFrames),
        Arc::new(recursions::Recursions),
        Arc::new(set_copies::SetCopies),
    ];
    if level.has_postgres_numbers() {
        all.push(Arc::new(postgres_casts::PostgresCasts { is_first: true }));
    }
    all
}

/// Returns the rules that need the types of expressions.
pub fn after_types(level: CompatibilityLevel) -> Vec<Rule> {
    let mut all: Vec<Rule> = vec![
        Arc::new(casts::TextCasts),
        Arc::new(subqueries::Subqueries),
        // Equal floats can tie in an ordering, so orderings are completed after floats are canonical.
        Arc::new(equal_forms::EqualForms),
        Arc::new(nested_order::NestedOrder),
        Arc::new(orderings::Orderings),
        Arc::new(exact_aggregates::ExactFloats),
        Arc::new(wide_sums::WideSums),
        Arc::new(sliding::SlidingFrames),
    ];
    if level.has_postgres_numbers() {
        all.insert(0, Arc::new(postgres_casts::PostgresCasts { is_first: false }));
    }
    all
}
