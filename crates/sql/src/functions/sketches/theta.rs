//! Theta sketches: `theta_sketch_agg`, unions, intersections and differences of them, and `theta_sketch_estimate`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datasketches::theta::{
    CompactThetaSketch, ThetaANotB, ThetaIntersection, ThetaSketchBuilder, ThetaUnionBuilder,
};

use super::{Keys, Registry, broken, lg_size, number, of_list, of_sketches, sketch_rows, sketches};
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// The default of the logarithm of a sketch's entries, and the range of it.
pub(super) const LG_SIZE: u8 = 12;
pub(super) const LG_SIZES: std::ops::RangeInclusive<u8> = 5..=26;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any("theta_sketch_of", |types| of_list("theta_sketch_agg", types, true), build));
    let all: [(&'static str, Typed, Kernel); 2] = [
        (
            "theta_union_of",
            |types| of_list("theta_union_agg", types, false),
            |columns| of_all("theta_union_agg", columns, union),
        ),
        (
            "theta_intersection_of",
            |types| of_list("theta_intersection_agg", types, false),
            |columns| of_all("theta_intersection_agg", columns, intersection),
        ),
    ];
    let two: [(&'static str, Typed, Kernel); 3] = [
        (
            "theta_union",
            |types| of_sketches("theta_union", types, 2, DataType::Binary),
            |columns| of_two("theta_union", columns, union),
        ),
        (
            "theta_intersection",
            |types| of_sketches("theta_intersection", types, 2, DataType::Binary),
            |columns| of_two("theta_intersection", columns, intersection),
        ),
        (
            "theta_difference",
            |types| of_sketches("theta_difference", types, 2, DataType::Binary),
            |columns| of_two("theta_difference", columns, difference),
        ),
    ];
    for (name, typed, kernel) in all.into_iter().chain(two) {
        registry.add(Scalar::any(name, typed, kernel));
    }
    let one = |types: &[DataType]| of_sketches("theta_sketch_estimate", types, 1, DataType::Int64);
    registry.add(Scalar::any("theta_sketch_estimate", one, |columns| {
        let estimates = sketches(&columns[0])?;
        let estimates = estimates.iter().map(|bytes| {
            let sketch = bytes.map(|bytes| read("theta_sketch_estimate", bytes)).transpose()?;
            Ok(sketch.map(|sketch| sketch.estimate().round() as i64))
        });
        Ok(Arc::new(estimates.collect::<Result<Int64Array>>()?))
    }));
}

pub(super) fn read(name: &str, bytes: &[u8]) -> Result<CompactThetaSketch> {
    CompactThetaSketch::deserialize(bytes).map_err(|error| broken(name, &error))
}

fn build(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = "theta_sketch_agg";
    let elements = Elements::of(&columns[0])?;
    let (keys, starts) = (Keys::of(name, &elements.columns[0])?, elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let size = lg_size(name, number(columns, 1, row)?, LG_SIZE, LG_SIZES)?;
        let builder = ThetaSketchBuilder::default().lg_k(size);
        let mut sketch = builder.build().map_err(|error| broken(name, &error))?;
        for key in (starts[row]..starts[row] + elements.lengths[row]).filter_map(|at| keys.get(at)) {
            sketch.update(key);
        }
        Ok(Some(sketch.compact(true).serialize()))
    })
}

/// Combines sketches; the size is that of the result.
type Combine = fn(&str, &[CompactThetaSketch], u8) -> Result<CompactThetaSketch>;

fn union(name: &str, all: &[CompactThetaSketch], size: u8) -> Result<CompactThetaSketch> {
    let builder = ThetaUnionBuilder::default().lg_k(size);
    let mut union = builder.build().map_err(|error| broken(name, &error))?;
    for sketch in all {
        union.update(sketch).map_err(|error| broken(name, &error))?;
    }
    Ok(union.to_sketch(true))
}

/// The intersection of no sketches is empty.
fn intersection(name: &str, all: &[CompactThetaSketch], size: u8) -> Result<CompactThetaSketch> {
    let mut intersection = ThetaIntersection::default();
    for sketch in all {
        intersection.update(sketch).map_err(|error| broken(name, &error))?;
    }
    match intersection.to_sketch(true) {
        Some(sketch) => Ok(sketch),
        None => union(name, &[], size),
    }
}

fn difference(name: &str, all: &[CompactThetaSketch], size: u8) -> Result<CompactThetaSketch> {
    match all {
        [one, other] => ThetaANotB::default().compute(one, other, true).map_err(|error| broken(name, &error)),
        _ => union(name, &[], size),
    }
}

fn of_all(name: &str, columns: &[ArrayRef], combine: Combine) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let (all, starts) = (sketches(&elements.columns[0])?, elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let size = lg_size(name, number(columns, 1, row)?, LG_SIZE, LG_SIZES)?;
        let places = (starts[row]..starts[row] + elements.lengths[row]).filter(|at| all.is_valid(*at));
        let all = places.map(|at| read(name, all.value(at))).collect::<Result<Vec<_>>>()?;
        Ok(Some(combine(name, &all, size)?.serialize()))
    })
}

fn of_two(name: &str, columns: &[ArrayRef], combine: Combine) -> Result<ArrayRef> {
    let (one, other) = (sketches(&columns[0])?, sketches(&columns[1])?);
    sketch_rows(one.len(), |row| {
        if one.is_null(row) || other.is_null(row) {
            return Ok(None);
        }
        let size = lg_size(name, number(columns, 2, row)?, LG_SIZE, LG_SIZES)?;
        let both = [read(name, one.value(row))?, read(name, other.value(row))?];
        Ok(Some(combine(name, &both, size)?.serialize()))
    })
}
