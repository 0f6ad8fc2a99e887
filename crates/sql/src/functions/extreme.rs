//! `min` and `max` of floats and intervals in a total order ([`TotalOrder`]): the same result for every order, split and
//! core count.
//!
//! The order is PostgreSQL's: intervals have that of their lengths; NaN, whatever its sign, is above all numbers. Values that are equal in SQL but
//! differ in bits are ordered too: -0.0 is below 0.0. NULL doesn't count, and over no rows the result is
//! NULL.
//!
//! They have the names, types and column names of DataFusion's functions, which the rule
//! [`crate::rules::exact_aggregates`] replaces for these types. DataFusion's functions start from the greatest finite number,
//! which is wrong if only infinities follow, and their result for NaN depends on the input order. These
//! functions don't derive statistics or an output order: both use another order, in which some NaN are below
//! all numbers.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::mem::size_of_val;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility,
};

use millstream_delta::{OrderedType, TotalOrder};

use crate::error::Error;

/// `min` or `max` over floats or intervals.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Extreme {
    greatest: bool,
    signature: Signature,
}

static LEAST: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| extreme(false));
static GREATEST: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| extreme(true));

fn extreme(greatest: bool) -> Arc<AggregateUDF> {
    let types = vec![
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Interval(IntervalUnit::DayTime),
    ];
    let signature = Signature::uniform(1, types, Volatility::Immutable);
    Arc::new(AggregateUDF::from(Extreme { greatest, signature }))
}

/// Returns that `min`.
pub fn least() -> Arc<AggregateUDF> {
    Arc::clone(&LEAST)
}

/// Returns that `max`.
pub fn greatest() -> Arc<AggregateUDF> {
    Arc::clone(&GREATEST)
}

/// True if a function is one of these two.
pub fn is_extreme(function: &AggregateUDF) -> bool {
    (function.inner().as_ref() as &dyn Any).is::<Extreme>()
}

/// Instantiates one of the generic structs below: `typed!(Kept, data_type, greatest)`.
macro_rules! typed {
    ($kept:ident, $data_type:expr, $greatest:expr) => {
        match ($data_type, $greatest) {
            (DataType::Float16, false) => Ok(Box::<$kept<Float16Type, false>>::default()),
            (DataType::Float16, true) => Ok(Box::<$kept<Float16Type, true>>::default()),
            (DataType::Float32, false) => Ok(Box::<$kept<Float32Type, false>>::default()),
            (DataType::Float32, true) => Ok(Box::<$kept<Float32Type, true>>::default()),
            (DataType::Float64, false) => Ok(Box::<$kept<Float64Type, false>>::default()),
            (DataType::Float64, true) => Ok(Box::<$kept<Float64Type, true>>::default()),
            (DataType::Interval(IntervalUnit::MonthDayNano), false) => {
                Ok(Box::<$kept<IntervalMonthDayNanoType, false>>::default())
            }
            (DataType::Interval(IntervalUnit::MonthDayNano), true) => {
                Ok(Box::<$kept<IntervalMonthDayNanoType, true>>::default())
            }
            (DataType::Interval(IntervalUnit::DayTime), false) => {
                Ok(Box::<$kept<IntervalDayTimeType, false>>::default())
            }
            (DataType::Interval(IntervalUnit::DayTime), true) => {
                Ok(Box::<$kept<IntervalDayTimeType, true>>::default())
            }
            (other, _) => Err(Error::bug(format!("the exact min or max got {other}")).into()),
        }
    };
}

// DISTINCT doesn't affect the result and is ignored.
impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        if self.greatest { "max" } else { "min" }
    }

    fn aliases(&self) -> &[String] {
        &*super::ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [data_type] => Ok(data_type.clone()),
            _ => {
                Err(Error::bug(format!("{} takes one argument, not {}", self.name(), arg_types.len())).into())
            }
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        typed!(One, args.return_field.data_type(), self.greatest)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        typed!(Sliding, args.return_field.data_type(), self.greatest)
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        typed!(Groups, args.return_field.data_type(), self.greatest)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Keeps the more extreme of two values.
#[inline(always)]
fn keep<N: TotalOrder, const MAX: bool>(kept: &mut Option<N>, value: N) {
    let wanted = if MAX { Ordering::Greater } else { Ordering::Less };
    if kept.is_none_or(|kept| value.total_order(kept) == wanted) {
        *kept = Some(value);
    }
}

/// Returns the numbers of an argument that are not NULL.
fn numbers<T: OrderedType>(values: &ArrayRef) -> impl Iterator<Item = T::Native> + '_ {
    values.as_primitive::<T>().iter().flatten()
}

/// Returns a result as a scalar.
fn scalar<T: OrderedType>(value: Option<T::Native>) -> Result<ScalarValue> {
    ScalarValue::new_primitive::<T>(value, &T::DATA_TYPE)
}

