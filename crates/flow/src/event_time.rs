//! Clocks: how far event time has come in a query's columns, derived from the watermarks of its relations.
//!
//! The engine expects no row whose time is below its relation's watermark. A monotonic function preserves
//! this: no value of `date_trunc('hour', ts)` is expected below that of the watermark. So a column's *clock*
//! is a chain of such functions over the watermarks of relations.

use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Closes, Cut, Timestamp};

use crate::driver::evaluate;
use crate::{Driver, Error, Result};

/// Monotonic functions of a time, followed by constants, each with the edge of a window that it returns.
const OF_TIME: [(&str, Option<Edge>); 5] = [
    ("tumble_start", Some(Edge::Start)),
    ("tumble_end", Some(Edge::End)),
    ("hop_starts", Some(Edge::Start)),
    ("hop_end", Some(Edge::End)),
    ("cumulate_ends", Some(Edge::End)),
];

/// Monotonic functions whose time follows a constant; not if the time zone sets clocks back.
const OF_SECOND: [&str; 2] = ["date_trunc", "date_bin"];

/// The time zone of batch times.
const UTC: &str = "+00:00";

/// The first step and the end of the search for the time at which a window ends, in microseconds from the
/// present. The search ends where nanoseconds overflow.
const SEARCH_FROM_US: i64 = 1_000_000;
const SEARCH_TO_US: i64 = i64::MAX / 1_000;

/// The edge of the windows of TUMBLE, HOP and CUMULATE that a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// The start of the window.
    Start,
    /// The end of the window. Of windows with the same start, one may end before another.
    End,
}

/// The time of its batch that a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchTime {
    /// The start of the batch: `_batch_start`.
    Start,
    /// The end of the batch: `_batch_time`.
    End,
}

/// A column of times with a known clock. Two are equal if their clocks agree in every epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EventTime {
    clock: Arc<Clock>,
    /// The edge of a window that the column holds, if any.
    pub edge: Option<Edge>,
    /// True if rows below the clock are in time all the same: an operator below has dropped late ones.
    pub gated: bool,
}

/// The current name of a relation, shared by all operators that use its watermark; cuts use names.
#[derive(Clone, Debug)]
pub struct Called(Arc<RwLock<Arc<str>>>);

impl Called {
    /// Returns the handle of a relation with this name.
    pub fn new(name: Arc<str>) -> Called {
        Called(Arc::new(RwLock::new(name)))
    }

