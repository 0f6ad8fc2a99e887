//! Exact `sum` and `avg` of floats: the same result for every order, split and core count, rounded once at
//! the end. Also `sum` of BIGINT, which fails if the result is out of range: see [`super::whole_sum`].
//!
//! They have the names, types and column names of DataFusion's functions, which the rule
//! [`crate::rules::exact_aggregates`] replaces for these types. An average is the exact sum, rounded, divided by the
//! count.

use std::collections::HashMap;
use std::mem::size_of_val;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, Int64Array, ListArray, ListBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
    TypeSignature, Volatility,
};
use millstream_delta::{Expansion, canonical_f64};

use super::whole_sum;
use crate::error::Error;

/// The result computed from sum and count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Sum,
    Average,
}

/// `sum` or `avg` over Float64, or `sum` over integers of 64 bits.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Exact {
    outcome: Outcome,
    signature: Signature,
}

static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| exact(Outcome::Sum));
static AVERAGE: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| exact(Outcome::Average));

fn exact(outcome: Outcome) -> Arc<AggregateUDF> {
    let types: &[DataType] = match outcome {
        Outcome::Sum => &[DataType::Float64, DataType::Int64, DataType::UInt64],
        Outcome::Average => &[DataType::Float64],
    };
    let exact = types.iter().map(|data_type| TypeSignature::Exact(vec![data_type.clone()]));
    let signature = Signature::one_of(exact.collect(), Volatility::Immutable);
    Arc::new(AggregateUDF::from(Exact { outcome, signature }))
}

/// Returns the exact `sum(double)` and `sum(bigint)`.
pub fn sum() -> Arc<AggregateUDF> {
    Arc::clone(&SUM)
}

/// Returns the exact `avg(double)`.
pub fn average() -> Arc<AggregateUDF> {
    Arc::clone(&AVERAGE)
}

impl Exact {
    /// True for the sum, false for the average.
    pub fn is_sum(&self) -> bool {
        self.outcome == Outcome::Sum
    }
}

impl Outcome {
    fn of(self, total: &Total) -> Option<f64> {
        match (total.count, self) {
            (0, _) => None,
            (_, Outcome::Sum) => Some(total.sum.value()),
            (count, Outcome::Average) => Some(total.sum.value() / count as f64),
        }
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        match self.outcome {
            Outcome::Sum => "sum",
            Outcome::Average => "avg",
        }
    }

