//! The most frequent values: `approx_top_k(x, 5)`, and sketches of them that can be combined.
//!
//! The counts are exact, up to the number of values that a sketch holds. Of values that are as frequent, the least ones
//! come first.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::{Registry, element_type, number};
use crate::error::Error;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::Scalar;

/// The default of the values that are returned, and of those that a sketch holds.
const RETURNED: i64 = 5;
const HELD: i64 = 10_000;
/// The most values that a sketch holds.
const HELD_MAX: i64 = 1_000_000;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any(
        "top_k_of",
        |types| counted_type("approx_top_k", types),
        |columns| top(columns, "approx_top_k", RETURNED),
    ));
    registry.add(Scalar::any(
        "top_k_sketch_of",
        |types| counted_type("approx_top_k_accumulate", types).map(sketch_type),
        |columns| sketched(&top(columns, "approx_top_k_accumulate", HELD)?, columns),
    ));
    registry.add(Scalar::any("top_k_combined", combined_type, combined));
    registry.add(Scalar::any("approx_top_k_estimate", estimate_type, |columns| {
        let sketches = columns[0].as_struct();
        let items = Arc::clone(sketches.column(0));
        let items = with_nulls(&items, sketches.nulls())?;
        let mut columns = columns.to_vec();
        columns[0] = items;
        top(&columns, "approx_top_k_estimate", RETURNED)
    }));
}

/// Returns the type of a value with its count.
fn entry_fields(of: &DataType) -> Fields {
    Fields::from(vec![Field::new("item", of.clone(), true), Field::new("count", DataType::Int64, true)])
}

fn counted_type(name: &str, types: &[DataType]) -> Result<DataType> {
    let of = element_type(name, types.first().unwrap_or(&DataType::Null))?;
    Ok(DataType::new_list(DataType::Struct(entry_fields(of)), true))
}

/// Returns the type of a sketch: the values with their counts, and the number of values that it holds.
fn sketch_type(items: DataType) -> DataType {
    let fields = vec![Field::new("items", items, true), Field::new("held", DataType::Int64, true)];
    DataType::Struct(Fields::from(fields))
}

/// Returns the type of a sketch's values; none for another type.
fn items_type(of: &DataType) -> Option<&DataType> {
    let DataType::Struct(fields) = of else { return None };
    let items = fields.first()?.data_type();
    let DataType::List(entry) = items else { return None };
    let DataType::Struct(entries) = entry.data_type() else { return None };
    let is_sketch = fields.len() == 2
        && fields[0].name() == "items"
        && fields[1].name() == "held"
        && *fields[1].data_type() == DataType::Int64
        && *entries == entry_fields(entries.first()?.data_type());
    is_sketch.then_some(items)
}

fn no_sketch(name: &str, found: &DataType) -> Error {
    Error::invalid(format!("{name} takes a sketch, not {}", sql_type(found)))
        .hint("approx_top_k_accumulate makes one.")
}

fn estimate_type(types: &[DataType]) -> Result<DataType> {
    let of = types.first().unwrap_or(&DataType::Null);
    Ok(items_type(of).ok_or_else(|| no_sketch("approx_top_k_estimate", of))?.clone())
}

fn combined_type(types: &[DataType]) -> Result<DataType> {
    let of = element_type("approx_top_k_combine", types.first().unwrap_or(&DataType::Null))?;
    items_type(of).ok_or_else(|| no_sketch("approx_top_k_combine", of))?;
    Ok(of.clone())
}

/// Returns a column of lists that is NULL where a struct is.
fn with_nulls(lists: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let list = lists.as_list::<i32>();
    let DataType::List(field) = list.data_type() else { return Ok(Arc::clone(lists)) };
    let nulls = NullBuffer::union(list.nulls(), nulls);
    let (offsets, values) = (list.offsets().clone(), Arc::clone(list.values()));
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, nulls)?))
}

/// Returns a number that must be at least 1.
fn limit(name: &str, columns: &[ArrayRef], row: usize, default: i64) -> Result<usize> {
    let given = number(columns, 1, row)?.unwrap_or(default);
    usize::try_from(given).ok().filter(|_| (1..=HELD_MAX).contains(&given)).ok_or_else(|| {
        let range = format!("a number from 1 to {HELD_MAX}");
        Error::invalid(format!("{name} takes {range}, but {given} was given")).into()
    })
}

