//! Array functions: the subscripts of elements, and elements with their subscripts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder, ListArray, ListBuilder, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::error::Result;
use datafusion::functions_nested::remove::array_remove_all_udf;
use datafusion::functions_nested::replace::array_replace_all_udf;
use datafusion::logical_expr::ScalarUDF;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;
use crate::sqlstate;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let places = |_: &[DataType]| Ok(DataType::new_list(DataType::Int64, true));
    registry.add(Scalar::any("array_subscripts", places, |columns| subscripts(columns, 1)));
    registry.add(Scalar::any("vector_subscripts", places, |columns| subscripts(columns, 0)));
    registry.add(Scalar::any("array_expanded", expanded_type, expanded));
    registry.add(Scalar::any("array_section", section_type, section));
    let numbers = vec![DataType::new_list(DataType::Int64, true)];
    registry.add(Scalar::exact("only_element", numbers, |_| Ok(DataType::Int64), only_element));
    // All copies, as in PostgreSQL; DataFusion's functions of these names take the first one.
    registry.replace(
        "array_remove",
        |function| function.name() == "array_remove",
        |_| under_name(array_remove_all_udf(), "array_remove"),
    );
    registry.replace(
        "array_replace",
        |function| function.name() == "array_replace",
        |_| under_name(array_replace_all_udf(), "array_replace"),
    );
}

/// Returns the function that a subscript goes through: NULL for one below 1, since there is no such element.
pub(super) fn subscript() -> ScalarUDF {
    Scalar::exact(
        "subscript",
        vec![DataType::Int64],
        |_| Ok(DataType::Int64),
        |columns| {
            let places = columns[0].as_primitive::<Int64Type>().iter();
            Ok(Arc::new(places.map(|place| place.filter(|place| *place >= 1)).collect::<Int64Array>()))
        },
    )
}

/// Adds a name to a function.
fn under_name(function: Arc<ScalarUDF>, name: &'static str) -> ScalarUDF {
    function.as_ref().clone().with_aliases([name])
}

/// Returns the subscripts of an array's first dimension. Arrays in system catalogs start at 0.
fn subscripts(columns: &[ArrayRef], first: i64) -> Result<ArrayRef> {
    let Some(array) = columns.first() else {
        return Err(Error::invalid("generate_subscripts takes an array and 1").into());
    };
    let lists = as_lists(array)?;
    let mut places = ListBuilder::new(Int64Builder::new());
    let backwards = columns.get(2).and_then(|column| column.as_boolean_opt());
    for (row, list) in lists.iter().enumerate() {
        let range = list.map(|list| first..first + list.len() as i64);
        match (range, backwards.is_some_and(|flags| flags.is_valid(row) && flags.value(row))) {
            (Some(range), false) => places.append_value(range.map(Some)),
            (Some(range), true) => places.append_value(range.rev().map(Some)),
            (None, _) => places.append(false),
        }
    }
    Ok(Arc::new(places.finish()))
}

/// Returns the element of arrays with one element, the length of the one dimension of `array_fill`.
fn only_element(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = as_lists(&columns[0])?;
    let each = lists.iter().map(|list| match list {
        None => Ok(None),
        Some(list) if list.len() == 1 && list.is_valid(0) => {
            Ok(Some(list.as_primitive::<Int64Type>().value(0)))
        }
        Some(list) if list.len() == 1 => {
            Err(Error::invalid("dimension values cannot be null").code(sqlstate::NULL_VALUE_NOT_ALLOWED))
        }
        Some(list) => {
            Err(Error::invalid(format!("array_fill takes {} dimensions only as a literal", list.len()))
                .hint("Write array_fill(x, ARRAY[2, 3])."))
        }
    });
    Ok(Arc::new(each.collect::<Result<Int64Array, Error>>()?))
}

fn section_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _),
            lower,
            upper,
        ] if [lower, upper].iter().all(|bound| bound.is_integer() || bound.is_null()) => {
            Ok(DataType::List(element.clone()))
        }
        [DataType::Null, ..] => Ok(DataType::Null),
        [DataType::List(_), ..] => Err(Error::invalid("array subscript must have type integer")
            .code(sqlstate::DATATYPE_MISMATCH)
            .into()),
        [other, ..] => {
            let found = millstream_delta::sql_type(other);
            Err(Error::invalid(format!("cannot subscript type {found}: it is not an array")).into())
        }
        [] => Err(Error::bug("a slice of nothing").into()),
    }
}

/// Returns the elements between two subscripts, as `a[lower:upper]` in PostgreSQL: those that there are.
fn section(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [array, lower, upper] = columns else { return Err(Error::bug("a slice has two bounds").into()) };
    if array.data_type().is_null() {
        return Ok(array.clone());
    }
    let lists = as_lists(array)?;
    let (lower, upper) = (cast(lower, &DataType::Int64)?, cast(upper, &DataType::Int64)?);
    let (lower, upper) = (lower.as_primitive::<Int64Type>(), upper.as_primitive::<Int64Type>());
    let starts = lists.value_offsets();
    let (mut kept, mut lengths) = (Vec::new(), Vec::with_capacity(lists.len()));
    let mut present = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let is_present = lists.is_valid(row) && lower.is_valid(row) && upper.is_valid(row);
        present.push(is_present);
        let before = kept.len();
        if is_present {
            let (start, end) = (i64::from(starts[row]), i64::from(starts[row + 1]));
            let first = lower.value(row).max(1);
            let last = upper.value(row).min(end - start);
            kept.extend((first..=last).map(|place| start + place - 1));
        }
        lengths.push(kept.len() - before);
    }
    let values = take(lists.values(), &Int64Array::from(kept), None)?;
    let DataType::List(element) = lists.data_type() else {
        return Err(Error::bug("a list isn't one").into());
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(element.clone(), offsets, values, Some(present.into()))?))
}

fn as_lists(array: &ArrayRef) -> Result<ListArray> {
    match array.data_type() {
        DataType::List(_) => Ok(array.as_list::<i32>().clone()),
        DataType::Null => {
            Ok(ListArray::new_null(Arc::new(Field::new_list_field(DataType::Int64, true)), array.len()))
        }
        DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            Ok(cast(array, &DataType::List(element.clone()))?.as_list::<i32>().clone())
        }
        other => {
            let found = millstream_delta::sql_type(other);
            Err(Error::invalid(format!("an array was expected, not {found}")).into())
        }
    }
}

fn pair(element: &DataType) -> Fields {
    vec![Field::new("x", element.clone(), true), Field::new("n", DataType::Int32, true)].into()
}

fn expanded_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _)] => {
            Ok(DataType::new_list(DataType::Struct(pair(element.data_type())), true))
        }
        _ => Err(Error::invalid("_pg_expandarray takes one array").into()),
    }
}

/// Returns each element as `x` with its position as `n`.
fn expanded(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = as_lists(&columns[0])?;
    let lengths: Vec<usize> = (0..lists.len()).map(|row| lists.value(row).len()).collect();
    let starts = lists.value_offsets();
    let kept = (0..lists.len()).flat_map(|row| {
        let start = i64::from(starts[row]);
        (0..lengths[row] as i64).map(move |place| start + place)
    });
    let values = take(lists.values(), &Int64Array::from_iter_values(kept), None)?;
    let places = lengths.iter().flat_map(|length| 1..=*length as i64);
    let places = cast(&Int64Array::from_iter_values(places), &DataType::Int32)?;
    let fields = pair(lists.values().data_type());
    let pairs = StructArray::try_new(fields.clone(), vec![values, places], None)?;
    let element = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(element, offsets, Arc::new(pairs), lists.nulls().cloned())?))
}
