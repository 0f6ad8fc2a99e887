//! `aggregate(array, start, (acc, x) -> …, acc -> …)` and `reduce`, its other name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::{CastOptions, cast_with_options, interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::FormatOptions;
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::LambdaParametersProgress;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;

use super::elements::Elements;
use super::{Call, Rules, element, list_of};

/// A value that doesn't fit is an error.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// The functions.
pub(super) static FUNCTIONS: &[Rules] = &[reduction("aggregate"), reduction("reduce")];

const fn reduction(name: &'static str) -> Rules {
    Rules { name, values: 2, lambdas: (1, 2), cast: types, parameters, result, kernel: reduce }
}

/// True if a function is one of these.
pub(super) fn is_reduction(rules: &Rules) -> bool {
    FUNCTIONS.iter().any(|function| function.name == rules.name)
}

fn types(rules: &Rules, types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![list_of(rules, &types[0])?, types[1].clone()])
}

/// Returns the type of the accumulator: that of the start, or a wider one if the lambda returns such.
fn accumulator(start: &DataType, made: &DataType) -> DataType {
    match (start, made) {
        (DataType::Null, made) => made.clone(),
        (start, DataType::Null) => start.clone(),
        (start, made) if start == made => start.clone(),
        _ => type_union_resolution(&[start.clone(), made.clone()]).unwrap_or_else(|| made.clone()),
    }
}

/// Returns the types of the values once the type of the accumulator is known.
pub(super) fn widened(values: &[&DataType], lambdas: &[&DataType]) -> Vec<DataType> {
    let mut types: Vec<DataType> = values.iter().map(|of| (*of).clone()).collect();
    if let (Some(start), Some(made)) = (types.get_mut(1), lambdas.first()) {
        *start = accumulator(start, made);
    }
    types
}

fn parameters(values: &[FieldRef], lambdas: &[Option<FieldRef>]) -> Result<LambdaParametersProgress> {
    let start = values[1].data_type();
    let made = lambdas.first().cloned().flatten();
    let of = made.as_ref().map_or_else(|| start.clone(), |made| accumulator(start, made.data_type()));
    let field = |of: &DataType| -> FieldRef {
        let metadata = values[1].metadata().clone();
        Arc::new(Field::new("accumulator", of.clone(), true).with_metadata(metadata))
    };
    let merge = vec![field(&of), element(&values[0])];
    // With a wider accumulator, the lambda may return a still wider type.
    match made {
        Some(_) if lambdas.len() == 1 => Ok(LambdaParametersProgress::Complete(vec![merge])),
        Some(_) => Ok(LambdaParametersProgress::Complete(vec![merge, vec![field(&of)]])),
        None if lambdas.len() == 1 => Ok(LambdaParametersProgress::Partial(vec![Some(merge)])),
        None => Ok(LambdaParametersProgress::Partial(vec![Some(merge), None])),
    }
}

fn result(values: &[FieldRef], lambdas: &[FieldRef]) -> Result<DataType> {
    match lambdas {
        [made] => Ok(accumulator(values[1].data_type(), made.data_type())),
        [_, finished] => Ok(finished.data_type().clone()),
        _ => plan_err!("aggregate takes one or two lambdas"),
    }
}

/// Folds the elements of each array, all rows at once: the first elements, then the second ones, and so on.
fn reduce(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::of(&call.values[0])?;
    let start = &call.values[1];
    let starts = elements.starts();
    let is_null = |row: &usize| elements.nulls.as_ref().is_some_and(|nulls| nulls.is_null(*row));
    let present: Vec<usize> = (0..call.rows).filter(|row| !is_null(row)).collect();
    let mut active = present.clone();
    let mut state = take(start, &indices(active.iter().copied()), None)?;
    // The accumulators of rows whose elements are all read, with their places.
    let mut pieces: Vec<ArrayRef> = Vec::new();
    let mut found: Vec<(usize, usize)> = vec![(0, 0); call.rows];
    for step in 0.. {
        let (goes_on, done): (Vec<_>, Vec<_>) =
            active.iter().copied().enumerate().partition(|(_, row)| elements.lengths[*row] > step);
        if !done.is_empty() {
            done.iter().for_each(|(at, row)| found[*row] = (pieces.len(), *at));
            pieces.push(Arc::clone(&state));
        }
        if goes_on.is_empty() {
            break;
        }
        if !done.is_empty() {
            state = take(&state, &indices(goes_on.iter().map(|(at, _)| *at)), None)?;
        }
        active = goes_on.into_iter().map(|(_, row)| row).collect();
        let values =
            take(&elements.columns[0], &indices(active.iter().map(|row| starts[*row] + step)), None)?;
        let made = call.evaluate(0, &indices(active.iter().copied()), &[state, values])?;
        state = cast_with_options(&made, start.data_type(), &STRICT)?;
    }
    let places: Vec<(usize, usize)> = present.iter().map(|row| found[*row]).collect();
    let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
    let mut folded = match pieces.is_empty() {
        true => start.slice(0, 0),
        false => interleave(&pieces, &places)?,
    };
    if call.lambdas.len() == 2 {
        folded = call.evaluate(1, &indices(present.iter().copied()), &[folded])?;
    }
    let folded = cast_with_options(&folded, &call.result, &STRICT)?;
    if present.len() == call.rows {
        return Ok(folded);
    }
    let mut next = 0_u64;
    let rows = (0..call.rows).map(|row| {
        let place = next;
        (!is_null(&row)).then(|| {
            next += 1;
            place
        })
    });
    Ok(take(&folded, &rows.collect::<UInt64Array>(), None)?)
}

fn indices(places: impl Iterator<Item = usize>) -> UInt64Array {
    UInt64Array::from_iter_values(places.filter_map(|place| u64::try_from(place).ok()))
}
