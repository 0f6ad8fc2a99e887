//! Arithmetic of intervals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF, cast as cast_expr, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::Error;
use crate::expression_type::type_of;
use crate::functions::Registry;
use crate::functions::scalar::{Scalar, or_null};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

const DAY: i64 = 86_400_000_000_000;

/// Registers the functions, and multiplication by numbers.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let one = vec![INTERVAL];
    registry.add(Scalar::exact("justify_hours", one.clone(), |_| Ok(INTERVAL), |c| each(&c[0], hours)));
    registry.add(Scalar::exact("justify_days", one.clone(), |_| Ok(INTERVAL), |c| each(&c[0], days)));
    registry.add(Scalar::exact("justify_interval", one, |_| Ok(INTERVAL), |c| each(&c[0], all)));
    registry.add(multiply());
    registry.add(Scalar::any("make_interval", make_type, make));
    registry.add(Scalar::any("try_make_interval", make_type, |columns| or_null(columns, &INTERVAL, make)));
    registry.add_planner(Arc::new(Products { unit: registry.unit }));
}

fn each(
    column: &ArrayRef,
    change: impl Fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>,
) -> Result<ArrayRef> {
    let column = column.as_primitive::<IntervalMonthDayNanoType>();
    let changed =
        column.iter().map(|value| value.map(|value| change(value).ok_or_else(too_large)).transpose());
    Ok(Arc::new(changed.collect::<std::result::Result<IntervalMonthDayNanoArray, Error>>()?))
}

fn too_large() -> Error {
    Error::invalid("the interval is too large")
}

/// Converts 24 hours to a day.
fn hours(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let days = value.days.checked_add(i32::try_from(value.nanoseconds / DAY).ok()?)?;
    Some(IntervalMonthDayNano::new(value.months, days, value.nanoseconds % DAY))
}

/// Converts 30 days to a month.
fn days(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano::new(
        value.months.checked_add(value.days / 30)?,
        value.days % 30,
        value.nanoseconds,
    ))
}

fn all(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    hours(value).and_then(days).and_then(signs)
}

