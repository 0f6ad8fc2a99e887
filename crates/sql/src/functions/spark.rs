//! Functions of Spark and Flink that PostgreSQL lacks: `array(a, b)`, `hex(x)`.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use millstream_delta::sql_type;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.replace(
        "make_array",
        |function| function.name() == "make_array",
        |function| function.as_ref().clone().with_aliases(["array"]),
    );
    registry.add(Scalar::any("hex", hex_type, hex));
}

fn hex_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [DataType::Null] => Ok(DataType::Utf8View),
        [of] if of.is_integer() || of.is_string() || of.is_binary() => Ok(DataType::Utf8View),
        [of] => {
            Err(Error::invalid(format!("hex takes a whole number, a text or bytes, not {}", sql_type(of)))
                .into())
        }
        _ => Err(Error::invalid("hex takes one argument").into()),
    }
}

/// Returns the hexadecimal digits, in capitals: those of a number in two's complement, or of the bytes of a text.
fn hex(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let column = &columns[0];
    if column.data_type().is_integer() || column.data_type().is_null() {
        let numbers = cast(column, &DataType::Int64)?;
        let digits = numbers.as_primitive::<Int64Type>().iter().map(|x| x.map(|x| format!("{x:X}")));
        return Ok(Arc::new(digits.collect::<StringViewArray>()));
    }
    let bytes = cast(column, &DataType::BinaryView)?;
    let digits = bytes.as_binary_view().iter().map(|bytes| {
        bytes.map(|bytes| {
            let mut digits = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                // Writing to a text doesn't fail.
                let _ = write!(digits, "{byte:02X}");
            }
            digits
        })
    });
    Ok(Arc::new(digits.collect::<StringViewArray>()))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn digits_are_of_numbers_texts_and_bytes() {
        let row = "11|FFFFFFFFFFFFFFFF|537061726B2053514C|00FF|NULL";
        Tables::new()
            .check("SELECT hex(17), hex(-1), hex('Spark SQL'), hex('\\x00ff'::BYTEA), hex(NULL)", &[row]);
        Tables::new()
            .fails("SELECT hex(1.5)", "hex takes a whole number, a text or bytes, not DOUBLE PRECISION");
        Tables::new().check("SELECT array(1, 2, NULL), array()", &["[1, 2, NULL]|[]"]);
    }
}
