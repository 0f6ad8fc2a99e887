//! `generate_series` of decimals, which DataFusion's function lacks.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Builder, ListBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::either::coerced;
use super::value_size_limit::VALUE_BYTES_MAX;
use crate::error::Error;
use crate::sqlstate;

/// The most bytes of a list's element.
const ELEMENT_BYTES: i128 = 16;

/// Adds decimals to the types of a function of DataFusion.
pub(super) fn around(inner: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::from(Series { inner, signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Series {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

/// Returns the common type of start, end and step, if one of them is a decimal and the others are decimals or integers.
fn decimal(types: &[DataType]) -> Option<DataType> {
    let mut scale = None;
    for data_type in types {
        match data_type {
            DataType::Decimal32(_, of)
            | DataType::Decimal64(_, of)
            | DataType::Decimal128(_, of)
            | DataType::Decimal256(_, of) => scale = scale.max(Some((*of).max(0))),
            DataType::Null => {}
            integer if integer.is_integer() => {}
            _ => return None,
        }
    }
    let is_series = matches!(types.len(), 2 | 3);
    scale.filter(|_| is_series).map(|scale| DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale))
}

impl ScalarUDFImpl for Series {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match decimal(arguments) {
            Some(data_type) => Ok(DataType::new_list(data_type, true)),
            None => self.inner.inner().return_type(arguments),
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if let Some(data_type) = decimal(arguments) {
            return Ok(vec![data_type; arguments.len()]);
        }
        coerced(arguments, self.inner.as_ref())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        let Some(data_type) = decimal(&types) else { return self.inner.inner().invoke_with_args(arguments) };
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let columns: Vec<ArrayRef> =
            columns.iter().map(|column| cast(column, &data_type)).collect::<Result<_, _>>()?;
        Ok(ColumnarValue::Array(series(&columns, &data_type)?))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Computes the list of each row; NULL if an argument is.
fn series(columns: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef> {
    let scale = match data_type {
        DataType::Decimal128(_, scale) => u32::try_from(*scale).unwrap_or(0),
        _ => 0,
    };
    let rows = columns.first().map_or(0, Array::len);
    let mut lists = ListBuilder::new(Decimal128Builder::new().with_data_type(data_type.clone()))
        .with_field(Field::new_list_field(data_type.clone(), true));
    for row in 0..rows {
        let value = |column: &ArrayRef| {
            column.is_valid(row).then(|| column.as_primitive::<Decimal128Type>().value(row))
        };
        let (start, end) = (value(&columns[0]), value(&columns[1]));
        let step = columns.get(2).map_or_else(|| 10_i128.checked_pow(scale), value);
        let (Some(start), Some(end), Some(step)) = (start, end, step) else {
            lists.append_null();
            continue;
        };
        if step == 0 {
            return Err(Error::invalid("step size cannot equal zero").into());
        }
        let span = if step > 0 { end.checked_sub(start) } else { start.checked_sub(end) };
        let count = span.map_or(i128::MAX, |span| if span < 0 { 0 } else { span / step.abs() + 1 });
        if count > i128::from(VALUE_BYTES_MAX) / ELEMENT_BYTES {
            let message = format!(
                "generate_series would make a value of {} bytes, and {VALUE_BYTES_MAX} is the maximum",
                count.saturating_mul(ELEMENT_BYTES)
            );
            return Err(Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED).into());
        }
        for number in 0..count {
            lists.values().append_value(start + number * step);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn series_of_decimals_have_the_digits_of_their_arguments() {
        let tables =
            Tables::new().table("t", "(a INT, s NUMERIC(6, 2))", "VALUES (1, 0.25), (2, NULL), (3, -1.5)");
        tables.check("SELECT generate_series(1.1, 4, 1.3)", &["1.1", "2.4", "3.7"]);
        tables.check("SELECT * FROM generate_series(0.5, 3)", &["0.5", "1.5", "2.5"]);
        tables.check("SELECT generate_series(3, 0.5, -1)", &["1.0", "2.0", "3.0"]);
        tables.check("SELECT count(*) FROM generate_series(3, 0.5)", &["0"]);
        tables.check(
            "SELECT a, g FROM t, generate_series(a, 2, s) AS g ORDER BY 1, 2",
            &["1|1.00", "1|1.25", "1|1.50", "1|1.75", "1|2.00", "3|3.00"].map(|row| row),
        );
        tables.fails("SELECT generate_series(1, 2, 0.0)", "step size cannot equal zero");
        tables.check("SELECT generate_series(1, 3)", &["1", "2", "3"]);
    }
}
