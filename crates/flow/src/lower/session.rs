//! Session for the window functions that implement SESSION.

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::logical_plan::Window;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::{Lowering, keys, ordering};
use crate::Result;
use crate::event_time::{EventTime, Times};
use crate::operator::Properties;
use crate::operators::session::{Session, SessionSpec, Side};
use crate::sorted::Ordering;

/// The nanoseconds of a day.
const DAY: i128 = 86_400_000_000_000;

/// Returns true if all functions of a node are those of SESSION.
pub(super) fn is_session(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Window(window) = plan else { return false };
    let is_side = |expr: &Expr| call(expr).is_some_and(|call| side(call).is_some());
    !window.window_expr.is_empty() && window.window_expr.iter().all(is_side)
}

fn call(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

fn side(call: &WindowFunction) -> Option<Side> {
    match call.fun.name() {
        "session_start" => Some(Side::Start),
        "session_end" => Some(Side::End),
        _ => None,
    }
}

impl Lowering<'_> {
    /// Returns Session for a node of its functions; `None` with the reason if Session can't compute it.
    pub(super) fn session(&mut self, plan: &LogicalPlan, node: &Window) -> Result<Option<usize>> {
        let calls: Vec<&WindowFunction> = node.window_expr.iter().filter_map(call).collect();
        let (true, Some(first)) = (is_session(plan), calls.first()) else {
            return Ok(self.because("other functions than those of SESSION"));
        };
        let same = |call: &&WindowFunction| call.params == first.params;
        let [time, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(gap)), _)] = &first.params.args[..]
        else {
            return Ok(self.because("a session without a gap"));
        };
        let time_type = time.get_type(node.input.schema())?;
        let Some(gap) = ticks(*gap, &time_type).filter(|_| calls.iter().all(same)) else {
            return Ok(self.because("the gap of a session has another length elsewhere"));
        };
        let partition = &first.params.partition_by;
        if self.limits.state_ttl_us.is_some() && !partition.is_empty() {
            return Ok(self.because("it has a state_ttl, and Session expires no key"));
        }
        let input = self.lower_or_whole(&node.input)?;
        let clock = EventTime::of(time, &node.input, &self.builder.times_of(input), self.driver)?;
        let sides: Vec<Side> = calls.iter().filter_map(|call| side(call)).collect();
        let mut times: Times = vec![None; node.schema.fields().len()];
        let first_side = node.input.schema().fields().len();
        for (at, _) in sides.iter().enumerate().filter(|(_, side)| **side == Side::End) {
            times[first_side + at] = clock.clone().map(EventTime::after_closing);
        }
        let key = self.builder.properties(input).key.clone();
        let known: Vec<&Expr> = partition.iter().chain([time]).collect();
        let ties = ordering::ties(self.builder.properties(input), &node.input, &known);
        let expression = |expr: &Expr| self.driver.expression(expr, &node.input);
        let time_of_row = expression(time)?;
        let order = SortOptions { descending: false, nulls_first: false };
        let ordering = Ordering {
            partition: partition.iter().map(expression).collect::<Result<_>>()?,
            order: vec![(time_of_row.clone(), order)],
            ties,
            ..Ordering::default()
        };
        let names: Vec<String> = partition.iter().map(ToString::to_string).collect();
        let mut detail = format!("{time} apart by less than {gap} {}", unit_name(&time_type));
        if !names.is_empty() {
            detail = format!("{detail} of each {}", names.join(", "));
        }
        let on_close = self.limits.on_close && clock.is_some();
        let properties =
            Properties { append_only: on_close, key, ..Properties::of(node.schema.inner().clone()) };
        let parts = SessionSpec {
            properties,
            schema: node.input.schema().inner().clone(),
            ordering,
            time: time_of_row,
            gap,
            sides,
            clock,
            on_close,
            detail,
            partition: names,
            threads: self.driver.threads().clone(),
        };
        let Some(operator) = Session::new(parts)? else {
            return Ok(self.because("values of some type have no order in bytes"));
        };
        let place = self.builder.push(operator, vec![input]);
        self.builder.set_times(place, times);
        Ok(Some(place))
    }
}

/// Returns true if the groups of an aggregate are sessions: the GROUP BY contains the key of sessions, and
/// their start and end.
pub(super) fn groups_sessions(input: &LogicalPlan, mut groups: Vec<Expr>) -> Result<bool> {
    let mut plan = input;
    groups.iter_mut().for_each(|group| *group = group.clone().unalias());
    while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) = plan {
        let mut below = Vec::with_capacity(groups.len());
        for group in &groups {
            below.extend(keys::push(plan, group)?.and_then(|mut key| key.pop()));
        }
        let [input] = plan.inputs()[..] else { return Ok(false) };
        (plan, groups) = (input, below);
    }
    let LogicalPlan::Window(window) = plan else { return Ok(false) };
    let Some(first) = window.window_expr.first().and_then(call).filter(|_| is_session(plan)) else {
        return Ok(false);
    };
    let input = window.input.schema().fields().len();
    let both = [Side::Start, Side::End].iter().all(|wanted| {
        window.window_expr.iter().enumerate().any(|(at, expr)| {
            let column = Column::from(window.schema.qualified_field(input + at));
            call(expr).and_then(side) == Some(*wanted) && groups.contains(&Expr::Column(column))
        })
    });
    Ok(both && first.params.partition_by.iter().all(|key| groups.contains(key)))
}

/// Returns a length of time as a count of a timestamp's unit, if the length doesn't depend on where it
/// begins.
fn ticks(gap: IntervalMonthDayNano, time: &DataType) -> Option<i64> {
    let DataType::Timestamp(unit, zone) = time else { return None };
    let fixed = zone.as_ref().is_none_or(|zone| zone.as_ref() == "UTC" || zone.starts_with(['+', '-']));
    if gap.months != 0 || (gap.days != 0 && !fixed) {
        return None;
    }
    let nanos = i128::from(gap.days) * DAY + i128::from(gap.nanoseconds);
    let unit = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    i64::try_from(nanos / unit).ok().filter(|ticks| *ticks > 0 && nanos % unit == 0)
}

fn unit_name(time: &DataType) -> &'static str {
    match time {
        DataType::Timestamp(TimeUnit::Second, _) => "seconds",
        DataType::Timestamp(TimeUnit::Millisecond, _) => "milliseconds",
        DataType::Timestamp(TimeUnit::Microsecond, _) => "microseconds",
        _ => "nanoseconds",
    }
}
