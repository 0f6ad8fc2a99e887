//! Ranks, lengths and positions as BIGINT, as in PostgreSQL. DataFusion's are BIGINT UNSIGNED.
//!
//! Unsigned numbers can't be negated, and `rank() - 2` would wrap around.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::functions_nested::cardinality::Cardinality;
use datafusion::functions_nested::length::ArrayLength;
use datafusion::functions_nested::position::ArrayPosition;
use datafusion::functions_window::ntile::Ntile;
use datafusion::functions_window::rank::Rank;
use datafusion::functions_window::row_number::RowNumber;
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowFunctionSimplification, WindowUDFFieldArgs,
};
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, ScalarUDF, Signature, WindowUDF,
    WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use super::Registry;
use super::recast::{Recast, Target};

/// Replaces DataFusion's functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let signed_scalar = |inner| ScalarUDF::from(Recast { inner, target: Target::Signed });
    registry.replace("array_length", |function| function.inner().is::<ArrayLength>(), signed_scalar);
    registry.replace("array_position", |function| function.inner().is::<ArrayPosition>(), signed_scalar);
    registry.replace("cardinality", |function| function.inner().is::<Cardinality>(), signed_scalar);
    replace_window::<RowNumber>(registry.state, "row_number");
    replace_window::<Rank>(registry.state, "rank");
    replace_window::<Rank>(registry.state, "dense_rank");
    replace_window::<Ntile>(registry.state, "ntile");
}

/// Replaces a window function, unless the user has another of that name.
fn replace_window<T: Any>(state: &mut SessionState, name: &str) {
    let theirs = |function: &&Arc<WindowUDF>| (function.inner().as_ref() as &dyn Any).is::<T>();
    if let Some(inner) = state.window_functions().get(name).filter(theirs).cloned() {
        // A session state accepts every function.
        let _ = state.register_udwf(signed(inner));
    }
}

fn signed(inner: Arc<WindowUDF>) -> Arc<WindowUDF> {
    Arc::new(WindowUDF::from(SignedWindow { inner }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SignedWindow {
    inner: Arc<WindowUDF>,
}

impl WindowUDFImpl for SignedWindow {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, arguments: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.inner().expressions(arguments)
    }

    fn partition_evaluator(&self, arguments: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator { inner: self.inner.inner().partition_evaluator(arguments)? }))
    }

    fn simplify(&self) -> Option<WindowFunctionSimplification> {
        self.inner.inner().simplify()
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let field = self.inner.inner().field(arguments)?;
        Ok(match field.data_type() {
            DataType::UInt64 => Arc::new(field.as_ref().clone().with_data_type(DataType::Int64)),
            _ => field,
        })
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.inner.inner().sort_options()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.inner().reverse_expr() {
            ReversedUDWF::Reversed(other) => ReversedUDWF::Reversed(signed(other)),
            other => other,
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn limit_effect(&self, arguments: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(arguments)
    }
}

#[derive(Debug)]
struct Evaluator {
    inner: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for Evaluator {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, at: usize, rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(at, rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(cast(&self.inner.evaluate_all(values, rows)?, &DataType::Int64)?)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.inner.evaluate(values, range)?.cast_to(&DataType::Int64)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        Ok(cast(&self.inner.evaluate_all_with_rank(rows, ranks)?, &DataType::Int64)?)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn ranks_and_lengths_have_a_sign() {
        let tables = Tables::new().table("t", "(k INT, l INT[])", "VALUES (1, [4, 5]), (2, []), (3, NULL)");
        tables.check(
            "SELECT k, -rank() OVER (ORDER BY k), row_number() OVER (ORDER BY k DESC) - 4, -ntile(2) OVER (ORDER BY k), \
             dense_rank() OVER (ORDER BY k) * -1 FROM t",
            &["1|-1|-1|-1|-1", "2|-2|-2|-1|-2", "3|-3|-3|-2|-3"],
        );
        tables.check(
            "SELECT k, -array_length(l), cardinality(l) - 3, array_position(l, 5) - 3 FROM t",
            &["1|-2|-1|-1", "2|0|-3|NULL", "3|NULL|NULL|NULL"],
        );
        tables.check("SELECT arrow_typeof(rank() OVER (ORDER BY k)) FROM t WHERE k = 1", &["Int64"]);
        tables.check("SELECT k FROM t WHERE array_has([2, 7], array_length(l))", &["1"]);
        tables.check(
            "SELECT k FROM (SELECT k, row_number() OVER (ORDER BY k) AS n FROM t) WHERE n <= 2",
            &["1", "2"],
        );
    }
}
