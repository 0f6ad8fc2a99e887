//! Exact variances, deviations, covariances, correlations and regressions of floats. The result is the same
//! for every order, split and core count, and is rounded once at the end.
//!
//! They have the names and types of DataFusion's functions, which the rule [`crate::rules::exact_aggregates`] replaces.
//! [`Moments`] describes the algorithm. DataFusion refuses or ignores DISTINCT for most of these functions;
//! here it keeps each number or pair once.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::mem::{size_of, size_of_val};
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, ListArray, ListBuilder,
    PrimitiveArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility,
};
use millstream_delta::{Moments, Statistic, canonical_f64};

use crate::error::Error;

/// A statistic of numbers or pairs over Float64.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ExactMoments {
    statistic: Statistic,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let function = |(statistic, _): &(Statistic, &str)| {
        let arguments = vec![DataType::Float64; if statistic.is_of_pairs() { 2 } else { 1 }];
        let signature = Signature::exact(arguments, Volatility::Immutable);
        Arc::new(AggregateUDF::from(ExactMoments { statistic: *statistic, signature }))
    };
    Statistic::ALL.iter().map(function).collect()
});

/// Returns all functions.
pub(crate) fn all() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

/// Returns the exact function for one of DataFusion's.
pub fn exact(function: &AggregateUDF) -> Option<Arc<AggregateUDF>> {
    use datafusion::functions_aggregate::{correlation, covariance, regr, stddev, variance};

    let inner = function.inner().as_ref() as &dyn Any;
    let known = inner.is::<variance::VariancePopulation>()
        || inner.is::<variance::VarianceSample>()
        || inner.is::<stddev::StddevPop>()
        || inner.is::<stddev::Stddev>()
        || inner.is::<covariance::CovariancePopulation>()
        || inner.is::<covariance::CovarianceSample>()
        || inner.is::<correlation::Correlation>()
        || inner.is::<regr::Regr>();
    let place = Statistic::ALL.iter().position(|(_, name)| *name == function.name());
    place.filter(|_| known).map(|place| Arc::clone(&FUNCTIONS[place]))
}

impl AggregateUDFImpl for ExactMoments {
    fn name(&self) -> &str {
        self.statistic.name()
    }

    fn aliases(&self) -> &[String] {
        &*super::ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(if self.counts() { DataType::UInt64 } else { DataType::Float64 })
    }

