//! Lowers a logical aggregate to the operator.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::bit_and_or_xor::{bit_and_udaf, bit_or_udaf, bit_xor_udaf};
use datafusion::functions_aggregate::bool_and_or::{BoolAnd, BoolOr};
use datafusion::functions_aggregate::count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::regr::Regr;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate as AggregatePlan, AggregateUDF, Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::Statistic;

use super::Aggregate;
use super::bits::{Operation, bits};
use super::booleans::Truth;
use super::call::{Call, CallState};
use super::count::Count;
use super::distinct::Distinct;
use super::extreme::{Extreme, extreme};
use super::float::{Floats, Outcome};
use super::grouping::grouping;
use super::interval_average::IntervalAverages;
use super::mergeable::MergeableStates;
use super::min_max::ends;
use super::moments::Spreads;
use super::ordered::Ordered;
use super::retractable::{RetractableStates, is_of_users};
use super::slot::SlotAggregate;
use super::sum::{average, sum};
use super::wide_sum::wide_sum;
use crate::{Driver, Result};

/// The alias of the functions by which the analyzer replaces `sum`, `avg`, `min` and `max` over floats, and
/// variances and the like; their types aren't known here. A function with the alias promises the slots'
/// result, whatever the order of rows: exact sums, rounded once, and an order with NaN above all numbers and
/// -0.0 below 0.0.
const EXACT: &str = "millstream.exact";

/// The alias of the aggregates that implement MATCH_RECOGNIZE, whose types aren't known here.
const MATCH_ROWS: &str = "millstream.match_rows";

/// The prefixes of the names of aggregates that round at each step, unless they are marked as [`EXACT`].
const ROUNDED: [&str; 5] = ["var", "stddev", "covar", "corr", "regr"];

/// The aggregates that are kept in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// count(*), count(x), count(x, y).
    Count,
    /// sum(x) of types with room for their sums, such as small integers and decimals.
    Sum,
    /// sum(x) of floats, rounded once, or of BIGINT: within its range or an error.
    ExactSum,
    /// avg(x).
    Avg,
    /// min(x).
    Min,
    /// max(x).
    Max,
    /// bool_and(x).
    All,
    /// bool_or(x).
    Any,
    /// bit_and(x).
    BitAnd,
    /// bit_or(x).
    BitOr,
    /// bit_xor(x).
    BitXor,
    /// regr_count(y, x).
    CountPairs,
    /// A variance, covariance, correlation or regression.
    Moments(Statistic),
}

fn is_match(function: &AggregateFunction) -> bool {
    function.func.aliases().iter().any(|alias| alias == MATCH_ROWS)
}

/// Returns true if a plan returns the lists of matches of MATCH_RECOGNIZE, one list for each partition.
pub(crate) fn gives_matches(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Aggregate(node) = plan else { return false };
    let is_one = |expr: &Expr| match expr.clone().unalias_nested().data {
        Expr::AggregateFunction(function) => is_match(&function),
        _ => false,
    };
    node.aggr_expr.iter().any(is_one)
}

/// Returns true if the function depends only on the multiset of its arguments and its states can be merged. A
/// merged state must equal one state over all rows.
pub(crate) fn is_known(function: &AggregateUDF) -> bool {
    Kind::of(function).is_some()
}

impl Kind {
    /// Returns the kind of this function; `None` for a user-defined function, whatever its name.
    pub(super) fn of(function: &AggregateUDF) -> Option<Kind> {
        let inner = function.inner().as_ref() as &dyn Any;
        if inner.is::<count::Count>() {
            Some(Kind::Count)
        } else if inner.is::<Sum>() {
            Some(Kind::Sum)
        } else if inner.is::<Avg>() {
            Some(Kind::Avg)
        } else if inner.is::<Min>() {
            Some(Kind::Min)
        } else if inner.is::<Max>() {
            Some(Kind::Max)
        } else if inner.is::<BoolAnd>() {
            Some(Kind::All)
        } else if inner.is::<BoolOr>() {
            Some(Kind::Any)
        } else if *function == *bit_and_udaf() {
            Some(Kind::BitAnd)
        } else if *function == *bit_or_udaf() {
            Some(Kind::BitOr)
        } else if *function == *bit_xor_udaf() {
            Some(Kind::BitXor)
        } else if inner.is::<Regr>() && function.name() == "regr_count" {
            Some(Kind::CountPairs)
        } else {
            Kind::exact(function)
        }
    }

