//! Aggregates of which the type of the argument decides the function: `bit_and` of integers or of bit strings, `avg` of numbers or
//! of intervals.
//!
//! The type isn't known when a name is looked up. So a statement's call gets [`Either`] for the name, and a rule replaces it by
//! one of the two functions: `rules/marked_bits.rs` and `rules/interval_averages.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::bit_and_or_xor::{bit_and_udaf, bit_or_udaf, bit_xor_udaf};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Signature, Volatility,
};

use super::bits::aggregates;
use super::interval_average;
use super::marks::function::is_text;
use crate::error::Error;

/// The types that the other function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Takes {
    /// Bit strings, which are stored as text. A text may also be no bit string.
    Texts,
    Intervals,
}

impl Takes {
    fn has(self, argument: &DataType) -> bool {
        match self {
            Takes::Texts => is_text(argument),
            Takes::Intervals => matches!(argument, DataType::Interval(_)),
        }
    }

    fn coerced(self) -> DataType {
        match self {
            Takes::Texts => DataType::Utf8View,
            Takes::Intervals => interval_average::INTERVAL,
        }
    }
}

/// DataFusion's function, or ours of other types.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Either {
    plain: Arc<AggregateUDF>,
    other: Arc<AggregateUDF>,
    pub(crate) takes: Takes,
    signature: Signature,
}

/// Returns the function that a statement's call means.
pub(crate) fn written_instead(registered: &Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    let of_bits = || {
        let is_theirs = [bit_and_udaf(), bit_or_udaf(), bit_xor_udaf()].contains(registered);
        aggregates::all().iter().find(|function| is_theirs && function.name() == registered.name())
    };
    let (other, takes) = if registered.inner().is::<Avg>() {
        (interval_average::average(), Takes::Intervals)
    } else if let Some(of_bits) = of_bits() {
        (Arc::clone(of_bits), Takes::Texts)
    } else {
        return Arc::clone(registered);
    };
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::from(Either { plain: Arc::clone(registered), other, takes, signature }))
}

/// Returns a function that must be resolved, if it is one.
pub(crate) fn of(function: &AggregateUDF) -> Option<&Either> {
    function.inner().downcast_ref::<Either>()
}

impl Either {
    /// Returns the function for an argument of this type.
    pub(crate) fn resolved(&self, argument: &DataType) -> &Arc<AggregateUDF> {
        self.chosen(self.takes.has(argument))
    }

    /// Returns our function, or DataFusion's.
    pub(crate) fn chosen(&self, is_other: bool) -> &Arc<AggregateUDF> {
        if is_other { &self.other } else { &self.plain }
    }

    fn for_field(&self, argument: Option<&FieldRef>) -> &Arc<AggregateUDF> {
        self.chosen(argument.is_some_and(|field| self.takes.has(field.data_type())))
    }
}

impl AggregateUDFImpl for Either {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [] => Err(Error::invalid(format!("{} takes one argument", self.name())).into()),
            [argument] if self.takes.has(argument) => Ok(vec![self.takes.coerced()]),
            _ => coerced(found, self.plain.as_ref()),
        }
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.chosen(found.first().is_some_and(|argument| self.takes.has(argument))).return_type(found)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.for_field(arguments.first()).return_field(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.for_field(args.expr_fields.first()).accumulator(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.documentation()
    }
}

/// Returns the types to which a function's arguments are cast.
pub(crate) fn coerced<F: UDFCoercionExt>(found: &[DataType], function: &F) -> Result<Vec<DataType>> {
    let field = |found: &DataType| Arc::new(Field::new("", found.clone(), true));
    let fields: Vec<FieldRef> = found.iter().map(field).collect();
    let coerced = fields_with_udf(&fields, function)?;
    Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
}
