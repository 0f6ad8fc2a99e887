//! What users add to the functions there are: functions written as SQL expressions, and aggregates made of functions.
//!
//! A routine is declared by a statement of the engine's, made by the [`Planner`](crate::Planner) and found by name
//! through [`Relations::routine`](crate::Relations::routine), behind the functions that come with the engine. A query's
//! [`reads`](crate::Query::reads) name it as [`routine_name`] does.

mod accepts;
mod aggregate;
mod body;
mod fold;
mod function;
mod inline;
mod update_state;

use std::sync::Arc;

pub(crate) use aggregate::framed;
pub use aggregate::{AggregateDeclaration, AggregateParts, MovingParts, UserAggregate};
pub use function::{FunctionDeclaration, Parameter, UserFunction};
pub(crate) use inline::inline;
pub use update_state::UPDATE_STATE;
pub(crate) use update_state::{UpdateState, aggregate_name, folding_function};

/// Something that is called in a query.
#[derive(Clone, Debug)]
pub enum Routine {
    /// A scalar function.
    Function(Arc<UserFunction>),
    /// An aggregate.
    Aggregate(Arc<UserAggregate>),
}

/// The name by which a catalog keeps a routine, so that a relation may have the same: `f()`.
pub fn routine_name(name: &str) -> String {
    format!("{name}()")
}