    /// Returns the kind of a function with the alias [`EXACT`].
    fn exact(function: &AggregateUDF) -> Option<Kind> {
        if !function.aliases().iter().any(|alias| alias == EXACT) {
            return None;
        }
        match function.name() {
            "sum" => Some(Kind::ExactSum),
            "avg" => Some(Kind::Avg),
            "min" => Some(Kind::Min),
            "max" => Some(Kind::Max),
            "regr_count" => Some(Kind::CountPairs),
            name => Statistic::of_name(name).map(Kind::Moments),
        }
    }

    /// Returns true if repeated values don't change the result, so that DISTINCT has no effect.
    fn is_idempotent(self) -> bool {
        matches!(self, Kind::Min | Kind::Max | Kind::All | Kind::Any | Kind::BitAnd | Kind::BitOr)
    }
}

/// Returns the slots of an aggregate; `None` if there are none. `append_only` is true if no row is retracted.
fn slots(
    kind: Kind,
    input: &DataType,
    output: &DataType,
    append_only: bool,
) -> Option<Box<dyn SlotAggregate>> {
    match kind {
        Kind::Count => Some(Box::<Count>::default()),
        Kind::CountPairs => Some(Box::new(Count::unsigned())),
        Kind::Sum | Kind::ExactSum if *input == DataType::Float64 => {
            Some(Box::new(Floats::new(Outcome::Sum)))
        }
        Kind::ExactSum => wide_sum(output),
        Kind::Avg if *input == DataType::Float64 => Some(Box::new(Floats::new(Outcome::Average))),
        Kind::Avg if matches!(input, DataType::Interval(IntervalUnit::MonthDayNano)) => {
            Some(Box::<IntervalAverages>::default())
        }
        Kind::Sum => sum(output),
        Kind::Avg => average(input, output),
        Kind::Min | Kind::Max if matches!(input, DataType::Interval(IntervalUnit::YearMonth)) => None,
        Kind::Min if append_only => extreme(Extreme::Min, input),
        Kind::Max if append_only => extreme(Extreme::Max, input),
        Kind::Min => ends(Extreme::Min, input),
        Kind::Max => ends(Extreme::Max, input),
        Kind::All => Some(Box::new(Truth::all())),
        Kind::Any => Some(Box::new(Truth::any())),
        Kind::BitAnd => bits(Operation::And, input, append_only),
        Kind::BitOr => bits(Operation::Or, input, append_only),
        Kind::BitXor => bits(Operation::Xor, input, append_only),
        Kind::Moments(statistic) if *input == DataType::Float64 => Some(Box::new(Spreads::new(statistic))),
        Kind::Moments(_) => None,
    }
}

/// Returns the operator for `node`, or the reason why it needs another one.
pub fn lower(
    plan: &LogicalPlan,
    node: &AggregatePlan,
    append_only: bool,
    driver: &Driver,
) -> Result<std::result::Result<Aggregate, String>> {
    lower_over(plan, node, if append_only { Rows::Stay } else { Rows::Change }, driver)
}

/// The kinds of changes of the aggregated rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// Rows are inserted and deleted.
    Change,
    /// Rows are only inserted.
    Stay,
    /// Rows are inserted, and deleted in the order of insertion, a pane at a time.
    Leave,
}

