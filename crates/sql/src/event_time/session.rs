//! Sessions as window functions: `session_start(ts, gap) OVER (PARTITION BY k ORDER BY ts)`.
//!
//! Rows of a key whose times are less than the gap apart are in one session. It begins with its first row and
//! ends a gap after its last row: a row at exactly that time is in the next session.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use super::grid::{Length, Timeline};
use crate::error::Error;

/// The end of a session that a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Start,
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Session {
    side: Side,
    signature: Signature,
}

fn made(side: Side) -> Arc<WindowUDF> {
    Arc::new(WindowUDF::from(Session { side, signature: Signature::any(2, Volatility::Immutable) }))
}

/// Returns the function for the start of a row's session.
pub(super) fn session_start() -> Arc<WindowUDF> {
    static FUNCTION: LazyLock<Arc<WindowUDF>> = LazyLock::new(|| made(Side::Start));
    FUNCTION.clone()
}

/// Returns the function for the end of a row's session.
pub(super) fn session_end() -> Arc<WindowUDF> {
    static FUNCTION: LazyLock<Arc<WindowUDF>> = LazyLock::new(|| made(Side::End));
    FUNCTION.clone()
}

impl WindowUDFImpl for Session {
    fn name(&self) -> &str {
        match self.side {
            Side::Start => "session_start",
            Side::End => "session_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = arguments.input_fields().first().map(|field| field.data_type().clone());
        let data_type = data_type.ok_or_else(|| Error::bug("a session without a time"))?;
        Ok(Arc::new(Field::new(arguments.name(), data_type, true)))
    }

    fn partition_evaluator(&self, arguments: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let field = arguments.input_fields().first().ok_or_else(|| Error::bug("a session without a time"))?;
        let line = Timeline::new(field.data_type(), IntervalMonthDayNano::ZERO)?;
        let gap = arguments.input_exprs().get(1).and_then(literal);
        let gap = gap.ok_or_else(|| Error::bug("a session without a gap"))?;
        let gap = line.length("gap of a window", gap)?;
        Ok(Box::new(Evaluator { side: self.side, line, gap, data_type: field.data_type().clone() }))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

fn literal(expression: &Arc<dyn PhysicalExpr>) -> Option<IntervalMonthDayNano> {
    match expression.downcast_ref::<Literal>()?.value() {
        ScalarValue::IntervalMonthDayNano(interval) => *interval,
        _ => None,
    }
}

#[derive(Debug)]
struct Evaluator {
    side: Side,
    line: Timeline,
    gap: Length,
    data_type: DataType,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let times = cast(&values[0], &DataType::Int64)?;
        let times = times.as_primitive::<Int64Type>();
        let mut found: Vec<Option<i64>> = vec![None; rows];
        for session in sessions(times, &self.line, self.gap)? {
            let value = match self.side {
                Side::Start => times.value(session.start),
                Side::End => self.line.after(times.value(session.end - 1), self.gap)?,
            };
            found[session].fill(Some(value));
        }
        Ok(cast(&Int64Array::from(found), &self.data_type)?)
    }
}

/// Returns the rows of each session. Times must be sorted; NULL times are in no session.
fn sessions(times: &Int64Array, line: &Timeline, gap: Length) -> Result<Vec<Range<usize>>> {
    let first = times.iter().position(|time| time.is_some()).unwrap_or(times.len());
    let known = times.len() - times.null_count();
    let (mut sessions, mut start) = (Vec::new(), first);
    for row in first..first + known {
        if row + 1 == first + known || line.after(times.value(row), gap)? <= times.value(row + 1) {
            sessions.push(start..row + 1);
            start = row + 1;
        }
    }
    Ok(sessions)
}
