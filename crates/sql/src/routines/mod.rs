//! User-defined routines: functions written in SQL, and aggregates built from functions.
//!
//! A statement of the engine declares a routine, and the [`Planner`](crate::Planner) creates it. A query
//! finds it by name through [`Relations::routine`](crate::Relations::routine); built-in functions take
//! precedence. The query's [`reads`](crate::Query::reads) contain its [`routine_name`].

mod aggregate;
mod argument_types;
mod body;
mod defaults;
mod fold;
mod function;
mod inline;
mod query_body;
mod statements;
mod table_function;
mod update_state;

use std::sync::Arc;

pub(crate) use aggregate::frames;
pub use aggregate::{AggregateDeclaration, AggregateParts, MovingParts, UserAggregate};
pub(crate) use body::{has_queries, simplified_expression, single_expression};
pub(crate) use defaults::fill_defaults;
pub use defaults::parameter_default;
pub(crate) use function::volatility;
pub use function::{FunctionDeclaration, Parameter, UserFunction};
pub(crate) use inline::inline;
pub use table_function::Returns;
pub use update_state::UPDATE_STATE;
pub(crate) use update_state::{
    UpdateState, aggregate_name, folding_function, folding_query, name_mapped_values,
};

/// A user-defined routine that queries can call.
#[derive(Clone, Debug)]
pub enum Routine {
    /// A scalar function.
    Function(Arc<UserFunction>),
    /// An aggregate.
    Aggregate(Arc<UserAggregate>),
}

/// Returns the name of a routine in the catalog: `f()`. A relation may then be called `f`.
pub fn routine_name(name: &str) -> String {
    format!("{name}()")
}