/// Gives all parts the same sign.
fn signs(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let IntervalMonthDayNano { mut months, mut days, mut nanoseconds } = value;
    if months > 0 && (days < 0 || (days == 0 && nanoseconds < 0)) {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && (days > 0 || (days == 0 && nanoseconds > 0)) {
        (months, days) = (months + 1, days - 30);
    }
    if days > 0 && nanoseconds < 0 {
        (days, nanoseconds) = (days - 1, nanoseconds + DAY);
    } else if days < 0 && nanoseconds > 0 {
        (days, nanoseconds) = (days + 1, nanoseconds - DAY);
    }
    Some(IntervalMonthDayNano::new(months, days, nanoseconds))
}

pub(super) fn multiply() -> ScalarUDF {
    let arguments = vec![INTERVAL, DataType::Float64];
    Scalar::exact(
        "multiply_interval",
        arguments,
        |_| Ok(INTERVAL),
        |columns| {
            // A constant is evaluated before types are resolved.
            let factors = cast(&columns[1], &DataType::Float64)?;
            let factors = factors.as_primitive::<Float64Type>();
            let products = columns[0].as_primitive::<IntervalMonthDayNanoType>().iter().zip(factors);
            let products = products.map(|(interval, factor)| match (interval, factor) {
                (Some(interval), Some(factor)) => product(interval, factor).map(Some).ok_or_else(too_large),
                _ => Ok(None),
            });
            Ok(Arc::new(products.collect::<std::result::Result<IntervalMonthDayNanoArray, Error>>()?))
        },
    )
}

/// Multiplies as PostgreSQL does: fractions of a month become days, fractions of a day become time.
pub(super) fn product(interval: IntervalMonthDayNano, factor: f64) -> Option<IntervalMonthDayNano> {
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor + (months.fract() * 30.0 * 1e9).round() / 1e9;
    let nanoseconds = interval.nanoseconds as f64 * factor + (days.fract() * DAY as f64).round();
    let fits = |value: f64, max: f64| value.is_finite() && value.abs() <= max;
    let all =
        fits(months, f64::from(i32::MAX)) && fits(days, f64::from(i32::MAX)) && fits(nanoseconds, 9.2e18);
    all.then(|| IntervalMonthDayNano::new(months as i32, days as i32, nanoseconds.round() as i64))
}

/// Plans `interval * number`, `number * interval` and `interval / number`.
#[derive(Debug)]
struct Products {
    /// The unit of a TIMESTAMP that a date becomes.
    unit: TimeUnit,
}

impl ExprPlanner for Products {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Divide, Minus, Multiply, Plus};
        if !matches!(written.op, Multiply | Divide | Plus | Minus) {
            return Ok(PlannerResult::Original(written));
        }
        let (left, right) = (type_of(&written.left, schema), type_of(&written.right, schema));
        let is = |a: &DataType, b: &DataType| *a == INTERVAL && b.is_numeric();
        let call = |interval: Expr, number: Expr| multiply().call(vec![interval, number]);
        let moved = |date: &DataType, by: &DataType, interval: &Expr| {
            *date == DataType::Date32 && matches!(by, DataType::Interval(_)) && !is_whole_days(interval)
        };
        let time = |date: Expr| cast_expr(date, DataType::Timestamp(self.unit, None));
        Ok(PlannerResult::Planned(match written.op {
            // A date moved by hours is a time. Moved by whole days it stays a date, which has a wider range.
            Plus if moved(&left, &right, &written.right) => time(written.left) + written.right,
            Plus if moved(&right, &left, &written.left) => time(written.right) + written.left,
            Minus if moved(&left, &right, &written.right) => time(written.left) - written.right,
            BinaryOperator::Multiply if is(&left, &right) => call(written.left, written.right),
            BinaryOperator::Multiply if is(&right, &left) => call(written.right, written.left),
            BinaryOperator::Divide if is(&left, &right) => {
                let number = written.right.cast_to(&DataType::Float64, schema)?;
                call(written.left, lit(1.0) / number)
            }
            _ => return Ok(PlannerResult::Original(written)),
        }))
    }
}

/// Returns true for a literal of whole days or months.
fn is_whole_days(interval: &Expr) -> bool {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => value.nanoseconds == 0,
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => true,
        Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) => value.milliseconds == 0,
        Expr::Negative(inner) => is_whole_days(inner),
        _ => false,
    }
}

fn make_type(arguments: &[DataType]) -> Result<DataType> {
    if arguments.len() > 7 || !arguments.iter().all(|argument| argument.is_numeric() || argument.is_null()) {
        return Err(Error::invalid(
            "make_interval takes numbers: years, months, weeks, days, hours, minutes, seconds",
        )
        .into());
    }
    Ok(INTERVAL)
}

/// Builds an interval from years, months, weeks, days, hours, minutes, seconds. Omitted ones are zero.
fn make(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns: Vec<ArrayRef> = columns
        .iter()
        .map(|column| cast(column, &DataType::Float64))
        .collect::<std::result::Result<_, _>>()?;
    let rows = columns.first().map_or(1, |column| column.len());
    let row = |row: usize| -> std::result::Result<Option<IntervalMonthDayNano>, Error> {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        let part =
            |at: usize| columns.get(at).map_or(0.0, |column| column.as_primitive::<Float64Type>().value(row));
        let whole = |value: f64| {
            (value.fract() == 0.0 && value.abs() <= f64::from(i32::MAX))
                .then_some(value as i32)
                .ok_or_else(too_large)
        };
        let months = whole(part(0) * 12.0 + part(1))?;
        let days = whole(part(2) * 7.0 + part(3))?;
        let nanoseconds = ((part(4) * 3600.0 + part(5) * 60.0) * 1e9) + (part(6) * 1e9).round();
        if nanoseconds.abs() > 9.2e18 {
            return Err(too_large());
        }
        Ok(Some(IntervalMonthDayNano::new(months, days, nanoseconds as i64)))
    };
    Ok(Arc::new((0..rows).map(row).collect::<std::result::Result<IntervalMonthDayNanoArray, Error>>()?))
}
