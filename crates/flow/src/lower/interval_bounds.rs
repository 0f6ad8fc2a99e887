//! Interval joins: finds the rows of a join that expire by event time in the join's condition.
//!
//! A comparison of a value of one side with one of the other bounds a time from above: in `a.ts >= b.ts -
//! INTERVAL '1 hour'` a row of `a` has no further match once the clock of `b.ts - INTERVAL '1 hour'` has
//! passed its `ts`.

use arrow::datatypes::{DataType, IntervalUnit};
use arrow::util::display::array_value_to_string;
use datafusion::common::Column;
use datafusion::logical_expr::logical_plan::Join as JoinNode;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, JoinType, LogicalPlan, Operator, binary_expr, lit,
};
use datafusion::scalar::ScalarValue;

use super::Lowering;
use crate::Result;
use crate::event_time::{self, EventTime, Times};
use crate::operators::join::{Alone, IntervalBounds, IntervalBoundsSide, Own, Shape, Until};

/// An upper bound of one side's times: a value of the other side, whose rows expire.
struct Bound {
    /// The value, of the side whose rows expire.
    value: Expr,
    /// The bounded time, of the other side.
    time: Expr,
    clock: EventTime,
}

impl Lowering<'_> {
    /// Returns the rule by which rows of a join expire, if some do, and the event times of the join's
    /// columns.
    pub(super) fn interval_bounds(
        &self,
        join: &JoinNode,
        condition: &Expr,
        nodes: [usize; 2],
    ) -> Result<(Option<IntervalBounds>, Times)> {
        let times = nodes.map(|node| self.times_of(node));
        let plans: [&LogicalPlan; 2] = [&join.left, &join.right];
        let updates = nodes.map(|node| !self.append_only(node));
        let mut bounds = [None, None];
        for part in split_conjunction(condition) {
            for (low, high) in comparisons(part).into_iter().map(apart) {
                self.interval_bound(&low, &high, plans, &times, &mut bounds)?;
            }
        }
        // Updatable rows are kept until a delete of them would be late by their own time.
        let mut own = [None, None];
        for at in [0, 1] {
            own[at] = match &bounds[1 - at] {
                Some(bound) => Some((bound.time.clone(), bound.clock.clone())),
                None if updates[at] && bounds[at].is_some() => first_time(plans[at], &times[at]),
                None => None,
            };
            if updates[at] && own[at].is_none() {
                bounds[at] = None;
            }
        }
        if bounds.iter().all(Option::is_none) {
            return Ok((None, Times::new()));
        }
        let out = self.times_of_interval_join(join.join_type, plans, &times, &bounds)?;
        let side = |at: usize| -> Result<IntervalBoundsSide> {
            let until = bounds[at].as_ref().map(|bound| -> Result<Until> {
                Ok(Until {
                    value: self.driver.expression(&bound.value, plans[at])?,
                    passed: bound.clock.clone(),
                    text: format!("{} has passed {}", shown(&bound.time), shown(&bound.value)),
                })
            });
            let own = own[at].as_ref().map(|(time, clock)| -> Result<Own> {
                Ok(Own {
                    value: self.driver.expression(time, plans[at])?,
                    data_type: time.get_type(plans[at].schema())?,
                    clock: clock.clone(),
                })
            });
            Ok(IntervalBoundsSide::new(until.transpose()?, own.transpose()?, updates[at]))
        };
        Ok((Some(IntervalBounds::new([side(0)?, side(1)?])), out))
    }

    /// Uses that `low <= high` holds for all pairs. If they belong to different sides and `low` has a clock,
    /// the clock bounds the rows of the other side.
    fn interval_bound(
        &self,
        low: &Expr,
        high: &Expr,
        plans: [&LogicalPlan; 2],
        times: &[Times; 2],
        bounds: &mut [Option<Bound>; 2],
    ) -> Result<()> {
        let side = |expr: &Expr| [0, 1].into_iter().find(|at| is_of(expr, plans[*at]));
        let (Some(of), Some(at)) = (side(low), side(high)) else { return Ok(()) };
        if of == at || bounds[at].is_some() {
            return Ok(());
        }
        if low.get_type(plans[of].schema())? != high.get_type(plans[at].schema())? {
            return Ok(());
        }
        if let Some(clock) = EventTime::of(low, plans[of], &times[of], self.driver)? {
            bounds[at] = Some(Bound { value: high.clone(), time: low.clone(), clock });
        }
        Ok(())
    }

    /// Returns the event times of the output of such a join: those of the columns by which rows expire.
    fn times_of_interval_join(
        &self,
        kind: JoinType,
        plans: [&LogicalPlan; 2],
        times: &[Times; 2],
        bounds: &[Option<Bound>; 2],
    ) -> Result<Times> {
        let mut out = Vec::new();
        for at in [0, 1] {
            let mut of_side: Times = vec![None; plans[at].schema().fields().len()];
            if let Some(bound) = &bounds[at]
                && let Some((column, back)) = column_of(&bound.value)
                && let Ok(place) = plans[at].schema().index_of_column(column)
                && let Some(own) = &times[at][place]
            {
                // The column's event time if its value had the bound's clock.
                let mut as_far = times[at].clone();
                as_far[place] = Some(bound.clock.clone());
                let kept = match back {
                    Some(back) => EventTime::of(&back, plans[at], &as_far, self.driver)?,
                    None => as_far[place].take(),
                };
                if let Some(kept) = kept {
                    let both = [vec![Some(own.clone())], vec![Some(kept)]];
                    of_side[place] = event_time::least(&[&both[0], &both[1]]).pop().flatten();
                }
            }
            out.push(of_side);
        }
        let [mut left, right] = [out.remove(0), out.remove(0)];
        Ok(match kind {
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                left.extend(right);
                left
            }
            JoinType::LeftMark | JoinType::RightMark => Times::new(),
        })
    }

    /// Returns the shape of a join. If the query's result must be append-only, unmatched rows are emitted
    /// when they expire.
    pub(super) fn shape_by_time(
        &self,
        shape: Shape,
        interval_bounds: Option<&IntervalBounds>,
        nodes: &[usize],
    ) -> Shape {
        let Some(interval_bounds) = interval_bounds.filter(|_| self.limits.on_close) else { return shape };
        let alone = |at: &usize| shape.alone[*at] == Alone::Unmatched;
        let waits = [0, 1].iter().filter(|at| alone(at)).all(|at| interval_bounds.is_bounded(*at));
        if !waits || !nodes.iter().all(|node| self.append_only(*node)) {
            return shape;
        }
        shape.on_leaving(0).on_leaving(1)
    }
}

