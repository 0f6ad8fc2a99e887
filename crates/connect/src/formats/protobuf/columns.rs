//! The columns of a message, for a source that declares none.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};

use super::schema::{Label, ProtoSchema, Scalar, TypeId, ValueType};
use crate::formats::target::map_type;

/// Most levels of messages within messages.
const DEPTH_MAX: usize = 16;

/// Most columns, with those inside of others.
const COLUMNS_MAX: usize = 10_000;

/// Returns the columns of a message.
pub(crate) fn columns(schema: &ProtoSchema, id: TypeId) -> Result<SchemaRef, String> {
    let fields = Walk { schema, columns: 0 }.message(id, 0)?;
    match fields.is_empty() {
        true => Err(format!("message '{}' has no fields: declare the columns", schema.message(id).name)),
        false => Ok(Arc::new(Schema::new(fields))),
    }
}

struct Walk<'a> {
    schema: &'a ProtoSchema,
    columns: usize,
}

impl Walk<'_> {
    fn message(&mut self, id: TypeId, depth: usize) -> Result<Fields, String> {
        let mut fields = Vec::new();
        for field in &self.schema.message(id).fields {
            self.columns += 1;
            if depth > DEPTH_MAX || self.columns > COLUMNS_MAX {
                return Err(format!(
                    "message '{}' has too many messages within messages (more than {DEPTH_MAX} levels or {COLUMNS_MAX} \
                     fields, perhaps a message within itself): declare the columns",
                    self.schema.message(id).name
                ));
            }
            let of = self.value(&field.of, depth)?;
            let data_type = match &field.label {
                Label::Implicit | Label::Optional => of,
                Label::Repeated => DataType::new_list(of, true),
                Label::Map(key) => map_type(scalar(*key), of),
            };
            fields.push(Field::new(&field.name, data_type, true));
        }
        Ok(Fields::from(fields))
    }

    fn value(&mut self, of: &ValueType, depth: usize) -> Result<DataType, String> {
        Ok(match of {
            ValueType::Scalar(of) => scalar(*of),
            ValueType::Enum(_) => DataType::Utf8View,
            ValueType::Message(id) => {
                let message = self.schema.message(*id);
                match (message.name.as_str(), message.fields.as_slice()) {
                    ("google.protobuf.Timestamp", _) => {
                        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
                    }
                    ("google.protobuf.Duration", _) => DataType::Interval(IntervalUnit::MonthDayNano),
                    (name, [only]) if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                        self.value(&only.of, depth)?
                    }
                    _ => DataType::Struct(self.message(*id, depth + 1)?),
                }
            }
            ValueType::Name(name, _) => return Err(format!("the schema has no type '{name}'")),
        })
    }
}

fn scalar(scalar: Scalar) -> DataType {
    match scalar {
        Scalar::Double => DataType::Float64,
        Scalar::Float => DataType::Float32,
        Scalar::Int32 | Scalar::SInt32 | Scalar::SFixed32 => DataType::Int32,
        Scalar::Int64 | Scalar::SInt64 | Scalar::SFixed64 | Scalar::UInt32 | Scalar::Fixed32 => {
            DataType::Int64
        }
        Scalar::UInt64 | Scalar::Fixed64 => DataType::Decimal128(20, 0),
        Scalar::Bool => DataType::Boolean,
        Scalar::String => DataType::Utf8View,
        Scalar::Bytes => DataType::BinaryView,
    }
}
