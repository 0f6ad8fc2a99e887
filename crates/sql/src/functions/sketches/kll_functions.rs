//! The functions of KLL sketches: `kll_sketch_agg_bigint(x)`, `kll_sketch_get_quantile_bigint(sketch, 0.5)`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, ListArray, PrimitiveArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::kll::{Item, Kll};
use super::{Registry, element_type, number, of_list, of_sketches, sketch_rows, sketches};
use crate::error::Error;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// The default size of a sketch.
const SIZE: u16 = 200;

/// A value of a sketch, with its type in Arrow.
trait Value: Item {
    type Arrow: ArrowPrimitiveType<Native = Self>;
}

impl Value for i64 {
    type Arrow = Int64Type;
}

impl Value for f64 {
    type Arrow = Float64Type;
}

impl Value for f32 {
    type Arrow = Float32Type;
}

/// The functions of one type of values; the names are those of the aggregates' functions and of the others.
fn functions<T: Value>(names: [&'static str; 7]) -> [(&'static str, Typed, Kernel); 7] {
    let [build_of, merge_of, count, quantiles, ranks, merge, text] = names;
    [
        (build_of, values::<T>, build::<T>),
        (merge_of, |types| of_list(&named::<T>("kll_merge_agg"), types, false), merge_all::<T>),
        (
            count,
            |types| of_sketches(&named::<T>("kll_sketch_get_n"), types, 1, DataType::Int64),
            count_of::<T>,
        ),
        (quantiles, |types| asked::<T>("kll_sketch_get_quantile", types, T::Arrow::DATA_TYPE), quantile::<T>),
        (ranks, |types| asked::<T>("kll_sketch_get_rank", types, DataType::Float64), rank::<T>),
        (
            merge,
            |types| of_sketches(&named::<T>("kll_sketch_merge"), types, 2, DataType::Binary),
            merge_two::<T>,
        ),
        (
            text,
            |types| of_sketches(&named::<T>("kll_sketch_to_string"), types, 1, DataType::Utf8View),
            text_of::<T>,
        ),
    ]
}

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let all = [
        functions::<i64>([
            "kll_sketch_bigint_of",
            "kll_merge_bigint_of",
            "kll_sketch_get_n_bigint",
            "kll_sketch_get_quantile_bigint",
            "kll_sketch_get_rank_bigint",
            "kll_sketch_merge_bigint",
            "kll_sketch_to_string_bigint",
        ]),
        functions::<f64>([
            "kll_sketch_double_of",
            "kll_merge_double_of",
            "kll_sketch_get_n_double",
            "kll_sketch_get_quantile_double",
            "kll_sketch_get_rank_double",
            "kll_sketch_merge_double",
            "kll_sketch_to_string_double",
        ]),
        functions::<f32>([
            "kll_sketch_float_of",
            "kll_merge_float_of",
            "kll_sketch_get_n_float",
            "kll_sketch_get_quantile_float",
            "kll_sketch_get_rank_float",
            "kll_sketch_merge_float",
            "kll_sketch_to_string_float",
        ]),
    ];
    for (name, typed, kernel) in all.into_iter().flatten() {
        registry.add(Scalar::any(name, typed, kernel));
    }
}

fn named<T: Item>(name: &str) -> String {
    format!("{name}_{}", T::KIND)
}

/// True if values of a type are in the order of a sketch's.
fn fits<T: Value>(of: &DataType) -> bool {
    let is_whole = T::Arrow::DATA_TYPE == DataType::Int64;
    of.is_null() || of.is_integer() || (!is_whole && of.is_numeric())
}

fn values<T: Value>(types: &[DataType]) -> Result<DataType> {
    let name = named::<T>("kll_sketch_agg");
    let element = element_type(&name, types.first().unwrap_or(&DataType::Null))?;
    match fits::<T>(element) {
        true => Ok(DataType::Binary),
        false => {
            let (wanted, found) = (sql_type(&T::Arrow::DATA_TYPE), sql_type(element));
            Err(Error::invalid(format!("{name} takes values of the type {wanted}, not {found}")).into())
        }
    }
}

/// Returns the size of a sketch.
fn size(name: &str, columns: &[ArrayRef], row: usize) -> Result<Option<u16>> {
    let Some(given) = number(columns, 1, row)? else { return Ok(None) };
    let size = u16::try_from(given).ok().filter(|size| *size >= 8);
    size.map(Some).ok_or_else(|| {
        Error::invalid(format!("{name} takes a size from 8 to 65535, but {given} was given")).into()
    })
}

/// NaN has no place in the order, and isn't counted.
fn build<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = named::<T>("kll_sketch_agg");
    let elements = Elements::of(&columns[0])?;
    let values = cast(&elements.columns[0], &T::Arrow::DATA_TYPE)?;
    let (values, starts) = (values.as_primitive::<T::Arrow>(), elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let mut sketch = Kll::<T>::new(size(&name, columns, row)?.unwrap_or(SIZE));
        let places = (starts[row]..starts[row] + elements.lengths[row]).filter(|at| values.is_valid(*at));
        let present = places.map(|at| values.value(at)).filter(|value| value.partial_cmp(value).is_some());
        present.for_each(|value| sketch.update(value));
        Ok(Some(sketch.serialize()))
    })
}

