//! Expressions that never decrease while a time increases: `now() - INTERVAL '1 hour'`, `date_trunc('day', ts)`,
//! `current_date`.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{Expr, Operator};

use super::clock::zone_of;
use super::{asked, misplaced};
use crate::error::{Error, Result};
use crate::event_time::constant;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// The lengths of the shortest and the longest month, in days.
const MONTH_DAYS: (i128, i128) = (28, 31);

/// The time zone of a time; `None` if its type has none.
pub(crate) type Zone = Option<Arc<str>>;

/// The time that expressions are over.
pub(crate) struct TimeArgument<'a> {
    /// Returns the time zone of a part of an expression that is the time itself; `None` for other parts.
    pub(crate) zone_of: &'a dyn Fn(&Expr) -> Option<Zone>,
    /// True if expressions may be bounded by `greatest` and `least`.
    pub(crate) has_bounds: bool,
}

/// A nondecreasing expression over a time.
#[derive(Clone, Debug)]
pub(crate) struct Monotonicity {
    /// True if its values are whole days.
    whole_days: bool,
    zone: Zone,
    /// The upper bound of its distance ahead of the time, in nanoseconds. The constants of `greatest` and `least` don't
    /// count.
    pub(crate) ahead_ns: i128,
    /// True if it is the time plus or minus constants, so that the distance is exactly `ahead_ns`.
    pub(crate) is_shift: bool,
}

/// The reason why an expression may decrease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It isn't known to be nondecreasing.
    Unknown,
    /// It adds or subtracts months, which goes backwards at the ends of months.
    Months,
    /// It depends on the days of this time zone, whose clocks are set back.
    SetBack(Arc<str>),
}

/// Fails if an expression over the present time may decrease.
pub(super) fn check(bound: &Expr) -> Result<()> {
    let clock = |part: &Expr| -> Option<Zone> { zone_of(part).map(|zone| Some(Arc::from(zone))) };
    let now = TimeArgument { zone_of: &clock, has_bounds: false };
    let written = asked(bound).unwrap_or("now");
    now.rising(bound).map(drop).map_err(|obstacle| match obstacle {
        Obstacle::Unknown => misplaced(written),
        Obstacle::Months => Error::unsupported(format!(
            "{written}() plus or minus months in a continuous query, which goes backwards at the ends of \
             months,"
        ))
        .hint(
            "Apply it to whole days, as in current_date - INTERVAL '1 month' or date_trunc('day', now()) - \
             INTERVAL '1 month', or count in days: INTERVAL '30 days'.",
        ),
        Obstacle::SetBack(zone) => Error::unsupported(format!(
            "a comparison with days of the time zone {zone}, whose clocks are set back, in a continuous query"
        ))
        .hint("Subtract hours from now(), or SET timezone = 'UTC' before."),
    })
}

