//! `array_sort(array, (a, b) -> …)`: the elements in the order of a comparison that the statement writes.

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::LambdaParametersProgress;
use millstream_delta::sql_type;

use super::elements::Elements;
use super::{Call, Rules, element, lists};
use crate::error::Error;

/// The functions.
pub(super) static FUNCTIONS: &[Rules] = &[Rules {
    name: "array_sort_by",
    values: 1,
    lambdas: (1, 1),
    cast: lists,
    parameters: |values, _| {
        Ok(LambdaParametersProgress::Complete(vec![vec![element(&values[0]), element(&values[0])]]))
    },
    result: |values, lambdas| match lambdas[0].data_type() {
        of if of.is_integer() || of.is_null() => Ok(values[0].data_type().clone()),
        of => {
            let found = sql_type(of);
            Err(Error::invalid(format!("the lambda of array_sort returns {found}, but INT was expected"))
                .into())
        }
    },
    kernel: sort,
}];

/// A merge of two sorted runs of elements, which are next to each other.
struct Merge {
    row: u64,
    left: std::ops::Range<usize>,
    right: std::ops::Range<usize>,
    out: usize,
}

/// Sorts by merging. All runs of one length, of all rows, advance together: a step compares one pair of each.
fn sort(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::of(&call.values[0])?;
    let values = &elements.columns[0];
    let starts = elements.starts();
    let longest = elements.lengths.iter().copied().max().unwrap_or(0);
    let mut order: Vec<u64> = (0_u64..).take(values.len()).collect();
    let mut width = 1;
    while width < longest {
        let mut sorted = order.clone();
        let mut merges = merges(&elements.lengths, &starts, width);
        while !merges.is_empty() {
            let column = |places: &mut dyn Iterator<Item = u64>| -> Result<ArrayRef> {
                Ok(take(values, &UInt64Array::from_iter_values(places), None)?)
            };
            let left = column(&mut merges.iter().map(|merge| order[merge.left.start]))?;
            let right = column(&mut merges.iter().map(|merge| order[merge.right.start]))?;
            let rows = UInt64Array::from_iter_values(merges.iter().map(|merge| merge.row));
            let compared = cast(&call.evaluate(0, &rows, &[left, right])?, &DataType::Int64)?;
            let compared = compared.as_primitive::<Int64Type>();
            if compared.null_count() > 0 {
                return Err(Error::invalid(
                    "the lambda of array_sort returned NULL, but a number was expected",
                )
                .hint("Return -1, 0 or 1 for every pair of elements, NULLs included.")
                .into());
            }
            for (merge, compared) in merges.iter_mut().zip(compared.values()) {
                let from = if *compared <= 0 { &mut merge.left } else { &mut merge.right };
                sorted[merge.out] = order[from.start];
                from.start += 1;
                merge.out += 1;
            }
            merges.retain(|merge| {
                let rest = match (merge.left.is_empty(), merge.right.is_empty()) {
                    (false, false) => return true,
                    (true, _) => merge.right.clone(),
                    (false, true) => merge.left.clone(),
                };
                let end = merge.out + rest.len();
                sorted[merge.out..end].copy_from_slice(&order[rest]);
                false
            });
        }
        order = sorted;
        width *= 2;
    }
    let sorted = take(values, &UInt64Array::from(order), None)?;
    super::lists::list(&call.result, elements.offsets(), sorted, elements.nulls)
}

/// Returns the merges of all pairs of runs of this length.
fn merges(lengths: &[usize], starts: &[usize], width: usize) -> Vec<Merge> {
    let rows = (0_u64..).zip(lengths.iter().zip(starts));
    let merges = rows.flat_map(|(row, (length, start))| {
        let end = start + length;
        (*start..end).step_by(2 * width).filter_map(move |at| {
            let middle = at + width;
            (middle < end).then(|| Merge {
                row,
                left: at..middle,
                right: middle..end.min(middle + width),
                out: at,
            })
        })
    });
    merges.collect()
}