    fn aliases(&self) -> &[String] {
        &*super::ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(match arg_types {
            [of] if self.is_sum() && whole_sum::takes(of) => of.clone(),
            _ => DataType::Float64,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if whole_sum::takes(args.return_field.data_type()) {
            return whole_sum::accumulator(args);
        }
        Ok(match args.is_distinct {
            false => Box::new(Plain { outcome: self.outcome, total: Total::default() }),
            true => Box::new(Distinct { outcome: self.outcome, copies: HashMap::new() }),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if whole_sum::takes(args.return_field.data_type()) {
            return whole_sum::state_fields(args);
        }
        let list = || DataType::new_list(DataType::Float64, true);
        let name = |part: &str| format!("{}[{part}]", args.name);
        Ok(match args.is_distinct {
            true => vec![Arc::new(Field::new(name("distinct"), list(), true))],
            false => vec![
                Arc::new(Field::new(name("terms"), list(), true)),
                Arc::new(Field::new(name("count"), DataType::Int64, true)),
            ],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if whole_sum::takes(args.return_field.data_type()) {
            return whole_sum::groups(args);
        }
        Ok(Box::new(Groups { outcome: self.outcome, totals: Vec::new() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The sum and the count of some numbers.
#[derive(Debug, Clone, Default)]
struct Total {
    sum: Expansion,
    count: i64,
}

impl Total {
    #[inline]
    fn add(&mut self, x: f64) {
        self.sum.add(x);
        self.count += 1;
    }

    fn merge(&mut self, terms: &[f64], count: i64) -> Result<()> {
        let other = Expansion::decode(terms).ok_or_else(|| Error::bug("a sum's state can't be read"))?;
        self.sum.merge(&other);
        self.count += count;
        Ok(())
    }
}

/// Returns the numbers of an argument that are not NULL.
fn numbers(values: &ArrayRef) -> impl Iterator<Item = f64> + '_ {
    values.as_primitive::<Float64Type>().iter().flatten()
}

/// The sum of one group.
#[derive(Debug)]
struct Plain {
    outcome: Outcome,
    total: Total,
}

impl Accumulator for Plain {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let array = values[0].as_primitive::<Float64Type>();
        match array.null_count() {
            0 => array.values().iter().for_each(|x| self.total.add(*x)),
            _ => numbers(&values[0]).for_each(|x| self.total.add(x)),
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for x in numbers(&values[0]) {
            self.total.sum.add_times(x, -1);
            self.total.count -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.outcome.of(&self.total)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.total.sum.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = lists(std::iter::once(Some(&self.total)));
        Ok(vec![ScalarValue::List(Arc::new(list)), ScalarValue::Int64(Some(self.total.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (lists, counts) = (states[0].as_list::<i32>(), states[1].as_primitive::<Int64Type>());
        for row in 0..lists.len() {
            if lists.is_valid(row) {
                let terms = lists.value(row);
                self.total.merge(terms.as_primitive::<Float64Type>().values(), counts.value(row))?;
            }
        }
        Ok(())
    }
}

/// Encodes sums as a state column of their terms.
fn lists<'a>(totals: impl Iterator<Item = Option<&'a Total>>) -> ListArray {
    let mut builder = ListBuilder::new(Float64Builder::new());
    let mut terms = Vec::new();
    for total in totals {
        terms.clear();
        if let Some(total) = total {
            total.sum.encode(&mut terms);
        }
        builder.values().append_slice(&terms);
        builder.append(total.is_some());
    }
    builder.finish()
}

/// The sum of distinct numbers. The count of each allows values to be retracted.
#[derive(Debug)]
struct Distinct {
    outcome: Outcome,
    copies: HashMap<u64, i64>,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        numbers(&values[0]).for_each(|x| *self.copies.entry(canonical_f64(x)).or_default() += 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for x in numbers(&values[0]) {
            if let Some(copies) = self.copies.get_mut(&canonical_f64(x)) {
                *copies -= 1;
                if *copies == 0 {
                    self.copies.remove(&canonical_f64(x));
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut total = Total::default();
        self.copies.keys().for_each(|bits| total.add(f64::from_bits(*bits)));
        Ok(ScalarValue::Float64(self.outcome.of(&total)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.copies.capacity() * size_of::<(u64, i64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bits: Vec<u64> = self.copies.keys().copied().collect();
        bits.sort_unstable();
        let mut builder = ListBuilder::new(Float64Builder::new());
        bits.into_iter().for_each(|bits| builder.values().append_value(f64::from_bits(bits)));
        builder.append(true);
        Ok(vec![ScalarValue::List(Arc::new(builder.finish()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }
}

/// The sums of all groups.
#[derive(Debug)]
struct Groups {
    outcome: Outcome,
    totals: Vec<Total>,
}

impl Groups {
    fn grow_to(&mut self, groups: usize) {
        self.totals.resize(groups.max(self.totals.len()), Total::default());
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow_to(total_num_groups);
        let array = values[0].as_primitive::<Float64Type>();
        if array.null_count() == 0 && filter.is_none() {
            for (group, x) in groups.iter().zip(array.values()) {
                self.totals[*group].add(*x);
            }
            return Ok(());
        }
        for (row, group) in groups.iter().enumerate() {
            if array.is_valid(row) && passes(filter, row) {
                self.totals[*group].add(array.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = emit_to.take_needed(&mut self.totals);
        let values: Float64Array = totals.iter().map(|total| self.outcome.of(total)).collect();
        Ok(Arc::new(values))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let totals = emit_to.take_needed(&mut self.totals);
        let counts: Int64Array = totals.iter().map(|total| Some(total.count)).collect();
        Ok(vec![Arc::new(lists(totals.iter().map(Some))), Arc::new(counts)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_num_groups: usize) -> Result<()> {
        self.grow_to(total_num_groups);
        let (lists, counts) = (values[0].as_list::<i32>(), values[1].as_primitive::<Int64Type>());
        let terms = lists.values().as_primitive::<Float64Type>().values();
        let offsets = lists.value_offsets();
        for (row, group) in groups.iter().enumerate() {
            if lists.is_valid(row) {
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                self.totals[*group].merge(&terms[range], counts.value(row))?;
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let array = values[0].as_primitive::<Float64Type>();
        let totals = (0..array.len()).map(|row| {
            let mut total = Total::default();
            if array.is_valid(row) && passes(filter, row) {
                total.add(array.value(row));
            }
            total
        });
        let totals: Vec<Total> = totals.collect();
        let counts: Int64Array = totals.iter().map(|total| Some(total.count)).collect();
        Ok(vec![Arc::new(lists(totals.iter().map(Some))), Arc::new(counts)])
    }

    fn size(&self) -> usize {
        // Leaves out terms on the heap: they are rare, and counting them would visit every group.
        self.totals.capacity() * size_of::<Total>()
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn plain() -> Plain {
        Plain { outcome: Outcome::Sum, total: Total::default() }
    }

    fn groups() -> Groups {
        Groups { outcome: Outcome::Sum, totals: Vec::new() }
    }

    #[test]
    fn the_sum_of_nothing_is_null_also_after_taking_back() {
        let mut sum = plain();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Float64(None));
        sum.update_batch(&[array(&[Some(0.1), None, Some(1e300)])]).unwrap();
        sum.retract_batch(&[array(&[Some(1e300), None])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Float64(Some(0.1)));
        sum.retract_batch(&[array(&[Some(0.1)])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Float64(None));
    }

    #[test]
    fn partial_states_merge_to_the_same_bits() {
        let values: Vec<Option<f64>> =
            (0..100).map(|n| Some(0.1 * n as f64 + 1e17 * (n % 3) as f64)).collect();
        let mut whole = plain();
        whole.update_batch(&[array(&values)]).unwrap();
        for split in [0, 1, 50, 99] {
            let mut merged = plain();
            for part in [&values[split..], &values[..split]] {
                let mut partial = plain();
                partial.update_batch(&[array(part)]).unwrap();
                let states: Vec<ArrayRef> =
                    partial.state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
                merged.merge_batch(&states).unwrap();
            }
            assert_eq!(merged.evaluate().unwrap(), whole.evaluate().unwrap());
        }
    }

    #[test]
    fn groups_agree_with_one_sum_each() {
        let values = [Some(1e100), Some(0.1), None, Some(0.2), Some(-1e100), Some(0.3), Some(f64::NAN)];
        let of_row = [0, 1, 1, 0, 0, 1, 2];
        let mut all = groups();
        all.update_batch(&[array(&values)], &of_row, None, 4).unwrap();
        let mut parts = groups();
        for rows in [0..3, 3..7] {
            let mut part = groups();
            part.update_batch(&[array(&values[rows.clone()])], &of_row[rows], None, 4).unwrap();
            let state = part.state(EmitTo::All).unwrap();
            parts.merge_batch(&state, &[0, 1, 2, 3], 4).unwrap();
        }
        let converted = groups().convert_to_state(&[array(&values)], None).unwrap();
        let mut rows = groups();
        rows.merge_batch(&converted, &of_row, 4).unwrap();
        for accumulator in [&mut all, &mut parts, &mut rows] {
            let found = accumulator.evaluate(EmitTo::All).unwrap();
            let found: Vec<Option<f64>> = found.as_primitive::<Float64Type>().iter().collect();
            assert_eq!(found[..2], [Some(0.2), Some(0.4)]);
            assert!(found[2].is_some_and(f64::is_nan));
            assert_eq!(found[3], None);
        }
    }

    #[test]
    fn distinct_numbers_count_once_and_can_be_taken_back() {
        let mut sum = Distinct { outcome: Outcome::Average, copies: HashMap::new() };
        sum.update_batch(&[array(&[Some(1.0), Some(1.0), Some(3.0), Some(0.0), Some(-0.0)])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Float64(Some(4.0 / 3.0)));
        sum.retract_batch(&[array(&[Some(1.0), Some(0.0)])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Float64(Some(4.0 / 3.0)));
        sum.retract_batch(&[array(&[Some(1.0), Some(-0.0)])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Float64(Some(3.0)));
    }
}
