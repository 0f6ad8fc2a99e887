//! JSON and JSONB, stored as text: PostgreSQL's operators, and functions that read and build JSON.
//!
//! JSON is text as written, JSONB the canonical text that PostgreSQL writes, so that equal values have equal texts.
//! Fields are marked as one or the other: see [`super::marks`].
//!
//! `json_get` and similar functions come from `datafusion-functions-json`. They and its operators also take text that
//! isn't marked, and give NULL if it is no JSON.

mod access;
pub(crate) mod build;
mod change;
pub(crate) mod constructors;
mod encode;
mod extract;
mod objects;
pub(crate) mod operators;
mod path;
pub(crate) mod scan;
pub(in crate::functions) mod schema;
mod sets;
mod typed;
pub(in crate::functions) mod typed_schema;
pub(crate) mod value;
mod variant;
mod variant_get;

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

use self::operators::shown;
use super::Registry;
use super::marks::function::MarkedFunction;
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
    extract::register(registry);
    typed::register(registry);
    variant_get::register(registry);
    constructors::register(registry);
    build::register(registry);
    registry.add_planner(Arc::new(Operators));
}

/// Lists the functions whose calls need no types of arguments.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    for list in [access::list, change::list, objects::list, path::list, sets::list, variant::list] {
        list(add);
    }
}

/// Plans `->`, `->>`, `#>`, `#>>` and `?` of text that isn't marked as JSON.
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
