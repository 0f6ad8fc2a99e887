//! The columns of a [JSON Schema](https://json-schema.org/), for a source that declares none.
//!
//! Deliberately absent: validation. The declared columns are the reader's schema.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::Value;

use crate::RegisteredSchema;
use crate::formats::target::map_type;

/// Most levels of objects within objects, with those of references.
const DEPTH_MAX: usize = 16;

/// Most columns, with those inside of others.
const COLUMNS_MAX: usize = 10_000;

/// Returns the columns of a registered schema, which describes an object.
pub(crate) fn columns(schema: &RegisteredSchema) -> Result<SchemaRef, String> {
    if schema.kind != "JSON" {
        return Err(format!("it is a schema of {}, but JSON was expected", schema.kind));
    }
    let parse = |text: &String| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    let documents: Result<Vec<Value>, String> =
        std::iter::once(&schema.text).chain(&schema.references).map(parse).collect();
    let documents = documents?;
    let mut walk = Walk { documents: &documents, columns: 0 };
    match walk.data_type(&documents[0], 0, 0)? {
        DataType::Struct(fields) if !fields.is_empty() => Ok(Arc::new(Schema::new(fields))),
        _ => Err("the schema is not of an object with properties: declare the columns".to_string()),
    }
}

struct Walk<'a> {
    /// The schema, then those that it refers to.
    documents: &'a [Value],
    columns: usize,
}

impl<'a> Walk<'a> {
    /// Returns the type of a schema within the document with this number.
    fn data_type(&mut self, schema: &'a Value, document: usize, depth: usize) -> Result<DataType, String> {
        self.columns += 1;
        if depth > DEPTH_MAX || self.columns > COLUMNS_MAX {
            return Err(format!(
                "the schema has too many objects within objects (more than {DEPTH_MAX} levels or {COLUMNS_MAX} properties, \
                 perhaps an object within itself): declare the columns"
            ));
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let (found, document) = self.referred(target, document)?;
            return self.data_type(found, document, depth + 1);
        }
        for word in ["oneOf", "anyOf", "allOf"] {
            if let Some(all) = schema.get(word).and_then(Value::as_array) {
                let is_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) == Some("null");
                let values: Vec<&Value> = all.iter().filter(|schema| !is_null(schema)).collect();
                let [only] = values.as_slice() else {
                    return Err(format!("{word} of {} types is no column type", values.len()));
                };
                return self.data_type(only, document, depth + 1);
            }
        }
        match type_word(schema)? {
            "boolean" => Ok(DataType::Boolean),
            "integer" => Ok(integer(schema)),
            "number" => Ok(match schema.get("connect.type").and_then(Value::as_str) {
                Some("float32") => DataType::Float32,
                _ => DataType::Float64,
            }),
            "string" => Ok(match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                Some("date") => DataType::Date32,
                _ => DataType::Utf8View,
            }),
            "array" => {
                let items = schema.get("items").filter(|items| items.is_object());
                let items = items.ok_or("an array without 'items' is no column type")?;
                Ok(DataType::new_list(self.data_type(items, document, depth + 1)?, true))
            }
            "object" => self.object(schema, document, depth),
            other => Err(format!("type '{other}' is no column type")),
        }
    }

    fn object(&mut self, schema: &'a Value, document: usize, depth: usize) -> Result<DataType, String> {
        let properties = schema.get("properties").and_then(Value::as_object);
        if let Some(properties) = properties.filter(|properties| !properties.is_empty()) {
            let field = |(name, schema): (&'a String, &'a Value)| {
                let data_type = self.data_type(schema, document, depth + 1);
                let data_type = data_type.map_err(|error| format!("property '{name}': {error}"))?;
                Ok(Field::new(name, data_type, true))
            };
            let fields: Result<Vec<Field>, String> = in_order(properties).into_iter().map(field).collect();
            return Ok(DataType::Struct(Fields::from(fields?)));
        }
        let values = schema.get("additionalProperties").filter(|values| values.is_object());
        let values = values.ok_or("an object without properties is no column type")?;
        Ok(map_type(DataType::Utf8View, self.data_type(values, document, depth + 1)?))
    }

    /// Returns the schema that a reference names, and the number of its document.
    fn referred(&self, target: &str, document: usize) -> Result<(&'a Value, usize), String> {
        let (of, pointer) = target.split_once('#').unwrap_or((target, ""));
        let names = |schema: &Value| {
            let id = schema.get("$id").and_then(Value::as_str).unwrap_or_default();
            !id.is_empty() && (id == of || id.ends_with(&format!("/{of}")))
        };
        let document = match of {
            "" => Some(document),
            _ => self.documents.iter().position(names),
        };
        let unknown = || format!("the schema refers to '{target}', which isn't there");
        let document = document.ok_or_else(unknown)?;
        let pointer = pointer.replace("%24", "$").replace("%25", "%");
        self.documents[document].pointer(&pointer).map(|found| (found, document)).ok_or_else(unknown)
    }
}

