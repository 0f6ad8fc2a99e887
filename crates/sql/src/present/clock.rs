//! `epoch_time()`: what stands for the present time in the plan of a query that runs for ever.

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
use crate::error::{Error, Result};
use crate::rules::names::map_named;
use crate::steady::CLOCKS;

/// The name of the function. The operators know it by that name.
const EPOCH_TIME: &str = "epoch_time";

/// The function; no plan may fold it, and nothing can evaluate it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EpochTime {
    /// The function that was written.
    written: &'static str,
    zone: Arc<str>,
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
        Ok(time_type(&self.zone))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        Err(Error::bug(format!("{}() was asked for where time doesn't go on", self.written)).into())
    }
}

fn time_type(zone: &Arc<str>) -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(zone.clone()))
}

/// Whether a plan as written asks for the present time.
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

/// The function of the present time that a part of an expression calls.
fn written(part: &Expr) -> Option<&'static str> {
    match part {
        Expr::ScalarFunction(call) => CLOCKS.into_iter().find(|clock| *clock == call.func.name()),
        _ => None,
    }
}

/// A plan as written with `epoch_time()` in the place of such calls, as times of this zone.
pub(super) fn replace_clocks(plan: LogicalPlan, zone: &str) -> Result<LogicalPlan> {
    let replaced = plan.transform_down_with_subqueries(|node| {
        map_named(node, |expr| {
            expr.transform(|part| {
                let Some(written) = written(&part) else { return Ok(Transformed::no(part)) };
                let kind = part.get_type(&DFSchema::empty())?;
                let function = EpochTime::new(written, zone);
                let time = time_type(&function.zone);
                let function = Arc::new(ScalarUDF::new_from_impl(function));
                let call = Expr::ScalarFunction(ScalarFunction::new_udf(function, Vec::new()));
                Ok(Transformed::yes(if kind == time { call } else { cast(call, kind) }))
            })
        })
    })?;
    Ok(replaced.data)
}

/// The function that was written and the zone of such a function's times.
pub(crate) fn clock_parts(function: &ScalarUDF) -> Option<(&'static str, &str)> {
    let clock = function.inner().downcast_ref::<EpochTime>()?;
    Some((clock.written, &clock.zone))
}

/// The function of such parts.
pub(crate) fn clock_of_parts(written: &str, zone: &str) -> Option<Arc<ScalarUDF>> {
    let written = CLOCKS.into_iter().find(|clock| *clock == written)?;
    Some(Arc::new(ScalarUDF::new_from_impl(EpochTime::new(written, zone))))
}

impl EpochTime {
    fn new(written: &'static str, zone: &str) -> EpochTime {
        let signature = Signature::exact(Vec::new(), Volatility::Volatile);
        EpochTime { written, zone: zone.into(), signature }
    }
}

/// What stands for the present time, by the name that was written.
pub(super) fn clock_of(part: &Expr) -> Option<&'static str> {
    match part {
        Expr::ScalarFunction(call) => Some(call.func.inner().downcast_ref::<EpochTime>()?.written),
        _ => None,
    }
}

/// The first such call in an expression.
pub(super) fn asked(expression: &Expr) -> Option<&'static str> {
    let mut found = None;
    let looked = expression.apply(|part| {
        found = clock_of(part);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    looked.ok().and(found)
}

/// The zone of the times of such a call.
pub(super) fn zone_of(part: &Expr) -> Option<&str> {
    match part {
        Expr::ScalarFunction(call) => Some(&call.func.inner().downcast_ref::<EpochTime>()?.zone),
        _ => None,
    }
}

/// A plan that is maintained as the batch query at one time, in microseconds since 1970 UTC.
pub fn at(plan: LogicalPlan, now_us: i64) -> Result<LogicalPlan> {
    let now = Some(now_us.saturating_mul(1000));
    let plan = plan.transform_down_with_subqueries(|node| {
        node.map_expressions(|expression| {
            expression.transform(|part| match zone_of(&part) {
                Some(zone) => {
                    let now = ScalarValue::TimestampNanosecond(now, Some(zone.into()));
                    Ok(Transformed::yes(Expr::Literal(now, None)))
                }
                None => Ok(Transformed::no(part)),
            })
        })
    })?;
    Ok(plan.data)
}
