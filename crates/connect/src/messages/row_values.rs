//! The rows within row events: JSON whose booleans are MySQL's `tinyint(1)`, so that 1 and "1" are true, too.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::Result;
use crate::formats::decode::Decode;
use crate::formats::framing::Record;
use crate::formats::json::JsonDecoder;

/// Decodes the rows of events.
pub(super) struct RowValues {
    /// Reads BOOLEAN columns as text.
    json: JsonDecoder,
    booleans: Vec<(usize, String)>,
}

impl RowValues {
    /// Creates a decoder of rows with these columns.
    pub fn new(columns: &SchemaRef) -> Result<RowValues> {
        let is_boolean = |field: &FieldRef| *field.data_type() == DataType::Boolean;
        let field = |field: &FieldRef| match is_boolean(field) {
            true => Arc::new(Field::new(field.name(), DataType::Utf8View, field.is_nullable())),
            false => field.clone(),
        };
        let fields: Vec<FieldRef> = columns.fields().iter().map(field).collect();
        let booleans = columns.fields().iter().enumerate().filter(|(_, field)| is_boolean(field));
        Ok(RowValues {
            json: JsonDecoder::new(&Arc::new(Schema::new(fields)))?,
            booleans: booleans.map(|(place, field)| (place, field.name().clone())).collect(),
        })
    }
}

impl Decode for RowValues {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let mut columns = self.json.decode(block, records)?;
        for (place, name) in &self.booleans {
            let Some(column) = columns.get_mut(*place) else { continue };
            let value = |text: Option<&str>| match text {
                None => Ok(None),
                Some("true" | "1") => Ok(Some(true)),
                Some("false" | "0") => Ok(Some(false)),
                Some(other) => Err(format!(
                    "field '{name}' is '{}', but true, false, 1 or 0 was expected",
                    other.chars().take(100).collect::<String>()
                )),
            };
            let values = column.as_string_view().iter().map(value);
            *column = Arc::new(values.collect::<Result<BooleanArray, String>>()?);
        }
        Ok(columns)
    }

    fn explain(&self, record: &[u8], error: String) -> String {
        self.json.explain(record, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_mysql_and_of_json() {
        let fields = vec![
            Field::new("a", DataType::Boolean, true),
            Field::new("id", DataType::Int64, true),
            Field::new("b", DataType::Boolean, true),
        ];
        let rows = RowValues::new(&Arc::new(Schema::new(fields))).unwrap();
        let decode = |text: &str| {
            let record = Record { start: 0, end: text.len() as u32, next: text.len() as u32 };
            rows.decode(&Buffer::from(text.as_bytes()), &[record])
        };
        for (text, a, b) in [
            (r#"{"id": "7", "a": "1", "b": 0}"#, Some(true), Some(false)),
            (r#"{"b": true, "id": 7, "a": "false"}"#, Some(false), Some(true)),
            (r#"{"b": null, "id": 7}"#, None, None),
        ] {
            let columns = decode(text).unwrap();
            assert_eq!(columns[0].as_boolean(), &BooleanArray::from(vec![a]), "{text}");
            assert_eq!(columns[2].as_boolean(), &BooleanArray::from(vec![b]), "{text}");
            assert_eq!(columns[1].as_primitive::<arrow::datatypes::Int64Type>().value(0), 7);
        }
        assert!(decode(r#"{"b": 2}"#).unwrap_err().contains("field 'b' is '2', but true"));
    }
}