/// Returns the pairs of values of a condition of which the first is at most the second.
fn comparisons(part: &Expr) -> Vec<(Expr, Expr)> {
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left, right) = (left.as_ref().clone(), right.as_ref().clone());
            match op {
                Operator::Lt | Operator::LtEq => vec![(left, right)],
                Operator::Gt | Operator::GtEq => vec![(right, left)],
                Operator::Eq => vec![(left.clone(), right.clone()), (right, left)],
                _ => Vec::new(),
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let expr = expr.as_ref();
            vec![(low.as_ref().clone(), expr.clone()), (expr.clone(), high.as_ref().clone())]
        }
        _ => Vec::new(),
    }
}

/// Rewrites a comparison of a difference of times with a length: `a - b <= length` becomes `a <= b + length`.
fn apart((low, high): (Expr, Expr)) -> (Expr, Expr) {
    match (difference(&low), length(&high), length(&low), difference(&high)) {
        (Some((later, earlier)), Some(length), _, _) => {
            (later.clone(), binary_expr(earlier.clone(), Operator::Plus, length))
        }
        (_, _, Some(length), Some((later, earlier))) => {
            (earlier.clone(), binary_expr(later.clone(), Operator::Minus, length))
        }
        _ => (low, high),
    }
}

/// Returns the times whose difference an expression is, the later one first.
fn difference(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::Alias(alias) => difference(&alias.expr),
        // The planner compares differences as intervals.
        Expr::Cast(cast)
            if matches!(cast.field.data_type(), DataType::Interval(_) | DataType::Duration(_)) =>
        {
            difference(&cast.expr)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => Some((left, right)),
        _ => None,
    }
}

/// Returns a length of time that doesn't depend on where it begins: one without months, and without days,
/// which are no fixed number of hours when compared with a difference.
fn length(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(value, _) = expr else { return None };
    let fixed = match value {
        ScalarValue::IntervalMonthDayNano(Some(of)) => of.months == 0 && of.days == 0,
        ScalarValue::DurationSecond(Some(_))
        | ScalarValue::DurationMillisecond(Some(_))
        | ScalarValue::DurationMicrosecond(Some(_))
        | ScalarValue::DurationNanosecond(Some(_)) => true,
        _ => false,
    };
    let of_any = DataType::Interval(IntervalUnit::MonthDayNano);
    fixed.then(|| value.cast_to(&of_any).ok()).flatten().map(lit)
}

fn is_of(expr: &Expr, side: &LogicalPlan) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|column| side.schema().has_column(column))
}

/// Returns the first column of a side that has a clock.
fn first_time(plan: &LogicalPlan, times: &Times) -> Option<(Expr, EventTime)> {
    let (at, time) = times.iter().enumerate().find_map(|(at, time)| Some((at, time.clone()?)))?;
    Some((Expr::Column(Column::from(plan.schema().qualified_field(at))), time))
}

/// Returns the column that a value consists of, perhaps shifted by a fixed length of time. Also returns the
/// expression that computes the column from the value, in which the column's name denotes the value.
fn column_of(value: &Expr) -> Option<(&Column, Option<Expr>)> {
    match value {
        Expr::Alias(alias) => column_of(&alias.expr),
        Expr::Column(column) => Some((column, None)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (Expr::Column(column), Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(length)), _)) =
                (left.as_ref(), right.as_ref())
            else {
                return None;
            };
            let back = match op {
                Operator::Plus => Operator::Minus,
                Operator::Minus => Operator::Plus,
                _ => return None,
            };
            // Months, and days in a time zone that sets clocks back, have no fixed length.
            let fixed = length.months == 0 && length.days == 0;
            fixed.then(|| (column, Some(binary_expr(left.as_ref().clone(), back, right.as_ref().clone()))))
        }
        _ => None,
    }
}

/// Formats an expression for people: its intervals as they are written.
fn shown(expr: &Expr) -> String {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            format!("{} {op} {}", shown(left), shown(right))
        }
        Expr::Literal(value @ ScalarValue::IntervalMonthDayNano(Some(_)), _) => {
            let text = value.to_array().and_then(|array| Ok(array_value_to_string(&array, 0)?));
            text.map_or_else(|_| expr.to_string(), |text| format!("'{text}'"))
        }
        other => other.to_string(),
    }
}
