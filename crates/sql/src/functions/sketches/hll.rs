//! HyperLogLog: `hll_sketch_agg`, `hll_union_agg`, `hll_union` and `hll_sketch_estimate`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datasketches::hll::{HllSketch, HllType, HllUnion};

use super::{Keys, Registry, broken, lg_size, number, of_list, of_sketches, sketch_rows, sketches};
use crate::error::Error;
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::Scalar;

/// The default of the logarithm of a sketch's registers.
const LG_SIZE: u8 = 12;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any("hll_sketch_of", |types| of_list("hll_sketch_agg", types, true), build));
    registry.add(Scalar::any("hll_union_of", |types| of_list("hll_union_agg", types, false), union_all));
    let two = |types: &[DataType]| of_sketches("hll_union", types, 2, DataType::Binary);
    registry.add(Scalar::any("hll_union", two, union));
    let one = |types: &[DataType]| of_sketches("hll_sketch_estimate", types, 1, DataType::Int64);
    registry.add(Scalar::any("hll_sketch_estimate", one, |columns| {
        let estimates = sketches(&columns[0])?;
        let estimates = estimates.iter().map(|bytes| {
            let estimate =
                bytes.map(|bytes| Ok(read("hll_sketch_estimate", bytes)?.estimate().round() as i64));
            estimate.transpose()
        });
        Ok(Arc::new(estimates.collect::<Result<Int64Array>>()?))
    }));
}

fn read(name: &str, bytes: &[u8]) -> Result<HllSketch> {
    HllSketch::deserialize(bytes).map_err(|error| broken(name, &error))
}

fn build(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = "hll_sketch_agg";
    let elements = Elements::of(&columns[0])?;
    let (keys, starts) = (Keys::of(name, &elements.columns[0])?, elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let size = lg_size(name, number(columns, 1, row)?, LG_SIZE, 4..=21)?;
        let mut sketch = HllSketch::new(size, HllType::Hll8).map_err(|error| broken(name, &error))?;
        for key in (starts[row]..starts[row] + elements.lengths[row]).filter_map(|at| keys.get(at)) {
            sketch.update(key);
        }
        Ok(Some(sketch.serialize()))
    })
}

/// Unites sketches. Different sizes are refused unless `mixes`; the least one counts.
fn united(name: &str, all: &[HllSketch], mixes: bool) -> Result<Vec<u8>> {
    let sizes = || all.iter().map(HllSketch::lg_config_k);
    let (least, most) = (sizes().min().unwrap_or(LG_SIZE), sizes().max().unwrap_or(LG_SIZE));
    if least != most && !mixes {
        return Err(Error::invalid(format!("{name} got sketches with the sizes {least} and {most}"))
            .hint("With true as the last argument, it unites sketches of different sizes.")
            .into());
    }
    let mut union = HllUnion::new(least).map_err(|error| broken(name, &error))?;
    all.iter().for_each(|sketch| union.update(sketch));
    Ok(union.to_sketch(HllType::Hll8).serialize())
}

/// True if the option that lets sizes differ is true.
fn mixes(columns: &[ArrayRef], at: usize, row: usize) -> bool {
    let flags = columns.get(at).and_then(|column| column.as_boolean_opt());
    flags.is_some_and(|flags| flags.is_valid(row) && flags.value(row))
}

fn union_all(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let elements = Elements::of(&columns[0])?;
    let (all, starts) = (sketches(&elements.columns[0])?, elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let places = (starts[row]..starts[row] + elements.lengths[row]).filter(|at| all.is_valid(*at));
        let all = places.map(|at| read("hll_union_agg", all.value(at))).collect::<Result<Vec<_>>>()?;
        Ok(Some(united("hll_union_agg", &all, mixes(columns, 1, row))?))
    })
}

fn union(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (one, other) = (sketches(&columns[0])?, sketches(&columns[1])?);
    sketch_rows(one.len(), |row| {
        if one.is_null(row) || other.is_null(row) {
            return Ok(None);
        }
        let both = [read("hll_union", one.value(row))?, read("hll_union", other.value(row))?];
        Ok(Some(united("hll_union", &both, mixes(columns, 2, row))?))
    })
}
