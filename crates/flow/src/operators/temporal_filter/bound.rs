//! The bound that rows are compared with: a monotonic function of time.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::Timestamp;

use crate::driver::evaluate;
use crate::failure::reason;
use crate::{Error, Result};

/// The limit of the search: microseconds of the year 2223, from which on values may not fit their type.
const TIME_MAX: i64 = 8_000_000_000_000_000;

/// The number of times evaluated together.
const POINTS: i64 = 64;

/// An expression over rows of one column, which is the time.
#[derive(Debug)]
pub struct Bound {
    expr: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    data_type: DataType,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

impl Bound {
    /// Returns the bound of an expression over rows of this schema, whose only column is a timestamp.
    pub fn new(expr: Arc<dyn PhysicalExpr>, schema: SchemaRef) -> Result<Bound> {
        let data_type = expr.data_type(&schema)?;
        Ok(Bound { expr, schema, data_type })
    }

    /// Returns NULL, in one row.
    pub(super) fn unknown(&self) -> ArrayRef {
        new_null_array(&self.data_type, 1)
    }

    /// Returns its values at some times, in microseconds since 1970 UTC.
    pub(super) fn at(&self, times: &[i64]) -> Result<ArrayRef> {
        let nanos = times.iter().map(|time| time.saturating_mul(1000));
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(nanos));
        let times = cast(&times, self.schema.field(0).data_type())?;
        let rows = RecordBatch::try_new(self.schema.clone(), vec![times])?;
        let values = evaluate(std::slice::from_ref(&self.expr), &rows)?.pop();
        values.ok_or_else(|| Error::Bug("an expression without a value".into()))
    }

    /// Returns the first time after `now` whose value satisfies `first`. `first` returns the place of the
    /// first value that satisfies it; all later values must satisfy it, too.
    pub(super) fn reaches(
        &self,
        now: Timestamp,
        first: impl Fn(&ArrayRef) -> Result<Option<usize>>,
    ) -> Result<Option<Timestamp>> {
        // First at growing distances until a time satisfies it, then by narrowing the interval.
        let mut points: Vec<i64> = (0..POINTS - 1)
            .map(|power| now.0.saturating_add(1 << power))
            .take_while(|time| *time < TIME_MAX)
            .collect();
        let mut below = now.0;
        loop {
            let Some(found) = self.first_of(&points, &first)? else { return Ok(None) };
            if let Some(before) = found.checked_sub(1) {
                below = points[before];
            }
            let reached = points[found];
            if reached - below <= 1 {
                return Ok(Some(Timestamp(reached)));
            }
            let step = (reached - below).div_euclid(POINTS).max(1);
            points = (1..POINTS).map(|at| below + at * step).take_while(|time| *time < reached).collect();
            points.push(reached);
        }
    }

    /// Returns the first of some times, without those whose values don't fit their type.
    fn first_of(
        &self,
        times: &[i64],
        first: &impl Fn(&ArrayRef) -> Result<Option<usize>>,
    ) -> Result<Option<usize>> {
        let mut times = times;
        while !times.is_empty() {
            match self.at(times) {
                Ok(values) => return first(&values),
                Err(error) if reason(&error).is_some() => times = &times[..times.len() - 1],
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
