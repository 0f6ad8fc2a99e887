//! Converts a user's rows to the column types of a relation.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use crate::sql_type;

/// Converts the rows to a schema, column by column in order. Types of the same kind of value are converted:
/// texts and bytes of any encoding, integers and floats of any width, decimals, times in any unit,
/// dictionaries to their values. Fails if a value doesn't fit, or if a column is of another kind.
pub fn fitted(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let (found, wanted) = (batch.num_columns(), schema.fields().len());
    if found != wanted {
        return Err(ArrowError::SchemaError(format!("they have {found} columns, {wanted} were expected")));
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(wanted);
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        let (found, wanted) = (column.data_type(), field.data_type());
        if found == wanted {
            columns.push(Arc::clone(column));
            continue;
        }
        if !is_alike(found, wanted) {
            return Err(ArrowError::SchemaError(format!(
                "column \"{}\" is {}, {} was given",
                field.name(),
                sql_type(wanted),
                sql_type(found)
            )));
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        columns.push(cast_with_options(column, wanted, &options)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// Returns true if two types hold the same kind of value.
fn is_alike(found: &DataType, wanted: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256, Dictionary,
        Float16, Float32, Float64, LargeBinary, LargeUtf8, Time32, Time64, Timestamp, Utf8, Utf8View,
    };
    match (found, wanted) {
        (Dictionary(_, value), wanted) => value.as_ref() == wanted || is_alike(value, wanted),
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
        | (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView)
        | (Float16 | Float32 | Float64, Float16 | Float32 | Float64)
        | (Date32 | Date64, Date32 | Date64)
        | (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (
            Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..),
            Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..),
        ) => true,
        // A timestamp with a time zone is an instant, one without is a local time.
        (Timestamp(_, found), Timestamp(_, wanted)) => found.is_some() == wanted.is_some(),
        (DataType::Null, _) => true,
        _ => found.is_integer() && wanted.is_integer(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn what_is_alike_is_converted_and_what_does_not_fit_is_an_error() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int16, true),
            Field::new("s", DataType::Utf8View, true),
        ]));
        let batch = |n: i64| {
            let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(n), None]));
            let s: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
            RecordBatch::try_from_iter([("x", n), ("y", s)]).unwrap()
        };
        let rows = fitted(&batch(7), &schema).unwrap();
        assert_eq!(rows.schema(), schema);
        assert_eq!(rows.num_rows(), 2);
        assert!(fitted(&batch(70_000), &schema).is_err());
        let swapped = batch(7).project(&[1, 0]).unwrap();
        let error = fitted(&swapped, &schema).unwrap_err().to_string();
        assert!(error.contains("column \"n\" is SMALLINT, TEXT was given"), "{error}");
        let error = fitted(&batch(7).project(&[0]).unwrap(), &schema).unwrap_err().to_string();
        assert!(error.contains("1 columns, 2 were expected"), "{error}");
    }
}
