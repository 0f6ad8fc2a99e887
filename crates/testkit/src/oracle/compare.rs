//! Exact equality of two results as multisets: NaN equals NaN, -0 equals 0, everything else bit for bit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, StructArray, UInt32Array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::pretty::pretty_format_batches;

/// Maximum number of differing rows that a message shows of each side.
const SHOWN_MAX: usize = 20;

/// The prefix of the names that the oracle gives to columns of a query with duplicate names; such names
/// aren't compared.
pub const WRAPPED_COLUMN: &str = "oracle_column_";

/// Describes the difference between `maintained` and `batch`. `None` if their rows are equal as multisets,
/// and the names and types of their columns are equal.
pub fn difference(maintained: &RecordBatch, batch: &RecordBatch) -> Result<Option<String>, String> {
    if let Some(shapes) = different_shapes(maintained, batch) {
        return Ok(Some(shapes));
    }
    let counts = surplus(maintained, batch).map_err(|error| error.to_string())?;
    let side = |rows: &RecordBatch, picked: &[(u32, i64)], what: &str| -> Result<String, ArrowError> {
        if picked.is_empty() {
            return Ok(String::new());
        }
        let copies: i64 = picked.iter().map(|(_, copies)| copies).sum();
        if rows.num_columns() == 0 {
            return Ok(format!("{copies} row(s) without columns only in {what}\n"));
        }
        let shown = UInt32Array::from_iter_values(picked.iter().take(SHOWN_MAX).map(|(row, _)| *row));
        let table = pretty_format_batches(&[take_record_batch(rows, &shown)?])?;
        Ok(format!("{copies} row(s) only in {what}:\n{table}\n"))
    };
    if counts.first.is_empty() && counts.second.is_empty() {
        return Ok(None);
    }
    let first = side(maintained, &counts.first, "what is maintained").map_err(|error| error.to_string())?;
    let second = side(batch, &counts.second, "the batch answer").map_err(|error| error.to_string())?;
    Ok(Some(first + &second))
}

/// Returns differing names and types; all layouts of text count as one type.
fn different_shapes(maintained: &RecordBatch, batch: &RecordBatch) -> Option<String> {
    let shape = |batch: &RecordBatch| -> Vec<(String, DataType)> {
        let fields = batch.schema();
        fields.fields().iter().map(|field| (field.name().clone(), plain(field.data_type()))).collect()
    };
    let (first, mut second) = (shape(maintained), shape(batch));
    for (of_first, of_second) in first.iter().zip(&mut second) {
        if of_first.0.starts_with(WRAPPED_COLUMN) {
            of_second.0 = of_first.0.clone();
        }
    }
    (first != second)
        .then(|| format!("columns maintained: {first:?}\ncolumns of the batch answer: {second:?}\n"))
}

/// Returns the logical type of values, independent of their layout in memory.
pub fn plain(data_type: &DataType) -> DataType {
    let field = |field: &Field| Arc::new(Field::new(field.name(), plain(field.data_type()), true));
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        DataType::List(inner) | DataType::LargeList(inner) => {
            DataType::List(Arc::new(Field::new("item", plain(inner.data_type()), true)))
        }
        DataType::FixedSizeList(inner, size) => {
            DataType::FixedSizeList(Arc::new(Field::new("item", plain(inner.data_type()), true)), *size)
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|inner| field(inner)).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// Returns the array with one layout and one bit pattern for each value.
fn canonical(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Float16 => Arc::new(
            array
                .as_primitive::<Float16Type>()
                .unary::<_, Float16Type>(|x| if x.is_nan() { half_nan() } else { x + half_zero() }),
        ),
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|x| if x.is_nan() { f32::NAN } else { x + 0.0 }),
        ),
        DataType::Float64 => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|x| if x.is_nan() { f64::NAN } else { x + 0.0 }),
        ),
        DataType::Dictionary(_, values) => canonical(&cast(array, values)?)?,
        DataType::List(_) => canonical_list::<i32>(array)?,
        DataType::LargeList(_) => canonical_list::<i64>(array)?,
        DataType::FixedSizeList(field, size) => {
            let list = array.as_fixed_size_list();
            let values = canonical(list.values())?;
            let field = Arc::new(field.as_ref().clone().with_data_type(values.data_type().clone()));
            let nulls = list.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new_with_length(field, *size, values, nulls, list.len())?)
        }
        DataType::Struct(_) => Arc::new(canonical_struct(array.as_struct())?),
        DataType::Map(field, sorted) => {
            let map = array.as_map();
            let entries = canonical_struct(map.entries())?;
            let field = Arc::new(field.as_ref().clone().with_data_type(entries.data_type().clone()));
            Arc::new(MapArray::try_new(field, map.offsets().clone(), entries, map.nulls().cloned(), *sorted)?)
        }
        other => {
            let wanted = plain(other);
            if wanted == *other { array.clone() } else { cast(array, &wanted)? }
        }
    })
}

/// The 16-bit float, which has no name in this crate.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

fn half_zero() -> Half {
    Half::default()
}

fn half_nan() -> Half {
    half_zero() / half_zero()
}

fn canonical_list<O: OffsetSizeTrait>(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let list = array.as_list::<O>();
    let values = canonical(list.values())?;
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    let list: ArrayRef = Arc::new(GenericListArray::<O>::try_new(
        field.clone(),
        list.offsets().clone(),
        values,
        list.nulls().cloned(),
    )?);
    if O::IS_LARGE { cast(&list, &DataType::List(field)) } else { Ok(list) }
}

