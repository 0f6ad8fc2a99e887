//! The [JSON Schema](https://json-schema.org/draft-07) of a sink's rows, which a schema registry keeps for their readers.
//!
//! Words that JSON Schema lacks are those of Kafka Connect: `connect.type` says how wide a number is, `connect.index` in
//! which order the properties come.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use serde_json::{Map, Value, json};

use super::pieces::Pieces;

/// The encoder of rows as JSON objects behind the id of their schema.
#[derive(Debug)]
pub(super) struct JsonEncoder {
    schema: String,
}

impl JsonEncoder {
    pub fn new(columns: &SchemaRef) -> JsonEncoder {
        let mut schema = object(columns.fields());
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        schema["title"] = json!("Row");
        JsonEncoder { schema: schema.to_string() }
    }

    /// Returns the schema's text.
    pub fn schema_text(&self) -> &str {
        &self.schema
    }

    pub fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, String> {
        let pieces = Pieces::of_json(rows)?;
        Ok((0..rows.num_rows()).map(|row| pieces.get(row).unwrap_or_default().to_vec()).collect())
    }
}

/// Returns the schema of objects with these fields. A message has all of them, those that are NULL included.
fn object(fields: &Fields) -> Value {
    let property = |(index, field): (usize, &std::sync::Arc<Field>)| {
        let mut schema = of_field(field);
        schema["connect.index"] = json!(index);
        (field.name().clone(), schema)
    };
    let properties: Map<String, Value> = fields.iter().enumerate().map(property).collect();
    let required: Vec<&str> = fields.iter().filter(|f| !f.is_nullable()).map(|f| f.name().as_str()).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn of_field(field: &Field) -> Value {
    let schema = of_type(field.data_type());
    match field.is_nullable() {
        true => json!({"oneOf": [{"type": "null"}, schema]}),
        false => schema,
    }
}

fn of_type(data_type: &DataType) -> Value {
    let integer = |width: &str| json!({"type": "integer", "connect.type": width});
    match data_type {
        DataType::Boolean => json!({"type": "boolean"}),
        DataType::Int8 => integer("int8"),
        DataType::Int16 | DataType::UInt8 => integer("int16"),
        DataType::Int32 | DataType::UInt16 => integer("int32"),
        DataType::Int64 | DataType::UInt32 => integer("int64"),
        DataType::UInt64 => json!({"type": "integer"}),
        DataType::Float16 | DataType::Float32 => json!({"type": "number", "connect.type": "float32"}),
        DataType::Float64 => json!({"type": "number", "connect.type": "float64"}),
        number if number.is_decimal() => json!({"type": "number"}),
        DataType::Timestamp(_, Some(_)) => json!({"type": "string", "format": "date-time"}),
        DataType::Date32 | DataType::Date64 => json!({"type": "string", "format": "date"}),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => json!({"type": "array", "items": of_field(item)}),
        DataType::Struct(fields) => object(fields),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                json!({"type": "object", "additionalProperties": of_field(&pair[1])})
            }
            _ => json!({"type": "object"}),
        },
        DataType::Dictionary(_, values) => of_type(values),
        // Times without a zone, texts, bytes as hexadecimal digits, intervals.
        _ => json!({"type": "string"}),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Schema, TimeUnit};

    use super::*;
    use crate::RegisteredSchema;
    use crate::formats::json_schema::columns;

    #[test]
    fn a_source_without_columns_finds_those_of_the_sink() {
        let zone = Some("UTC".into());
        let point = Fields::from(vec![
            Field::new("x", DataType::Float64, false),
            Field::new("a", DataType::Utf8View, true),
        ]);
        let written = Arc::new(Schema::new(vec![
            Field::new("z", DataType::Int32, false),
            Field::new("b", DataType::Boolean, true),
            Field::new("n", DataType::Int64, true),
            Field::new("f", DataType::Float32, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, zone), true),
            Field::new("d", DataType::Date32, true),
            Field::new("s", DataType::Utf8View, true),
            Field::new("p", DataType::Struct(point), true),
            Field::new("l", DataType::new_list(DataType::Int64, true), true),
        ]));
        let encoder = JsonEncoder::new(&written);
        let text = encoder.schema_text().to_string();
        assert!(text.contains(r#""required":["z"]"#), "{text}");
        let found =
            columns(&RegisteredSchema { id: 1, kind: "JSON".into(), text, references: Vec::new() }).unwrap();
        let types = |schema: &Schema| {
            let shown = |field: &Arc<Field>| {
                format!("{} {}", field.name(), millstream_delta::sql_type(field.data_type()))
            };
            schema.fields().iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(types(&found), types(&written));
    }
}
