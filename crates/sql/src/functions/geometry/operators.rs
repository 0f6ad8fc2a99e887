//! Plans the operators and subscripts of geometric types.

use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::GetFieldAccess;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::overloads::{self, Given, is_geometric_only};
use crate::functions::json::operators::{column_in, shown, typed};
use crate::functions::marks::catalog::call;
use crate::functions::marks::shape::Shape;

/// The planner. It must be asked before DataFusion's, and before those of JSON and arrays, which take `?|` and `&&`.
#[derive(Debug)]
pub(crate) struct GeometricOperators;

impl ExprPlanner for GeometricOperators {
    fn plan_binary_op(
        &self,
        mut written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let Some(symbol) = symbol(&written.op) else { return Ok(PlannerResult::Original(written)) };
        let columns = |column: &Column| column_in(schema, column);
        let sides = [&written.left, &written.right].map(|side| Given::of(side, &columns));
        let is_geometric = sides.iter().any(|side| side.is_geometric());
        // Ranges and searches have some of these operators, too.
        let marks = [&written.left, &written.right].map(|side| Shape::mark(side, &columns));
        if !is_geometric && marks.iter().any(Option::is_some) {
            return Ok(PlannerResult::Original(written));
        }
        // JSON has this operator, too.
        if symbol == "?|" && !is_geometric {
            written.op = BinaryOperator::QuestionPipe;
            return Ok(PlannerResult::Original(written));
        }
        let is_only = is_geometric_only(symbol);
        // The type of a column that a subquery computes may be found only later.
        let is_later = sides.contains(&Given::Other);
        if !is_only && (!is_geometric || (is_later && is_comparison(&written.op))) {
            return Ok(PlannerResult::Original(written));
        }
        let label = format!("{} {} {}", shown(&written.left), written.op, shown(&written.right));
        let args = vec![typed(written.left), typed(written.right)];
        let planned = match is_later && is_only {
            true => call(symbol, args),
            false => Some(overloads::plan(symbol, args, &columns)?),
        };
        match planned {
            Some(planned) => Ok(PlannerResult::Planned(planned.alias(label))),
            None => Err(overloads::missing(symbol, &sides).into()),
        }
    }

    /// Plans `p[0]`, a part of a value.
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let columns = |column: &Column| column_in(schema, column);
        let RawFieldAccessExpr { expr, field_access } = access;
        match field_access {
            GetFieldAccess::ListIndex { key } if Given::of(&expr, &columns).is_geometric() => {
                Ok(PlannerResult::Planned(overloads::plan("[]", vec![expr, *key], &columns)?))
            }
            field_access => Ok(PlannerResult::Original(RawFieldAccessExpr { expr, field_access })),
        }
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Returns an operator as it is written.
fn symbol(op: &BinaryOperator) -> Option<&'static str> {
    use BinaryOperator::*;
    Some(match op {
        Custom(symbol) => overloads::known(symbol)?,
        QuestionPipe => "?|",
        Plus => "+",
        Minus => "-",
        Multiply => "*",
        Divide => "/",
        Eq => "=",
        NotEq => "<>",
        Lt => "<",
        LtEq => "<=",
        Gt => ">",
        GtEq => ">=",
        PGBitwiseShiftLeft => "<<",
        PGBitwiseShiftRight => ">>",
        PGOverlap => "&&",
        AtArrow => "@>",
        ArrowAt => "<@",
        BitwiseXor | PGBitwiseXor => "#",
        // No shape has these, which the error says.
        Modulo => "%",
        BitwiseAnd => "&",
        BitwiseOr => "|",
        _ => return None,
    })
}