fn canonical_struct(array: &StructArray) -> Result<StructArray, ArrowError> {
    let columns = array.columns().iter().map(canonical).collect::<Result<Vec<_>, _>>()?;
    let fields = array
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())))
        .collect();
    StructArray::try_new(fields, columns, array.nulls().cloned())
}

/// Returns all columns of `batch` in canonical form.
pub fn canonical_rows(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(canonical).collect::<Result<Vec<_>, _>>()?;
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// Returns a number for each row; two rows have the same number exactly if they are equal. The batches must
/// have columns of the same types.
pub fn classes(batches: &[&RecordBatch]) -> Result<Vec<Vec<u32>>, ArrowError> {
    let mut canonicals = Vec::new();
    for batch in batches {
        canonicals.push(canonical_rows(batch)?);
    }
    let Some(first) = canonicals.first() else { return Ok(Vec::new()) };
    if first.num_columns() == 0 {
        return Ok(canonicals.iter().map(|batch| vec![0; batch.num_rows()]).collect());
    }
    let fields =
        first.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut known: HashMap<OwnedRow, u32> = HashMap::new();
    let mut classes = Vec::new();
    for batch in &canonicals {
        let rows = converter.convert_columns(batch.columns())?;
        let class = |row: arrow::row::Row<'_>, known: &mut HashMap<OwnedRow, u32>| {
            let next = known.len() as u32;
            *known.entry(row.owned()).or_insert(next)
        };
        classes.push(rows.iter().map(|row| class(row, &mut known)).collect());
    }
    Ok(classes)
}

/// Rows (one of each class, with the number of copies) that one side has more often than the other.
struct Surplus {
    first: Vec<(u32, i64)>,
    second: Vec<(u32, i64)>,
}

fn surplus(first: &RecordBatch, second: &RecordBatch) -> Result<Surplus, ArrowError> {
    let classes = classes(&[first, second])?;
    let mut counts: HashMap<u32, i64> = HashMap::new();
    for (class, step) in
        classes[0].iter().map(|class| (class, 1)).chain(classes[1].iter().map(|class| (class, -1)))
    {
        *counts.entry(*class).or_default() += step;
    }
    let mut pick = |classes: &[u32], sign: i64| {
        let mut picked = Vec::new();
        for (row, class) in classes.iter().enumerate() {
            let copies = counts.get(class).copied().unwrap_or_default() * sign;
            if copies > 0 {
                picked.push((row as u32, copies));
                counts.insert(*class, 0);
            }
        }
        picked
    };
    Ok(Surplus { first: pick(&classes[0], 1), second: pick(&classes[1], -1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int64Type;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )
        .unwrap()
    }

    fn check(first: Vec<(&str, ArrayRef)>, second: Vec<(&str, ArrayRef)>, equal: bool) {
        let found = difference(&batch(first), &batch(second)).unwrap();
        assert_eq!(found.is_none(), equal, "{found:?}");
    }

    #[test]
    fn order_and_bit_patterns_of_zero_and_nan_do_not_count() {
        let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        check(
            vec![("x", Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), None, Some(1.5)])))],
            vec![("x", Arc::new(Float64Array::from(vec![Some(1.5), Some(odd_nan), Some(0.0), None])))],
            true,
        );
    }

    #[test]
    fn copies_count() {
        let rows = |values: Vec<i64>| vec![("x", Arc::new(Int64Array::from(values)) as ArrayRef)];
        check(rows(vec![1, 1, 2]), rows(vec![1, 2, 2]), false);
        check(rows(vec![1, 1, 2]), rows(vec![2, 1, 1]), true);
        check(rows(vec![1]), rows(vec![1, 1]), false);
    }

    #[test]
    fn neighbours_of_a_float_differ() {
        let x = 0.1_f64;
        let next = f64::from_bits(x.to_bits() + 1);
        check(
            vec![("x", Arc::new(Float64Array::from(vec![x])))],
            vec![("x", Arc::new(Float64Array::from(vec![next])))],
            false,
        );
    }

    #[test]
    fn layouts_of_text_are_one_type_and_names_count() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        check(vec![("x", view.clone())], vec![("x", plain.clone())], true);
        check(vec![("x", view)], vec![("y", plain.clone())], false);
        check(vec![("x", plain)], vec![("x", Arc::new(Int64Array::from(vec![1])))], false);
    }

    #[test]
    fn lists_compare_by_value() {
        let lists = |rows: Vec<Option<Vec<Option<i64>>>>| {
            vec![("x", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows)) as ArrayRef)]
        };
        check(
            lists(vec![Some(vec![Some(1), None]), None]),
            lists(vec![None, Some(vec![Some(1), None])]),
            true,
        );
        check(lists(vec![Some(vec![Some(1)])]), lists(vec![Some(vec![Some(1), None])]), false);
        check(lists(vec![Some(vec![])]), lists(vec![None]), false);
    }

    #[test]
    fn results_without_columns_compare_by_their_number_of_rows() {
        let rows = |count| {
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap()
        };
        assert!(difference(&rows(2), &rows(2)).unwrap().is_none());
        assert!(difference(&rows(2), &rows(1)).unwrap().is_some());
    }
}
