//! Unions, intersections and differences of tuple sketches, also with a theta sketch: `tuple_union_theta_double`.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datasketches::tuple::{CompactTupleSketch, TupleANotB, TupleIntersection, TupleUnionBuilder};

use super::theta::{self, LG_SIZE, LG_SIZES};
use super::tuple::{Combine, Mode, Summary, named, read};
use super::{Registry, broken, lg_size, number, of_list, of_sketches, sketch_rows, sketches};
use crate::functions::lambdas::elements::Elements;
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let all: [(&'static str, Typed, Kernel); 16] = [
        ("tuple_union_double_of", lists, |columns| of_all::<f64>(&UNION, columns)),
        ("tuple_union_integer_of", lists, |columns| of_all::<i64>(&UNION, columns)),
        ("tuple_intersection_double_of", lists, |columns| of_all::<f64>(&INTERSECTION, columns)),
        ("tuple_intersection_integer_of", lists, |columns| of_all::<i64>(&INTERSECTION, columns)),
        ("tuple_union_double", two, |columns| of_two::<f64>(&UNION, columns, false)),
        ("tuple_union_integer", two, |columns| of_two::<i64>(&UNION, columns, false)),
        ("tuple_intersection_double", two, |columns| of_two::<f64>(&INTERSECTION, columns, false)),
        ("tuple_intersection_integer", two, |columns| of_two::<i64>(&INTERSECTION, columns, false)),
        ("tuple_difference_double", two, |columns| of_two::<f64>(&DIFFERENCE, columns, false)),
        ("tuple_difference_integer", two, |columns| of_two::<i64>(&DIFFERENCE, columns, false)),
        ("tuple_union_theta_double", two, |columns| of_two::<f64>(&UNION, columns, true)),
        ("tuple_union_theta_integer", two, |columns| of_two::<i64>(&UNION, columns, true)),
        ("tuple_intersection_theta_double", two, |columns| of_two::<f64>(&INTERSECTION, columns, true)),
        ("tuple_intersection_theta_integer", two, |columns| of_two::<i64>(&INTERSECTION, columns, true)),
        ("tuple_difference_theta_double", two, |columns| of_two::<f64>(&DIFFERENCE, columns, true)),
        ("tuple_difference_theta_integer", two, |columns| of_two::<i64>(&DIFFERENCE, columns, true)),
    ];
    for (name, typed, kernel) in all {
        registry.add(Scalar::any(name, typed, kernel));
    }
}

/// An operation of sets.
#[derive(PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// An operation with its options.
struct Set {
    name: &'static str,
    operation: Operation,
    /// The places of the size and of the mode behind the sketches; none if there is no such option.
    size: Option<usize>,
    mode: Option<usize>,
}

static UNION: Set = Set { name: "tuple_union", operation: Operation::Union, size: Some(0), mode: Some(1) };
static INTERSECTION: Set =
    Set { name: "tuple_intersection", operation: Operation::Intersection, size: None, mode: Some(0) };
static DIFFERENCE: Set =
    Set { name: "tuple_difference", operation: Operation::Difference, size: None, mode: None };

fn lists(types: &[DataType]) -> Result<DataType> {
    of_list("an aggregate of tuple sketches", types, false)
}

fn two(types: &[DataType]) -> Result<DataType> {
    of_sketches("a set of tuple sketches", types, 2, DataType::Binary)
}

impl Set {
    /// Reads the options of a row behind this many sketches.
    fn options<T: Summary>(
        &self,
        columns: &[ArrayRef],
        behind: usize,
        row: usize,
    ) -> Result<(u8, Combine<T>)> {
        let name = named::<T>(self.name);
        let size = match self.size {
            Some(at) => number(columns, behind + at, row)?,
            None => None,
        };
        let mode = self.mode.map_or(Ok(Mode::Sum), |at| Mode::of(&name, columns, behind + at, row))?;
        Ok((lg_size(&name, size, LG_SIZE, LG_SIZES)?, Combine::new(mode)))
    }