/// Returns the operator for `node` over such rows.
pub(super) fn lower_over(
    plan: &LogicalPlan,
    node: &AggregatePlan,
    rows: Rows,
    driver: &Driver,
) -> Result<std::result::Result<Aggregate, String>> {
    let append_only = rows != Rows::Change;
    let mut calls = Vec::with_capacity(node.aggr_expr.len());
    for expr in &node.aggr_expr {
        let lowering = CallLowering { expr, node, append_only, leaves: rows == Rows::Leave, driver };
        match lowering.call()? {
            Ok(call) => calls.push(call),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    let schema = plan.schema().inner().clone();
    let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let grouping = grouping(node, &types, driver)?;
    let columns = grouping.keys.len() + usize::from(!grouping.sets.is_empty()) + calls.len();
    if columns != types.len() {
        return Ok(Err("its grouping sets name a column twice".into()));
    }
    let aggregate = Aggregate::new(grouping, calls, schema, append_only);
    let threads = driver.threads().clone();
    Ok(aggregate.map(|aggregate| aggregate.on_threads(threads)).map_err(|error| error.to_string()))
}

/// The input for lowering a call of an aggregate function.
struct CallLowering<'a> {
    expr: &'a Expr,
    node: &'a AggregatePlan,
    append_only: bool,
    /// True if rows leave in the order in which they arrived.
    leaves: bool,
    driver: &'a Driver,
}

/// The stored form of a call, or the reason why there is none.
type Form<T> = std::result::Result<T, String>;

impl CallLowering<'_> {
    fn call(&self) -> Result<Form<Call>> {
        let expr = self.expr;
        let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
            return Ok(Err(format!("{expr} isn't a plain aggregate")));
        };
        if is_match(&function) {
            return Ok(Err("MATCH_RECOGNIZE looks at all rows of a partition".into()));
        }
        let text = expr.schema_name().to_string();
        let params = &function.params;
        let (input, kind) = (&self.node.input, Kind::of(&function.func));
        let filter =
            params.filter.as_ref().map(|filter| self.driver.expression(filter, input)).transpose()?;
        let distinct = params.distinct && !kind.is_some_and(Kind::is_idempotent);
        if kind == Some(Kind::Count) && filter.is_none() && !distinct && params.args.iter().all(is_value) {
            let kept = CallState::Rows;
            return Ok(Ok(Call { text, arguments: Vec::new(), filter, takes_nulls: false, kept }));
        }
        if distinct && let Err(error) = self.driver.aggregate(expr, input)?.create_accumulator() {
            return Ok(Err(error.strip_backtrace()));
        }
        let (arguments, takes_nulls, mut slots) = match self.slots(&function, kind)? {
            Ok(slots) => (self.arguments(&params.args)?, false, slots),
            Err(reason) => match (self.moving(&function, distinct)?, self.merged(&function)?) {
                (Some(moving), _) => (moving.arguments(), true, Box::new(moving) as Box<dyn SlotAggregate>),
                (None, Ok(merged)) => (merged.arguments(), true, Box::new(merged) as Box<dyn SlotAggregate>),
                (None, Err(other)) => match self.ordered(&function)? {
                    Some(ordered) => (ordered.arguments(), true, Box::new(ordered) as Box<dyn SlotAggregate>),
                    None => return Ok(Err(if self.append_only { other } else { reason })),
                },
            },
        };
        if distinct {
            let types = arguments.iter().map(|argument| Ok(argument.data_type(input.schema().as_arrow())?));
            slots = match Distinct::new(slots, &types.collect::<Result<Vec<_>>>()?) {
                Ok(distinct) => Box::new(distinct),
                Err(error) => return Ok(Err(error.to_string())),
            };
        }
        Ok(Ok(Call { text, arguments, filter, takes_nulls, kept: CallState::Slots(slots) }))
    }

    fn arguments(&self, args: &[Expr]) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        args.iter().map(|arg| self.driver.expression(arg, &self.node.input)).collect()
    }

    /// Returns columns of values, updated in place.
    fn slots(
        &self,
        function: &AggregateFunction,
        kind: Option<Kind>,
    ) -> Result<Form<Box<dyn SlotAggregate>>> {
        let name = function.func.name();
        let kind = match kind {
            None if !self.append_only => {
                return Ok(Err(format!("{name} can't retract a row yet")));
            }
            Some(kind) => kind,
            None => return Ok(Err(format!("{name} isn't kept in slots"))),
        };
        let schema = self.node.input.schema();
        let Some(argument) = function.params.args.first() else {
            return Ok(Err(format!("{name} has no argument")));
        };
        let (input, output) = (argument.get_type(schema)?, self.expr.get_type(schema)?);
        let slots = slots(kind, &input, &output, self.append_only);
        Ok(slots.ok_or_else(|| format!("{name} of {input} has no cheaper operator yet")))
    }

    /// Returns accumulators that retract rows in the order in which they arrived.
    fn moving(&self, function: &AggregateFunction, distinct: bool) -> Result<Option<RetractableStates>> {
        if !self.leaves || distinct || !is_of_users(&function.func) {
            return Ok(None);
        }
        let aggregate = self.driver.aggregate(self.expr, &self.node.input)?;
        Ok(RetractableStates::new(aggregate, self.expr.get_type(self.node.input.schema())?))
    }

    /// Returns the rows of each group, in the order in which the function takes them in.
    fn ordered(&self, function: &AggregateFunction) -> Result<Option<Ordered>> {
        if self.append_only {
            return Ok(None);
        }
        let schema = self.node.input.schema();
        let aggregate = self.driver.aggregate(&without_distinct(function), &self.node.input)?;
        Ordered::new(aggregate, self.expr.get_type(schema)?, schema.as_arrow())
    }

    /// Returns states of accumulators, merged with those of new rows.
    fn merged(&self, function: &AggregateFunction) -> Result<Form<MergeableStates>> {
        let name = function.func.name();
        if !self.append_only {
            return Ok(Err(format!("{name} can't retract a row yet")));
        }
        let exact = function.func.aliases().iter().any(|alias| alias == EXACT);
        if !exact && ROUNDED.iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(Err(format!("the last digits of {name} depend on the order of rows")));
        }
        let aggregate = self.driver.aggregate(&without_distinct(function), &self.node.input)?;
        let output = self.expr.get_type(self.node.input.schema())?;
        if output.is_nested() && matches!(Kind::of(aggregate.fun()), Some(Kind::Min | Kind::Max)) {
            return Ok(Err(format!("{name} of {output} depends on the order of rows")));
        }
        Ok(MergeableStates::new(aggregate, output).map_err(|error| error.to_string()))
    }
}

