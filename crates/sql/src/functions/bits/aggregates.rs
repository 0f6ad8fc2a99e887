//! `bit_and`, `bit_or` and `bit_xor` of bit strings.
//!
//! A statement's call gets [`Either`] for the name, since the types of arguments aren't known when a name is looked up. The
//! rule in `rules/marked_bits.rs` replaces it by DataFusion's function of integers or by [`OfBits`].

use std::collections::BTreeSet;
use std::mem::size_of_val;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::bit_and_or_xor::{bit_and_udaf, bit_or_udaf, bit_xor_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, ReversedUDAF, Signature, Volatility,
};

use super::value::{self, Pairwise};
use crate::functions::marks::Mark;
use crate::functions::marks::function::is_text;

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

/// Returns the function that a statement's call means.
pub(crate) fn written_instead(registered: &Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    let is_theirs = [bit_and_udaf(), bit_or_udaf(), bit_xor_udaf()].contains(registered);
    let of_bits = all().iter().find(|function| function.name() == registered.name());
    match of_bits.filter(|_| is_theirs) {
        Some(of_bits) => Arc::new(AggregateUDF::from(Either {
            of_integers: Arc::clone(registered),
            of_bits: Arc::clone(of_bits),
            signature: Signature::user_defined(Volatility::Immutable),
        })),
        None => Arc::clone(registered),
    }
}

/// Returns the function for an argument of this type; none for another function, or for a text that is no bit string.
pub(crate) fn resolved(function: &AggregateUDF, mark: Option<Mark>) -> Option<Arc<AggregateUDF>> {
    let either = function.inner().downcast_ref::<Either>()?;
    Some(Arc::clone(match mark {
        Some(mark) if mark.is_bits() => &either.of_bits,
        _ => &either.of_integers,
    }))
}

/// True for a function that must be resolved.
pub(crate) fn is_either(function: &AggregateUDF) -> bool {
    function.inner().is::<Either>()
}

/// The function of integers, or that of bit strings.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Either {
    of_integers: Arc<AggregateUDF>,
    of_bits: Arc<AggregateUDF>,
    signature: Signature,
}

impl Either {
    fn of(&self, argument: Option<&DataType>) -> &AggregateUDF {
        if argument.is_some_and(is_text) { &self.of_bits } else { &self.of_integers }
    }
}

impl AggregateUDFImpl for Either {
    fn name(&self) -> &str {
        self.of_integers.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        if found.first().is_some_and(is_text) {
            return Ok(vec![DataType::Utf8View; found.len()]);
        }
        let field = |found: &DataType| Arc::new(Field::new("", found.clone(), true));
        let fields: Vec<FieldRef> = found.iter().map(field).collect();
        let coerced = fields_with_udf(&fields, self.of_integers.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.of(found.first()).return_type(found)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.of(arguments.first().map(|field| field.data_type())).return_field(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.of(args.expr_fields.first().map(|field| field.data_type())).accumulator(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_integers.documentation()
    }
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
