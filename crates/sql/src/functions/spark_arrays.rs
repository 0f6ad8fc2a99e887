//! Functions of arrays of Spark: `array_insert`, `array_prepend(array, element)`, `sort_array(array, ascending)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, cast, interleave, take};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use millstream_delta::sql_type;

use super::Registry;
use super::lambdas::elements::Elements;
use super::scalar::Scalar;
use crate::error::Error;

/// The most elements that `array_insert` fills an array up to.
const LENGTH_MAX: usize = 10_000_000;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let inserted = |types: &[DataType]| match types {
        [list, place, value] if place.is_integer() || place.is_null() => {
            list_with("array_insert", list, value)
        }
        _ => Err(Error::invalid("array_insert takes an array, a place and a value").into()),
    };
    registry.add(Scalar::any("array_insert", inserted, array_insert));
    // DataFusion's function takes the element first, as PostgreSQL's does.
    registry.replace(
        "array_prepend",
        |function| function.name() == "array_prepend",
        |_| {
            let prepended = |types: &[DataType]| match types {
                [one, other] if is_list_first(one, other) => list_with("array_prepend", one, other),
                [one, other] => list_with("array_prepend", other, one),
                _ => Err(Error::invalid("array_prepend takes an array and an element").into()),
            };
            let kernel = |columns: &[ArrayRef]| {
                let first = is_list_first(columns[0].data_type(), columns[1].data_type());
                let (list, value) = if first { (0, 1) } else { (1, 0) };
                prepend(&columns[list], &columns[value], first)
            };
            let aliases = ["list_prepend", "array_push_front", "list_push_front"];
            Scalar::any("array_prepend", prepended, kernel).with_aliases(aliases)
        },
    );
    let sorted = |types: &[DataType]| match types {
        [list] | [list, DataType::Boolean] | [list, DataType::Boolean, DataType::Boolean] => {
            Ok(DataType::new_list(element("sort_array", list)?, true))
        }
        _ => Err(Error::invalid("sort_array takes an array and true for an ascending order").into()),
    };
    registry.add(Scalar::any("sort_array", sorted, sort_array));
}

fn element(name: &str, list: &DataType) -> Result<DataType> {
    match list {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Ok(field.data_type().clone())
        }
        DataType::Null => Ok(DataType::Null),
        other => Err(Error::invalid(format!("{name} takes an array, not {}", sql_type(other))).into()),
    }
}

/// Returns the type of a list to which a value is added.
fn list_with(name: &str, list: &DataType, value: &DataType) -> Result<DataType> {
    let types = [element(name, list)?, value.clone()];
    match type_union_resolution(&types) {
        Some(of) => Ok(DataType::new_list(of, true)),
        None => {
            let (of, value) = (sql_type(&types[0]), sql_type(value));
            Err(Error::invalid(format!("{name} of an array of {of} takes no value of type {value}")).into())
        }
    }
}

fn depth(of: &DataType) -> usize {
    match of {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            depth(field.data_type()) + 1
        }
        _ => 0,
    }
}

/// True if the first of two arguments is the array, as in Spark and Flink. In PostgreSQL it is the second one.
fn is_list_first(one: &DataType, other: &DataType) -> bool {
    depth(one) > depth(other)
}

fn list(
    element: &DataType,
    lengths: &[usize],
    values: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let field = Arc::new(Field::new_list_field(element.clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls)?))
}

/// A list that grows, as places in its elements and in the column of new values.
struct Grown {
    element: DataType,
    elements: Elements,
    starts: Vec<usize>,
    values: ArrayRef,
    places: Vec<(usize, usize)>,
    lengths: Vec<usize>,
}

impl Grown {
    fn new(name: &str, list: &ArrayRef, value: &ArrayRef) -> Result<Grown> {
        let of = list_with(name, list.data_type(), value.data_type())?;
        let element = element(name, &of)?;
        let elements = Elements::of(&cast(list, &of)?)?;
        let starts = elements.starts();
        let values = cast(value, &element)?;
        Ok(Grown { element, elements, starts, values, places: Vec::new(), lengths: Vec::new() })
    }

    /// Adds the elements of a row up to a place, or from there on.
    fn old(&mut self, row: usize, range: std::ops::Range<usize>) {
        let start = self.starts[row];
        self.places.extend(range.map(|at| (0, start + at)));
    }

    fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let null = arrow::array::new_null_array(&self.element, 1);
        let sources: [&dyn Array; 3] =
            [self.elements.columns[0].as_ref(), self.values.as_ref(), null.as_ref()];
        list(&self.element, &self.lengths, interleave(&sources, &self.places)?, nulls)
    }
}

