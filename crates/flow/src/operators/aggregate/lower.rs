//! From a logical aggregate to the operator.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::{Aggregate as AggregatePlan, AggregateUDF, Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::count::Count;
use super::extreme::{Extreme, extreme};
use super::float::{Floats, Outcome};
use super::slot::SlotAggregate;
use super::sum::{average, sum};
use super::{Aggregate, Call, Kept};
use crate::{Driver, Result};

/// The alias of the functions that the analyzer puts in the place of `sum`, `avg`, `min` and `max` over floats, whose
/// types aren't known here. With it a function promises the result that the slots give, whatever the order of rows:
/// sums that are exact and rounded once, and an order with NaN above all numbers and -0.0 below 0.0.
const EXACT: &str = "millstream.exact";

/// The aggregates that are kept in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// count(*), count(x), count(x, y).
    Count,
    /// sum(x).
    Sum,
    /// avg(x).
    Avg,
    /// min(x).
    Min,
    /// max(x).
    Max,
}

impl Kind {
    /// The aggregate that this function is; `None` for one of a user's own, whatever its name.
    pub fn of(function: &AggregateUDF) -> Option<Kind> {
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
        } else {
            Kind::exact(function)
        }
    }

    /// The aggregate that a function with the alias [`EXACT`] is.
    fn exact(function: &AggregateUDF) -> Option<Kind> {
        if !function.aliases().iter().any(|alias| alias == EXACT) {
            return None;
        }
        match function.name() {
            "sum" => Some(Kind::Sum),
            "avg" => Some(Kind::Avg),
            "min" => Some(Kind::Min),
            "max" => Some(Kind::Max),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Count => "count",
            Kind::Sum => "sum",
            Kind::Avg => "avg",
            Kind::Min => "min",
            Kind::Max => "max",
        }
    }
}

/// Whether an aggregate over arguments of this type can be kept in slots; if not, why not.
pub fn supports(kind: Kind, data_type: &DataType, append_only: bool) -> std::result::Result<(), String> {
    if matches!(kind, Kind::Min | Kind::Max) && !append_only {
        return Err(format!("{} can't take a row back yet", kind.name()));
    }
    // The result's type has no part in whether there are slots: it differs from the argument's in digits only.
    if slots(kind, data_type, data_type).is_some() {
        return Ok(());
    }
    Err(format!("{} of {data_type} has no cheaper operator yet", kind.name()))
}

/// What has the slots of an aggregate; `None` where there is none.
fn slots(kind: Kind, input: &DataType, output: &DataType) -> Option<Box<dyn SlotAggregate>> {
    match kind {
        Kind::Count => Some(Box::<Count>::default()),
        Kind::Sum if *input == DataType::Float64 => Some(Box::new(Floats::new(Outcome::Sum))),
        Kind::Avg if *input == DataType::Float64 => Some(Box::new(Floats::new(Outcome::Average))),
        Kind::Sum => sum(output),
        Kind::Avg => average(input, output),
        Kind::Min | Kind::Max if matches!(input, DataType::Interval(_)) => None,
        Kind::Min => extreme(Extreme::Min, input),
        Kind::Max => extreme(Extreme::Max, input),
    }
}

/// The operator for `node`; or in words why it needs Whole.
pub fn lower(
    plan: &LogicalPlan,
    node: &AggregatePlan,
    append_only: bool,
    driver: &Driver,
) -> Result<std::result::Result<Aggregate, String>> {
    if node.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Ok(Err("GROUPING SETS, CUBE and ROLLUP have no cheaper operator yet".into()));
    }
    let mut calls = Vec::with_capacity(node.aggr_expr.len());
    for expr in &node.aggr_expr {
        match call(expr, node, append_only, driver)? {
            Ok(call) => calls.push(call),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    let keys = expressions(&node.group_expr, node, driver)?;
    Ok(Aggregate::new(keys, calls, plan.schema().inner().clone(), append_only)
        .map_err(|error| error.to_string()))
}

fn call(
    expr: &Expr,
    node: &AggregatePlan,
    append_only: bool,
    driver: &Driver,
) -> Result<std::result::Result<Call, String>> {
    let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
        return Ok(Err(format!("{expr} isn't a plain aggregate")));
    };
    let (name, params) = (function.func.name(), &function.params);
    let Some(kind) = Kind::of(&function.func) else {
        return Ok(Err(format!("{name} has no cheaper operator yet")));
    };
    if params.distinct {
        return Ok(Err(format!("{name}(DISTINCT …) has no cheaper operator yet")));
    }
    if params.null_treatment.is_some() {
        return Ok(Err(format!("{name} with RESPECT NULLS or IGNORE NULLS has no cheaper operator yet")));
    }
    let schema = node.input.schema();
    let arguments = expressions(&params.args, node, driver)?;
    let types =
        params.args.iter().map(|arg| arg.get_type(schema)).collect::<std::result::Result<Vec<_>, _>>()?;
    let filter = params.filter.as_ref().map(|filter| driver.expression(filter, &node.input)).transpose()?;
    let text = expr.schema_name().to_string();
    if kind == Kind::Count && filter.is_none() && params.args.iter().all(is_value) {
        return Ok(Ok(Call { text, arguments: Vec::new(), filter, kept: Kept::Rows }));
    }
    let Some(input) = types.first() else { return Ok(Err(format!("{name} has no argument"))) };
    if let Err(reason) = supports(kind, input, append_only) {
        return Ok(Err(reason));
    }
    let output = expr.get_type(schema)?;
    let Some(slots) = slots(kind, input, &output) else {
        return Ok(Err(format!("{name} of {input} has no cheaper operator yet")));
    };
    Ok(Ok(Call { text, arguments, filter, kept: Kept::Slots(slots) }))
}

/// A literal that isn't NULL: counting it counts rows.
fn is_value(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null())
}

fn expressions(exprs: &[Expr], node: &AggregatePlan, driver: &Driver) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    exprs.iter().map(|expr| driver.expression(expr, &node.input)).collect()
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
        for (name, kind) in [("sum", Kind::Sum), ("avg", Kind::Avg), ("min", Kind::Min), ("max", Kind::Max)] {
            assert_eq!(Kind::of(&of_user(name)), None);
            assert_eq!(Kind::of(&of_user(name).with_aliases(["exact"])), None);
            assert_eq!(Kind::of(&of_user(name).with_aliases([EXACT])), Some(kind));
        }
        assert_eq!(Kind::of(&of_user("median").with_aliases([EXACT])), None);
    }
}
