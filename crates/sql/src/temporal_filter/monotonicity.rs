//! Expressions that never decrease over time: `now() - INTERVAL '1 hour'`, `date_trunc('day', now())`,
//! `current_date`.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{Expr, Operator};

use super::clock::zone_of;
use super::{asked, misplaced};
use crate::error::{Error, Result};
use crate::event_time::constant;

/// A nondecreasing expression over the present time.
#[derive(Clone, Debug)]
struct Monotonicity<'a> {
    /// True if its values are whole days.
    whole_days: bool,
    /// The clock's time zone.
    zone: &'a str,
}

/// Fails if an expression over the present time may decrease.
pub(super) fn check(bound: &Expr) -> Result<()> {
    rising(bound).map(drop)
}

fn rising(expression: &Expr) -> Result<Monotonicity<'_>> {
    if let Some(zone) = zone_of(expression) {
        return Ok(Monotonicity { whole_days: false, zone });
    }
    match expression {
        Expr::Alias(alias) => rising(&alias.expr),
        Expr::Cast(Cast { expr, field, .. }) | Expr::TryCast(TryCast { expr, field, .. }) => {
            converted(rising(expr)?, field.data_type(), expression)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match asked(left) {
            Some(_) => moved(rising(left)?, right, expression),
            None => moved(rising(right)?, left, expression),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if asked(right).is_none() => {
            moved(rising(left)?, right, expression)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), &args[..]) {
            ("date_trunc", [unit, time]) if asked(unit).is_none() => {
                let time = in_fixed_zone(rising(time)?)?;
                Ok(Monotonicity { whole_days: time.whole_days || is_of_days(unit), ..time })
            }
            ("date_bin", [stride, time, origin @ ..])
                if asked(stride).is_none() && origin.iter().all(|origin| asked(origin).is_none()) =>
            {
                Ok(Monotonicity { whole_days: false, ..in_fixed_zone(rising(time)?)? })
            }
            _ => Err(unknown(expression)),
        },
        _ => Err(unknown(expression)),
    }
}

/// Casts an expression to another type.
fn converted<'a>(of: Monotonicity<'a>, to: &DataType, expression: &Expr) -> Result<Monotonicity<'a>> {
    match to {
        DataType::Timestamp(_, Some(zone)) if zone.as_ref() == of.zone => Ok(of),
        DataType::Timestamp(..) => in_fixed_zone(of),
        DataType::Date32 | DataType::Date64 => Ok(Monotonicity { whole_days: true, ..in_fixed_zone(of)? }),
        _ => Err(unknown(expression)),
    }
}

/// Adds or subtracts a length of time.
fn moved<'a>(of: Monotonicity<'a>, by: &Expr, expression: &Expr) -> Result<Monotonicity<'a>> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let value = constant(by.clone()).and_then(|value| value.cast_to(&interval).ok());
    let Some(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))) =
        value
    else {
        return Err(unknown(expression));
    };
    let of = if months == 0 && days == 0 { of } else { in_fixed_zone(of)? };
    if months != 0 && !of.whole_days {
        let written = asked(expression).unwrap_or("now");
        return Err(Error::unsupported(format!(
            "{written}() plus or minus months in a continuous query, which goes backwards at the ends of \
             months,"
        ))
        .hint(
            "Apply it to whole days, as in current_date - INTERVAL '1 month' or date_trunc('day', now()) - \
             INTERVAL '1 month', or count in days: INTERVAL '30 days'.",
        ));
    }
    Ok(Monotonicity { whole_days: of.whole_days && nanoseconds == 0, ..of })
}

/// Fails unless the zone has a fixed offset: when clocks go back, a time of day occurs twice.
fn in_fixed_zone(of: Monotonicity<'_>) -> Result<Monotonicity<'_>> {
    let fixed = ["UTC", "Etc/UTC", "GMT", "Z"].contains(&of.zone) || of.zone.starts_with(['+', '-']);
    if fixed {
        return Ok(of);
    }
    Err(Error::unsupported(format!(
        "a comparison with days of the time zone {}, whose clocks are set back, in a continuous query",
        of.zone
    ))
    .hint("Subtract hours from now(), or SET timezone = 'UTC' before."))
}

fn is_of_days(unit: &Expr) -> bool {
    let unit = match unit {
        Expr::Literal(ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit)), _) => unit,
        _ => return false,
    };
    ["day", "week", "month", "quarter", "year"].contains(&unit.to_ascii_lowercase().as_str())
}

fn unknown(expression: &Expr) -> Error {
    misplaced(asked(expression).unwrap_or("now"))
}
