//! A condition on the present time: a value of the row, compared with one that never decreases as time goes on.

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

use super::{PlanResult, asked, misplaced, rising};
use crate::error::{Error, Result};
use crate::event_time::constant;

/// `row > bound`, or another comparison of the two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    row: Expr,
    comparison: Operator,
    bound: Expr,
}

/// The same as a function of the row's value. It can't be evaluated: it is only in plans that are being optimised.
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

    /// Of NULL it says nothing, whatever the time: the optimizer asks for that.
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
    /// As a function of the row's value.
    pub(super) fn call(self) -> PlanResult<Expr> {
        let Condition { row, comparison, bound } = self;
        let written = asked(&bound).ok_or_else(|| Error::bug("a condition that asks for no time"))?;
        let signature = Signature::any(1, Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(Holds { comparison, bound, written, signature });
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![row])))
    }

    /// The comparison that such a call stands for.
    pub(super) fn written_out(part: &Expr) -> Option<Expr> {
        let (Expr::ScalarFunction(call), holds) = (part, holds(part)?) else { return None };
        let [row] = &call.args[..] else { return None };
        Some(binary_expr(row.clone(), holds.comparison, holds.bound.clone()))
    }

    /// The first such call in an expression, by the name of the function of the present time.
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

/// The conjuncts that a part of a predicate stands for, with a function in the place of each condition on the present
/// time; none where it is no comparison.
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

/// An equality is two comparisons, and so is BETWEEN.
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

/// `row` compared with what asks for the time.
fn condition(row: Expr, comparison: Operator, bound: Expr, schema: &DFSchema) -> Result<Condition> {
    let name = asked(&bound).ok_or_else(|| Error::bug("a condition that asks for no time"))?;
    let Condition { row, comparison, bound } = match bound.any_column_refs() {
        true => age(row, comparison, &bound).ok_or_else(|| misplaced(name))?,
        false => Condition { row, comparison, bound },
    };
    if !row.any_column_refs() || row.is_volatile() {
        return Err(misplaced(name));
    }
    rising::check(&bound)?;
    // The types were settled where the comparison was written; a difference of times may have been moved since.
    let wanted = bound.get_type(schema)?;
    let row = match row.get_type(schema)? == wanted {
        true => row,
        false => Expr::Cast(Cast::new(Box::new(row), wanted)),
    };
    Ok(Condition { row, comparison, bound })
}

/// A length of time, compared with the time since the row's, or up to it: `INTERVAL '1 hour' > now() - ts`.
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

/// A length that is the same wherever it begins: it has neither months nor days. Between two times lie so many
/// microseconds, which is no number of days to the query engine.
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
