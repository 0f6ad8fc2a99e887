//! Tuple sketches, which keep a number for each key: `tuple_sketch_agg_double(key, summary)`, and what they estimate.
//!
//! In the bytes of a sketch, a number has 8 bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::error::Result;
use datasketches::tuple::{
    CompactTupleSketch, SummaryCombinePolicy, SummaryPolicy, SummaryUpdatePolicy, TupleSketchBuilder,
    TupleSummaryValue,
};

use super::theta::{LG_SIZE, LG_SIZES};
use super::{Keys, Registry, broken, lg_size, number, of_list, of_sketches, sketch_rows, sketches};
use crate::error::Error;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// A number that a sketch keeps for a key.
pub(super) trait Summary: TupleSummaryValue + Copy + PartialOrd + Send + Sync {
    /// The type in Arrow.
    type Arrow: ArrowPrimitiveType<Native = Self>;
    /// The end of the functions' names.
    const KIND: &'static str;
    /// 0, 1, and numbers that no other one is greater or less than.
    const NUMBERS: [Self; 4];

    fn plus(self, other: Self) -> Self;
}

impl Summary for f64 {
    type Arrow = Float64Type;
    const KIND: &'static str = "double";
    const NUMBERS: [f64; 4] = [0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY];

    fn plus(self, other: f64) -> f64 {
        self + other
    }
}

impl Summary for i64 {
    type Arrow = Int64Type;
    const KIND: &'static str = "integer";
    const NUMBERS: [i64; 4] = [0, 1, i64::MAX, i64::MIN];

    fn plus(self, other: i64) -> i64 {
        self.saturating_add(other)
    }
}

/// The way in which the numbers of one key become one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Sum,
    Min,
    Max,
    One,
}

impl Mode {
    /// Reads an option; the sum if it is NULL or left out.
    pub(super) fn of(name: &str, columns: &[ArrayRef], at: usize, row: usize) -> Result<Mode> {
        let Some(column) = columns.get(at).filter(|column| column.is_valid(row)) else {
            return Ok(Mode::Sum);
        };
        let text = cast(&column.slice(row, 1), &DataType::Utf8View)?;
        if text.is_null(0) {
            return Ok(Mode::Sum);
        }
        match text.as_string_view().value(0).to_lowercase().as_str() {
            "sum" => Ok(Mode::Sum),
            "min" => Ok(Mode::Min),
            "max" => Ok(Mode::Max),
            "alwaysone" => Ok(Mode::One),
            other => Err(Error::invalid(format!(
                "{name} combines numbers by 'sum', 'min', 'max' or 'alwaysone', but '{other}' was given"
            ))
            .into()),
        }
    }

    /// Returns the number that doesn't change others.
    pub(super) fn neutral<T: Summary>(self) -> T {
        let [zero, one, greatest, least] = T::NUMBERS;
        match self {
            Mode::Sum => zero,
            Mode::One => one,
            Mode::Min => greatest,
            Mode::Max => least,
        }
    }

