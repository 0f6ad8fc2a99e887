//! Plans the operators of network addresses.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::expression_type::type_of;
use crate::functions::json::operators::{column_in, shown, typed};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::is_literal;
use crate::functions::marks::shape::Shape;

/// The planner. It must be asked before DataFusion's, and before that of arrays, which takes `&&`.
#[derive(Debug)]
pub(crate) struct NetworkOperators;

impl ExprPlanner for NetworkOperators {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if !is_operator(&written.op) {
            return Ok(PlannerResult::Original(written));
        }
        let columns = |column: &Column| column_in(schema, column);
        let mark = |side: &Expr| Shape::mark(side, &columns).filter(|mark| mark.is_network());
        let marks = (mark(&written.left), mark(&written.right));
        if marks == (None, None) && !matches!(written.op, BinaryOperator::Custom(_)) {
            return Ok(PlannerResult::Original(written));
        }
        let types = (type_of(&written.left, schema), type_of(&written.right, schema));
        let Some(name) = function(&written, marks, &types) else {
            return Ok(PlannerResult::Original(written));
        };
        let label = format!("{} {} {}", shown(&written.left), written.op, shown(&written.right));
        let RawBinaryExpr { op, left, right } = written;
        let (left, right) = (typed(left), typed(right));
        let args = match name {
            "inet_not" | "macaddr_not" | "macaddr8_not" => vec![left.clone()],
            // A number may be the left operand.
            "inet_plus" if marks.0.is_none() && types.0.is_integer() => vec![right.clone(), left.clone()],
            _ => vec![left.clone(), right.clone()],
        };
        Ok(match call(name, args) {
            Some(planned) => PlannerResult::Planned(planned.alias(label)),
            None => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        })
    }
}

fn is_operator(op: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    match op {
        Custom(symbol) => symbol == "<<=" || symbol == ">>=",
        other => matches!(
            other,
            PGBitwiseShiftLeft
                | PGBitwiseShiftRight
                | PGOverlap
                | BitwiseXor
                | PGBitwiseXor
                | BitwiseAnd
                | BitwiseOr
                | Plus
                | Minus
        ),
    }
}

/// Returns the function of an operator; none if its operands are no addresses.
fn function(
    written: &RawBinaryExpr,
    marks: (Option<Mark>, Option<Mark>),
    types: &(DataType, DataType),
) -> Option<&'static str> {
    use BinaryOperator::*;
    if let Custom(symbol) = &written.op {
        return Some(if symbol == "<<=" { "inet_within_or_equal" } else { "inet_contains_or_equal" });
    }
    let is_number = |found: &DataType| found.is_integer();
    match marks.0.or(marks.1)? {
        Mark::Inet | Mark::Cidr => Some(match written.op {
            PGBitwiseShiftLeft => "inet_within",
            PGBitwiseShiftRight => "inet_contains",
            PGOverlap => "inet_overlaps",
            BitwiseXor | PGBitwiseXor if is_minus_one(&written.right) => "inet_not",
            BitwiseAnd => "inet_and",
            BitwiseOr => "inet_or",
            Plus if is_number(&types.0) || is_number(&types.1) => "inet_plus",
            Minus if is_number(&types.1) => "inet_minus",
            Minus if marks.1.is_some() || is_literal(&written.right) => "inet_distance",
            _ => return None,
        }),
        Mark::Macaddr => Some(match written.op {
            BitwiseXor | PGBitwiseXor if is_minus_one(&written.right) => "macaddr_not",
            BitwiseAnd => "macaddr_and",
            BitwiseOr => "macaddr_or",
            _ => return None,
        }),
        Mark::Macaddr8 => Some(match written.op {
            BitwiseXor | PGBitwiseXor if is_minus_one(&written.right) => "macaddr8_not",
            BitwiseAnd => "macaddr8_and",
            BitwiseOr => "macaddr8_or",
            _ => return None,
        }),
        _ => None,
    }
}

/// True for the operand that `~ x` is rewritten with: `x # (-1)`.
fn is_minus_one(operand: &Expr) -> bool {
    matches!(operand, Expr::Literal(ScalarValue::Int64(Some(-1)), _))
}