/// The extreme of one group, without retraction.
#[derive(Debug)]
struct One<T: OrderedType, const MAX: bool> {
    kept: Option<T::Native>,
}

impl<T: OrderedType, const MAX: bool> Default for One<T, MAX> {
    fn default() -> Self {
        One { kept: None }
    }
}

impl<T: OrderedType + Debug, const MAX: bool> Accumulator for One<T, MAX> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let array = values[0].as_primitive::<T>();
        match array.null_count() {
            0 => array.values().iter().for_each(|x| keep::<_, MAX>(&mut self.kept, *x)),
            _ => numbers::<T>(&values[0]).for_each(|x| keep::<_, MAX>(&mut self.kept, x)),
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        scalar::<T>(self.kept)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// A value with this order.
#[derive(Debug, Clone, Copy)]
struct Ranked<N>(N);

impl<N: TotalOrder> Ord for Ranked<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_order(other.0)
    }
}

impl<N: TotalOrder> PartialOrd for Ranked<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<N: TotalOrder> PartialEq for Ranked<N> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<N: TotalOrder> Eq for Ranked<N> {}

/// The extreme of a sliding frame: all its numbers in order, with their counts.
#[derive(Debug)]
struct Sliding<T: OrderedType, const MAX: bool> {
    copies: BTreeMap<Ranked<T::Native>, usize>,
}

impl<T: OrderedType, const MAX: bool> Default for Sliding<T, MAX> {
    fn default() -> Self {
        Sliding { copies: BTreeMap::new() }
    }
}

