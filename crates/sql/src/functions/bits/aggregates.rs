//! `bit_and`, `bit_or` and `bit_xor` of bit strings.
//!
//! A statement's call of one of these names means the function of integers or that of bit strings: see
//! [`crate::functions::either`].

use std::collections::BTreeSet;
use std::mem::size_of_val;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature, Volatility,
};

use super::value::{self, Pairwise};
use crate::functions::marks::Mark;

/// An alias that tells the function of bit strings from those of users.
static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| ["millstream.bits".to_string()]);

/// The functions of bit strings.
static ALL: LazyLock<[Arc<AggregateUDF>; 3]> = LazyLock::new(|| {
    [Pairwise::And, Pairwise::Or, Pairwise::Xor].map(|operator| {
        let signature = Signature::exact(vec![DataType::Utf8View], Volatility::Immutable);
        Arc::new(AggregateUDF::from(OfBits { operator, signature }))
    })
});

/// Returns the functions of bit strings.
pub(crate) fn all() -> &'static [Arc<AggregateUDF>] {
    ALL.as_slice()
}

/// The function of bit strings.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfBits {
    operator: Pairwise,
    signature: Signature,
}

impl AggregateUDFImpl for OfBits {
    fn name(&self) -> &str {
        match self.operator {
            Pairwise::And => "bit_and",
            Pairwise::Or => "bit_or",
            Pairwise::Xor => "bit_xor",
        }
    }

    fn aliases(&self) -> &[String] {
        &*ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field(&self, _: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(Mark::Bit.put(Field::new(self.name(), DataType::Utf8View, true))))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        // Repeated values change no other result.
        if args.is_distinct && self.operator == Pairwise::Xor {
            return Ok(Box::new(DistinctXor { values: BTreeSet::new(), bytes: 0 }));
        }
        Ok(Box::new(Combined { operator: self.operator, digits: None }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let state = match args.is_distinct && self.operator == Pairwise::Xor {
            true => DataType::new_list(DataType::Utf8View, true),
            false => DataType::Utf8View,
        };
        Ok(vec![Arc::new(Field::new(format!("{}[bits]", args.name), state, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The bits of the rows so far.
#[derive(Debug)]
struct Combined {
    operator: Pairwise,
    digits: Option<Vec<u8>>,
}

impl Combined {
    fn add(&mut self, digits: &str) -> crate::error::Result<()> {
        match &mut self.digits {
            Some(combined) => self.operator.apply(combined, digits.as_bytes()),
            None => {
                self.digits = Some(digits.as_bytes().to_vec());
                Ok(())
            }
        }
    }
}

impl Accumulator for Combined {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = cast(&values[0], &DataType::Utf8View)?;
        texts.as_string_view().iter().flatten().try_for_each(|text| self.add(&value::read(text)?))?;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let text = |digits: &Vec<u8>| digits.iter().copied().map(char::from).collect();
        Ok(ScalarValue::Utf8View(self.digits.as_ref().map(text)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.digits.as_ref().map_or(0, Vec::capacity)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The values of the rows so far, for `bit_xor(DISTINCT x)`.
#[derive(Debug)]
struct DistinctXor {
    values: BTreeSet<String>,
    bytes: usize,
}

impl Accumulator for DistinctXor {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = cast(&values[0], &DataType::Utf8View)?;
        for text in texts.as_string_view().iter().flatten() {
            if self.values.insert(value::read(text)?.into_owned()) {
                self.bytes += text.len();
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut combined = Combined { operator: Pairwise::Xor, digits: None };
        self.values.iter().try_for_each(|digits| combined.add(digits))?;
        combined.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes + self.values.len() * size_of::<String>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.values.iter().map(|digits| ScalarValue::Utf8View(Some(digits.clone())));
        let values: Vec<ScalarValue> = values.collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Utf8View))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        lists.iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }
}