fn merge_all<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = named::<T>("kll_merge_agg");
    let elements = Elements::of(&columns[0])?;
    let (all, starts) = (sketches(&elements.columns[0])?, elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let places = (starts[row]..starts[row] + elements.lengths[row]).filter(|at| all.is_valid(*at));
        let mut merged = size(&name, columns, row)?.map(Kll::new);
        for at in places {
            let sketch = Kll::<T>::deserialize(&name, all.value(at))?;
            match &mut merged {
                Some(merged) => merged.merge(&sketch),
                None => merged = Some(sketch),
            }
        }
        Ok(Some(merged.unwrap_or_else(|| Kll::new(SIZE)).serialize()))
    })
}

fn merge_two<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = named::<T>("kll_sketch_merge");
    let (one, other) = (sketches(&columns[0])?, sketches(&columns[1])?);
    sketch_rows(one.len(), |row| {
        if one.is_null(row) || other.is_null(row) {
            return Ok(None);
        }
        let mut merged = Kll::<T>::deserialize(&name, one.value(row))?;
        merged.merge(&Kll::deserialize(&name, other.value(row))?);
        Ok(Some(merged.serialize()))
    })
}

/// Reads the sketch of each row.
fn read<T: Value>(name: &str, column: &ArrayRef) -> Result<Vec<Option<Kll<T>>>> {
    let all = sketches(column)?;
    let read = all.iter().map(|bytes| Ok(bytes.map(|bytes| Kll::deserialize(name, bytes)).transpose()?));
    read.collect()
}

fn count_of<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let all = read::<T>(&named::<T>("kll_sketch_get_n"), &columns[0])?;
    let counts = all.iter().map(|sketch| i64::try_from(sketch.as_ref()?.count()).ok());
    Ok(Arc::new(counts.collect::<Int64Array>()))
}

fn text_of<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let all = read::<T>(&named::<T>("kll_sketch_to_string"), &columns[0])?;
    let texts = all.iter().map(|sketch| sketch.as_ref().map(Kll::summary));
    Ok(Arc::new(texts.collect::<StringViewArray>()))
}

/// Returns the type of the answers to one question, or to each of an array.
fn asked<T: Value>(name: &str, types: &[DataType], answer: DataType) -> Result<DataType> {
    let name = named::<T>(name);
    of_sketches(&name, types, 1, DataType::Null)?;
    let is_number = |of: &DataType| of.is_numeric() || of.is_null();
    match types {
        [_, DataType::List(field)] if is_number(field.data_type()) => Ok(DataType::new_list(answer, true)),
        [_, of] if is_number(of) => Ok(answer),
        _ => {
            Err(Error::invalid(format!("{name} takes a sketch, and a number or an array of numbers")).into())
        }
    }
}

/// Answers the questions of each row.
fn answers<Q: ArrowPrimitiveType, A: ArrowPrimitiveType, T: Value>(
    name: &str,
    columns: &[ArrayRef],
    answer: impl Fn(&Kll<T>, Q::Native) -> Result<Option<A::Native>>,
) -> Result<ArrayRef> {
    let all = read::<T>(&named::<T>(name), &columns[0])?;
    let answered = |questions: &PrimitiveArray<Q>, row_of: &dyn Fn(usize) -> usize| {
        let answers = questions.iter().enumerate().map(|(at, question)| match (&all[row_of(at)], question) {
            (Some(sketch), Some(question)) => answer(sketch, question),
            _ => Ok(None),
        });
        answers.collect::<Result<PrimitiveArray<A>>>()
    };
    let DataType::List(_) = columns[1].data_type() else {
        let questions = cast(&columns[1], &Q::DATA_TYPE)?;
        return Ok(Arc::new(answered(questions.as_primitive(), &|row| row)?));
    };
    let elements = Elements::of(&columns[1])?;
    let rows = elements.rows();
    let questions = cast(&elements.columns[0], &Q::DATA_TYPE)?;
    let row_of = |at: usize| usize::try_from(rows.value(at)).unwrap_or(0);
    let answers = answered(questions.as_primitive(), &row_of)?;
    let field = Arc::new(Field::new_list_field(A::DATA_TYPE, true));
    let offsets = elements.offsets();
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(answers), elements.nulls)?))
}

fn quantile<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    answers::<Float64Type, T::Arrow, T>("kll_sketch_get_quantile", columns, |sketch, rank| {
        match (0.0..=1.0).contains(&rank) {
            true => Ok(sketch.quantile(rank)),
            false => {
                let name = named::<T>("kll_sketch_get_quantile");
                Err(Error::invalid(format!("{name} takes a rank from 0 to 1, but {rank} was given")).into())
            }
        }
    })
}

fn rank<T: Value>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    answers::<T::Arrow, Float64Type, T>(
        "kll_sketch_get_rank",
        columns,
        |sketch, value| Ok(sketch.rank(value)),
    )
}