/// Returns the type of a schema, without null.
fn type_word(schema: &Value) -> Result<&str, String> {
    let all_text = |values: &Vec<Value>| values.iter().all(|value| value.is_string() || value.is_null());
    match schema.get("type") {
        Some(Value::String(word)) => Ok(word),
        Some(Value::Array(words)) => {
            let words: Vec<&str> =
                words.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect();
            match words.as_slice() {
                [only] => Ok(only),
                _ => Err(format!("type {} is no column type", words.join(" or "))),
            }
        }
        _ if schema.get("properties").is_some() => Ok("object"),
        _ if schema.get("enum").and_then(Value::as_array).is_some_and(all_text) => Ok("string"),
        _ if schema.get("const").is_some_and(Value::is_string) => Ok("string"),
        _ => Err("a schema without 'type' is no column type".to_string()),
    }
}

/// Returns the type of an integer; Kafka Connect says how wide it is.
fn integer(schema: &Value) -> DataType {
    match schema.get("connect.type").and_then(Value::as_str) {
        Some("int8" | "int16") => DataType::Int16,
        Some("int32") => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// Returns properties in the order of `connect.index`, which Kafka Connect adds, then by name.
fn in_order(properties: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut all: Vec<(&String, &Value)> = properties.iter().collect();
    let index = |schema: &Value| schema.get("connect.index").and_then(Value::as_u64).unwrap_or(u64::MAX);
    all.sort_by_key(|(_, schema)| index(schema));
    all
}

#[cfg(test)]
mod tests {
    use millstream_delta::sql_type;

    use super::*;

    fn of(text: &str, references: &[&str]) -> Result<Vec<String>, String> {
        let references = references.iter().map(|text| text.to_string()).collect();
        let schema = RegisteredSchema { id: 1, kind: "JSON".into(), text: text.into(), references };
        let columns = columns(&schema)?;
        let shown = columns.fields().iter();
        Ok(shown.map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect())
    }

    fn check(property: &str, expected: &str) {
        let text = format!(r#"{{"type": "object", "properties": {{"p": {property}}}}}"#);
        assert_eq!(of(&text, &[]).unwrap(), [format!("p {expected}")], "{property}");
    }

    fn fails(text: &str, reason: &str) {
        let error = of(text, &[]).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }

    #[test]
    fn types_are_those_of_columns() {
        check(r#"{"type": "boolean"}"#, "BOOLEAN");
        check(r#"{"type": "integer"}"#, "BIGINT");
        check(r#"{"type": "integer", "connect.type": "int32"}"#, "INT");
        check(r#"{"type": ["null", "number"]}"#, "DOUBLE PRECISION");
        check(r#"{"type": "string"}"#, "TEXT");
        check(r#"{"enum": ["a", "b"]}"#, "TEXT");
        check(r#"{"type": "string", "format": "date-time"}"#, "TIMESTAMPTZ");
        check(r#"{"type": "string", "format": "date"}"#, "DATE");
        check(r#"{"oneOf": [{"type": "null"}, {"type": "integer"}]}"#, "BIGINT");
        check(r#"{"type": "array", "items": {"type": "integer"}}"#, "BIGINT[]");
        check(r#"{"properties": {"x": {"type": "string"}}}"#, "STRUCT<x TEXT>");
        check(r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#, "MAP(TEXT, BIGINT)");
    }

    #[test]
    fn references_are_followed() {
        let text = r##"{"$ref": "#/$defs/order", "$defs": {"order": {"type": "object", "properties": {
            "id": {"type": "integer"}, "place": {"$ref": "place.json#/definitions/city"}}}}}"##;
        let place = r##"{"$id": "http://shop/place.json", "definitions": {"city": {"$ref": "#/definitions/name"},
            "name": {"type": "string"}}}"##;
        assert_eq!(of(text, &[place]).unwrap(), ["id BIGINT", "place TEXT"]);
        let error = of(text, &[]).unwrap_err();
        assert!(
            error.contains("property 'place': the schema refers to 'place.json#/definitions/city'"),
            "{error}"
        );
    }

    #[test]
    fn schemas_without_columns_are_refused() {
        fails("{", "EOF");
        fails(r#"{"type": "string"}"#, "not of an object with properties");
        fails(r#"{"type": "object"}"#, "an object without properties");
        fails(r#"{"properties": {"x": {}}}"#, "property 'x': a schema without 'type'");
        fails(r#"{"properties": {"x": {"type": ["string", "integer"]}}}"#, "type string or integer");
        fails(
            r#"{"properties": {"x": {"oneOf": [{"type": "string"}, {"type": "integer"}]}}}"#,
            "oneOf of 2 types",
        );
        fails(r##"{"properties": {"x": {"$ref": "#"}}}"##, "perhaps an object within itself");
    }
}
