//! The columns of a schema, for a source that declares none.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::schema::{AvroSchema, Kind, Logical, TypeId};

/// Most levels of records within records.
const DEPTH_MAX: usize = 16;

/// Most columns, with those inside of others.
const COLUMNS_MAX: usize = 10_000;

/// Returns the columns of a schema, which is a record or a union of a record and null.
pub(crate) fn columns(schema: &AvroSchema) -> Result<SchemaRef, String> {
    let mut walk = Walk { schema, columns: 0 };
    columns_of(walk.data_type(schema.root(), 0)?).unwrap_or_else(|| {
        Err(format!(
            "the schema is {}, but a record was expected: declare one column",
            schema.name(schema.root())
        ))
    })
}

/// Returns the columns of the rows in Debezium's envelopes: those of its field `after`.
pub(crate) fn columns_after(schema: &AvroSchema) -> Result<SchemaRef, String> {
    let fields = match &schema.get(schema.root()).kind {
        Kind::Record { fields, .. } => fields.as_slice(),
        _ => &[],
    };
    let after = fields.iter().find(|(name, _)| name == "after");
    let (_, after) = after.ok_or("the schema has no field 'after', which Debezium's envelopes have")?;
    let mut walk = Walk { schema, columns: 0 };
    let found = columns_of(walk.data_type(*after, 0)?);
    found.unwrap_or_else(|| Err("the field 'after' is no record".to_string()))
}

/// Returns the fields of a record as columns; `None` for other types.
fn columns_of(data_type: DataType) -> Option<Result<SchemaRef, String>> {
    match data_type {
        DataType::Struct(fields) if !fields.is_empty() => Some(Ok(Arc::new(Schema::new(fields)))),
        DataType::Struct(_) => {
            Some(Err("the schema is a record without fields, which has no columns".to_string()))
        }
        _ => None,
    }
}

struct Walk<'a> {
    schema: &'a AvroSchema,
    columns: usize,
}

impl Walk<'_> {
    fn data_type(&mut self, id: TypeId, depth: usize) -> Result<DataType, String> {
        self.columns += 1;
        if depth > DEPTH_MAX || self.columns > COLUMNS_MAX {
            return Err(format!(
                "the schema has too many records within records (more than {DEPTH_MAX} levels or {COLUMNS_MAX} fields, \
                 perhaps a record within itself): declare the columns"
            ));
        }
        let found = self.schema.get(id);
        Ok(match (&found.kind, found.logical) {
            (_, Some(Logical::Date)) => DataType::Date32,
            (_, Some(Logical::Time(unit @ (TimeUnit::Second | TimeUnit::Millisecond)))) => {
                DataType::Time32(unit)
            }
            (_, Some(Logical::Time(unit))) => DataType::Time64(unit),
            (_, Some(Logical::Timestamp(unit))) => DataType::Timestamp(unit, Some("UTC".into())),
            (_, Some(Logical::LocalTimestamp(unit))) => DataType::Timestamp(unit, None),
            (_, Some(Logical::Decimal { precision, scale })) => decimal(precision, scale)?,
            (_, Some(Logical::Uuid)) => DataType::Utf8View,
            (_, Some(Logical::Duration)) => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
            (Kind::Null, _) => {
                return Err("a value that is always null has no type: declare the columns".into());
            }
            (Kind::Boolean, _) => DataType::Boolean,
            (Kind::Int, _) => DataType::Int32,
            (Kind::Long, _) => DataType::Int64,
            (Kind::Float, _) => DataType::Float32,
            (Kind::Double, _) => DataType::Float64,
            (Kind::Bytes | Kind::Fixed(_), _) => DataType::BinaryView,
            (Kind::String | Kind::Enum(_), _) => DataType::Utf8View,
            (Kind::Array(item), _) => DataType::new_list(self.data_type(*item, depth + 1)?, true),
            (Kind::Map(value), _) => map(self.data_type(*value, depth + 1)?),
            (Kind::Record { fields, .. }, _) => self.record(fields, depth)?,
            (Kind::Union(branches), _) => {
                let is_null = |id: &&TypeId| matches!(self.schema.get(**id).kind, Kind::Null);
                let values: Vec<TypeId> = branches.iter().filter(|id| !is_null(id)).copied().collect();
                match values.as_slice() {
                    [only] => self.data_type(*only, depth)?,
                    _ => {
                        let names: Vec<String> = branches.iter().map(|id| self.schema.name(*id)).collect();
                        return Err(format!(
                            "a union of {} is no column type: declare the columns that can be read",
                            names.join(", ")
                        ));
                    }
                }
            }
        })
    }

    fn record(&mut self, fields: &[(String, TypeId)], depth: usize) -> Result<DataType, String> {
        let field = |(name, id): &(String, TypeId)| {
            let data_type =
                self.data_type(*id, depth + 1).map_err(|error| format!("field '{name}': {error}"))?;
            Ok(Field::new(name, data_type, true))
        };
        let fields: Result<Vec<Field>, String> = fields.iter().map(field).collect();
        Ok(DataType::Struct(Fields::from(fields?)))
    }
}

fn decimal(precision: usize, scale: usize) -> Result<DataType, String> {
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ ..=38), Ok(scale)) => Ok(DataType::Decimal128(precision, scale)),
        (Ok(precision @ ..=76), Ok(scale)) => Ok(DataType::Decimal256(precision, scale)),
        _ => Err(format!("decimal({precision}, {scale}) has more than 76 digits: declare the columns")),
    }
}

/// Returns the type of a map from texts.
fn map(value: DataType) -> DataType {
    let fields = vec![Field::new("key", DataType::Utf8View, false), Field::new("value", value, true)];
    let entries = Field::new("entries", DataType::Struct(Fields::from(fields)), false);
    DataType::Map(Arc::new(entries), false)
}
