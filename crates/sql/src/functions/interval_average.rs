//! `avg` of intervals, which DataFusion's function lacks. The result only depends on the multiset of arguments.
//!
//! A statement's call means this function or DataFusion's: see [`crate::functions::either`].

use std::collections::HashMap;
use std::mem::size_of_val;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoBuilder, ListBuilder};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature, Volatility,
};
use millstream_delta::IntervalTotal;

use crate::error::Error;

/// The type of the results.
pub(crate) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const NANOSECONDS: DataType = DataType::Decimal128(38, 0);

static AVERAGE: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
    let signature = Signature::exact(vec![INTERVAL], Volatility::Immutable);
    Arc::new(AggregateUDF::from(OfIntervals { signature }))
});

/// Returns the average of intervals.
pub(crate) fn average() -> Arc<AggregateUDF> {
    Arc::clone(&AVERAGE)
}

/// The average of intervals.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfIntervals {
    signature: Signature,
}

impl AggregateUDFImpl for OfIntervals {
    fn name(&self) -> &str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        &*super::ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match args.is_distinct {
            false => Box::new(Plain { total: IntervalTotal::default() }),
            true => Box::new(Distinct { copies: HashMap::new() }),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str, data_type: DataType| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), data_type, true))
        };
        Ok(match args.is_distinct {
            true => vec![field("distinct", DataType::new_list(INTERVAL, true))],
            false => vec![
                field("months", DataType::Int64),
                field("days", DataType::Int64),
                field("nanoseconds", NANOSECONDS),
                field("count", DataType::Int64),
            ],
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Returns the intervals of an argument that are not NULL.
fn intervals(values: &ArrayRef) -> impl Iterator<Item = IntervalMonthDayNano> + '_ {
    values.as_primitive::<IntervalMonthDayNanoType>().iter().flatten()
}

/// The sum of one group.
#[derive(Debug)]
struct Plain {
    total: IntervalTotal,
}

impl Accumulator for Plain {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        intervals(&values[0]).for_each(|value| self.total.add(value, 1));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        intervals(&values[0]).for_each(|value| self.total.add(value, -1));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::IntervalMonthDayNano(self.total.average()))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let IntervalTotal { months, days, nanoseconds, count } = self.total;
        Ok(vec![
            ScalarValue::Int64(Some(months)),
            ScalarValue::Int64(Some(days)),
            ScalarValue::Decimal128(Some(nanoseconds), 38, 0),
            ScalarValue::Int64(Some(count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [months, days, nanoseconds, counts] = states else {
            return Err(Error::bug("the state of an average of intervals has other columns").into());
        };
        let number = |column: &ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
        for row in (0..counts.len()).filter(|row| counts.is_valid(*row)) {
            let other = IntervalTotal {
                months: number(months, row),
                days: number(days, row),
                nanoseconds: nanoseconds.as_primitive::<Decimal128Type>().value(row),
                count: number(counts, row),
            };
            self.total.merge(&other, 1);
        }
        Ok(())
    }
}

/// The sum of distinct intervals. The count of each allows values to be retracted.
#[derive(Debug)]
struct Distinct {
    copies: HashMap<IntervalMonthDayNano, i64>,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        intervals(&values[0]).for_each(|value| *self.copies.entry(value).or_default() += 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in intervals(&values[0]) {
            if let Some(copies) = self.copies.get_mut(&value) {
                *copies -= 1;
                if *copies == 0 {
                    self.copies.remove(&value);
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut total = IntervalTotal::default();
        self.copies.keys().for_each(|value| total.add(*value, 1));
        Ok(ScalarValue::IntervalMonthDayNano(total.average()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.copies.capacity() * size_of::<(IntervalMonthDayNano, i64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut lists = ListBuilder::new(IntervalMonthDayNanoBuilder::new());
        self.copies.keys().for_each(|value| lists.values().append_value(*value));
        lists.append(true);
        Ok(vec![ScalarValue::List(Arc::new(lists.finish()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }
}
