//! A temporal filter's condition: a value of the row, compared with a value that never decreases over time.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::{
    Between, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, binary_expr, lit,
};

use super::{PlanResult, asked, misplaced, monotonicity};
use crate::error::{Error, Result};
use crate::event_time::constant;

/// `row > bound`, or another comparison of the two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    row: Expr,
    comparison: Operator,
    bound: Expr,
}

/// The condition as a function of the row's value, for a plan being optimised. It can't be evaluated.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Holds {
    comparison: Operator,
    bound: Expr,
    written: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Holds {
    fn name(&self) -> &str {
        "holds_by_now"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Boolean)
    }

    /// Returns NULL for NULL at any time: the optimizer evaluates that case.
    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let rows = arguments.number_rows;
        for argument in arguments.args {
            let argument = argument.into_array(rows)?;
            if argument.logical_null_count() < argument.len() {
                return Err(Error::bug("a condition on the present time was asked for in a plan").into());
            }
        }
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::new_null(rows))))
    }
}

impl Condition {
    /// Converts the condition to a function of the row's value.
    pub(super) fn call(self) -> PlanResult<Expr> {
        let Condition { row, comparison, bound } = self;
        let written = asked(&bound).ok_or_else(|| Error::bug("a condition that asks for no time"))?;
        let signature = Signature::any(1, Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(Holds { comparison, bound, written, signature });
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![row])))
    }

    /// Returns the comparison that such a call stands for.
    pub(super) fn written_out(part: &Expr) -> Option<Expr> {
        let (Expr::ScalarFunction(call), holds) = (part, holds(part)?) else { return None };
        let [row] = &call.args[..] else { return None };
        Some(binary_expr(row.clone(), holds.comparison, holds.bound.clone()))
    }

    /// Finds the first such call in an expression, and returns the name of its function of the present time.
    pub(super) fn found(expression: &Expr) -> Option<&'static str> {
        let mut found = None;
        let looked = expression.apply(|part| {
            found = holds(part).map(|holds| holds.written);
            Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        looked.ok().and(found)
    }
}

fn holds(part: &Expr) -> Option<&Holds> {
    match part {
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref(),
        _ => None,
    }
}

/// A comparison as it is written.
type Comparison = (Expr, Operator, Expr);

/// Splits a part of a predicate into conjuncts, and replaces each condition on the present time by a
/// function. Returns none if the part is not a comparison.
pub(super) fn read(part: &Expr, schema: &DFSchema) -> PlanResult<Option<Vec<Expr>>> {
    if asked(part).is_none() {
        return Ok(None);
    }
    let Some(comparisons) = comparisons(part) else { return Ok(None) };
    let mut conjuncts = Vec::with_capacity(comparisons.len());
    for (left, comparison, right) in comparisons {
        conjuncts.push(match (asked(&left), asked(&right)) {
            (None, None) => binary_expr(left, comparison, right),
            (None, Some(_)) => condition(left, comparison, right, schema)?.call()?,
            (Some(_), None) => match comparison.swap() {
                Some(swapped) => condition(right, swapped, left, schema)?.call()?,
                None => return Ok(None),
            },
            (Some(name), Some(_)) => return Err(misplaced(name).into()),
        });
    }
    Ok(Some(conjuncts))
}

/// Splits an equality or a BETWEEN into two comparisons.
fn comparisons(part: &Expr) -> Option<Vec<Comparison>> {
    let two = |value: &Expr, low: &Expr, high: &Expr| {
        Some(vec![
            (value.clone(), Operator::GtEq, low.clone()),
            (value.clone(), Operator::LtEq, high.clone()),
        ])
    };
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => two(left, right, right),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_order(*op) => {
            Some(vec![(left.as_ref().clone(), *op, right.as_ref().clone())])
        }
        Expr::Between(Between { expr, negated: false, low, high }) => two(expr, low, high),
        Expr::Not(inner) => match inner.as_ref() {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_order(*op) => {
                Some(vec![(left.as_ref().clone(), op.negate()?, right.as_ref().clone())])
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_order(operator: Operator) -> bool {
    matches!(operator, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

/// Builds the condition that compares `row` with an expression over the present time.
fn condition(row: Expr, comparison: Operator, bound: Expr, schema: &DFSchema) -> Result<Condition> {
    let name = asked(&bound).ok_or_else(|| Error::bug("a condition that asks for no time"))?;
    let Condition { row, comparison, bound } = match bound.any_column_refs() {
        true => age(row, comparison, &bound).ok_or_else(|| misplaced(name))?,
        false => Condition { row, comparison, bound },
    };
    if !row.any_column_refs() || row.is_volatile() {
        return Err(misplaced(name));
    }
    monotonicity::check(&bound)?;
    // Types were resolved when the comparison was written. Rearranging a difference of times may change them.
    let wanted = bound.get_type(schema)?;
    let row = match row.get_type(schema)? == wanted {
        true => row,
        false => Expr::Cast(Cast::new(Box::new(row), wanted)),
    };
    Ok(Condition { row, comparison, bound })
}

/// Rearranges a comparison of a length with the time since or until a row's: `INTERVAL '1 hour' > now() -
/// ts`.
fn age(length: Expr, comparison: Operator, bound: &Expr) -> Option<Condition> {
    let mut difference = bound;
    while let Expr::Cast(cast) = difference {
        difference = &cast.expr;
    }
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = difference else { return None };
    let length = lit(ScalarValue::IntervalMonthDayNano(Some(exact(length)?)));
    match (asked(left), asked(right)) {
        // length > now - row is row > now - length.
        (Some(_), None) if !left.any_column_refs() => Some(Condition {
            row: right.as_ref().clone(),
            comparison,
            bound: binary_expr(left.as_ref().clone(), Operator::Minus, length),
        }),
        // length > row - now is row < now + length.
        (None, Some(_)) if !right.any_column_refs() => Some(Condition {
            row: left.as_ref().clone(),
            comparison: comparison.swap()?,
            bound: binary_expr(right.as_ref().clone(), Operator::Plus, length),
        }),
        _ => None,
    }
}

/// Returns a length without months or days, which is the same from any start. DataFusion's difference of two
/// times counts microseconds, never days.
fn exact(length: Expr) -> Option<IntervalMonthDayNano> {
    let interval = match constant(length)? {
        value @ (ScalarValue::DurationSecond(_)
        | ScalarValue::DurationMillisecond(_)
        | ScalarValue::DurationMicrosecond(_)
        | ScalarValue::DurationNanosecond(_)) => {
            match value.cast_to(&DataType::Duration(arrow::datatypes::TimeUnit::Nanosecond)).ok()? {
                ScalarValue::DurationNanosecond(nanos) => IntervalMonthDayNano::new(0, 0, nanos?),
                _ => return None,
            }
        }
        ScalarValue::IntervalMonthDayNano(interval) => interval?,
        _ => return None,
    };
    (interval.months == 0 && interval.days == 0).then_some(interval)
}
