//! Functions of our own that stand in for the query engine's where those leave something open.

mod bounded;
pub mod canonical_float;
pub(crate) mod date_part;
pub mod exact_moments;
pub mod exact_sum;
pub mod extreme;
pub mod in_frame;
pub(crate) mod json;
pub(crate) mod nth;
pub(crate) mod postgres;
pub(crate) mod read_text;
mod round;
pub(crate) mod row_key;
pub(crate) mod scalar;
mod signed;
pub(crate) mod single_row;
pub(crate) mod sliding;
mod whole_sum;

use std::sync::{Arc, LazyLock};

use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::ExprPlanner;
pub use postgres::quote_ident;

/// The alias that these functions carry, by which the crate `flow`, which doesn't know their types, tells them from a
/// user's function of the same name.
///
/// An aggregate with this alias promises that its result is a function of the multiset of its arguments, the one that
/// the operators of `flow` compute. The alias is no name in SQL: the functions are in no registry.
pub const EXACT: &str = "millstream.exact";

/// What `aliases` of these functions answers.
pub(crate) static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| [EXACT.to_string()]);

/// Adds the functions that a statement can name, but for those of which the user has one.
pub(crate) fn register(state: &mut SessionState) {
    let mut registry = Registry { state };
    bounded::register(&mut registry);
    read_text::ReadText::registered().into_iter().for_each(|function| registry.add(function));
    date_part::register(&mut registry);
    json::register(&mut registry);
    postgres::register(&mut registry);
    round::register(&mut registry);
    signed::register(&mut registry);
}

/// The functions of a session, which keeps its user's.
pub(crate) struct Registry<'a> {
    state: &'a mut SessionState,
}

impl Registry<'_> {
    /// Adds a function whose name the query engine has not.
    pub(crate) fn add(&mut self, function: ScalarUDF) {
        if !self.state.scalar_functions().contains_key(function.name()) {
            // A session state refuses no function.
            let _ = self.state.register_udf(Arc::new(function));
        }
    }

    /// Puts a function around the query engine's of this name, unless the user has another.
    pub(crate) fn replace(
        &mut self,
        name: &str,
        is_theirs: fn(&ScalarUDF) -> bool,
        around: fn(Arc<ScalarUDF>) -> ScalarUDF,
    ) {
        let found = self.state.scalar_functions().get(name).cloned();
        if let Some(function) = found.filter(|function| is_theirs(function)) {
            let _ = self.state.register_udf(Arc::new(around(function)));
        }
    }

    /// Adds what puts one function in the place of another once types are known.
    pub(crate) fn add_rewrite(&mut self, rewrite: Arc<dyn FunctionRewrite + Send + Sync>) {
        let _ = self.state.register_function_rewrite(rewrite);
    }

    /// Adds what plans operators.
    pub(crate) fn add_planner(&mut self, planner: Arc<dyn ExprPlanner>) {
        let _ = self.state.register_expr_planner(planner);
    }
}
