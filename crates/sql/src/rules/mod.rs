//! The analyzer rules that make a query mean the same to a batch and to a stream.
//!
//! They complete what SQL leaves open, so that equal inputs give equal results, byte for byte, however the input is
//! split and ordered.

pub mod casts;
pub mod conditions;
pub(crate) mod constants;
pub(crate) mod distribution;
pub mod exact;
pub mod floats;
pub(crate) mod joins;
pub(crate) mod keys;
pub mod lateral_unnest;
pub mod merged;
pub(crate) mod names;
pub mod nested_order;
pub mod orderings;
pub mod peer_frames;
pub mod recursions;
pub mod sliding;
mod sort_keys;
mod standing_rows;
pub mod subqueries;
pub mod wide_sums;

use std::sync::Arc;

use datafusion::optimizer::AnalyzerRule;

pub(crate) use orderings::{missing, orderable};

/// A rule as the analyzer takes it.
pub type Rule = Arc<dyn AnalyzerRule + Send + Sync>;

/// The rules that need the plan as it was written.
pub fn before_types() -> Vec<Rule> {
    vec![
        Arc::new(conditions::Conditions),
        Arc::new(distribution::Distribution),
        Arc::new(merged::Merged),
        Arc::new(lateral_unnest::LateralUnnest),
        Arc::new(peer_frames::PeerFrames),
        Arc::new(recursions::Recursions),
    ]
}

/// The rules that need the types of expressions.
pub fn after_types() -> Vec<Rule> {
    vec![
        Arc::new(casts::TextCasts),
        Arc::new(subqueries::Subqueries),
        // An ordering over floats that are equal is still open: it is completed after they are made so.
        Arc::new(floats::EqualFloats),
        Arc::new(nested_order::NestedOrder),
        Arc::new(orderings::Orderings),
        Arc::new(exact::ExactFloats),
        Arc::new(wide_sums::WideSums),
        Arc::new(sliding::SlidingFrames),
    ]
}
