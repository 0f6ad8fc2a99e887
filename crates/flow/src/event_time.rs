//! How far event time has come in the columns of a query: what follows from the watermarks of its relations.
//!
//! No row is expected any more whose time is below its relation's watermark. A function that never decreases carries
//! that on: of `date_trunc('hour', ts)` no value below that of the watermark is expected. So a column's *clock* is a
//! chain of such functions over the watermarks of relations.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::Cut;

use crate::drive::evaluate;
use crate::{Driver, Error, Result};

/// Functions that never decrease with their time, which stands before constants, each with what it gives of a window.
const OF_TIME: [(&str, Option<Edge>); 5] = [
    ("tumble_start", Some(Edge::Start)),
    ("tumble_end", Some(Edge::End)),
    ("hop_starts", Some(Edge::Start)),
    ("hop_end", Some(Edge::End)),
    ("cumulate_ends", Some(Edge::End)),
];

/// The same of those whose time stands behind a constant.
const OF_SECOND: [&str; 2] = ["date_trunc", "date_bin"];

/// What a column is of the windows of TUMBLE, HOP and CUMULATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// Where they begin.
    Start,
    /// Where they end. One that begins where others do may end before them.
    End,
}

/// A column of times of which it is known how far they have come.
#[derive(Clone, Debug)]
pub struct EventTime {
    clock: Arc<Clock>,
    /// What it is of windows, where it is part of such.
    pub edge: Option<Edge>,
}

/// Below which value no more is expected.
#[derive(Debug)]
enum Clock {
    /// The watermark of a relation, whose column has this type.
    Watermark(Arc<str>, DataType),
    /// What a function makes of it: an expression over rows of one column.
    Image(Arc<Clock>, Arc<dyn PhysicalExpr>, SchemaRef),
    /// The least item of a list.
    Item(Arc<Clock>),
    /// The least of several.
    Least(Vec<Arc<Clock>>),
    /// So many microseconds before another one.
    Less(Arc<Clock>, i64),
}

/// Of each column of some rows, how far it has come, where that is known.
pub(crate) type Times = Vec<Option<EventTime>>;

impl EventTime {
    /// The column of a relation's watermark.
    pub fn watermark(relation: Arc<str>, data_type: DataType) -> EventTime {
        EventTime { clock: Arc::new(Clock::Watermark(relation, data_type)), edge: None }
    }

    /// Below which value no more is expected after an epoch, as a count of the column's unit; none before there is a
    /// watermark.
    pub fn at(&self, cut: &Cut) -> Result<Option<i64>> {
        match self.clock.at(cut)? {
            Some(at) => Ok(count(&at.to_array()?)?.iter().next().flatten()),
            None => Ok(None),
        }
    }

    /// The same, so many microseconds behind.
    pub(crate) fn less(self, lateness_us: i64) -> EventTime {
        match lateness_us {
            0 => self,
            _ => EventTime { clock: Arc::new(Clock::Less(self.clock, lateness_us)), ..self },
        }
    }

    /// The watermark that it follows from after an epoch, the least where there are several; none before there is one.
    pub(crate) fn watermark_at(&self, cut: &Cut) -> Result<Option<ScalarValue>> {
        self.clock.watermark_at(cut)
    }

    /// The type of [`EventTime::watermark_at`].
    pub(crate) fn watermark_type(&self) -> DataType {
        self.clock.watermark_type()
    }

    /// That of an expression over columns of a plan; none where it may decrease.
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
                        if OF_SECOND.contains(&call.name()) && rest.iter().all(is_constant) =>
                    {
                        (time, None)
                    }
                    _ => return Ok(None),
                }
            }
            Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Plus | Operator::Minus) => {
                match (&*binary.left, &*binary.right) {
                    (time, Expr::Literal(..)) => (time, None),
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let Some(of) = EventTime::of(time, plan, times, driver)? else { return Ok(None) };
        // Only the outermost step is done here: `of` is what is below it.
        let (_, field) = datafusion::logical_expr::ExprSchemable::to_field(time, plan.schema())?;
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
        Ok(Some(EventTime { clock, edge: edge.or(of.edge) }))
    }

    /// That of the items of a list.
    fn item(self) -> EventTime {
        EventTime { clock: Arc::new(Clock::Item(self.clock)), ..self }
    }
}

/// The times of a projection, a filter or an unnesting over rows with such times.
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

/// Those of rows that come from several inputs.
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
        })
    };
    first.iter().enumerate().map(of).collect()
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}

impl Clock {
    fn watermark_at(&self, cut: &Cut) -> Result<Option<ScalarValue>> {
        match self {
            Clock::Watermark(..) => self.at(cut),
            Clock::Image(of, ..) | Clock::Item(of) | Clock::Less(of, _) => of.watermark_at(cut),
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
            Clock::Image(of, ..) | Clock::Item(of) | Clock::Less(of, _) => of.watermark_type(),
            Clock::Least(of) => of.first().map_or(DataType::Null, |first| first.watermark_type()),
        }
    }

    fn at(&self, cut: &Cut) -> Result<Option<ScalarValue>> {
        match self {
            Clock::Watermark(relation, data_type) => match cut.watermark(relation) {
                Some(at) => Ok(Some(ScalarValue::Int64(Some(at)).cast_to(data_type)?)),
                None => Ok(None),
            },
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

/// Microseconds in the unit of a type of times, rounded up.
fn in_unit(us: i64, data_type: &DataType) -> i64 {
    use arrow::datatypes::TimeUnit;
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

/// The time that is a count of its unit.
fn of_count(count: i64, data_type: &DataType) -> Result<ScalarValue> {
    Ok(match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(count).unwrap_or(i32::MIN))),
        _ => ScalarValue::Int64(Some(count)).cast_to(data_type)?,
    })
}

/// Times as counts of their unit.
pub(crate) fn count(times: &ArrayRef) -> Result<arrow::array::Int64Array> {
    let times = match times.data_type() {
        DataType::Date32 => arrow::compute::cast(times, &DataType::Int32)?,
        _ => times.clone(),
    };
    Ok(arrow::compute::cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}