impl TimeArgument<'_> {
    /// Returns true if an expression depends on the time.
    pub(crate) fn is_read_by(&self, expression: &Expr) -> bool {
        // A search that fails has found nothing.
        expression.exists(|part| Ok((self.zone_of)(part).is_some())).unwrap_or(false)
    }

    /// Returns the properties of a typed expression over the time. Fails if it may decrease.
    pub(crate) fn rising(&self, expression: &Expr) -> Result<Monotonicity, Obstacle> {
        if let Some(zone) = (self.zone_of)(expression) {
            return Ok(Monotonicity { whole_days: false, zone, ahead_ns: 0, is_shift: true });
        }
        match expression {
            Expr::Alias(alias) => self.rising(&alias.expr),
            Expr::Cast(Cast { expr, field, .. }) | Expr::TryCast(TryCast { expr, field, .. }) => {
                converted(self.rising(expr)?, field.data_type())
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match self.is_read_by(left) {
                true => moved(self.rising(left)?, right, 1),
                false => moved(self.rising(right)?, left, 1),
            },
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if !self.is_read_by(right) => {
                moved(self.rising(left)?, right, -1)
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => self.rising_call(func.name(), args),
            _ => Err(Obstacle::Unknown),
        }
    }

    fn rising_call(&self, name: &str, arguments: &[Expr]) -> Result<Monotonicity, Obstacle> {
        match (name, arguments) {
            ("date_trunc", [unit, time]) if !self.is_read_by(unit) => {
                let time = in_fixed_zone(self.rising(time)?)?;
                let whole_days = time.whole_days || is_of_days(unit);
                Ok(Monotonicity { whole_days, is_shift: false, ..time })
            }
            ("date_bin", [stride, time, origin @ ..])
                if !self.is_read_by(stride) && !origin.iter().any(|origin| self.is_read_by(origin)) =>
            {
                let time = in_fixed_zone(self.rising(time)?)?;
                Ok(Monotonicity { whole_days: false, is_shift: false, ..time })
            }
            ("greatest", all) if self.has_bounds => self.bounded(all, i128::max),
            ("least", all) if self.has_bounds => self.bounded(all, i128::min),
            _ => Err(Obstacle::Unknown),
        }
    }

    /// Returns the properties of the greatest or the least of several expressions. Constants among them bound it.
    fn bounded(&self, all: &[Expr], pick: fn(i128, i128) -> i128) -> Result<Monotonicity, Obstacle> {
        let mut found: Option<Monotonicity> = None;
        for expression in all.iter().filter(|expression| self.is_read_by(expression)) {
            let next = self.rising(expression)?;
            let ahead_ns = found.as_ref().map_or(next.ahead_ns, |found| pick(found.ahead_ns, next.ahead_ns));
            found = Some(Monotonicity { whole_days: false, is_shift: false, ahead_ns, ..next });
        }
        found.ok_or(Obstacle::Unknown)
    }
}

/// Casts an expression to another type.
fn converted(of: Monotonicity, to: &DataType) -> Result<Monotonicity, Obstacle> {
    let of = Monotonicity { is_shift: false, ..of };
    match to {
        DataType::Timestamp(_, zone) if *zone == of.zone => Ok(of),
        // The same moment.
        DataType::Timestamp(_, Some(zone)) if of.zone.is_some() => {
            Ok(Monotonicity { zone: Some(zone.clone()), ..of })
        }
        DataType::Timestamp(_, zone) => Ok(Monotonicity { zone: zone.clone(), ..in_fixed_zone(of)? }),
        DataType::Date32 | DataType::Date64 => {
            Ok(Monotonicity { whole_days: true, zone: None, ..in_fixed_zone(of)? })
        }
        _ => Err(Obstacle::Unknown),
    }
}

/// Adds a length of time, or subtracts it if `sign` is -1.
fn moved(of: Monotonicity, by: &Expr, sign: i128) -> Result<Monotonicity, Obstacle> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let value = constant(by.clone()).and_then(|value| value.cast_to(&interval).ok());
    let Some(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))) =
        value
    else {
        return Err(Obstacle::Unknown);
    };
    let of = if months == 0 && days == 0 { of } else { in_fixed_zone(of)? };
    if months != 0 && !of.whole_days {
        return Err(Obstacle::Months);
    }
    let months = sign * i128::from(months);
    let month_days = if months < 0 { MONTH_DAYS.0 } else { MONTH_DAYS.1 };
    let days = months * month_days + sign * i128::from(days);
    let ahead_ns = of.ahead_ns + days * NANOS_PER_DAY + sign * i128::from(nanoseconds);
    Ok(Monotonicity { whole_days: of.whole_days && nanoseconds == 0, ahead_ns, ..of })
}

/// Fails unless the zone has a fixed offset: when clocks go back, a time of day occurs twice.
fn in_fixed_zone(of: Monotonicity) -> Result<Monotonicity, Obstacle> {
    match &of.zone {
        Some(zone) if !is_fixed(zone) => Err(Obstacle::SetBack(Arc::clone(zone))),
        _ => Ok(of),
    }
}

fn is_fixed(zone: &str) -> bool {
    ["UTC", "Etc/UTC", "GMT", "Z"].contains(&zone) || zone.starts_with(['+', '-'])
}

fn is_of_days(unit: &Expr) -> bool {
    let unit = match unit {
        Expr::Literal(ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit)), _) => unit,
        _ => return false,
    };
    ["day", "week", "month", "quarter", "year"].contains(&unit.to_ascii_lowercase().as_str())
}