    /// Renames the relation in every operator.
    pub fn rename(&self, name: Arc<str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// Returns the relation's name.
    pub fn name(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PartialEq for Called {
    fn eq(&self, other: &Called) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.name() == other.name()
    }
}

/// A lower bound of the values that are still expected.
#[derive(Debug)]
enum Clock {
    /// The watermark of a relation, whose column has this type.
    Watermark(Called, DataType),
    /// The time of the batch, which each cut gives exactly.
    Batch(BatchTime),
    /// The image of a clock under a function: an expression over rows of one column.
    Image(Arc<Clock>, Arc<dyn PhysicalExpr>, SchemaRef),
    /// The least item of a list.
    Item(Arc<Clock>),
    /// The least of several clocks.
    Least(Vec<Arc<Clock>>),
    /// A clock minus a number of microseconds.
    Less(Arc<Clock>, i64),
    /// A clock plus one unit.
    Next(Arc<Clock>),
}

impl PartialEq for Clock {
    fn eq(&self, other: &Clock) -> bool {
        match (self, other) {
            (Clock::Watermark(of, data_type), Clock::Watermark(other, other_type)) => {
                of == other && data_type == other_type
            }
            (Clock::Batch(time), Clock::Batch(other)) => time == other,
            (Clock::Image(of, function, schema), Clock::Image(other, other_function, other_schema)) => {
                of == other && function.as_ref() == other_function.as_ref() && schema == other_schema
            }
            (Clock::Item(of), Clock::Item(other)) | (Clock::Next(of), Clock::Next(other)) => of == other,
            (Clock::Least(all), Clock::Least(others)) => all == others,
            (Clock::Less(of, by), Clock::Less(other, other_by)) => of == other && by == other_by,
            _ => false,
        }
    }
}

/// The clock of each column of some rows, if known.
pub(crate) type Times = Vec<Option<EventTime>>;

impl EventTime {
    /// Returns the event time of a column that has the relation's watermark.
    pub fn watermark(relation: Called, data_type: DataType) -> EventTime {
        EventTime { clock: Arc::new(Clock::Watermark(relation, data_type)), edge: None, gated: false }
    }

    /// Returns the event time of a column that holds a time of the batch.
    pub fn batch(time: BatchTime) -> EventTime {
        EventTime { clock: Arc::new(Clock::Batch(time)), edge: None, gated: false }
    }

    /// Returns true if the clock depends on batch times alone, so that no row is late.
    pub(crate) fn is_of_batches(&self) -> bool {
        self.clock.is_of_batches()
    }

    /// Returns the batch time from which the clock is above a value, if the clock depends on batch times
    /// alone. At `from` the clock must not be above the value.
    pub(crate) fn passes_at(&self, value: i64, from: Timestamp) -> Result<Option<Timestamp>> {
        if !self.clock.is_of_batches() {
            return Ok(None);
        }
        let passes = |at: i64| -> Result<bool> {
            let cut = Cut { closes: Closes::All, ..Cut::new(Default::default(), Timestamp(at)) };
            Ok(self.at(&cut)?.is_some_and(|bound| bound > value))
        };
        let (mut below, mut step) = (from.0, SEARCH_FROM_US);
        let mut above = loop {
            let Some(at) = below.checked_add(step).filter(|at| *at < SEARCH_TO_US) else { return Ok(None) };
            if passes(at)? {
                break at;
            }
            (below, step) = (at, step * 2);
        };
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if passes(middle)? {
                above = middle;
            } else {
                below = middle;
            }
        }
        Ok(Some(Timestamp(above)))
    }

    /// Returns the watermark from which the clock is above a value, if the clock depends on watermarks alone. At
    /// the watermark `from` the clock must not be above the value.
    pub(crate) fn passes_with(&self, value: i64, from: &ScalarValue) -> Result<Option<ScalarValue>> {
        let mut relations = Vec::new();
        let data_type = from.data_type();
        if !self.clock.relations(&mut relations) || relations.iter().any(|(_, of)| *of != data_type) {
            return Ok(None);
        }
        let passes = |at: i64| -> Result<bool> {
            let watermarks = relations.iter().map(|(relation, _)| (relation.name(), at)).collect();
            let cut = Cut { watermarks, ..Cut::new(Default::default(), Timestamp(0)) };
            Ok(self.at(&cut)?.is_some_and(|bound| bound > value))
        };
        let Some(mut below) = count(&from.to_array()?)?.iter().next().flatten() else { return Ok(None) };
        let (mut above, mut step) = (below, 1_i64);
        while !passes(above)? {
            let Some(next) = above.checked_add(step) else { return Ok(None) };
            (below, above, step) = (above, next, step.saturating_mul(2));
        }
        while above.saturating_sub(below) > 1 {
            let middle = below + (above - below) / 2;
            if passes(middle)? {
                above = middle;
            } else {
                below = middle;
            }
        }
        Ok(Some(of_count(above, &data_type)?))
    }

    /// Returns the lower bound of expected values after an epoch, as a count of the column's unit; `None`
    /// before there is a watermark.
    pub fn at(&self, cut: &Cut) -> Result<Option<i64>> {
        match self.clock.at(cut)? {
            Some(at) => Ok(count(&at.to_array()?)?.iter().next().flatten()),
            None => Ok(None),
        }
    }

    /// Returns the event time with a clock that is `lateness_us` microseconds behind.
    pub(crate) fn less(self, lateness_us: i64) -> EventTime {
        match lateness_us {
            0 => self,
            _ => EventTime { clock: Arc::new(Clock::Less(self.clock, lateness_us)), ..self },
        }
    }

    /// Returns the watermark behind the clock after an epoch, the least of several; `None` before there is
    /// one.
    pub(crate) fn watermark_at(&self, cut: &Cut) -> Result<Option<ScalarValue>> {
        self.clock.watermark_at(cut)
    }

    /// Returns the type of [`EventTime::watermark_at`].
    pub(crate) fn watermark_type(&self) -> DataType {
        self.clock.watermark_type()
    }

    /// Returns the event time of an expression over columns of a plan; `None` if the expression may decrease.
    pub(crate) fn of(
        expr: &Expr,
        plan: &LogicalPlan,
        times: &Times,
        driver: &Driver,
    ) -> Result<Option<EventTime>> {
        let (time, edge) = match expr {
            Expr::Alias(alias) => return EventTime::of(&alias.expr, plan, times, driver),
            Expr::Column(column) => return Ok(times[plan.schema().index_of_column(column)?].clone()),
            Expr::ScalarFunction(call) => {
                let known = OF_TIME.iter().find(|(name, _)| *name == call.name());
                match (known, call.args.as_slice()) {
                    (Some((_, edge)), [time, rest @ ..]) if rest.iter().all(is_constant) => (time, *edge),
                    (None, [Expr::Literal(..), time, rest @ ..])
                        if OF_SECOND.contains(&call.name())
                            && rest.iter().all(is_constant)
                            && has_one_offset(&time.get_type(plan.schema())?) =>
                    {
                        (time, None)
                    }
                    _ => return Ok(None),
                }
            }
            Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Plus | Operator::Minus) => {
                match (&*binary.left, &*binary.right) {
                    (time, Expr::Literal(shift, _)) if keeps_order(&time.get_type(plan.schema())?, shift) => {
                        (time, None)
                    }
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let Some(of) = EventTime::of(time, plan, times, driver)? else { return Ok(None) };
        // Only the outermost function is applied here: `of` already covers its argument.
        let (_, field) = time.to_field(plan.schema())?;
        let name = "time";
        let below = Schema::new(vec![Field::new(name, field.data_type().clone(), true)]);
        let column = Expr::Column(Column::from_name(name));
        let outermost = expr.clone().transform_down(|part| match part == *time {
            true => Ok(Transformed::new(
                column.clone(),
                true,
                datafusion::common::tree_node::TreeNodeRecursion::Jump,
            )),
            false => Ok(Transformed::no(part)),
        })?;
        let over = DFSchema::try_from(below.clone())?;
        let image = driver.expression_over(&outermost.data, &over)?;
        let clock = Arc::new(Clock::Image(of.clock, image, Arc::new(below)));
        Ok(Some(EventTime { clock, edge: edge.or(of.edge), gated: false }))
    }

    /// Returns the event time of the ends that an operator shows if it closes a window when the clock reaches
    /// its end: no further row with that end is expected.
    pub(crate) fn after_closing(self) -> EventTime {
        EventTime { clock: Arc::new(Clock::Next(self.clock)), edge: Some(Edge::End), gated: false }
    }

    /// Returns the event time with the flag `gated` set.
    pub(crate) fn gated(self, gated: bool) -> EventTime {
        EventTime { gated, ..self }
    }

    /// Returns the event time of the items of a list.
    pub(crate) fn item(self) -> EventTime {
        EventTime { clock: Arc::new(Clock::Item(self.clock)), ..self }
    }
}

/// Returns the event times of the output of a projection, a filter or an unnest.
pub(crate) fn above(node: &LogicalPlan, below: &Times, driver: &Driver) -> Result<Times> {
    match node {
        LogicalPlan::Projection(projection) => {
            let of = |expr| EventTime::of(expr, &projection.input, below, driver);
            projection.expr.iter().map(of).collect()
        }
        LogicalPlan::Unnest(unnest) => {
            let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(at, _)| *at).collect();
            let of = |input: &usize| match lists.contains(input) {
                true => below[*input].clone().map(EventTime::item),
                false => below[*input].clone(),
            };
            Ok(unnest.dependency_indices.iter().map(of).collect())
        }
        _ => Ok(below.clone()),
    }
}

/// Returns the event times of rows that come from several inputs: for each column the least clock.
pub(crate) fn least(inputs: &[&Times]) -> Times {
    let Some((first, rest)) = inputs.split_first() else { return Times::new() };
    let of = |(at, time): (usize, &Option<EventTime>)| {
        let mut clocks = vec![time.clone()?];
        for input in rest {
            clocks.push(input.get(at)?.clone()?);
        }
        let edge = clocks[0].edge.filter(|edge| clocks.iter().all(|time| time.edge == Some(*edge)));
        Some(EventTime {
            clock: Arc::new(Clock::Least(clocks.into_iter().map(|time| time.clock).collect())),
            edge,
            gated: false,
        })
    };
    first.iter().enumerate().map(of).collect()
}

/// Returns true if times of a type are never set back: it has no time zone or a constant UTC offset.
fn has_one_offset(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, Some(zone)) => {
            zone.starts_with(['+', '-'])
                || ["utc", "z", "gmt", "etc/utc"].contains(&zone.to_lowercase().as_str())
        }
        _ => true,
    }
}

