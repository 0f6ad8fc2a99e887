//! The windows of a row as functions of its time: `tumble_start(ts, size, offset)` and similar.
//!
//! They are in no registry: the planner replaces `TUMBLE(…)` by them, with lengths that it has checked.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, PrimitiveArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::gap_rows;
use super::grid::{Length, Timeline};
use crate::error::Error;
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// Defines a function whose last argument is the offset and whose other arguments are lengths.
macro_rules! function {
    ($name:ident, $typed:expr, $kernel:expr) => {
        pub(super) fn $name(arguments: Vec<Expr>) -> Expr {
            static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
                Arc::new(Scalar::any(stringify!($name), $typed as Typed, $kernel as Kernel))
            });
            FUNCTION.call(arguments)
        }
    };
}

function!(tumble_start, time_type, |columns| tumble(columns, |(start, _)| start));
function!(tumble_end, time_type, |columns| tumble(columns, |(_, end)| end));
function!(hop_starts, list_type, |columns| {
    lists(columns, |line, lengths, time, starts| line.hop(time, lengths[0], lengths[1], starts))
});
function!(hop_end, time_type, |columns| map(columns, |line, lengths, start| line.end(start, lengths[0])));
function!(cumulate_ends, list_type, |columns| {
    lists(columns, |line, lengths, time, ends| line.cumulate(time, lengths[0], lengths[1], ends))
});

/// Returns all functions.
pub(super) fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let calls = [tumble_start, tumble_end, hop_starts, hop_end, cumulate_ends].map(|call| call(Vec::new()));
    let of_windows = calls.into_iter().filter_map(|call| match call {
        Expr::ScalarFunction(call) => Some(call.func),
        _ => None,
    });
    of_windows.chain([gap_rows::function()])
}

fn time_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [time @ DataType::Timestamp(..), lengths @ ..]
            if lengths.iter().all(|of| *of == DataType::Interval(IntervalUnit::MonthDayNano)) =>
        {
            Ok(time.clone())
        }
        _ => Err(Error::bug("windows over what is no timestamp").into()),
    }
}

fn list_type(arguments: &[DataType]) -> Result<DataType> {
    Ok(DataType::new_list(time_type(arguments)?, true))
}

/// The decoded arguments of a call; none for a call without rows.
struct Call {
    line: Timeline,
    lengths: Vec<Length>,
    times: Int64Array,
}

fn read(columns: &[ArrayRef]) -> Result<Option<Call>> {
    let [times, lengths @ .., offset] = columns else { return Err(Error::bug("too few arguments").into()) };
    if times.is_empty() {
        return Ok(None);
    }
    // Lengths and offset are literals, the same for all rows.
    let interval = |column: &ArrayRef| -> IntervalMonthDayNano {
        column.as_primitive::<IntervalMonthDayNanoType>().value(0)
    };
    let line = Timeline::new(times.data_type(), interval(offset))?;
    let lengths = lengths.iter().map(|column| line.length("length of a window", interval(column)));
    let lengths = lengths.collect::<crate::Result<Vec<_>>>()?;
    Ok(Some(Call {
        line,
        lengths,
        times: cast(times, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
    }))
}

/// Computes one time for each time.
fn map(
    columns: &[ArrayRef],
    of: impl Fn(&Timeline, &[Length], i64) -> crate::Result<i64>,
) -> Result<ArrayRef> {
    let data_type = columns[0].data_type();
    let Some(Call { line, lengths, times }) = read(columns)? else {
        return Ok(arrow::array::new_empty_array(data_type));
    };
    let values: PrimitiveArray<Int64Type> = times.try_unary(|time| of(&line, &lengths, time))?;
    Ok(cast(&values, data_type)?)
}

/// Picks a value of the window that each time is in. Successive times are often in the same window.
fn tumble(columns: &[ArrayRef], pick: fn((i64, i64)) -> i64) -> Result<ArrayRef> {
    let data_type = columns[0].data_type();
    let Some(Call { line, lengths, times }) = read(columns)? else {
        return Ok(arrow::array::new_empty_array(data_type));
    };
    let mut values = Vec::with_capacity(times.len());
    let ((mut start, mut end), mut picked) = ((0, 0), 0);
    for (row, time) in times.values().iter().enumerate() {
        // The value under a NULL is arbitrary.
        if !(start <= *time && *time < end) && times.is_valid(row) {
            (start, end) = line.tumble(*time, lengths[0])?;
            picked = pick((start, end));
        }
        values.push(picked);
    }
    let values = PrimitiveArray::<Int64Type>::new(values.into(), times.nulls().cloned());
    Ok(cast(&values, data_type)?)
}

/// Computes a list of times for each time. For NULL the list has one element, NULL.
fn lists(
    columns: &[ArrayRef],
    of: impl Fn(&Timeline, &[Length], i64, &mut Vec<i64>) -> crate::Result<()>,
) -> Result<ArrayRef> {
    let element = columns[0].data_type();
    let Some(Call { line, lengths, times }) = read(columns)? else {
        return Ok(arrow::array::new_empty_array(&DataType::new_list(element.clone(), true)));
    };
    let (mut values, mut ends, mut nulls) = (Vec::new(), vec![0_i32], Vec::new());
    for time in &times {
        match time {
            Some(time) => of(&line, &lengths, time, &mut values)?,
            None => {
                nulls.push(values.len());
                values.push(0);
            }
        }
        let end = i32::try_from(values.len());
        ends.push(
            end.map_err(|_| Error::invalid("the rows of one batch are in more than 2 billion windows"))?,
        );
    }
    let nulls = (!nulls.is_empty()).then(|| {
        let mut valid = vec![true; values.len()];
        nulls.into_iter().for_each(|at| valid[at] = false);
        valid.into()
    });
    let values = cast(&Int64Array::new(values.into(), nulls), element)?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let field = Arc::new(Field::new_list_field(element.clone(), true));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, None)?))
}
