//! `round(decimal, places)` with a result type that is known when types are resolved.
//!
//! The scale of the result follows from a literal number of places. DataFusion casts the literal to INT
//! first. The cast is not a literal until it is folded, which then changes the type under the plan above.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::math::round::RoundFunc;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;

use super::Registry;

/// Makes planning cast literal places.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add_rewrite(Arc::new(LiteralPlaces));
}

#[derive(Debug)]
struct LiteralPlaces;

impl FunctionRewrite for LiteralPlaces {
    fn name(&self) -> &str {
        "literal_places"
    }

    fn rewrite(&self, mut expression: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        if let Expr::ScalarFunction(call) = &mut expression
            && call.func.inner().is::<RoundFunc>()
            && let Some(Expr::Literal(places, _)) = call.args.get_mut(1)
            && !matches!(places, ScalarValue::Int32(_))
            && places.data_type().is_integer()
            && let Ok(narrow) = places.cast_to(&DataType::Int32)
        {
            *places = narrow;
            return Ok(Transformed::yes(expression));
        }
        Ok(Transformed::no(expression))
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn rounded_decimals_can_be_compared() {
        let tables = Tables::new().table(
            "t",
            "(id INT, x NUMERIC(38, 10), y NUMERIC(10, 2))",
            "VALUES (1, 3.14, 2.5), (2, 1, 2), (3, NULL, 1)",
        );
        tables.check("SELECT id FROM t WHERE round(x, 1) > y", &["1"]);
        tables.check("SELECT id, round(x, 1), round(x, -1) FROM t", &["1|3.1|0", "2|1.0|0", "3|NULL|NULL"]);
        tables.check("SELECT id, round(x, 1) + y FROM t", &["1|5.60", "2|3.00", "3|NULL"]);
        tables.check("SELECT round(y) = round(y, 0), round(2.345, 2) FROM t WHERE id = 1", &["true|2.35"]);
    }
}
