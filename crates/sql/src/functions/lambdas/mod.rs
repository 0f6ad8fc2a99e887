//! Higher-order functions of Spark, whose arguments are lambdas: `transform(a, x -> x * 2)`.
//!
//! A lambda may read columns of the row and variables of surrounding lambdas. It is evaluated on all elements of a batch
//! at once. The dialect finds lambdas by their tokens, see [`crate::dialect::lambdas`].

pub(super) mod elements;
pub(super) mod lists;
mod maps;
mod order;
mod reduce;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::{cast, take_arrays};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, HigherOrderFunctionArgs, HigherOrderReturnFieldArgs, HigherOrderSignature, HigherOrderUDF,
    HigherOrderUDFImpl, LambdaArgument, LambdaParametersProgress, ValueOrLambda, Volatility,
};
use millstream_delta::sql_type;

use super::Registry;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let all = [lists::FUNCTIONS, reduce::FUNCTIONS, order::FUNCTIONS, maps::FUNCTIONS];
    for function in all.into_iter().flatten() {
        // A session state accepts every function.
        let function = HigherOrderUDF::new_from_impl(HigherOrder::new(function));
        let _ = registry.state.register_higher_order_function(Arc::new(function));
    }
}

/// The rules and the kernel of a function.
pub(super) struct Rules {
    name: &'static str,
    /// The number of values, which come first.
    values: usize,
    /// The least and the greatest number of lambdas.
    lambdas: (usize, usize),
    /// Returns the types to which the values are cast.
    cast: fn(&Rules, &[DataType]) -> Result<Vec<DataType>>,
    /// Returns the parameters of the lambdas. A lambda may declare fewer.
    parameters: fn(&[FieldRef], &[Option<FieldRef>]) -> Result<LambdaParametersProgress>,
    /// Returns the type of the result for these values and results of the lambdas.
    result: fn(&[FieldRef], &[FieldRef]) -> Result<DataType>,
    kernel: fn(&Call<'_>) -> Result<ArrayRef>,
}

impl Rules {
    fn error(&self, problem: &str) -> Error {
        Error::invalid(format!("{} {problem}", self.name))
    }

    /// Returns the error for another number or order of arguments.
    fn usage(&self) -> Error {
        let (least, most) = self.lambdas;
        let lambda = if most == 1 { "a lambda".to_string() } else { format!("{least} or {most} lambdas") };
        let value =
            if self.values == 1 { "one value".to_string() } else { format!("{} values", self.values) };
        self.error(&format!("takes {value}, then {lambda}"))
    }
}

/// A function of values and lambdas.
struct HigherOrder {
    signature: HigherOrderSignature,
    rules: &'static Rules,
}

impl HigherOrder {
    fn new(rules: &'static Rules) -> HigherOrder {
        HigherOrder { signature: HigherOrderSignature::user_defined(Volatility::Immutable), rules }
    }

    /// Returns the values and the lambdas; an error if their number or order is another one.
    fn split<'a, V, L>(&self, arguments: &'a [ValueOrLambda<V, L>]) -> Result<(Vec<&'a V>, Vec<&'a L>)> {
        let (values, lambdas): (Vec<_>, Vec<_>) =
            arguments.iter().partition(|argument| matches!(argument, ValueOrLambda::Value(_)));
        let rules = self.rules;
        let (least, most) = rules.lambdas;
        let first = arguments.iter().take(rules.values);
        let in_order = first.filter(|argument| matches!(argument, ValueOrLambda::Value(_))).count();
        if values.len() != rules.values
            || in_order != rules.values
            || !(least..=most).contains(&lambdas.len())
        {
            return Err(rules.usage().into());
        }
        let values = values.into_iter().filter_map(|argument| match argument {
            ValueOrLambda::Value(value) => Some(value),
            ValueOrLambda::Lambda(_) => None,
        });
        let lambdas = lambdas.into_iter().filter_map(|argument| match argument {
            ValueOrLambda::Value(_) => None,
            ValueOrLambda::Lambda(lambda) => Some(lambda),
        });
        Ok((values.collect(), lambdas.collect()))
    }
}

impl fmt::Debug for HigherOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rules.name)
    }
}

impl PartialEq for HigherOrder {
    fn eq(&self, other: &HigherOrder) -> bool {
        self.rules.name == other.rules.name
    }
}

impl Eq for HigherOrder {}

impl Hash for HigherOrder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rules.name.hash(state);
    }
}

impl HigherOrderUDFImpl for HigherOrder {
    fn name(&self) -> &str {
        self.rules.name
    }

    fn signature(&self) -> &HigherOrderSignature {
        &self.signature
    }