/// Returns the most frequent values of each array: of values, or of values with counts.
fn top(columns: &[ArrayRef], name: &str, default: i64) -> Result<ArrayRef> {
    let lists = Elements::of(&columns[0])?;
    let (items, counts) = match lists.columns[0].as_struct_opt() {
        Some(entries)
            if *lists.columns[0].data_type()
                == DataType::Struct(entry_fields(entries.column(0).data_type())) =>
        {
            (Arc::clone(entries.column(0)), entries.column(1).as_primitive::<Int64Type>().clone())
        }
        _ => (Arc::clone(&lists.columns[0]), Int64Array::from(vec![1; lists.columns[0].len()])),
    };
    let found = Counted { items, counts, lists };
    found.top(|row| limit(name, columns, row, default))
}

/// The values of arrays with their counts.
struct Counted {
    items: ArrayRef,
    counts: Int64Array,
    lists: Elements,
}

impl Counted {
    /// Adds up the counts of equal values, and returns the most frequent ones. NULL isn't counted.
    fn top(&self, most: impl Fn(usize) -> Result<usize>) -> Result<ArrayRef> {
        let items = &self.items;
        let fields = entry_fields(items.data_type());
        let starts = self.lists.starts();
        let (mut places, mut counts, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        // The row format has no NULL type; such a list has no values to count.
        let converter = RowConverter::new(vec![SortField::new(match items.data_type() {
            DataType::Null => DataType::Int64,
            of => of.clone(),
        })])?;
        let rows = match items.data_type() {
            DataType::Null => converter.convert_columns(&[cast(items, &DataType::Int64)?])?,
            _ => converter.convert_columns(std::slice::from_ref(items))?,
        };
        for (row, length) in self.lists.lengths.iter().enumerate() {
            let range = starts[row]..starts[row] + length;
            let mut present: Vec<usize> =
                range.filter(|at| !items.data_type().is_null() && items.is_valid(*at)).collect();
            present.sort_by_key(|at| rows.row(*at));
            let mut found: Vec<(i64, usize)> = Vec::new();
            for at in present {
                let count = if self.counts.is_valid(at) { self.counts.value(at) } else { 0 };
                match found.last_mut() {
                    Some((sum, last)) if rows.row(*last) == rows.row(at) => *sum = sum.saturating_add(count),
                    _ => found.push((count, at)),
                }
            }
            // The sort is stable: equal counts stay in the order of their values.
            found.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
            found.truncate(most(row)?);
            lengths.push(found.len());
            for (count, at) in found {
                places.push(at as u64);
                counts.push(count);
            }
        }
        let items = take(items, &UInt64Array::from(places), None)?;
        let entries =
            StructArray::try_new(fields.clone(), vec![items, Arc::new(Int64Array::from(counts))], None)?;
        let field = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(entries), self.lists.nulls.clone())?))
    }
}

/// Makes sketches of the values with their counts. Arrays that are NULL make empty sketches.
fn sketched(items: &ArrayRef, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let held = (0..items.len()).map(|row| Ok(Some(number(columns, 1, row)?.unwrap_or(HELD))));
    let held: Int64Array = held.collect::<Result<_>>()?;
    let list = items.as_list::<i32>();
    let (offsets, values) = (list.offsets().clone(), Arc::clone(list.values()));
    let DataType::List(field) = list.data_type() else { return Ok(Arc::clone(items)) };
    let whole: ArrayRef = Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, None)?);
    let DataType::Struct(fields) = sketch_type(whole.data_type().clone()) else { return Ok(whole) };
    Ok(Arc::new(StructArray::try_new(fields, vec![whole, Arc::new(held)], None)?))
}

/// Combines the sketches of each array.
fn combined(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let all = Elements::of(&columns[0])?;
    let sketches = all.columns[0].as_struct();
    let items = with_nulls(sketches.column(0), sketches.nulls())?;
    let inner = Elements::of(&items)?;
    // The values of all sketches of a row are one list.
    let (mut at, mut lengths) = (0, Vec::with_capacity(all.lengths.len()));
    for length in &all.lengths {
        lengths.push(inner.lengths[at..at + length].iter().sum());
        at += length;
    }
    let entries = inner.columns[0].as_struct();
    let lists = Elements { columns: Vec::new(), lengths, nulls: None };
    let counts = entries.column(1).as_primitive::<Int64Type>().clone();
    let united = Counted { items: Arc::clone(entries.column(0)), counts, lists };
    let found = united.top(|row| limit("approx_top_k_combine", columns, row, HELD))?;
    sketched(&found, columns)
}
