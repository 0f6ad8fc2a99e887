//! Replacements of DataFusion's functions that aren't deterministic or differ from PostgreSQL, and new ones.

pub(crate) mod bits;
mod coalesce;
mod date_bin;
pub(crate) mod date_part;
mod decimal_series;
pub(crate) mod either;
pub mod exact_moments;
pub mod exact_sum;
pub mod extreme;
mod flink;
pub mod frame_values;
mod generators;
pub(crate) mod geometry;
mod hashes;
pub(crate) mod interval_average;
mod java_patterns;
pub(crate) mod json;
mod lambdas;
mod maps;
pub(crate) mod marks;
mod moments;
pub(crate) mod network;
pub(crate) mod nth;
mod of_times;
pub mod one_form;
mod other_numbers;
mod other_texts;
mod other_times;
pub(crate) mod postgres;
mod present_time;
pub(crate) mod ranges;
pub(crate) mod read_text;
mod recast;
mod round;
pub(crate) mod rounding;
mod row_casts;
pub(crate) mod row_key;
pub(crate) mod scalar;
mod signed_results;
pub(crate) mod single_row;
mod sketches;
pub(crate) mod sliding;
mod spark;
mod spark_aggregates;
mod spark_arrays;
mod spark_bytes;
mod spark_csv;
mod spark_numbers;
mod spark_options;
mod spark_random;
mod spark_texts;
mod spark_times;
mod table;
pub(crate) mod text_search;
mod time_series;
pub(crate) mod time_text;
pub(crate) mod value_size_limit;
mod whole_sum;
pub(crate) mod xml;
pub(crate) mod zoned_times;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::ExprPlanner;
pub use postgres::{quote_ident, quoted_ident};

/// The alias of these functions. The crate `flow`, which doesn't know their types, uses it to tell them from
/// a user's function of the same name.
///
/// An aggregate with this alias promises that its result is a function of the multiset of its arguments,
/// namely the one that the operators of `flow` compute. SQL can't use the alias: the functions are in no
/// registry.
pub const EXACT: &str = "millstream.exact";

/// The `aliases` of these functions.
pub(crate) static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| [EXACT.to_string()]);

/// Registers the functions that a statement can name. A user's function of the same name stays.
/// `unit` is that of the times that they return.
pub(crate) fn register(state: &mut SessionState, unit: TimeUnit) {
    let mut registry = Registry { state, unit };
    table::register(&mut registry, table::FUNCTIONS);
}

/// The functions of a session. Functions of its user stay.
pub(crate) struct Registry<'a> {
    state: &'a mut SessionState,
    /// The unit of the times that functions of texts and numbers return.
    unit: TimeUnit,
}

impl Registry<'_> {
    /// Adds a function that DataFusion lacks.
    pub(crate) fn add(&mut self, function: ScalarUDF) {
        if !self.state.scalar_functions().contains_key(function.name()) {
            // A session state accepts every function.
            let _ = self.state.register_udf(Arc::new(function));
        }
    }

    /// Wraps DataFusion's function of this name, unless the user has replaced it.
    pub(crate) fn replace(
        &mut self,
        name: &str,
        is_theirs: fn(&ScalarUDF) -> bool,
        around: impl FnOnce(Arc<ScalarUDF>) -> ScalarUDF,
    ) {
        let found = self.state.scalar_functions().get(name).cloned();
        if let Some(function) = found.filter(|function| is_theirs(function)) {
            let _ = self.state.register_udf(Arc::new(around(function)));
        }
    }

    /// Returns the function of this name.
    pub(crate) fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    /// Returns the type of a TIMESTAMP that a function takes or returns.
    pub(crate) fn timestamp(&self) -> DataType {
        DataType::Timestamp(self.unit, None)
    }

    /// Returns one of two functions of the same name: the one that returns times in microseconds, or in nanoseconds.
    pub(crate) fn in_unit<T>(&self, microseconds: T, nanoseconds: T) -> T {
        moments::in_unit(self.unit, microseconds, nanoseconds)
    }

    /// Adds a rewrite that replaces functions once types are known.
    pub(crate) fn add_rewrite(&mut self, rewrite: Arc<dyn FunctionRewrite + Send + Sync>) {
        let _ = self.state.register_function_rewrite(rewrite);
    }

    /// Adds a planner of operators.
    pub(crate) fn add_planner(&mut self, planner: Arc<dyn ExprPlanner>) {
        let _ = self.state.register_expr_planner(planner);
    }
}
