//! The present time in a query FOR EACH BATCH: the batch time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};

use crate::determinism::CLOCKS;
use crate::error::Result;
use crate::rules::names::map_named;
use crate::tree_rewrite::TreeRewrite;

/// The value of `now()` in one query. Code that runs the query sets it before each batch.
#[derive(Clone, Default)]
pub struct BatchClock(Arc<AtomicI64>);

impl BatchClock {
    /// Sets the clock to microseconds since 1970 UTC.
    pub fn set(&self, now_us: i64) {
        self.0.store(now_us, Ordering::Relaxed);
    }

    /// Returns the function that reads this clock in a unit.
    pub(crate) fn function(&self, unit: TimeUnit) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(BatchTime::new(self.clone(), unit)))
    }

    /// Makes a plan's functions of the present time read this clock. Also returns true if there are any.
    pub(super) fn replace_clocks(&self, plan: LogicalPlan) -> Result<(LogicalPlan, bool)> {
        let call = |unit| Expr::ScalarFunction(ScalarFunction::new_udf(self.function(unit), Vec::new()));
        let replaced = plan.rewrite_down(|node| {
            map_named(node, |expr| {
                expr.rewrite_up(|part| match &part {
                    Expr::ScalarFunction(function) if CLOCKS.contains(&function.func.name()) => {
                        let kind = part.get_type(&DFSchema::empty())?;
                        let unit = match kind {
                            DataType::Timestamp(unit, _) => unit,
                            _ => TimeUnit::Nanosecond,
                        };
                        Ok(Transformed::yes(cast(call(unit), kind)))
                    }
                    _ => Ok(Transformed::no(part)),
                })
            })
        })?;
        Ok((replaced.data, replaced.transformed))
    }
}

/// Returns the clock that a function reads, and its unit.
pub(crate) fn clock_in(function: &ScalarUDF) -> Option<(&BatchClock, TimeUnit)> {
    let time = function.inner().downcast_ref::<BatchTime>()?;
    Some((&time.clock, time.unit))
}

/// Compares by identity: two clocks with equal times are different.
impl PartialEq for BatchClock {
    fn eq(&self, other: &BatchClock) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for BatchClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchClock")
    }
}

/// The function `batch_time()`. Its value differs between batches, so no plan may fold it.
#[derive(Debug)]
struct BatchTime {
    clock: BatchClock,
    unit: TimeUnit,
    signature: Signature,
}

impl BatchTime {
    fn new(clock: BatchClock, unit: TimeUnit) -> BatchTime {
        BatchTime { clock, unit, signature: Signature::exact(Vec::new(), Volatility::Volatile) }
    }
}

impl PartialEq for BatchTime {
    fn eq(&self, other: &BatchTime) -> bool {
        self.clock == other.clock && self.unit == other.unit
    }
}

impl Eq for BatchTime {}

impl Hash for BatchTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.clock.0).hash(state);
    }
}

/// The name of the function that replaces `now()`.
pub(crate) const BATCH_TIME: &str = "batch_time";

impl ScalarUDFImpl for BatchTime {
    fn name(&self) -> &str {
        BATCH_TIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Timestamp(self.unit, Some("+00:00".into())))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let now = self.clock.0.load(Ordering::Relaxed);
        let now = ScalarValue::TimestampMicrosecond(Some(now), Some("+00:00".into()));
        Ok(ColumnarValue::Scalar(now.cast_to(&DataType::Timestamp(self.unit, Some("+00:00".into())))?))
    }
}
