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

use crate::event_time::{self, EventTime, Times};
use crate::operators::join::{Alone, IntervalBounds, IntervalBoundsSide, Own, Shape, Until};
use crate::{Driver, Result};

/// An upper bound of one side's times: a value of the other side, whose rows expire.
struct Bound {
    /// The value, of the side whose rows expire.
    value: Expr,
    /// The bounded time, of the other side.
    time: Expr,
    clock: EventTime,
}

/// A join with the upper bounds that its condition puts on the times of its sides.
pub(super) struct IntervalJoin<'a> {
    kind: JoinType,
    plans: [&'a LogicalPlan; 2],
    /// The event times of the columns of each side.
    times: [Times; 2],
    /// For each side, true if its rows may be deleted or updated.
    updates: [bool; 2],
    /// The bound by which the rows of each side expire.
    bounds: [Option<Bound>; 2],
    driver: &'a Driver,
}

impl<'a> IntervalJoin<'a> {
    /// Returns a join with a condition. `sides` are the event times of each side's columns, and true if the side is
    /// append-only.
    pub(super) fn of(
        join: &'a JoinNode,
        condition: &Expr,
        sides: [(Times, bool); 2],
        driver: &'a Driver,
    ) -> Result<IntervalJoin<'a>> {
        let updates = [!sides[0].1, !sides[1].1];
        let mut found = IntervalJoin {
            kind: join.join_type,
            plans: [&join.left, &join.right],
            times: sides.map(|(times, _)| times),
            updates,
            bounds: [None, None],
            driver,
        };
        for part in split_conjunction(condition) {
            for (low, high) in comparisons(part).into_iter().map(apart) {
                found.bound(&low, &high)?;
            }
        }
        Ok(found)
    }

    /// Uses that `low <= high` holds for all pairs. If they belong to different sides and `low` has a clock,
    /// the clock bounds the rows of the other side.
    fn bound(&mut self, low: &Expr, high: &Expr) -> Result<()> {
        let plans = self.plans;
        let side = |expr: &Expr| [0, 1].into_iter().find(|at| is_of(expr, plans[*at]));
        let (Some(of), Some(at)) = (side(low), side(high)) else { return Ok(()) };
        if of == at || self.bounds[at].is_some() {
            return Ok(());
        }
        if low.get_type(plans[of].schema())? != high.get_type(plans[at].schema())? {
            return Ok(());
        }
        if let Some(clock) = EventTime::of(low, plans[of], &self.times[of], self.driver)? {
            self.bounds[at] = Some(Bound { value: high.clone(), time: low.clone(), clock });
        }
        Ok(())
    }

    /// Returns the rule by which rows expire, if some do, and the event times of the join's columns.
    pub(super) fn bounds(mut self) -> Result<(Option<IntervalBounds>, Times)> {
        // Updatable rows are kept until a delete of them would be late by their own time.
        let mut own = [None, None];
        for at in [0, 1] {
            own[at] = match &self.bounds[1 - at] {
                Some(bound) => Some((bound.time.clone(), bound.clock.clone())),
                None if self.updates[at] && self.bounds[at].is_some() => {
                    first_time(self.plans[at], &self.times[at])
                }
                None => None,
            };
            if self.updates[at] && own[at].is_none() {
                self.bounds[at] = None;
            }
        }
        if self.bounds.iter().all(Option::is_none) {
            return Ok((None, Times::new()));
        }
        let out = self.times_of_output()?;
        let [left, right] = own;
        Ok((Some(IntervalBounds::new([self.side(0, left)?, self.side(1, right)?])), out))
    }

    /// Returns the rule of one side. `own` is the time of its own rows.
    fn side(&self, at: usize, own: Option<(Expr, EventTime)>) -> Result<IntervalBoundsSide> {
        let plan = self.plans[at];
        let until = self.bounds[at].as_ref().map(|bound| -> Result<Until> {
            Ok(Until {
                value: self.driver.expression(&bound.value, plan)?,
                passed: bound.clock.clone(),
                text: format!("{} has passed {}", shown(&bound.time), shown(&bound.value)),
            })
        });
        let own = own.map(|(time, clock)| -> Result<Own> {
            Ok(Own {
                value: self.driver.expression(&time, plan)?,
                data_type: time.get_type(plan.schema())?,
                clock,
            })
        });
        Ok(IntervalBoundsSide::new(until.transpose()?, own.transpose()?, self.updates[at]))
    }

    /// Returns the event times of the output: those of the columns by which rows expire.
    fn times_of_output(&self) -> Result<Times> {
        let IntervalJoin { plans, times, bounds, .. } = self;
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
        Ok(match self.kind {
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                left.extend(right);
                left
            }
            JoinType::LeftMark | JoinType::RightMark => Times::new(),
        })
    }
}

/// Returns the shape of a join of append-only sides whose result must be append-only: unmatched rows are emitted when
/// they expire, if they do.
pub(super) fn shape_on_close(shape: Shape, interval_bounds: &IntervalBounds) -> Shape {
    let alone = |at: &usize| shape.alone[*at] == Alone::Unmatched;
    let waits = [0, 1].iter().filter(|at| alone(at)).all(|at| interval_bounds.is_bounded(*at));
    if waits { shape.on_leaving(0).on_leaving(1) } else { shape }
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
