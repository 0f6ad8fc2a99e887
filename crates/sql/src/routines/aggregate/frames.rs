//! User-defined aggregates with OVER: rows are folded in the order of the frame.
//!
//! The rows of a ROWS frame arrive one by one in their complete order. A RANGE or GROUPS frame contains all
//! peers of a row or none. Peers arrive together and are sorted here, by keys that
//! [`crate::rules::orderings`] passes as further arguments.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility, WindowFunctionDefinition,
};
use datafusion::scalar::ScalarValue;

use super::UserAggregate;
use super::sliding_frame::SlidingFrame;
use crate::error::Error;

/// A user-defined aggregate over frames.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FrameAggregate {
    inner: Arc<AggregateUDF>,
    order: Vec<SortOptions>,
    signature: Signature,
}

/// True if a function is a user-defined aggregate.
pub(crate) fn is_of_user(function: &WindowFunctionDefinition) -> bool {
    matches!(function, WindowFunctionDefinition::AggregateUDF(inner) if inner.inner().is::<UserAggregate>())
}

/// Wraps the aggregate `inner` for frames. Rows are sorted by keys after the arguments, or arrive in order.
pub(crate) fn framed(inner: Arc<AggregateUDF>, order: Vec<SortOptions>) -> Arc<AggregateUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(AggregateUDF::from(FrameAggregate { inner, order, signature }))
}

/// Returns the wrapped aggregate and the sort options of its keys.
pub(crate) fn parts(function: &AggregateUDF) -> Option<(&Arc<AggregateUDF>, &[SortOptions])> {
    let framed = function.inner().downcast_ref::<FrameAggregate>()?;
    Some((&framed.inner, &framed.order))
}

impl FrameAggregate {
    fn aggregate(&self) -> Result<&UserAggregate> {
        let inner = self.inner.inner().downcast_ref::<UserAggregate>();
        Ok(inner.ok_or_else(|| Error::bug("a frame of another aggregate"))?)
    }
}

impl AggregateUDFImpl for FrameAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.aggregate()?.returns.clone())
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SlidingFrame::growing(self.aggregate()?.machine.clone(), self.order.clone())?))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match &self.aggregate()?.moving {
            Some(moving) => {
                Ok(Box::new(SlidingFrame::taking_back(moving.clone())?.sorting(self.order.clone())))
            }
            None => self.accumulator(arguments),
        }
    }

    // A frame without rows has the initial state.
    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        SlidingFrame::growing(self.aggregate()?.machine.clone(), Vec::new())?.evaluate()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}
