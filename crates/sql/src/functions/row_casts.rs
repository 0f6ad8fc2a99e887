//! Casts of rows to structs: `ROW('Bern', 3011)::STRUCT<city TEXT, zip INT>`, and rows in struct columns.
//!
//! The fields of ROW have no names of their own. As in PostgreSQL, its values stand in the order of the struct's fields; DataFusion
//! casts by names.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::functions::core::named_struct;
use datafusion::functions::core::r#struct::StructFunc;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, lit};

use super::Registry;

/// Makes planning name the fields of rows.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add_rewrite(Arc::new(RowCasts));
}

#[derive(Debug)]
struct RowCasts;

impl FunctionRewrite for RowCasts {
    fn name(&self) -> &str {
        "row_casts"
    }

    fn rewrite(&self, expression: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match &expression {
            Expr::Cast(written) => match named(&written.expr, &written.field) {
                Some(named) => Transformed::yes(named),
                None => Transformed::no(expression),
            },
            _ => Transformed::no(expression),
        })
    }
}

/// Returns a row, or an array of rows, as a value of a type; none if it is another value, or if it has another number of fields.
fn named(value: &Expr, field: &FieldRef) -> Option<Expr> {
    let value = match value {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::ScalarFunction(call) = value else { return None };
    match field.data_type() {
        DataType::Struct(fields) if call.func.inner().is::<StructFunc>() => row(call, fields),
        DataType::List(item) if call.func.name() == "make_array" => {
            let each = |element: &Expr| match element {
                Expr::Literal(value, _) if value.is_null() => Some(cast(element, item)),
                element => named(element, item),
            };
            let args =
                call.args.iter().map(each).collect::<Option<Vec<_>>>().filter(|args| !args.is_empty())?;
            Some(Expr::ScalarFunction(ScalarFunction { func: call.func.clone(), args }))
        }
        _ => None,
    }
}

fn row(call: &ScalarFunction, fields: &Fields) -> Option<Expr> {
    if call.args.len() != fields.len() {
        return None;
    }
    let parts = call.args.iter().zip(fields).flat_map(|(value, field)| {
        [lit(field.name().as_str()), named(value, field).unwrap_or_else(|| cast(value, field))]
    });
    Some(named_struct().call(parts.collect()))
}

fn cast(value: &Expr, field: &FieldRef) -> Expr {
    Expr::Cast(Cast { expr: Box::new(value.clone()), field: field.clone() })
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn rows_are_structs_by_position() {
        let tables = Tables::new().table("t", "(a TEXT, b INT)", "VALUES ('x', 1), (NULL, 2)");
        tables.check(
            "SELECT ROW(a, b)::STRUCT<city TEXT, zip INT> AS r FROM t",
            &["{city: NULL, zip: 2}", "{city: x, zip: 1}"],
        );
        let nested = "STRUCT<n SMALLINT, place STRUCT<city TEXT, zip INT>, tags TEXT[]>";
        tables.check(
            &format!("SELECT (ROW(b, ROW(a, '7'), ARRAY[a])::{nested}).place.zip + 1 AS r FROM t"),
            &["8", "8"],
        );
        tables.check(
            "SELECT [(a, b), NULL]::STRUCT<x TEXT, y BIGINT>[] AS r FROM t WHERE b = 1",
            &["[{x: x, y: 1}, NULL]"],
        );
    }
}