/// Returns the call without DISTINCT, which a table before the aggregate implements.
fn without_distinct(function: &AggregateFunction) -> Expr {
    let mut function = function.clone();
    function.params.distinct = false;
    Expr::AggregateFunction(function)
}

/// Returns true for a literal that isn't NULL: counting it counts rows.
fn is_value(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null())
}

#[cfg(test)]
mod tests {
    use datafusion::error::DataFusionError;
    use datafusion::functions_aggregate::{min_max, sum};
    use datafusion::logical_expr::function::AccumulatorArgs;
    use datafusion::logical_expr::{Volatility, create_udaf};

    use super::*;

    fn of_user(name: &str) -> AggregateUDF {
        let double = || Arc::new(DataType::Float64);
        let accumulator = Arc::new(|_: AccumulatorArgs| Err(DataFusionError::Internal("not called".into())));
        let state = Arc::new(vec![DataType::Float64]);
        create_udaf(name, vec![DataType::Float64], double(), Volatility::Immutable, accumulator, state)
    }

    #[test]
    fn a_function_is_known_by_its_type_or_its_mark_and_not_by_its_name() {
        assert_eq!(Kind::of(&sum::sum_udaf()), Some(Kind::Sum));
        assert_eq!(Kind::of(&min_max::max_udaf()), Some(Kind::Max));
        for (name, kind) in
            [("sum", Kind::ExactSum), ("avg", Kind::Avg), ("min", Kind::Min), ("max", Kind::Max)]
        {
            assert_eq!(Kind::of(&of_user(name)), None);
            assert_eq!(Kind::of(&of_user(name).with_aliases(["exact"])), None);
            assert_eq!(Kind::of(&of_user(name).with_aliases([EXACT])), Some(kind));
        }
        assert_eq!(Kind::of(&of_user("median").with_aliases([EXACT])), None);
    }
}