    fn coerce_value_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != self.rules.values {
            return Err(self.rules.usage().into());
        }
        (self.rules.cast)(self.rules, types)
    }

    fn lambda_parameters(
        &self,
        _step: usize,
        fields: &[ValueOrLambda<FieldRef, Option<FieldRef>>],
    ) -> Result<LambdaParametersProgress> {
        let (values, lambdas) = self.split(fields)?;
        let values: Vec<FieldRef> = values.into_iter().cloned().collect();
        let lambdas: Vec<Option<FieldRef>> = lambdas.into_iter().cloned().collect();
        (self.rules.parameters)(&values, &lambdas)
    }

    fn coerce_values_for_lambdas(
        &self,
        types: &[ValueOrLambda<DataType, DataType>],
    ) -> Result<Option<Vec<DataType>>> {
        let (values, lambdas) = self.split(types)?;
        Ok(reduce::is_reduction(self.rules).then(|| reduce::widened(&values, &lambdas)))
    }

    fn return_field_from_args(&self, arguments: HigherOrderReturnFieldArgs<'_>) -> Result<FieldRef> {
        let (values, lambdas) = self.split(arguments.arg_fields)?;
        let values: Vec<FieldRef> = values.into_iter().cloned().collect();
        let lambdas: Vec<FieldRef> = lambdas.into_iter().cloned().collect();
        Ok(Arc::new(Field::new("", (self.rules.result)(&values, &lambdas)?, true)))
    }

    fn invoke_with_args(&self, arguments: HigherOrderFunctionArgs) -> Result<ColumnarValue> {
        let (values, lambdas) = self.split(&arguments.args)?;
        let values = values.into_iter().map(|value| value.to_array(arguments.number_rows));
        let call = Call {
            rules: self.rules,
            values: values.collect::<Result<_>>()?,
            lambdas,
            rows: arguments.number_rows,
            result: arguments.return_type().clone(),
        };
        Ok(ColumnarValue::Array((self.rules.kernel)(&call)?))
    }
}

/// A call on the rows of a batch.
struct Call<'a> {
    rules: &'static Rules,
    values: Vec<ArrayRef>,
    lambdas: Vec<&'a LambdaArgument>,
    rows: usize,
    /// The type of the result.
    result: DataType,
}

impl Call<'_> {
    /// Evaluates a lambda on columns of parameters. Row i of them belongs to the row `rows[i]` of the call.
    fn evaluate(&self, lambda: usize, rows: &UInt64Array, parameters: &[ArrayRef]) -> Result<ArrayRef> {
        let Some(lambda) = self.lambdas.get(lambda) else {
            return Err(self.rules.error("lacks a lambda").into());
        };
        let parameters: Vec<_> = parameters.iter().map(|column| move || Ok(Arc::clone(column))).collect();
        let parameters: Vec<&dyn Fn() -> Result<ArrayRef>> =
            parameters.iter().map(|column| column as &dyn Fn() -> Result<ArrayRef>).collect();
        let spread = |captured: &[ArrayRef]| Ok(take_arrays(captured, rows, None)?);
        lambda.evaluate(&parameters, spread)?.into_array(rows.len())
    }

    /// Evaluates a lambda that returns a boolean.
    fn test(&self, rows: &UInt64Array, parameters: &[ArrayRef]) -> Result<ArrayRef> {
        Ok(cast(&self.evaluate(0, rows, parameters)?, &DataType::Boolean)?)
    }
}

/// Returns the type of a list's elements, or an error that names the function.
fn list_of(rules: &Rules, data_type: &DataType) -> Result<DataType> {
    match data_type {
        DataType::List(_) => Ok(data_type.clone()),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Ok(DataType::List(Arc::clone(field)))
        }
        DataType::ListView(field) | DataType::LargeListView(field) => Ok(DataType::List(Arc::clone(field))),
        DataType::Null => Ok(DataType::new_list(DataType::Null, true)),
        other => Err(rules.error(&format!("takes an array first, not {}", sql_type(other))).into()),
    }
}

fn lists(rules: &Rules, types: &[DataType]) -> Result<Vec<DataType>> {
    types.iter().map(|of| list_of(rules, of)).collect()
}

/// Returns a parameter of a lambda with the type and the metadata of a field.
fn parameter(field: &Field) -> FieldRef {
    Arc::new(field.clone().with_nullable(true))
}

/// Returns the field of a list's elements.
fn element(list: &Field) -> FieldRef {
    match list.data_type() {
        DataType::List(field) => parameter(field),
        _ => Arc::new(Field::new_list_field(DataType::Null, true)),
    }
}

/// Refuses a lambda that returns something else than a boolean.
fn boolean(name: &str, lambda: &[FieldRef]) -> Result<()> {
    match lambda.first().map(|field| field.data_type()) {
        Some(DataType::Boolean | DataType::Null) => Ok(()),
        Some(other) => {
            let found = sql_type(other);
            Err(Error::invalid(format!("the lambda of {name} returns {found}, but BOOLEAN was expected"))
                .into())
        }
        None => Ok(()),
    }
}