    fn is_nullable(&self) -> bool {
        !self.counts()
    }

    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        Ok(result(self.statistic, &Moments::default()))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match args.is_distinct {
            false => Box::new(Plain { statistic: self.statistic, moments: Moments::default() }),
            true => Box::new(Distinct { statistic: self.statistic, copies: HashMap::new() }),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let part = if args.is_distinct { "distinct" } else { "moments" };
        let list = DataType::new_list(DataType::Float64, true);
        Ok(vec![Arc::new(Field::new(format!("{}[{part}]", args.name), list, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { statistic: self.statistic, all: Vec::new() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

impl ExactMoments {
    fn counts(&self) -> bool {
        self.statistic == Statistic::RegrCount
    }
}

fn result(statistic: Statistic, moments: &Moments) -> ScalarValue {
    match statistic {
        Statistic::RegrCount => ScalarValue::UInt64(Some(moments.count() as u64)),
        _ => ScalarValue::Float64(statistic.of(moments)),
    }
}

/// The arguments of a statistic: one column, or two.
struct Arguments<'a> {
    first: &'a PrimitiveArray<Float64Type>,
    second: Option<&'a PrimitiveArray<Float64Type>>,
}

impl<'a> Arguments<'a> {
    fn new(values: &'a [ArrayRef]) -> Arguments<'a> {
        Arguments { first: values[0].as_primitive(), second: values.get(1).map(|array| array.as_primitive()) }
    }

    fn is_valid(&self, row: usize) -> bool {
        self.first.is_valid(row) && self.second.is_none_or(|second| second.is_valid(row))
    }

    /// Returns the rows in which no argument is NULL.
    fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.first.len()).filter(|row| self.is_valid(*row))
    }

    #[inline]
    fn add(&self, row: usize, times: i64, moments: &mut Moments) {
        match self.second {
            None => moments.add(self.first.value(row), times),
            Some(second) => moments.add_pair(self.first.value(row), second.value(row), times),
        }
    }
}

fn decode(list: &ArrayRef) -> Result<Moments> {
    Moments::decode(list.as_primitive::<Float64Type>().values())
        .ok_or_else(|| Error::bug("the state of a variance can't be read").into())
}

/// Encodes moments as a state column.
fn lists<'a>(all: impl Iterator<Item = &'a Moments>) -> ListArray {
    let mut builder = ListBuilder::new(Float64Builder::new());
    let mut list = Vec::new();
    for moments in all {
        list.clear();
        moments.encode(&mut list);
        builder.values().append_slice(&list);
        builder.append(true);
    }
    builder.finish()
}

/// The statistic of one group.
#[derive(Debug)]
struct Plain {
    statistic: Statistic,
    moments: Moments,
}

impl Accumulator for Plain {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let arguments = Arguments::new(values);
        arguments.rows().for_each(|row| arguments.add(row, 1, &mut self.moments));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let arguments = Arguments::new(values);
        arguments.rows().for_each(|row| arguments.add(row, -1, &mut self.moments));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(result(self.statistic, &self.moments))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.moments.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(Arc::new(lists(std::iter::once(&self.moments))))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.moments.merge(&decode(&list)?);
        }
        Ok(())
    }
}

/// A statistic of distinct numbers or pairs. The count of each allows values to be retracted.
#[derive(Debug)]
struct Distinct {
    statistic: Statistic,
    copies: HashMap<(u64, Option<u64>), i64>,
}

impl Distinct {
    fn add(&mut self, values: &[ArrayRef], times: i64) {
        let arguments = Arguments::new(values);
        for row in arguments.rows() {
            let second = arguments.second.map(|second| canonical_f64(second.value(row)));
            let entry = self.copies.entry((canonical_f64(arguments.first.value(row)), second));
            *entry.or_default() += times;
        }
        if times < 0 {
            self.copies.retain(|_, copies| *copies > 0);
        }
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut moments = Moments::default();
        for (first, second) in self.copies.keys() {
            match second {
                None => moments.add(f64::from_bits(*first), 1),
                Some(second) => moments.add_pair(f64::from_bits(*first), f64::from_bits(*second), 1),
            }
        }
        Ok(result(self.statistic, &moments))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.copies.capacity() * size_of::<(u64, Option<u64>, i64)>()
    }

    /// Returns the distinct numbers, or one pair after the other.
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut sorted: Vec<_> = self.copies.keys().collect();
        sorted.sort_unstable();
        let mut builder = ListBuilder::new(Float64Builder::new());
        for (first, second) in sorted {
            [Some(*first), *second]
                .iter()
                .flatten()
                .for_each(|bits| builder.values().append_value(f64::from_bits(*bits)));
        }
        builder.append(true);
        Ok(vec![ScalarValue::List(Arc::new(builder.finish()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            let values = list.as_primitive::<Float64Type>().values();
            if !self.statistic.is_of_pairs() {
                self.add(&[list], 1);
                continue;
            }
            for pair in values.chunks_exact(2) {
                *self.copies.entry((canonical_f64(pair[0]), Some(canonical_f64(pair[1])))).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// The statistics of all groups.
#[derive(Debug)]
struct Groups {
    statistic: Statistic,
    all: Vec<Moments>,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.all.resize(total_num_groups.max(self.all.len()), Moments::default());
        let arguments = Arguments::new(values);
        for row in arguments.rows().filter(|row| passes(filter, *row)) {
            arguments.add(row, 1, &mut self.all[groups[row]]);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let all = emit_to.take_needed(&mut self.all);
        if self.statistic == Statistic::RegrCount {
            return Ok(Arc::new(UInt64Array::from_iter_values(all.iter().map(|m| m.count() as u64))));
        }
        let values: Float64Array = all.iter().map(|moments| self.statistic.of(moments)).collect();
        Ok(Arc::new(values))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let all = emit_to.take_needed(&mut self.all);
        Ok(vec![Arc::new(lists(all.iter()))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_num_groups: usize) -> Result<()> {
        self.all.resize(total_num_groups.max(self.all.len()), Moments::default());
        for (list, group) in values[0].as_list::<i32>().iter().zip(groups) {
            if let Some(list) = list {
                self.all[*group].merge(&decode(&list)?);
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let arguments = Arguments::new(values);
        let of_row = |row| {
            let mut moments = Moments::default();
            if arguments.is_valid(row) && passes(filter, row) {
                arguments.add(row, 1, &mut moments);
            }
            moments
        };
        let all: Vec<Moments> = (0..arguments.first.len()).map(of_row).collect();
        Ok(vec![Arc::new(lists(all.iter()))])
    }

    fn size(&self) -> usize {
        self.all.capacity() * size_of::<Moments>() + self.all.iter().map(Moments::heap_bytes).sum::<usize>()
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        let rows = "VALUES (1, 1, 2.0, 1.0, 7), (2, 1, 4.0, 2.0, 8), (3, 1, 4.0, 2.0, 8), (4, 1, 6.0, NULL, 9), \
                    (5, 2, 1e200, 3.0, 1), (6, 2, -1e200, 4.0, 1), (7, 3, 5.0, 5.0, NULL), (8, 4, 'NaN', 1.0, 2), \
                    (9, 4, 1.0, 2.0, 3), (10, 5, NULL, NULL, NULL)";
        Tables::new().table("t", "(id INT, g INT, x DOUBLE, y DOUBLE, n INT)", rows)
    }

    #[test]
    fn groups_have_their_statistics() {
        let tables = tables();
        tables.check(
            "SELECT g, var_pop(x), var_samp(x), stddev(x), stddev_pop(x) FROM t GROUP BY g",
            &[
                "1|2.0|2.6666666666666665|1.632993161855452|1.4142135623730951",
                "2|inf|inf|1.414213562373095e200|1e200",
                "3|0.0|NULL|NULL|0.0",
                "4|NaN|NaN|NaN|NaN",
                "5|NULL|NULL|NULL|NULL",
            ],
        );
        tables.check(
            "SELECT g, covar_pop(x, y), covar(x, y), corr(x, y), regr_count(x, y) FROM t WHERE g <> 2 GROUP BY g",
            &[
                "1|0.4444444444444444|0.6666666666666666|1.0|3",
                "3|0.0|NULL|NULL|1",
                "4|NaN|NaN|NULL|2",
                "5|NULL|NULL|NULL|0",
            ],
        );
        tables.check(
            "SELECT regr_slope(x, y), regr_intercept(x, y), regr_r2(x, y), regr_avgx(x, y), regr_avgy(x, y), \
             regr_sxx(x, y), regr_syy(x, y), regr_sxy(x, y) FROM t WHERE g = 1",
            &["2.0|0.0|1.0|1.6666666666666667|3.3333333333333335|0.6666666666666666|2.6666666666666665|1.3333333333333333"],
        );
        tables.check(
            "SELECT var(n), stddev(n::NUMERIC(9,2)), corr(n, g) FROM t WHERE g = 1",
            &["0.6666666666666666|0.816496580927726|NULL"],
        );
        tables.check("SELECT var(x), corr(x, y), regr_count(x, y) FROM t WHERE g > 9", &["NULL|NULL|0"]);
    }

    #[test]
    fn distinct_filter_and_frames() {
        let tables = tables();
        tables.check(
            "SELECT var_pop(DISTINCT x), stddev_pop(DISTINCT n), regr_count(DISTINCT x, y) FROM t WHERE g = 1",
            &["2.6666666666666665|0.816496580927726|2"],
        );
        tables.check(
            "SELECT var_pop(x) FILTER (WHERE id < 3), count(DISTINCT n) FROM t WHERE g = 1",
            &["1.0|3"],
        );
        tables.check(
            "SELECT id, var_pop(x) OVER w, corr(x, y) OVER w, var_pop(DISTINCT x) OVER w FROM t WHERE g < 4 \
             WINDOW w AS (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
            &[
                "1|0.0|NULL|0.0",
                "2|1.0|1.0|1.0",
                "3|0.0|NULL|0.0",
                "4|1.0|NULL|1.0",
                "5|inf|NULL|inf",
                "6|inf|-1.0|inf",
                "7|inf|1.0|inf",
            ],
        );
    }
}
