//! `epoch_time()`, which replaces the present time in the plan of a continuous query.

use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};

use super::PlanResult;
use crate::determinism::CLOCKS;
use crate::error::{Error, Result};
use crate::rules::names::map_named;
use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// The name of the function, by which operators recognize it.
const EPOCH_TIME: &str = "epoch_time";

/// The function. No plan may fold it, and it can't be evaluated.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EpochTime {
    /// The function that the query's text calls.
    written: &'static str,
    zone: Arc<str>,
    /// The unit of `now()`.
    unit: TimeUnit,
    signature: Signature,
}

impl ScalarUDFImpl for EpochTime {
    fn name(&self) -> &str {
        EPOCH_TIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(self.time_type())
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        Err(Error::bug(format!("{}() was asked for where time doesn't go on", self.written)).into())
    }
}

/// True if a plan as written reads the present time.
pub(super) fn asks(plan: &LogicalPlan) -> PlanResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            found |= expression.exists(|part| Ok(written(part).is_some() || clock_of(part).is_some()))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// Returns the function of the present time that a part of an expression calls.
fn written(part: &Expr) -> Option<&'static str> {
    match part {
        Expr::ScalarFunction(call) => CLOCKS.into_iter().find(|clock| *clock == call.func.name()),
        _ => None,
    }
}

/// Replaces such calls in a plan as written by `epoch_time()`, as times of this zone and unit.
pub(super) fn replace_clocks(plan: LogicalPlan, zone: &str, unit: TimeUnit) -> Result<LogicalPlan> {
    let replaced = plan.rewrite_down(|node| {
        map_named(node, |expr| {
            expr.rewrite_up(|part| {
                let Some(written) = written(&part) else { return Ok(Transformed::no(part)) };
                let kind = part.get_type(&DFSchema::empty())?;
                let function = EpochTime::new(written, zone, unit);
                let time = function.time_type();
                let function = Arc::new(ScalarUDF::new_from_impl(function));
                let call = Expr::ScalarFunction(ScalarFunction::new_udf(function, Vec::new()));
                Ok(Transformed::yes(if kind == time { call } else { cast(call, kind) }))
            })
        })
    })?;
    Ok(replaced.data)
}

/// Returns the function of the query's text, the time zone and the unit.
pub(crate) fn clock_parts(function: &ScalarUDF) -> Option<(&'static str, &str, TimeUnit)> {
    let clock = function.inner().downcast_ref::<EpochTime>()?;
    Some((clock.written, &clock.zone, clock.unit))
}

/// Creates the function from its parts.
pub(crate) fn clock_of_parts(written: &str, zone: &str, unit: TimeUnit) -> Option<Arc<ScalarUDF>> {
    let written = CLOCKS.into_iter().find(|clock| *clock == written)?;
    Some(Arc::new(ScalarUDF::new_from_impl(EpochTime::new(written, zone, unit))))
}

impl EpochTime {
    fn new(written: &'static str, zone: &str, unit: TimeUnit) -> EpochTime {
        let signature = Signature::exact(Vec::new(), Volatility::Volatile);
        EpochTime { written, zone: zone.into(), unit, signature }
    }

    fn time_type(&self) -> DataType {
        DataType::Timestamp(self.unit, Some(self.zone.clone()))
    }
}

/// Returns the function that the query's text calls in the place of `epoch_time()`.
pub(super) fn clock_of(part: &Expr) -> Option<&'static str> {
    match part {
        Expr::ScalarFunction(call) => Some(call.func.inner().downcast_ref::<EpochTime>()?.written),
        _ => None,
    }
}

/// Returns the first such call in an expression.
pub(super) fn asked(expression: &Expr) -> Option<&'static str> {
    let mut found = None;
    let looked = expression.apply(|part| {
        found = clock_of(part);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    looked.ok().and(found)
}

/// Returns true for such a call.
pub(crate) fn is_clock(part: &Expr) -> bool {
    zone_of(part).is_some()
}

/// Returns the time zone of such a call.
pub(super) fn zone_of(part: &Expr) -> Option<&str> {
    match part {
        Expr::ScalarFunction(call) => Some(&call.func.inner().downcast_ref::<EpochTime>()?.zone),
        _ => None,
    }
}

/// Converts a continuous query's plan to a batch query at a time, in microseconds since 1970 UTC.
pub fn at(plan: LogicalPlan, now_us: i64) -> Result<LogicalPlan> {
    let plan = plan.rewrite_down(|node| {
        node.rewrite_expressions(|expression| {
            expression.rewrite_up(|part| match &part {
                Expr::ScalarFunction(call) if let Some((_, zone, unit)) = clock_parts(&call.func) => {
                    let now = ScalarValue::TimestampMicrosecond(Some(now_us), Some(zone.into()));
                    let now = now.cast_to(&DataType::Timestamp(unit, Some(zone.into())))?;
                    Ok(Transformed::yes(Expr::Literal(now, None)))
                }
                _ => Ok(Transformed::no(part)),
            })
        })
    })?;
    Ok(plan.data)
}
