//! Lowers a logical aggregate that implements UPDATE_STATE to the operator.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, LogicalPlan};
use millstream_state::{KeyIndex, Slotted};

use super::key_timeouts::KeyTimeouts;
use super::{Calls, Last, UpdateState, result_schema};
use crate::operator::{Cost, Properties};
use crate::{Driver, Error, Result};

/// The alias of the aggregates that implement UPDATE_STATE, whose types aren't known here. Their arguments
/// are the value, a flag for calling all keys, and the time-out. The fields of their state are the function's
/// parameters: the arrays of values, the state, and a flag for the last call if the function takes it.
const UPDATE_STATE: &str = "millstream.update_state";

fn call(expr: &Expr) -> Option<AggregateFunction> {
    match expr.clone().unalias_nested().data {
        Expr::AggregateFunction(function)
            if function.func.aliases().iter().any(|alias| alias == UPDATE_STATE) =>
        {
            Some(function)
        }
        _ => None,
    }
}

/// Returns true if an aggregate implements UPDATE_STATE.
pub fn is_update_state(node: &AggregatePlan) -> bool {
    let holds = |expr: &Expr| expr.exists(|part| Ok(call(part).is_some())).unwrap_or(false);
    node.aggr_expr.iter().any(holds)
}

/// Returns true if a plan contains UPDATE_STATE.
pub fn holds_update_state(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Aggregate(node) if is_update_state(node));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The kinds of rows that the operator gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Append-only rows.
    Stay,
    /// Rows with deletes, which it doesn't support.
    Change,
    /// The rows of each batch as it ends: the output is of that batch, too.
    OfBatch,
}

/// Returns the operator for `node`.
pub fn lower(plan: &LogicalPlan, node: &AggregatePlan, rows: Rows, driver: &Driver) -> Result<UpdateState> {
    let [expr] = node.aggr_expr.as_slice() else {
        return Err(Error::Limit("UPDATE_STATE can't be combined with other aggregates".into()));
    };
    let Some(function) = call(expr) else {
        return Err(Error::Bug("UPDATE_STATE within an expression".into()));
    };
    if rows == Rows::Change {
        return Err(Error::Limit(
            "UPDATE_STATE needs an append-only input, but rows of its input change: give it a source, an \
             append-only table or stream, or compute the state with GROUP BY"
                .into(),
        ));
    }
    let [value, all_keys, timeout] = function.params.args.as_slice() else {
        return Err(Error::Bug("UPDATE_STATE has three arguments".into()));
    };
    let all_keys = matches!(literal(all_keys, "all_keys")?, ScalarValue::Boolean(Some(true)));
    let timeout = timeout_of(literal(timeout, "timeout")?)?;
    let aggregate = driver.aggregate(expr, &node.input)?;
    let fields = aggregate.state_fields()?;
    let (values, state, takes_timing_out) = match fields.as_slice() {
        [values, state] => (values, state, false),
        [values, state, _] => (values, state, true),
        _ => return Err(Error::Bug("UPDATE_STATE keeps one state".into())),
    };
    let DataType::List(item) = values.data_type() else {
        return Err(Error::Bug("UPDATE_STATE takes an array of values".into()));
    };
    let schema = plan.schema().inner().clone();
    let count = node.group_expr.len();
    let mapped = mapped_type(schema.field(count).data_type(), state.data_type());
    let types = schema.fields()[..count].iter().map(|field| field.data_type().clone()).collect();
    let keys = node.group_expr.iter().map(|key| driver.expression(key, &node.input));
    // Calling every key costs as much as the whole state, whatever changes.
    let cost = if all_keys { Cost::Whole } else { Cost::Delta };
    let of_batch = rows == Rows::OfBatch;
    let properties = Properties {
        key: Some((0..count).collect()),
        cost,
        slides: of_batch,
        // The function is called with the values of each batch.
        depends_on_cuts: true,
        ..Properties::of(schema)
    };
    Ok(UpdateState {
        properties,
        keys: keys.collect::<Result<_>>()?,
        value: driver.expression(value, &node.input)?,
        calls: Calls { item: item.clone(), is_mapped: mapped.is_some(), takes_timing_out, all_keys },
        timeouts: KeyTimeouts::new(timeout),
        index: KeyIndex::new(types)?,
        results: Slotted::new(result_schema(mapped.as_ref().unwrap_or(state.data_type()))),
        overdue: BTreeSet::new(),
        failing: BTreeMap::new(),
        marks: Default::default(),
        batch: of_batch.then(Last::default),
        function: aggregate,
    })
}

/// Returns the type of the function's results if these are structs of the state and mapped values.
fn mapped_type(result: &DataType, state: &DataType) -> Option<DataType> {
    let DataType::Struct(fields) = result else { return None };
    let is_first = fields.first().is_some_and(|first| first.data_type() == state);
    (is_first && result != state).then(|| result.clone())
}

fn literal<'a>(expr: &'a Expr, argument: &str) -> Result<&'a ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Ok(value),
        _ => Err(Error::Limit(format!("{argument} of UPDATE_STATE isn't a literal"))),
    }
}

/// Returns the time-out in microseconds.
fn timeout_of(value: &ScalarValue) -> Result<Option<i64>> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = value else { return Ok(None) };
    let days = i64::from(interval.days) * 86_400_000_000;
    let microseconds = days + interval.nanoseconds / 1000;
    if interval.months != 0 || microseconds <= 0 {
        return Err(Error::Limit(
            "timeout of UPDATE_STATE is a length of time above zero, without months".into(),
        ));
    }
    Ok(Some(microseconds))
}
