//! Evaluates a statement in the time zone of its session, as in PostgreSQL.
//!
//! Values of TIMESTAMPTZ are moments: they are stored in UTC, and a zone only decides how they are read, written and taken
//! apart. The rule writes the zone into the plan, so a maintained query keeps the zone of the session that created it:
//!
//! | expression | in a session with the zone `Z` |
//! | --- | --- |
//! | `'2024-07-01 12:00'::TIMESTAMPTZ` | the text gets the offset of `Z`, unless it has one |
//! | `timestamp::TIMESTAMPTZ`, `date::TIMESTAMPTZ` | `timezone(Z, x)` |
//! | `timestamptz::TIMESTAMP`, `::DATE`, `::TIME` | a cast of `timezone(Z, x)` |
//! | `timestamptz::TEXT`, and functions of it that return no TIMESTAMPTZ | the argument has the Arrow type of the zone |
//! | `date_trunc('day', timestamptz)` | `date_trunc_in_zone('day', x, Z)` |
//! | `timestamptz + interval` | `add_in_zone(x, interval, Z)`: days and months are those of the zone's calendar |
//! | `to_timestamp(text, pattern)` | `to_timestamp_in_zone(text, pattern, Z)` |
//!
//! The rule leaves a statement in UTC as it is. It may run again on a plan that it has rewritten.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, IntervalUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::functions::zoned_times;
use crate::rules::names::map_parts;
use crate::temporal_filter::clock::is_clock;
use crate::tree_rewrite::TreeRewrite;
use crate::zones::in_zone;

/// Functions of moments whose result doesn't depend on a zone.
const OF_MOMENTS: [&str; 3] = ["arrow_typeof", "periods_overlap", "timezone"];

/// The analyzer rule.
#[derive(Debug)]
pub struct SessionZone {
    zone: Arc<str>,
}

impl AnalyzerRule for SessionZone {
    fn name(&self) -> &str {
        "session_zone"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let in_zone = |node| map_parts(node, |part, schema| self.change(part, schema));
        Ok(plan.rewrite_up(in_zone)?.data)
    }
}

impl SessionZone {
    pub(crate) fn new(zone: Arc<str>) -> SessionZone {
        SessionZone { zone }
    }

    fn change(&self, part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match part {
            Expr::Cast(Cast { expr, field }) => self
                .cast(*expr, field, schema, |expr, field| Expr::Cast(Cast { expr: Box::new(expr), field })),
            Expr::TryCast(cast) => self.cast(*cast.expr, cast.field, schema, |expr, field| {
                Expr::TryCast(datafusion::logical_expr::expr::TryCast { expr: Box::new(expr), field })
            }),
            Expr::BinaryExpr(sum) => self.sum(sum, schema),
            Expr::ScalarFunction(call) => self.call(call, schema),
            Expr::AggregateFunction(mut call) => {
                let is_of_zones = call.params.args.iter().any(|of| is_held_by(of, schema));
                if !is_of_zones || zone_at(&call.func.return_type(&types(&call.params.args, schema)?)?) {
                    return Ok(Transformed::no(Expr::AggregateFunction(call)));
                }
                let changed = self.localize(&mut call.params.args, schema)?;
                Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changed))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn cast(
        &self,
        of: Expr,
        field: FieldRef,
        schema: &DFSchema,
        cast: impl Fn(Expr, FieldRef) -> Expr,
    ) -> Result<Transformed<Expr>> {
        let (from, to) = (of.get_type(schema)?, field.data_type().clone());
        if has_clock(&of) {
            return match to {
                DataType::Timestamp(_, Some(_)) => Ok(Transformed::no(cast(of, field))),
                _ => Err(self.of_days().into()),
            };
        }
        Ok(match (&from, &to) {
            (from, DataType::Timestamp(_, Some(_))) if from.is_string() => {
                let read = zoned_times::with_offset(of, &self.zone);
                read.update_data(|read| cast(read, field))
            }
            (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
                Transformed::yes(cast_to(zoned_times::timezone(&self.zone, of), &to, schema)?)
            }
            (DataType::Date32, DataType::Timestamp(unit, Some(_))) => {
                let midnight = Expr::Cast(Cast::new(Box::new(of), DataType::Timestamp(*unit, None)));
                Transformed::yes(cast_to(zoned_times::timezone(&self.zone, midnight), &to, schema)?)
            }
            (
                DataType::Timestamp(_, Some(_)),
                DataType::Timestamp(_, None)
                | DataType::Date32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_),
            ) => {
                let local = zoned_times::timezone(&self.zone, of);
                Transformed::yes(match local.get_type(schema)? == to {
                    true => local,
                    false => cast(local, field),
                })
            }
            (from, to) if to.is_string() && zone_at(from) => {
                self.localized(of, from)?.update_data(|of| cast(of, field))
            }
            // A list in text: its items are read as times of the zone.
            (from, to) if from.is_string() && zone_at(to) => {
                let local = Arc::new(field.as_ref().clone().with_data_type(in_zone(to, &self.zone)));
                Transformed::yes(cast_to(cast(of, local), to, schema)?)
            }
            _ => Transformed::no(cast(of, field)),
        })
    }

