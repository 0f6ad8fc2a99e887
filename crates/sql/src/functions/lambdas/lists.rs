//! `transform`, `filter`, `exists`, `forall` and `zip_with` of arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::LambdaParametersProgress;

use super::elements::Elements;
use super::{Call, Rules, boolean, element, lists};

/// The functions.
pub(super) static FUNCTIONS: &[Rules] = &[
    Rules {
        name: "transform",
        values: 1,
        lambdas: (1, 1),
        cast: lists,
        parameters: element_and_place,
        result: |_, lambdas| Ok(list_of(&lambdas[0])),
        kernel: transform,
    },
    Rules {
        name: "filter",
        values: 1,
        lambdas: (1, 1),
        cast: lists,
        parameters: element_and_place,
        result: |values, lambdas| boolean("filter", lambdas).map(|()| values[0].data_type().clone()),
        kernel: filter,
    },
    Rules {
        name: "exists",
        values: 1,
        lambdas: (1, 1),
        cast: lists,
        parameters: only_element,
        result: |_, lambdas| boolean("exists", lambdas).map(|()| DataType::Boolean),
        kernel: |call| any_or_all(call, true),
    },
    Rules {
        name: "forall",
        values: 1,
        lambdas: (1, 1),
        cast: lists,
        parameters: only_element,
        result: |_, lambdas| boolean("forall", lambdas).map(|()| DataType::Boolean),
        kernel: |call| any_or_all(call, false),
    },
    Rules {
        name: "zip_with",
        values: 2,
        lambdas: (1, 1),
        cast: lists,
        parameters: |values, _| {
            Ok(LambdaParametersProgress::Complete(vec![values.iter().map(|of| element(of)).collect()]))
        },
        result: |_, lambdas| Ok(list_of(&lambdas[0])),
        kernel: zip_with,
    },
];

/// Returns the type of a list of a lambda's results.
pub(super) fn list_of(lambda: &Field) -> DataType {
    let item = Field::new_list_field(lambda.data_type().clone(), true);
    DataType::List(Arc::new(item.with_metadata(lambda.metadata().clone())))
}

fn only_element(values: &[FieldRef], _: &[Option<FieldRef>]) -> Result<LambdaParametersProgress> {
    Ok(LambdaParametersProgress::Complete(vec![vec![element(&values[0])]]))
}

/// The second parameter is the place of the element in the array, from 0.
fn element_and_place(values: &[FieldRef], _: &[Option<FieldRef>]) -> Result<LambdaParametersProgress> {
    let place = Arc::new(Field::new("place", DataType::Int64, false));
    Ok(LambdaParametersProgress::Complete(vec![vec![element(&values[0]), place]]))
}

/// Returns the place of each element in its array, from 0.
fn places(elements: &Elements) -> ArrayRef {
    let places = elements.lengths.iter().flat_map(|length| (0_i64..).take(*length));
    Arc::new(Int64Array::from_iter_values(places))
}

/// Builds a column of arrays.
pub(crate) fn list(
    data_type: &DataType,
    offsets: OffsetBuffer<i32>,
    elements: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let field = match data_type {
        DataType::List(field) => Arc::clone(field),
        _ => Arc::new(Field::new_list_field(elements.data_type().clone(), true)),
    };
    let elements = arrow::compute::cast(&elements, field.data_type())?;
    Ok(Arc::new(ListArray::try_new(field, offsets, elements, nulls)?))
}

fn transform(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::of(&call.values[0])?;
    let parameters = [Arc::clone(&elements.columns[0]), places(&elements)];
    let made = call.evaluate(0, &elements.rows(), &parameters)?;
    list(&call.result, elements.offsets(), made, elements.nulls)
}

fn filter(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::of(&call.values[0])?;
    let parameters = [Arc::clone(&elements.columns[0]), places(&elements)];
    let mask = call.test(&elements.rows(), &parameters)?;
    let kept = elements.filtered(&mask)?;
    list(&call.result, kept.offsets(), Arc::clone(&kept.columns[0]), kept.nulls)
}

/// Returns true if the condition holds for one element (`any`) or for all. As in OR and AND, NULL is unknown.
fn any_or_all(call: &Call<'_>, any: bool) -> Result<ArrayRef> {
    let elements = Elements::of(&call.values[0])?;
    let mask = call.test(&elements.rows(), &elements.columns)?;
    let mask = mask.as_boolean();
    let starts = elements.starts();
    let rows = elements.lengths.iter().zip(&starts).enumerate();
    let found = rows.map(|(row, (length, start))| {
        if elements.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        let results = || (*start..start + length).map(|at| mask.is_valid(at).then(|| mask.value(at)));
        match results().any(|result| result == Some(any)) {
            true => Some(any),
            false => results().all(|result| result.is_some()).then_some(!any),
        }
    });
    Ok(Arc::new(found.collect::<BooleanArray>()))
}

/// The shorter array is filled up with NULL.
fn zip_with(call: &Call<'_>) -> Result<ArrayRef> {
    let (one, other) = (Elements::of(&call.values[0])?, Elements::of(&call.values[1])?);
    let nulls = NullBuffer::union(one.nulls.as_ref(), other.nulls.as_ref());
    let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let both = one.lengths.iter().zip(&other.lengths).enumerate();
    let lengths: Vec<usize> =
        both.map(|(row, (one, other))| if is_null(row) { 0 } else { *one.max(other) }).collect();
    let parameter = |of: &Elements| -> Result<ArrayRef> {
        let rows = lengths.iter().zip(&of.lengths).zip(of.starts());
        let places = rows.flat_map(|((length, has), start)| {
            (0..*length).map(move |at| if at < *has { u64::try_from(start + at).ok() } else { None })
        });
        Ok(take(&of.columns[0], &places.collect::<UInt64Array>(), None)?)
    };
    let parameters = [parameter(&one)?, parameter(&other)?];
    let zipped = Elements { columns: Vec::new(), lengths: lengths.clone(), nulls };
    let made = call.evaluate(0, &zipped.rows(), &parameters)?;
    list(&call.result, zipped.offsets(), made, zipped.nulls)
}