    fn combine<T: Summary>(
        &self,
        all: &[CompactTupleSketch<T>],
        (size, policy): (u8, Combine<T>),
    ) -> Result<CompactTupleSketch<T>> {
        let failed = |error| broken(&named::<T>(self.name), &error);
        match (&self.operation, all) {
            (Operation::Difference, [one, other]) => {
                return TupleANotB::default().compute(one, other, true).map_err(failed);
            }
            (Operation::Intersection, [_, ..]) => {
                let mut intersection = TupleIntersection::new(policy);
                for sketch in all {
                    intersection.update(sketch).map_err(failed)?;
                }
                if let Some(sketch) = intersection.to_sketch(true) {
                    return Ok(sketch);
                }
            }
            _ => {}
        }
        // The intersection of no sketches is empty.
        let mut union = TupleUnionBuilder::new(policy).lg_k(size).build().map_err(failed)?;
        for sketch in all.iter().filter(|_| self.operation == Operation::Union) {
            union.update(sketch).map_err(failed)?;
        }
        Ok(union.to_sketch(true))
    }
}

fn of_all<T: Summary>(set: &Set, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let name = named::<T>(set.name);
    let elements = Elements::of(&columns[0])?;
    let (all, starts) = (sketches(&elements.columns[0])?, elements.starts());
    sketch_rows(elements.lengths.len(), |row| {
        let places = (starts[row]..starts[row] + elements.lengths[row]).filter(|at| all.is_valid(*at));
        let all = places.map(|at| read(&name, all.value(at))).collect::<Result<Vec<_>>>()?;
        Ok(Some(set.combine::<T>(&all, set.options(columns, 1, row)?)?.serialize()))
    })
}

/// Combines two sketches. If `theta`, the second one is a theta sketch.
fn of_two<T: Summary>(set: &Set, columns: &[ArrayRef], theta: bool) -> Result<ArrayRef> {
    let name = named::<T>(set.name);
    let (one, other) = (sketches(&columns[0])?, sketches(&columns[1])?);
    sketch_rows(one.len(), |row| {
        if one.is_null(row) || other.is_null(row) {
            return Ok(None);
        }
        let (size, policy) = set.options::<T>(columns, 2, row)?;
        let second = match theta {
            true => with_numbers(&name, other.value(row), policy.neutral)?,
            false => read(&name, other.value(row))?,
        };
        let both = [read(&name, one.value(row))?, second];
        Ok(Some(set.combine(&both, (size, policy))?.serialize()))
    })
}

/// Returns a theta sketch as a tuple sketch with the same number for each key.
fn with_numbers<T: Summary>(name: &str, bytes: &[u8], number: T) -> Result<CompactTupleSketch<T>> {
    const PREAMBLE: u8 = 3;
    const VERSION: u8 = 3;
    const FAMILY: u8 = 9;
    const KIND: u8 = 1;
    const IS_COMPACT: u8 = 0b1010;
    const IS_ORDERED: u8 = 0b1_0000;
    let sketch = theta::read(name, bytes)?;
    if sketch.is_empty() {
        return UNION.combine(&[], (LG_SIZE, Combine::new(Mode::Sum)));
    }
    let order = if sketch.is_ordered() { IS_ORDERED } else { 0 };
    let mut out = vec![PREAMBLE, VERSION, FAMILY, KIND, 0, IS_COMPACT | order];
    out.extend(sketch.seed_hash().to_le_bytes());
    out.extend(u32::try_from(sketch.num_retained()).unwrap_or(0).to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend(sketch.theta64().to_le_bytes());
    let mut value = datasketches::codec::SketchBytes::with_capacity(number.serialize_size());
    number.serialize_value(&mut value);
    let value = value.into_bytes();
    for entry in sketch.iter() {
        out.extend(entry.hash().to_le_bytes());
        out.extend(&value);
    }
    read(name, &out)
}