/// Returns true if shifting by a constant preserves the order of times. An interval does, but months don't,
/// since the ends of months fall together, nor do days in a time zone that sets clocks back.
fn keeps_order(time: &DataType, shift: &ScalarValue) -> bool {
    if !matches!(time, DataType::Timestamp(..)) {
        return false;
    }
    match shift {
        ScalarValue::IntervalMonthDayNano(Some(shift)) => {
            shift.months == 0 && (shift.days == 0 || has_one_offset(time))
        }
        ScalarValue::IntervalDayTime(Some(shift)) => shift.days == 0 || has_one_offset(time),
        ScalarValue::DurationSecond(Some(_))
        | ScalarValue::DurationMillisecond(Some(_))
        | ScalarValue::DurationMicrosecond(Some(_))
        | ScalarValue::DurationNanosecond(Some(_)) => true,
        _ => false,
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}

impl Clock {
    /// Returns true if the clock depends on batch times alone.
    fn is_of_batches(&self) -> bool {
        match self {
            Clock::Watermark(..) => false,
            Clock::Batch(_) => true,
            Clock::Image(of, ..) | Clock::Item(of) | Clock::Less(of, _) | Clock::Next(of) => {
                of.is_of_batches()
            }
            Clock::Least(of) => of.iter().all(|clock| clock.is_of_batches()),
        }
    }

    /// Adds the relations whose watermarks the clock depends on. Returns false if it depends on batch times.
    fn relations(&self, found: &mut Vec<(Called, DataType)>) -> bool {
        match self {
            Clock::Watermark(relation, data_type) => {
                found.push((relation.clone(), data_type.clone()));
                true
            }
            Clock::Batch(_) => false,
            Clock::Image(of, ..) | Clock::Item(of) | Clock::Less(of, _) | Clock::Next(of) => {
                of.relations(found)
            }
            Clock::Least(of) => of.iter().all(|clock| clock.relations(found)),
        }
    }

    fn watermark_at(&self, cut: &Cut) -> Result<Option<ScalarValue>> {
        match self {
            Clock::Watermark(..) | Clock::Batch(_) => self.at(cut),
            Clock::Image(of, ..) | Clock::Item(of) | Clock::Less(of, _) | Clock::Next(of) => {
                of.watermark_at(cut)
            }
            Clock::Least(of) => {
                let data_type = self.watermark_type();
                let mut all = Vec::with_capacity(of.len());
                for clock in of {
                    let Some(at) = clock.watermark_at(cut)? else { return Ok(None) };
                    all.push(at.cast_to(&data_type));
                }
                least_of(all.into_iter())
            }
        }
    }

    fn watermark_type(&self) -> DataType {
        match self {
            Clock::Watermark(_, data_type) => data_type.clone(),
            Clock::Batch(_) => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Clock::Image(of, ..) | Clock::Item(of) | Clock::Less(of, _) | Clock::Next(of) => {
                of.watermark_type()
            }
            Clock::Least(of) => of.first().map_or(DataType::Null, |first| first.watermark_type()),
        }
    }

    fn at(&self, cut: &Cut) -> Result<Option<ScalarValue>> {
        match self {
            Clock::Watermark(relation, data_type) => match cut.watermark(&relation.name()) {
                Some(at) => Ok(Some(ScalarValue::Int64(Some(at)).cast_to(data_type)?)),
                None => Ok(None),
            },
            Clock::Batch(time) => {
                // An epoch that doesn't end its batch is followed by more rows with the same batch start.
                let at = match (time, cut.closes) {
                    (BatchTime::Start, Closes::None) => cut.started,
                    (BatchTime::Start, _) | (BatchTime::End, _) => cut.now,
                };
                let nanos =
                    ScalarValue::TimestampNanosecond(Some(at.0.saturating_mul(1_000)), Some(UTC.into()));
                Ok(Some(nanos))
            }
            Clock::Image(of, image, schema) => {
                let Some(of) = of.at(cut)? else { return Ok(None) };
                let rows = RecordBatch::try_new(schema.clone(), vec![of.to_array()?])?;
                let values = evaluate(std::slice::from_ref(image), &rows)?;
                Ok(Some(ScalarValue::try_from_array(&values[0], 0)?))
            }
            Clock::Item(of) => {
                let Some(list) = of.at(cut)? else { return Ok(None) };
                let list = list.to_array()?;
                let items =
                    list.as_list_opt::<i32>().ok_or_else(|| Error::Bug("an item of no list".into()))?;
                least_of((0..items.values().len()).map(|at| ScalarValue::try_from_array(items.values(), at)))
            }
            Clock::Less(of, lateness_us) => {
                let Some(at) = of.at(cut)? else { return Ok(None) };
                let count = count(&at.to_array()?)?.value(0);
                let earlier = count.saturating_sub(in_unit(*lateness_us, &at.data_type()));
                Ok(Some(of_count(earlier, &at.data_type())?))
            }
            Clock::Next(of) => {
                let Some(at) = of.at(cut)? else { return Ok(None) };
                let next = count(&at.to_array()?)?.iter().next().flatten().and_then(|at| at.checked_add(1));
                Ok(match next {
                    Some(next) => Some(ScalarValue::Int64(Some(next)).cast_to(&at.data_type())?),
                    None => Some(at),
                })
            }
            Clock::Least(of) => {
                let mut all = Vec::with_capacity(of.len());
                for clock in of {
                    let Some(at) = clock.at(cut)? else { return Ok(None) };
                    all.push(Ok(at));
                }
                least_of(all.into_iter())
            }
        }
    }
}

fn least_of(
    values: impl Iterator<Item = datafusion::error::Result<ScalarValue>>,
) -> Result<Option<ScalarValue>> {
    let mut least: Option<ScalarValue> = None;
    for value in values {
        let value = value?;
        if least.as_ref().is_none_or(|least| value < *least) {
            least = Some(value);
        }
    }
    Ok(least)
}

/// Converts microseconds to the unit of a time type, rounded up.
fn in_unit(us: i64, data_type: &DataType) -> i64 {
    let units = |us_each: i64| us.div_euclid(us_each) + i64::from(us.rem_euclid(us_each) > 0);
    match data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => us.saturating_mul(1000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => us,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => units(1000),
        DataType::Timestamp(TimeUnit::Second, _) => units(1_000_000),
        DataType::Date32 => units(86_400_000_000),
        _ => us,
    }
}

/// Returns the time for a count of the type's unit.
pub(crate) fn of_count(count: i64, data_type: &DataType) -> Result<ScalarValue> {
    Ok(match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(count).unwrap_or(i32::MIN))),
        _ => ScalarValue::Int64(Some(count)).cast_to(data_type)?,
    })
}