    fn combined<T: Summary>(self, one: T, other: T) -> T {
        match self {
            Mode::Sum => one.plus(other),
            Mode::One => Mode::One.neutral(),
            Mode::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Mode::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// A mode for numbers of a type.
#[derive(Clone, Copy)]
pub(super) struct Combine<T> {
    pub(super) mode: Mode,
    pub(super) neutral: T,
}

impl<T: Summary> Combine<T> {
    pub(super) fn new(mode: Mode) -> Combine<T> {
        Combine { mode, neutral: mode.neutral() }
    }
}

impl<T: Summary> SummaryPolicy for Combine<T> {
    type Summary = T;

    fn create(&self) -> T {
        self.neutral
    }
}

impl<T: Summary> SummaryUpdatePolicy<T> for Combine<T> {
    fn update(&self, summary: &mut T, value: T) {
        *summary = self.mode.combined(*summary, value);
    }
}

impl<T: Summary> SummaryCombinePolicy for Combine<T> {
    fn combine(&self, summary: &mut T, other: &T) {
        *summary = self.mode.combined(*summary, *other);
    }
}

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let all: [(&'static str, Typed, Kernel); 8] = [
        ("tuple_sketch_double_of", pairs::<f64>, build::<f64>),
        ("tuple_sketch_integer_of", pairs::<i64>, build::<i64>),
        ("tuple_sketch_estimate_double", estimate_type, |columns| {
            floats::<f64>("tuple_sketch_estimate_double", columns, CompactTupleSketch::estimate)
        }),
        ("tuple_sketch_estimate_integer", estimate_type, |columns| {
            floats::<i64>("tuple_sketch_estimate_integer", columns, CompactTupleSketch::estimate)
        }),
        ("tuple_sketch_theta_double", estimate_type, |columns| {
            floats::<f64>("tuple_sketch_theta_double", columns, CompactTupleSketch::theta)
        }),
        ("tuple_sketch_theta_integer", estimate_type, |columns| {
            floats::<i64>("tuple_sketch_theta_integer", columns, CompactTupleSketch::theta)
        }),
        ("tuple_sketch_summary_double", summary_type::<f64>, summary::<f64>),
        ("tuple_sketch_summary_integer", summary_type::<i64>, summary::<i64>),
    ];
    for (name, typed, kernel) in all {
        registry.add(Scalar::any(name, typed, kernel));
    }
}

/// Returns the name of the function for a type of numbers.
pub(super) fn named<T: Summary>(name: &str) -> String {
    format!("{name}_{}", T::KIND)
}

pub(super) fn read<T: Summary>(name: &str, bytes: &[u8]) -> Result<CompactTupleSketch<T>> {
    CompactTupleSketch::deserialize(bytes).map_err(|error| broken(name, &error))
}

fn pairs<T: Summary>(types: &[DataType]) -> Result<DataType> {
    let name = named::<T>("tuple_sketch_agg");
    let usage = || Error::invalid(format!("{name} takes a key and a number for each row"));
    let fields = match types.first() {
        Some(DataType::Null) => return Ok(DataType::Binary),
        Some(DataType::List(field)) => match field.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => fields.clone(),
            _ => return Err(usage().into()),
        },
        _ => return Err(usage().into()),
    };
    let fits = fields[1].data_type().is_numeric() || fields[1].data_type().is_null();
    if !fits || (T::Arrow::DATA_TYPE == DataType::Int64 && fields[1].data_type().is_floating()) {
        return Err(usage().into());
    }
    of_list(&name, &[DataType::new_list(fields[0].data_type().clone(), true)], true)
}

fn build<T: Summary>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = named::<T>("tuple_sketch_agg");
    let elements = Elements::of(&columns[0])?;
    let starts = elements.starts();
    let pairs = elements.columns[0].as_struct_opt();
    let pairs = pairs.map(|pairs| -> Result<_> {
        let numbers = cast(pairs.column(1), &T::Arrow::DATA_TYPE)?;
        Ok((Keys::of(&name, pairs.column(0))?, numbers.as_primitive::<T::Arrow>().clone()))
    });
    let pairs = pairs.transpose()?;
    sketch_rows(elements.lengths.len(), |row| {
        let size = lg_size(&name, number(columns, 1, row)?, LG_SIZE, LG_SIZES)?;
        let policy = Combine::<T>::new(Mode::of(&name, columns, 2, row)?);
        let builder = TupleSketchBuilder::new(policy).lg_k(size);
        let mut sketch = builder.build().map_err(|error| broken(&name, &error))?;
        for at in starts[row]..starts[row] + elements.lengths[row] {
            if let Some((keys, numbers)) = &pairs
                && let Some(key) = keys.get(at)
                && numbers.is_valid(at)
            {
                // 0 plus -0 is 0.
                sketch.update(key, Mode::Sum.neutral::<T>().plus(numbers.value(at)));
            }
        }
        Ok(Some(sketch.compact(true).serialize()))
    })
}

fn estimate_type(types: &[DataType]) -> Result<DataType> {
    of_sketches("an estimate of a tuple sketch", types, 1, DataType::Float64)
}

fn floats<T: Summary>(
    name: &str,
    columns: &[ArrayRef],
    of: fn(&CompactTupleSketch<T>) -> f64,
) -> Result<ArrayRef> {
    let all = sketches(&columns[0])?;
    let numbers = all.iter().map(|bytes| bytes.map(|bytes| Ok(of(&read::<T>(name, bytes)?))).transpose());
    Ok(Arc::new(numbers.collect::<Result<Float64Array>>()?))
}

fn summary_type<T: Summary>(types: &[DataType]) -> Result<DataType> {
    of_sketches(&named::<T>("tuple_sketch_summary"), types, 1, T::Arrow::DATA_TYPE)
}

/// Combines the numbers of all keys. A sketch without keys gives NULL, except for a sum.
fn summary<T: Summary>(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = named::<T>("tuple_sketch_summary");
    let all = sketches(&columns[0])?;
    let numbers = (0..all.len()).map(|row| {
        if all.is_null(row) {
            return Ok(None);
        }
        let sketch = read::<T>(&name, all.value(row))?;
        let mode = Mode::of(&name, columns, 1, row)?;
        let mut numbers: Vec<T> = sketch.iter().map(|entry| *entry.summary()).collect();
        if mode == Mode::One {
            numbers.iter_mut().for_each(|number| *number = mode.neutral());
            return Ok(Some(numbers.into_iter().fold(Mode::Sum.neutral(), T::plus)));
        }
        if numbers.is_empty() && mode != Mode::Sum {
            return Ok(None);
        }
        Ok(Some(numbers.into_iter().fold(mode.neutral(), |one, other| mode.combined(one, other))))
    });
    Ok(Arc::new(numbers.collect::<Result<PrimitiveArray<T::Arrow>>>()?))
}
