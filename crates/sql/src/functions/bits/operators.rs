//! Plans the operators of bit strings.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::type_name;
use crate::error::Error;
use crate::expression_type::type_of;
use crate::functions::json::operators::{column_in, shown, typed};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::is_literal;
use crate::functions::marks::function::is_text;
use crate::functions::marks::shape::Shape;
use crate::sqlstate;

/// The planner. It must be asked before DataFusion's.
#[derive(Debug)]
pub(crate) struct BitOperators;

impl ExprPlanner for BitOperators {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if !is_operator(&written.op) {
            return Ok(PlannerResult::Original(written));
        }
        let (left, right) = (Side::of(&written.left, schema), Side::of(&written.right, schema));
        let are_bits = left.is_bits() || right.is_bits();
        if !are_bits && !may_be_of_columns(&written.op, &left, &right) {
            return Ok(PlannerResult::Original(written));
        }
        let Some(name) = function(&written, &left, &right)? else {
            return Ok(PlannerResult::Original(written));
        };
        let label = format!("{} {} {}", shown(&written.left), written.op, shown(&written.right));
        let RawBinaryExpr { op, left, right } = written;
        let args = match name {
            "bits_not" => vec![left.clone()],
            "bits_shift_left" | "bits_shift_right" if is_literal(&right) => {
                vec![left.clone(), cast(right.clone(), DataType::Int64)]
            }
            _ => vec![typed(left.clone()), typed(right.clone())],
        };
        Ok(match call(name, args) {
            Some(planned) => PlannerResult::Planned(planned.alias(label)),
            None => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        })
    }
}

/// True for an operator that texts lack, of columns of which a subquery may have computed bit strings.
fn may_be_of_columns(op: &BinaryOperator, left: &Side, right: &Side) -> bool {
    use BinaryOperator::*;
    match op {
        BitwiseAnd | BitwiseOr => left.may_be_column() || right.may_be_column(),
        BitwiseXor | PGBitwiseXor | PGBitwiseShiftLeft | PGBitwiseShiftRight => left.may_be_column(),
        _ => false,
    }
}

/// An operand.
struct Side {
    mark: Option<Mark>,
    data_type: DataType,
    is_literal: bool,
}

impl Side {
    fn of(operand: &Expr, schema: &DFSchema) -> Side {
        Side {
            mark: Shape::mark(operand, &|column: &Column| column_in(schema, column)),
            data_type: type_of(operand, schema),
            is_literal: is_literal(operand),
        }
    }

    fn is_bits(&self) -> bool {
        self.mark.is_some_and(Mark::is_bits)
    }

    /// True for a bit string, and for a text that can be one: the type of a column that a subquery computes may be found only
    /// later.
    fn may_be_bits(&self) -> bool {
        match self.mark {
            Some(mark) => mark.is_bits(),
            None => self.is_literal || is_text(&self.data_type),
        }
    }

    fn may_be_column(&self) -> bool {
        self.mark.is_none() && !self.is_literal && is_text(&self.data_type)
    }

    fn name(&self) -> String {
        self.mark.map_or_else(|| type_name(&self.data_type), |mark| mark.shown().to_string())
    }
}

fn is_operator(op: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    is_comparison(op)
        || matches!(
            op,
            StringConcat
                | BitwiseAnd
                | BitwiseOr
                | BitwiseXor
                | PGBitwiseXor
                | PGBitwiseShiftLeft
                | PGBitwiseShiftRight
                | Plus
                | Minus
                | Multiply
                | Divide
                | Modulo
        )
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Returns the function of an operator, if it has one of its own. Fails if bit strings lack it.
fn function(written: &RawBinaryExpr, left: &Side, right: &Side) -> Result<Option<&'static str>> {
    use BinaryOperator::*;
    let both = left.may_be_bits() && right.may_be_bits();
    let is_count = right.data_type.is_integer() || right.data_type.is_null() || right.is_literal;
    let name = match &written.op {
        StringConcat => {
            // A text of its own type makes the result a text.
            let is_known = |side: &Side| side.is_bits() || side.is_literal;
            if is_known(left) && is_known(right) {
                return Ok(Some("bits_concat"));
            }
            let can_join = |side: &Side| is_text(&side.data_type) || side.data_type.is_nested();
            if can_join(left) && can_join(right) {
                return Ok(None);
            }
            None
        }
        BitwiseAnd if both => Some("bits_and"),
        BitwiseOr if both => Some("bits_or"),
        BitwiseXor | PGBitwiseXor if is_minus_one(&written.right) => Some("bits_not"),
        BitwiseXor | PGBitwiseXor if both => Some("bits_xor"),
        PGBitwiseShiftLeft if left.may_be_bits() && is_count => Some("bits_shift_left"),
        PGBitwiseShiftRight if left.may_be_bits() && is_count => Some("bits_shift_right"),
        op if is_comparison(op) && both => return Ok(None),
        _ => None,
    };
    match name {
        Some(name) => Ok(Some(name)),
        None => Err(missing(&written.op, left, right).into()),
    }
}

fn missing(op: &BinaryOperator, left: &Side, right: &Side) -> Error {
    Error::invalid(format!("operator does not exist: {} {op} {}", left.name(), right.name()))
        .hint("Cast an operand, as in x::BIT(8), x::INT or x::TEXT.")
        .code(sqlstate::UNDEFINED_FUNCTION)
}

/// True for the operand that `~ x` is rewritten with: `x # (-1)`.
fn is_minus_one(operand: &Expr) -> bool {
    matches!(operand, Expr::Literal(ScalarValue::Int64(Some(-1)), _))
}
