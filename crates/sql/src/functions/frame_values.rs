//! `nth_value`, `first_value`, `last_value`, `array_agg` and `string_agg` over a frame whose rows are sorted
//! here.
//!
//! A RANGE or GROUPS frame contains all peers of a row or none. An ORDER BY that distinguishes peers would
//! change the frame. The rule [`crate::rules::orderings`] therefore leaves the ORDER BY and passes the
//! complete ordering as further arguments. The functions sort the frame's rows by it, so the input order
//! doesn't matter.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::mem::{size_of, size_of_val};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, SortField};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::error::Error;

/// The result computed from the rows of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FrameValue {
    /// The value of the n-th row; if negative, from the end.
    Nth(i64),
    /// All values as an array.
    Array,
    /// All values that aren't NULL as a text, with this separator.
    Text(String),
}

/// The function. Its arguments are a value and the sort keys.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InFrame {
    name: String,
    taken: FrameValue,
    order: Vec<SortOptions>,
    signature: Signature,
}

/// Returns the replacement of the function of this name. `order` says how each key is sorted.
pub fn function(name: &str, taken: FrameValue, order: Vec<SortOptions>) -> Arc<AggregateUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(AggregateUDF::from(InFrame { name: name.to_string(), taken, order, signature }))
}

/// Returns the parameters of such a function.
pub(crate) fn parts(function: &AggregateUDF) -> Option<(&str, &FrameValue, &[SortOptions])> {
    let made = function.inner().downcast_ref::<InFrame>()?;
    Some((&made.name, &made.taken, &made.order))
}

impl AggregateUDFImpl for InFrame {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let value = arg_types.first().ok_or_else(|| Error::bug("a frame without a value"))?;
        Ok(match self.taken {
            FrameValue::Nth(_) => value.clone(),
            FrameValue::Array => DataType::List(Arc::new(Field::new_list_field(value.clone(), true))),
            FrameValue::Text(_) => DataType::LargeUtf8,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (value, keys) =
            args.expr_fields.split_first().ok_or_else(|| Error::bug("a frame without a value"))?;
        let fields = keys
            .iter()
            .zip(&self.order)
            .map(|(key, order)| SortField::new_with_options(key.data_type().clone(), *order));
        Ok(Box::new(Frame {
            taken: self.taken.clone(),
            value: value.data_type().clone(),
            ignore_nulls: args.ignore_nulls || matches!(self.taken, FrameValue::Text(_)),
            distinct: args.is_distinct,
            converter: RowConverter::new(fields.collect())?,
            rows: BTreeMap::new(),
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The values of a frame's rows by their encoded keys. Equal rows share one value.
#[derive(Debug)]
struct Frame {
    taken: FrameValue,
    value: DataType,
    ignore_nulls: bool,
    distinct: bool,
    converter: RowConverter,
    rows: BTreeMap<Box<[u8]>, Row>,
}

#[derive(Debug)]
struct Row {
    value: ScalarValue,
    copies: usize,
}

impl Frame {
    /// Returns the values in order, each as often as it counts.
    fn values(&self) -> impl DoubleEndedIterator<Item = &ScalarValue> {
        let counts = |row: &&Row| !(self.ignore_nulls && row.value.is_null());
        let rows = self.rows.values().filter(counts);
        rows.flat_map(|row| std::iter::repeat_n(&row.value, row.copies))
    }

    fn all(&self) -> Vec<ScalarValue> {
        if !self.distinct {
            return self.values().cloned().collect();
        }
        let mut seen = HashSet::new();
        self.values().filter(|value| seen.insert(*value)).cloned().collect()
    }

    fn array(&self) -> Result<ScalarValue> {
        let values = self.all();
        if values.is_empty() {
            return Ok(ScalarValue::new_null_list(self.value.clone(), true, 1));
        }
        let values = ScalarValue::iter_to_array(values)?;
        Ok(SingleRowListArrayBuilder::new(values).with_nullable(true).build_list_scalar())
    }

    fn text(&self, between: &str) -> ScalarValue {
        let values = self.all();
        let texts: Vec<&str> = values.iter().filter_map(|value| value.try_as_str().flatten()).collect();
        ScalarValue::LargeUtf8((!texts.is_empty()).then(|| texts.join(between)))
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let keys = self.converter.convert_columns(&values[1..])?;
        for (at, key) in keys.iter().enumerate() {
            match self.rows.get_mut(key.as_ref()) {
                Some(row) => row.copies += 1,
                None => {
                    let value = ScalarValue::try_from_array(&values[0], at)?;
                    self.rows.insert(key.as_ref().into(), Row { value, copies: 1 });
                }
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let keys = self.converter.convert_columns(&values[1..])?;
        for key in keys.iter() {
            match self.rows.get_mut(key.as_ref()) {
                Some(row) if row.copies > 1 => row.copies -= 1,
                Some(_) => drop(self.rows.remove(key.as_ref())),
                None => return Err(Error::bug("a row leaves a frame that it isn't in").into()),
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.taken {
            FrameValue::Nth(n) => {
                let place = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX).checked_sub(1);
                let found = match place {
                    Some(place) if *n > 0 => self.values().nth(place),
                    Some(place) => self.values().nth_back(place),
                    None => None,
                };
                found.cloned().map_or_else(|| ScalarValue::try_from(&self.value), Ok)
            }
            FrameValue::Array => self.array(),
            FrameValue::Text(between) => Ok(self.text(between)),
        }
    }

    fn size(&self) -> usize {
        let row = |key: &[u8], row: &Row| size_of_val(key) + size_of::<(Box<[u8]>, Row)>() + row.value.size();
        let rows: usize = self.rows.iter().map(|(key, value)| row(key, value)).sum();
        size_of_val(self) + self.converter.size() + rows
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(Error::bug("a frame is never split").into())
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(Error::bug("a frame is never split").into())
    }
}
