//! JSON, one object a line.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::{Decoder, infer_json_schema, infer_json_schema_from_iterator};

use super::decode::Decode;
use super::framing::Record;
use super::json_grammar::{Shape, check};
use crate::{Error, Result};

/// Decodes one object a record. Ignores undeclared fields; missing ones are NULL.
pub(crate) struct JsonDecoder {
    columns: SchemaRef,
    /// Requirements on a record that Arrow's reader doesn't check.
    shape: Shape,
}

impl JsonDecoder {
    /// Creates a decoder of objects with `columns`. Fails for types that JSON can't hold.
    pub fn new(columns: &SchemaRef) -> Result<JsonDecoder> {
        let decoder = JsonDecoder { columns: columns.clone(), shape: Shape::of_fields(columns.fields()) };
        decoder
            .decoder(1)
            .map_err(|error| Error::Invalid(format!("format 'json' can't hold these columns: {error}")))?;
        Ok(decoder)
    }

    fn decoder(&self, rows: usize) -> Result<Decoder, String> {
        ReaderBuilder::new(self.columns.clone())
            // A TEXT column holds numbers and booleans as they are written.
            .with_coerce_primitive(true)
            // One row more than expected, to notice a record that holds two objects.
            .with_batch_size(rows + 1)
            .build_decoder()
            .map_err(|error| error.to_string())
    }
}

/// Infers names and types from the first records of a file.
pub(crate) fn infer(sample: &[u8]) -> Result<SchemaRef, String> {
    let (schema, _) = infer_json_schema(sample, None).map_err(|error| error.to_string())?;
    Ok(readable(&schema))
}

/// Infers names and types from records.
pub(crate) fn infer_records<'r>(records: impl Iterator<Item = &'r [u8]>) -> Result<SchemaRef, String> {
    let parse = |record: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(record)
            .map_err(|error| ArrowError::JsonError(error.to_string()))
    };
    let schema = infer_json_schema_from_iterator(records.map(parse)).map_err(|error| error.to_string())?;
    Ok(readable(&schema))
}

/// Returns inferred columns with types that the decoder reads. Values that were always null are text; objects that were
/// always empty are left out.
fn readable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().filter_map(|field| readable_field(field));
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

fn readable_field(field: &Field) -> Option<FieldRef> {
    let data_type = match field.data_type() {
        DataType::Utf8 | DataType::Null => DataType::Utf8View,
        DataType::List(item) => DataType::List(readable_field(item)?),
        DataType::Struct(fields) => {
            let fields: Vec<FieldRef> = fields.iter().filter_map(|field| readable_field(field)).collect();
            if fields.is_empty() {
                return None;
            }
            DataType::Struct(fields.into())
        }
        other => other.clone(),
    };
    Some(Arc::new(Field::new(field.name(), data_type, true)))
}

impl Decode for JsonDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let mut decoder = self.decoder(records.len())?;
        for (index, record) in records.iter().enumerate() {
            let bytes = &block[record.start as usize..record.end as usize];
            let taken = decoder.decode(bytes).map_err(|error| error.to_string())?;
            if decoder.has_partial_record() {
                return Err("the record ends before its JSON object does; expected one object a line".into());
            }
            if taken < bytes.len() || decoder.len() != index + 1 {
                return Err("the record holds more than one JSON value; expected one object a line".into());
            }
            check(bytes, &self.shape)?;
        }
        let batch = decoder.flush().map_err(|error| error.to_string())?;
        Ok(batch.map(|batch| StructArray::from(batch).into_parts().1).unwrap_or_default())
    }

    fn explain(&self, _record: &[u8], error: String) -> String {
        error.strip_prefix("Json error: ").unwrap_or(&error).to_string()
    }
}