    /// Adds to a time by the calendar of the zone.
    fn sum(&self, sum: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let BinaryExpr { left, op, right } = sum;
        let same = |left, right| Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }));
        if !matches!(op, Operator::Plus | Operator::Minus) {
            return Ok(same(left, right));
        }
        let is_interval = |of: &DataType| matches!(of, DataType::Interval(IntervalUnit::MonthDayNano));
        let (Ok(one), Ok(other)) = (left.get_type(schema), right.get_type(schema)) else {
            return Ok(same(left, right));
        };
        let (time, interval) = match (&one, &other) {
            (DataType::Timestamp(_, Some(_)), by) if is_interval(by) => (&left, &right),
            (by, DataType::Timestamp(_, Some(_))) if is_interval(by) && op == Operator::Plus => {
                (&right, &left)
            }
            _ => return Ok(same(left, right)),
        };
        if is_of_time_alone(interval) {
            return Ok(same(left, right));
        }
        if has_clock(time) {
            return Err(self.of_days().into());
        }
        let (time, interval) = (time.as_ref().clone(), interval.as_ref().clone());
        Ok(Transformed::yes(zoned_times::add(time, interval, op == Operator::Minus, &self.zone)))
    }

    fn call(&self, mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if matches!(call.name(), "age" | "date_trunc") && call.args.iter().any(has_clock) {
            return Err(self.of_days().into());
        }
        if call.args.iter().any(has_clock) || OF_MOMENTS.contains(&call.name()) {
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        }
        let function = call.func.clone();
        match (function.name(), &mut call.args[..]) {
            ("date_trunc", [unit, time]) if zone_at(&time.get_type(schema)?) => {
                let (unit, time) = (std::mem::take(unit), std::mem::take(time));
                return Ok(Transformed::yes(zoned_times::truncated(unit, time, &self.zone)));
            }
            ("to_timestamp", [text, pattern])
                if text.get_type(schema)?.is_string() && !is_of_strftime(pattern) =>
            {
                let DataType::Timestamp(unit, _) =
                    function.return_type(&[DataType::Utf8View, DataType::Utf8View])?
                else {
                    return Err(Error::bug("to_timestamp returns no timestamp").into());
                };
                let (text, pattern) = (std::mem::take(text), std::mem::take(pattern));
                return Ok(Transformed::yes(zoned_times::read(text, pattern, &self.zone, unit)));
            }
            _ => {}
        }
        if !call.args.iter().any(|of| is_held_by(of, schema)) {
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        }
        let mut local = call.clone();
        let changed = self.localize(&mut local.args, schema)?;
        let local = Expr::ScalarFunction(local);
        // A function that returns one of its arguments is the same in all zones.
        match local.get_type(schema) {
            Ok(found) if !zone_at(&found) => Ok(Transformed::new_transformed(local, changed)),
            _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
        }
    }

    /// Returns the error of a comparison with days of the zone.
    fn of_days(&self) -> Error {
        Error::unsupported(format!(
            "a comparison with days of the time zone {} in a continuous query",
            self.zone
        ))
        .hint("Subtract hours from now(), or SET TimeZone = 'UTC' before.")
    }

    /// Gives the arguments that hold times with a zone the type of the session's zone. Returns true if one has changed.
    fn localize(&self, arguments: &mut [Expr], schema: &DFSchema) -> Result<bool> {
        let mut changed = false;
        for argument in arguments {
            let found = argument.get_type(schema)?;
            let local = self.localized(std::mem::take(argument), &found)?;
            changed |= local.transformed;
            *argument = local.data;
        }
        Ok(changed)
    }

    fn localized(&self, of: Expr, found: &DataType) -> Result<Transformed<Expr>> {
        let wanted = in_zone(found, &self.zone);
        if wanted == *found {
            return Ok(Transformed::no(of));
        }
        Ok(Transformed::yes(Expr::Cast(Cast::new(Box::new(of), wanted))))
    }
}

fn types(arguments: &[Expr], schema: &DFSchema) -> Result<Vec<DataType>> {
    arguments.iter().map(|argument| argument.get_type(schema)).collect()
}

fn cast_to(of: Expr, to: &DataType, schema: &DFSchema) -> Result<Expr> {
    Ok(match of.get_type(schema)? == *to {
        true => of,
        false => Expr::Cast(Cast::new(Box::new(of), to.clone())),
    })
}

fn is_held_by(expression: &Expr, schema: &DFSchema) -> bool {
    expression.get_type(schema).is_ok_and(|found| zone_at(&found))
}

/// Returns true if values of the type are times with a zone, or hold some.
fn zone_at(data_type: &DataType) -> bool {
    in_zone(data_type, "session") != *data_type
}

/// Returns true if an expression has the present time of a continuous query, whose comparisons keep their form.
fn has_clock(expression: &Expr) -> bool {
    expression.exists(|part| Ok(is_clock(part))).unwrap_or(false)
}

/// Returns true for a literal interval without days and months.
fn is_of_time_alone(interval: &Expr) -> bool {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(of)), _) => of.months == 0 && of.days == 0,
        Expr::Negative(inner) => is_of_time_alone(inner),
        _ => false,
    }
}

fn is_of_strftime(pattern: &Expr) -> bool {
    match pattern {
        Expr::Literal(value, _) => value.try_as_str().flatten().is_some_and(|pattern| pattern.contains('%')),
        _ => false,
    }
}