impl<T: OrderedType + Debug, const MAX: bool> Accumulator for Sliding<T, MAX> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        numbers::<T>(&values[0]).for_each(|x| *self.copies.entry(Ranked(x)).or_default() += 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for x in numbers::<T>(&values[0]) {
            match self.copies.get_mut(&Ranked(x)) {
                Some(copies) if *copies > 1 => *copies -= 1,
                Some(_) => drop(self.copies.remove(&Ranked(x))),
                None => return Err(Error::bug(format!("{x:?} leaves a frame that it isn't in")).into()),
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let entry = if MAX { self.copies.last_key_value() } else { self.copies.first_key_value() };
        scalar::<T>(entry.map(|(key, _)| key.0))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.copies.len() * size_of::<(T::Native, usize)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The extremes of all groups.
#[derive(Debug)]
struct Groups<T: OrderedType, const MAX: bool> {
    kept: Vec<Option<T::Native>>,
}

impl<T: OrderedType, const MAX: bool> Default for Groups<T, MAX> {
    fn default() -> Self {
        Groups { kept: Vec::new() }
    }
}

impl<T: OrderedType, const MAX: bool> GroupsAccumulator for Groups<T, MAX> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.kept.resize(total_num_groups.max(self.kept.len()), None);
        let array = values[0].as_primitive::<T>();
        if array.null_count() == 0 && filter.is_none() {
            for (group, x) in groups.iter().zip(array.values()) {
                keep::<_, MAX>(&mut self.kept[*group], *x);
            }
            return Ok(());
        }
        for (row, group) in groups.iter().enumerate() {
            if array.is_valid(row) && passes(filter, row) {
                keep::<_, MAX>(&mut self.kept[*group], array.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let values: PrimitiveArray<T> = emit_to.take_needed(&mut self.kept).into_iter().collect();
        Ok(Arc::new(values))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_num_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        if filter.is_none() {
            return Ok(vec![Arc::clone(&values[0])]);
        }
        let array = values[0].as_primitive::<T>();
        let kept = array.iter().enumerate().map(|(row, x)| x.filter(|_| passes(filter, row)));
        let kept: PrimitiveArray<T> = kept.collect();
        Ok(vec![Arc::new(kept)])
    }

    fn size(&self) -> usize {
        self.kept.capacity() * size_of::<Option<T::Native>>()
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use millstream_seeds::Random;

    use super::*;

    /// Returns special values and numbers with many duplicates.
    fn random_values(random: &mut Random, count: usize) -> Vec<Option<f64>> {
        let special = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MAX, f64::MIN];
        let some = random.index(special.len() + 1);
        let mut value = || match random.index(4) {
            0 => None,
            1 => Some(random.index(7) as f64 - 3.5),
            _ => Some(special[random.index(special.len()).min(some.saturating_sub(1))]),
        };
        (0..count).map(|_| value()).collect()
    }

    fn array(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    /// Returns the extreme by sorting: numbers by their bits' order, and NaN above them.
    fn expected(values: &[Option<f64>], greatest: bool) -> Option<u64> {
        let mut sorted: Vec<f64> = values.iter().flatten().copied().collect();
        sorted.sort_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
        let end = if greatest { sorted.last() } else { sorted.first() };
        end.map(|x| x.to_bits())
    }

    fn bits(value: ScalarValue) -> Option<u64> {
        match value {
            ScalarValue::Float64(value) => value.map(f64::to_bits),
            other => panic!("{other:?}"),
        }
    }

    fn check_one<const MAX: bool>(random: &mut Random) {
        let count = random.index(12);
        let mut values = random_values(random, count);
        let expected = expected(&values, MAX);
        for _ in 0..4 {
            random.shuffle(&mut values);
            let (left, right) = values.split_at(random.index(values.len() + 1));
            let mut merged = One::<Float64Type, MAX>::default();
            for part in [left, right] {
                let mut partial = One::<Float64Type, MAX>::default();
                part.chunks(3).for_each(|chunk| partial.update_batch(&[array(chunk)]).unwrap());
                let states = partial.state().unwrap();
                merged.merge_batch(&[states[0].to_array().unwrap()]).unwrap();
            }
            assert_eq!(bits(merged.evaluate().unwrap()), expected, "{values:?}");
        }
    }

    #[test]
    fn order_and_split_do_not_show() {
        let mut random = Random(1);
        for _ in 0..500 {
            check_one::<false>(&mut random);
            check_one::<true>(&mut random);
        }
    }

    fn check_groups<const MAX: bool>(random: &mut Random) {
        let mut rows: Vec<(usize, Option<f64>, Option<bool>)> = random_values(random, 40)
            .into_iter()
            .map(|value| {
                (random.index(6), value, [Some(true), Some(true), Some(false), None][random.index(4)])
            })
            .collect();
        let expected: Vec<Option<u64>> = (0..7)
            .map(|group| {
                let of_group = rows.iter().filter(|row| row.0 == group && row.2 == Some(true));
                expected(&of_group.map(|row| row.1).collect::<Vec<_>>(), MAX)
            })
            .collect();
        for turn in 0..4 {
            random.shuffle(&mut rows);
            let mut merged = Groups::<Float64Type, MAX>::default();
            for part in [&rows[..13], &rows[13..]] {
                let values = [array(&part.iter().map(|row| row.1).collect::<Vec<_>>())];
                let filter: BooleanArray = part.iter().map(|row| row.2).collect();
                let groups: Vec<usize> = part.iter().map(|row| row.0).collect();
                let mut partial = Groups::<Float64Type, MAX>::default();
                if turn % 2 == 0 {
                    partial.update_batch(&values, &groups, Some(&filter), 7).unwrap();
                    let states = partial.state(EmitTo::All).unwrap();
                    merged.merge_batch(&states, &[0, 1, 2, 3, 4, 5, 6], 7).unwrap();
                } else {
                    let states = partial.convert_to_state(&values, Some(&filter)).unwrap();
                    merged.merge_batch(&states, &groups, 7).unwrap();
                }
            }
            let mut found = merged.evaluate(EmitTo::First(3)).unwrap().as_primitive::<Float64Type>().clone();
            let rest = merged.evaluate(EmitTo::All).unwrap();
            let mut bits: Vec<Option<u64>> = found.iter().map(|x| x.map(f64::to_bits)).collect();
            found = rest.as_primitive::<Float64Type>().clone();
            bits.extend(found.iter().map(|x| x.map(f64::to_bits)));
            assert_eq!(bits, expected, "{rows:?}");
        }
    }

    #[test]
    fn groups_filters_and_states_agree() {
        let mut random = Random(2);
        for _ in 0..200 {
            check_groups::<false>(&mut random);
            check_groups::<true>(&mut random);
        }
    }

    fn check_frames<const MAX: bool>(random: &mut Random) {
        let values = random_values(random, 30);
        let mut frame = Sliding::<Float64Type, MAX>::default();
        let (mut start, mut end) = (0, 0);
        while start < values.len() {
            let next = end + random.index(values.len() - end + 1);
            frame.update_batch(&[array(&values[end..next])]).unwrap();
            end = next;
            assert_eq!(bits(frame.evaluate().unwrap()), expected(&values[start..end], MAX), "{values:?}");
            let next = (start + random.index(4)).min(end);
            frame.retract_batch(&[array(&values[start..next])]).unwrap();
            start = next;
            assert_eq!(bits(frame.evaluate().unwrap()), expected(&values[start..end], MAX), "{values:?}");
        }
        assert!(frame.copies.is_empty());
    }

    #[test]
    fn what_leaves_a_frame_leaves_no_trace() {
        let mut random = Random(3);
        for _ in 0..200 {
            check_frames::<false>(&mut random);
            check_frames::<true>(&mut random);
        }
        let mut frame = Sliding::<Float64Type, true>::default();
        assert!(frame.retract_batch(&[array(&[Some(1.0)])]).is_err());
    }
}
