//! JSON, stored as text: PostgreSQL's operators, and functions that read and build JSON.
//!
//! `json_get` and similar functions come from `datafusion-functions-json`. `x -> 'a'` returns JSON text as
//! written, as in PostgreSQL, rather than the union type of `json_get`. So it can be grouped, compared,
//! sorted and accessed again. Deliberately absent: JSON paths (`@?`), containment (`@>`), and changing JSON
//! in place.

pub(crate) mod constructors;

use std::sync::Arc;

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

use super::Registry;
use crate::literals::array;

/// Registers the functions and the operators.
pub(super) fn register(registry: &mut Registry<'_>) {
    for function in [
        udfs::json_get_udf(),
        udfs::json_get_bool_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_int_udf(),
        udfs::json_get_json_udf(),
        udfs::json_get_array_udf(),
        udfs::json_as_text_udf(),
        udfs::json_get_str_udf(),
        udfs::json_contains_udf(),
        udfs::json_length_udf(),
        udfs::json_object_keys_udf(),
        udfs::json_from_scalar_udf(),
        udfs::json_union_to_text_udf(),
    ] {
        registry.add(function.as_ref().clone());
    }
    constructors::register(registry);
    registry.add_planner(Arc::new(Operators));
}

/// Plans `->`, `->>`, `#>`, `#>>` and `?`.
#[derive(Debug)]
struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let (function, symbol) = match written.op {
            BinaryOperator::Arrow => (udfs::json_get_json_udf(), "->"),
            BinaryOperator::LongArrow => (udfs::json_as_text_udf(), "->>"),
            BinaryOperator::HashArrow => (udfs::json_get_json_udf(), "#>"),
            BinaryOperator::HashLongArrow => (udfs::json_as_text_udf(), "#>>"),
            BinaryOperator::Question => (udfs::json_contains_udf(), "?"),
            _ => return Ok(PlannerResult::Original(written)),
        };
        let name = format!("{} {symbol} {}", shown(&written.left), shown(&written.right));
        let path = match symbol {
            "#>" | "#>>" => path(&written.right),
            _ => None,
        };
        let mut args = vec![written.left];
        match path {
            Some(path) => args.extend(path),
            None => args.push(written.right),
        }
        Ok(PlannerResult::Planned(call(function, args).alias(name)))
    }
}

fn call(func: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func, args })
}

/// Parses the keys and indexes of `'{a,0,b}'`.
fn path(written: &Expr) -> Option<Vec<Expr>> {
    let Expr::Literal(value, _) = written else { return None };
    let elements = array::elements(value.try_as_str()??).ok()?;
    let step = |step: &str| step.parse::<i64>().map_or_else(|_| lit(step), lit);
    elements.iter().map(|element| element.map(step)).collect()
}

fn shown(expression: &Expr) -> String {
    match expression {
        Expr::Literal(value, _) => match value {
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => format!("'{text}'"),
            value => value.to_string(),
        },
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        other => other.schema_name().to_string(),
    }
}