/// Puts an element before the others. Spark's order of arguments keeps NULL; in PostgreSQL's, NULL is an array without
/// elements.
fn prepend(list: &ArrayRef, value: &ArrayRef, keeps_null: bool) -> Result<ArrayRef> {
    let mut grown = Grown::new("array_prepend", list, value)?;
    let nulls = list.logical_nulls().filter(|_| keeps_null);
    for row in 0..list.len() {
        let length = grown.elements.lengths[row];
        grown.places.push((1, row));
        grown.old(row, 0..length);
        grown.lengths.push(length + 1);
    }
    grown.finish(nulls)
}

/// Puts a value at a place, counted from 1, or from -1 behind the last element. NULLs fill a gap.
fn array_insert(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut grown = Grown::new("array_insert", &columns[0], &columns[2])?;
    let wanted = cast(&columns[1], &DataType::Int64)?;
    let wanted = wanted.as_primitive::<Int64Type>();
    let nulls = NullBuffer::union(columns[0].logical_nulls().as_ref(), wanted.nulls());
    for row in 0..columns[0].len() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            grown.lengths.push(0);
            continue;
        }
        let (place, length) = (wanted.value(row), grown.elements.lengths[row]);
        let begin = grown.places.len();
        let back = usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX);
        if place == 0 {
            return Err(Error::invalid(
                "array_insert counts places from 1, or from -1 at the end, but 0 was given",
            )
            .into());
        }
        if back > LENGTH_MAX.max(length + 1) {
            return Err(Error::invalid(format!(
                "array_insert({place}) would make an array of more than {LENGTH_MAX} elements"
            ))
            .into());
        }
        let new = (1, row);
        match place > 0 {
            true => {
                let at = (back - 1).min(length);
                grown.old(row, 0..at);
                grown.places.extend((length..back - 1).map(|_| (2, 0)));
                grown.places.push(new);
                grown.old(row, at..length);
            }
            false => {
                let from_end = back - 1;
                match length.checked_sub(from_end) {
                    Some(at) => {
                        grown.old(row, 0..at);
                        grown.places.push(new);
                        grown.old(row, at..length);
                    }
                    None => {
                        grown.places.push(new);
                        grown.places.extend((length..from_end).map(|_| (2, 0)));
                        grown.old(row, 0..length);
                    }
                }
            }
        }
        grown.lengths.push(grown.places.len() - begin);
    }
    grown.finish(nulls)
}

/// Sorts the elements. NULLs are the least ones, if a third argument doesn't say where they come.
fn sort_array(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let of = element("sort_array", columns[0].data_type())?;
    let elements = Elements::of(&cast(&columns[0], &DataType::new_list(of.clone(), true))?)?;
    let values = &elements.columns[0];
    let starts = elements.starts();
    let flag = |column: usize, row: usize| match columns.get(column) {
        Some(flags) => flags.is_valid(row).then(|| flags.as_boolean().value(row)),
        None => Some(true),
    };
    let is_null = |row: usize| (1..columns.len()).any(|column| columns[column].is_null(row));
    let mut order: Vec<u64> = (0_u64..).take(values.len()).collect();
    let options = [(false, false), (false, true), (true, false), (true, true)];
    for (descending, nulls_first) in options {
        let wanted = |row: &usize| {
            let ascending = flag(1, *row).unwrap_or(true);
            let first = if columns.len() > 2 { flag(2, *row).unwrap_or(true) } else { ascending };
            (!ascending, first) == (descending, nulls_first)
        };
        let rows: Vec<usize> = (0..columns[0].len()).filter(wanted).collect();
        if rows.is_empty() || of.is_null() {
            continue;
        }
        let field = SortField::new_with_options(of.clone(), SortOptions { descending, nulls_first });
        let converter = RowConverter::new(vec![field])?;
        let keys = converter.convert_columns(std::slice::from_ref(values))?;
        for row in rows {
            let range = starts[row]..starts[row] + elements.lengths[row];
            order[range].sort_by_key(|at| usize::try_from(*at).map(|at| keys.row(at)).ok());
        }
    }
    let nulls = NullBuffer::from_iter((0..columns[0].len()).map(|row| !is_null(row)));
    let nulls = NullBuffer::union(elements.nulls.as_ref(), Some(&nulls));
    let sorted = take(values, &UInt64Array::from(order), None)?;
    list(&of, &elements.lengths, sorted, nulls)
}