/// Returns times as counts of their unit.
pub(crate) fn count(times: &ArrayRef) -> Result<arrow::array::Int64Array> {
    let times = match times.data_type() {
        DataType::Date32 => arrow::compute::cast(times, &DataType::Int32)?,
        _ => times.clone(),
    };
    Ok(arrow::compute::cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::IntervalMonthDayNano;
    use millstream_delta::Epoch;

    use super::*;

    fn zoned(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    #[test]
    fn only_intervals_that_are_always_as_long_keep_the_order() {
        let interval = |months, days, nanoseconds| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        };
        for (zone, shift, keeps) in [
            (None, interval(0, 1, 5), true),
            (Some("Europe/Berlin"), interval(0, 0, 5), true),
            (Some("+02:00"), interval(0, 1, 0), true),
            // The last Sunday of October has 25 hours, two of which have the same name.
            (Some("Europe/Berlin"), interval(0, 1, 0), false),
            // 30 January 23:00 and 31 January 00:00 plus a month are in the reverse order.
            (None, interval(1, 0, 0), false),
            (None, ScalarValue::TimestampMicrosecond(Some(0), None), false),
            (None, ScalarValue::IntervalMonthDayNano(None), false),
        ] {
            assert_eq!(keeps_order(&zoned(zone), &shift), keeps, "{zone:?} {shift:?}");
        }
        assert!(!keeps_order(&DataType::Int64, &interval(0, 0, 5)));
    }

    #[test]
    fn clocks_that_are_set_back_are_left_out() {
        for (zone, one) in [
            (None, true),
            (Some("UTC"), true),
            (Some("+00:00"), true),
            (Some("-03:30"), true),
            (Some("Europe/Berlin"), false),
            (Some("America/New_York"), false),
        ] {
            assert_eq!(has_one_offset(&zoned(zone)), one, "{zone:?}");
        }
    }

    #[test]
    fn the_time_of_a_batch_is_known_exactly() {
        let cut = |started, now, closes| Cut {
            started: Timestamp(started),
            closes,
            ..Cut::new(Epoch(1), Timestamp(now))
        };
        let at = |time, cut: &Cut| EventTime::batch(time).at(cut).unwrap();
        assert_eq!(at(BatchTime::Start, &cut(3, 8, Closes::None)), Some(3_000));
        assert_eq!(at(BatchTime::Start, &cut(3, 8, Closes::Filled)), Some(8_000));
        assert_eq!(at(BatchTime::End, &cut(3, 8, Closes::None)), Some(8_000));
        let passes =
            |value, from| EventTime::batch(BatchTime::Start).passes_at(value, Timestamp(from)).unwrap();
        assert_eq!(passes(9_999_999_000, 5), Some(Timestamp(10_000_000)));
        assert_eq!(passes(-5_000, -8_000_000_000), Some(Timestamp(-4)));
        let event_time = EventTime::watermark(Called::new("t".into()), zoned(None));
        assert_eq!(event_time.passes_at(5, Timestamp(0)).unwrap(), None);
    }
}
