//! Plans casts, operators and aggregates of bit strings whose types are known only once a plan is complete.
//!
//! | written, for a column `b` of type BIT(8) | planned as |
//! | --- | --- |
//! | `b::INT`, `b::BIGINT` | `bits_integer(b)`, `bits_bigint(b)` |
//! | `b::SMALLINT` | an error, as in PostgreSQL |
//! | `b \|\| c`, for a column `c` of a subquery whose field has no mark | `bits_concat(b, c)` |
//! | `bit_and(b)` | the aggregate of bit strings |

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{AggregateUDF, BinaryExpr, Expr, Operator};

use crate::error::Error;
use crate::functions::bits::type_name;
use crate::functions::either::{self, Takes};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::{Columns, is_literal};
use crate::functions::marks::function::is_text;
use crate::functions::marks::shape::Shape;
use crate::sqlstate;

/// Returns the plan of an expression with bit strings; none if it has none, or needs no plan of its own.
pub(super) fn resolve(expression: &Expr, columns: &Columns<'_>) -> Result<Option<Expr>> {
    match expression {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            match mark(expr, columns) {
                Some(from) => resolve_cast(expr, from, field.data_type()),
                None => Ok(None),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let marks = [left, right].map(|side| mark(side, columns));
            let are_bits = marks.iter().any(Option::is_some)
                && [left, right].iter().zip(marks).all(|(side, mark)| mark.is_some() || is_literal(side));
            Ok(are_bits
                .then(|| call("bits_concat", vec![left.as_ref().clone(), right.as_ref().clone()]))
                .flatten())
        }
        _ => Ok(None),
    }
}

fn mark(expression: &Expr, columns: &Columns<'_>) -> Option<Mark> {
    Shape::mark(expression, columns).filter(|mark| mark.is_bits())
}

fn resolve_cast(value: &Expr, from: Mark, target: &DataType) -> Result<Option<Expr>> {
    let name = match target {
        target if is_text(target) || target.is_null() => return Ok(None),
        DataType::Int32 if from == Mark::Bit => "bits_integer",
        DataType::Int64 if from == Mark::Bit => "bits_bigint",
        target => return Err(no_cast(from, target)),
    };
    Ok(call(name, vec![value.clone()]))
}

fn no_cast(from: Mark, target: &DataType) -> DataFusionError {
    let hint = match from {
        Mark::Varbit => "Cast it to BIT(n) before.",
        _ => "BIT has casts to INT, BIGINT and TEXT.",
    };
    Error::invalid(format!("cannot cast type {} to {}", from.shown(), type_name(target)))
        .hint(hint)
        .code(sqlstate::CANNOT_COERCE)
        .into()
}

/// Gives an aggregate the form for its argument. Returns true if it changed.
pub(super) fn resolve_aggregate(
    function: &mut Arc<AggregateUDF>,
    args: &[Expr],
    columns: &Columns<'_>,
) -> bool {
    let Some(either) = either::of(function).filter(|either| either.takes == Takes::Texts) else {
        return false;
    };
    let is_of_bits = args.first().and_then(|first| mark(first, columns)).is_some();
    *function = Arc::clone(either.chosen(is_of_bits));
    true
}
