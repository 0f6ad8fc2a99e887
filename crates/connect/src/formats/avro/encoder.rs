//! Rows as Avro: a schema for the columns of a relation, and a datum for each row.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal256Array, Float32Array, Float64Array,
    Int64Array, ListArray, MapArray, RecordBatch, StringViewArray, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal256Type, Field, FieldRef, Fields, Float32Type, Float64Type, Int64Type, SchemaRef,
    TimeUnit,
};
use millstream_delta::sql_type;
use serde_json::{Value, json};

use crate::formats::encode::check_width;
use crate::formats::varint::write_varint;
use crate::{Error, Result};

/// Encodes rows of one schema.
///
/// A column that may be NULL is a union of null and its type. TIMESTAMP is local-timestamp-micros and TIMESTAMPTZ is
/// timestamp-micros (millis up to three digits), finer digits are cut off. `BIGINT UNSIGNED` is decimal(20, 0).
#[derive(Clone, Debug)]
pub struct AvroEncoder {
    columns: SchemaRef,
    schema: String,
}

impl AvroEncoder {
    /// Creates the encoder of a relation with these columns, whose records have this name: letters, digits and
    /// underscores. Fails for columns whose names or types Avro can't hold.
    pub fn new(columns: &SchemaRef, name: &str) -> Result<AvroEncoder> {
        let schema = record(columns.fields(), name).map_err(Error::Invalid)?.to_string();
        Ok(AvroEncoder { columns: columns.clone(), schema })
    }

    /// Returns the schema, as a registry takes it.
    pub fn schema_json(&self) -> &str {
        &self.schema
    }

    /// Encodes each row, without a header.
    pub fn encode(&self, rows: &RecordBatch) -> std::result::Result<Vec<Vec<u8>>, String> {
        check_width(&self.columns, rows)?;
        let parts = parts(self.columns.fields(), rows.columns())?;
        let row = |row: usize| {
            let mut datum = Vec::new();
            parts.iter().for_each(|part| part.write(row, &mut datum));
            datum
        };
        Ok((0..rows.num_rows()).map(row).collect())
    }
}

fn record(fields: &Fields, name: &str) -> std::result::Result<Value, String> {
    check_name(name, "record")?;
    let field = |field: &FieldRef| {
        check_name(field.name(), "column")?;
        let of = data_type(field, &format!("{name}_{}", field.name()))?;
        Ok(match field.is_nullable() {
            true => json!({"name": field.name(), "type": ["null", of], "default": null}),
            false => json!({"name": field.name(), "type": of}),
        })
    };
    let fields: std::result::Result<Vec<Value>, String> = fields.iter().map(field).collect();
    Ok(json!({"type": "record", "name": name, "fields": fields?}))
}

/// Returns the type of a field; a record in it gets the name.
fn data_type(field: &Field, name: &str) -> std::result::Result<Value, String> {
    let logical = |of: &str, logical: &str| json!({"type": of, "logicalType": logical});
    let inner = |field: &Field| -> std::result::Result<Value, String> {
        let of = data_type(field, &format!("{name}_item"))?;
        Ok(if field.is_nullable() { json!(["null", of]) } else { of })
    };
    let is_coarse = |unit: &TimeUnit| matches!(unit, TimeUnit::Second | TimeUnit::Millisecond);
    Ok(match field.data_type() {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            json!("int")
        }
        DataType::Int64 | DataType::UInt32 => json!("long"),
        DataType::UInt64 => json!({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0}),
        DataType::Float16 | DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            json!("bytes")
        }
        DataType::Date32 => logical("int", "date"),
        DataType::Time32(_) => logical("int", "time-millis"),
        DataType::Time64(_) => logical("long", "time-micros"),
        DataType::Timestamp(unit, None) if is_coarse(unit) => logical("long", "local-timestamp-millis"),
        DataType::Timestamp(_, None) => logical("long", "local-timestamp-micros"),
        DataType::Timestamp(unit, Some(_)) if is_coarse(unit) => logical("long", "timestamp-millis"),
        DataType::Timestamp(_, Some(_)) => logical("long", "timestamp-micros"),
        DataType::List(item) => json!({"type": "array", "items": inner(item)?}),
        DataType::Struct(fields) => record(fields, name)?,
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 && fields[0].data_type().is_string() => {
                json!({"type": "map", "values": inner(&fields[1])?})
            }
            _ => return Err(unwritable(field)),
        },
        _ => return Err(unwritable(field)),
    })
}

fn unwritable(field: &Field) -> String {
    format!(
        "column '{}' has type {}, which Avro can't hold: cast it to TEXT",
        field.name(),
        sql_type(field.data_type())
    )
}

fn check_name(name: &str, what: &str) -> std::result::Result<(), String> {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    match name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!(
            "{what} '{name}' has a name that Avro doesn't take: letters, digits and underscores were expected. Give it \
             another name with AS"
        )),
    }
}

/// A column to write, in the widest type of its kind.
struct Part {
    is_nullable: bool,
    values: Values,
}

enum Values {
    Boolean(BooleanArray),
    Whole(Int64Array),
    Float(Float32Array),
    Double(Float64Array),
    Decimal(Decimal256Array),
    Text(StringViewArray),
    Bytes(BinaryViewArray),
    List(ListArray, Box<Part>),
    Map(MapArray, Box<Part>, Box<Part>),
    Struct(StructArray, Vec<Part>),
}

fn parts(fields: &Fields, columns: &[ArrayRef]) -> std::result::Result<Vec<Part>, String> {
    fields.iter().zip(columns).map(|(field, column)| part(field, column)).collect()
}

fn part(field: &Field, column: &ArrayRef) -> std::result::Result<Part, String> {
    let as_type = |data_type: &DataType| -> std::result::Result<ArrayRef, String> {
        cast(column, data_type).map_err(|error| error.to_string())
    };
    let whole = |steps: &[DataType]| -> std::result::Result<Values, String> {
        let mut column = column.clone();
        for step in steps {
            column = cast(&column, step).map_err(|error| error.to_string())?;
        }
        Ok(Values::Whole(column.as_primitive::<Int64Type>().clone()))
    };
    let finer = |unit: &TimeUnit| match unit {
        TimeUnit::Second | TimeUnit::Millisecond => TimeUnit::Millisecond,
        _ => TimeUnit::Microsecond,
    };
    let values = match field.data_type() {
        DataType::Boolean => Values::Boolean(column.as_boolean().clone()),
        DataType::Date32 => whole(&[DataType::Int32, DataType::Int64])?,
        DataType::Time32(_) => {
            whole(&[DataType::Time32(TimeUnit::Millisecond), DataType::Int32, DataType::Int64])?
        }
        DataType::Time64(_) => whole(&[DataType::Time64(TimeUnit::Microsecond), DataType::Int64])?,
        DataType::Timestamp(unit, zone) => {
            whole(&[DataType::Timestamp(finer(unit), zone.clone()), DataType::Int64])?
        }
        DataType::UInt64 => decimal(&as_type(&DataType::Decimal256(20, 0))?),
        data_type if data_type.is_integer() => whole(&[DataType::Int64])?,
        DataType::Float16 | DataType::Float32 => {
            Values::Float(as_type(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
        }
        DataType::Float64 => Values::Double(column.as_primitive::<Float64Type>().clone()),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => decimal(&as_type(&DataType::Decimal256(76, *scale))?),
        data_type if data_type.is_string() => {
            Values::Text(as_type(&DataType::Utf8View)?.as_string_view().clone())
        }
        data_type if data_type.is_binary() || matches!(data_type, DataType::FixedSizeBinary(_)) => {
            Values::Bytes(as_type(&DataType::BinaryView)?.as_binary_view().clone())
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            Values::List(list.clone(), Box::new(part(item, list.values())?))
        }
        DataType::Struct(fields) => {
            let row = column.as_struct();
            Values::Struct(row.clone(), parts(fields, row.columns())?)
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let map = column.as_map();
                let (keys, values) = (part(&fields[0], map.keys())?, part(&fields[1], map.values())?);
                Values::Map(map.clone(), Box::new(keys), Box::new(values))
            }
            _ => return Err(unwritable(field)),
        },
        _ => return Err(unwritable(field)),
    };
    Ok(Part { is_nullable: field.is_nullable(), values })
}

fn decimal(column: &ArrayRef) -> Values {
    Values::Decimal(column.as_primitive::<Decimal256Type>().clone())
}

impl Part {
    fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Boolean(values) => values.is_null(row),
            Values::Whole(values) => values.is_null(row),
            Values::Float(values) => values.is_null(row),
            Values::Double(values) => values.is_null(row),
            Values::Decimal(values) => values.is_null(row),
            Values::Text(values) => values.is_null(row),
            Values::Bytes(values) => values.is_null(row),
            Values::List(values, _) => values.is_null(row),
            Values::Map(values, ..) => values.is_null(row),
            Values::Struct(values, _) => values.is_null(row),
        }
    }

    fn write(&self, row: usize, to: &mut Vec<u8>) {
        if self.is_nullable {
            let is_null = self.is_null(row);
            long(i64::from(!is_null), to);
            if is_null {
                return;
            }
        }
        match &self.values {
            Values::Boolean(values) => to.push(values.value(row).into()),
            Values::Whole(values) => long(values.value(row), to),
            Values::Float(values) => to.extend(values.value(row).to_le_bytes()),
            Values::Double(values) => to.extend(values.value(row).to_le_bytes()),
            Values::Decimal(values) => bytes(shortest(&values.value(row).to_be_bytes()), to),
            Values::Text(values) => bytes(values.value(row).as_bytes(), to),
            Values::Bytes(values) => bytes(values.value(row), to),
            Values::Struct(_, parts) => parts.iter().for_each(|part| part.write(row, to)),
            Values::List(list, item) => {
                let offsets = list.value_offsets();
                items(offsets[row] as usize..offsets[row + 1] as usize, to, |place, to| {
                    item.write(place, to)
                });
            }
            Values::Map(map, keys, values) => {
                let offsets = map.value_offsets();
                items(offsets[row] as usize..offsets[row + 1] as usize, to, |place, to| {
                    keys.write(place, to);
                    values.write(place, to);
                });
            }
        }
    }
}

/// Writes the items of an array or a map in one block.
fn items(places: std::ops::Range<usize>, to: &mut Vec<u8>, write: impl Fn(usize, &mut Vec<u8>)) {
    if !places.is_empty() {
        long(places.len() as i64, to);
        places.for_each(|place| write(place, to));
    }
    to.push(0);
}

/// Writes a whole number: zigzag, so that small negative ones are short.
fn long(value: i64, to: &mut Vec<u8>) {
    write_varint(((value << 1) ^ (value >> 63)) as u64, to);
}

fn bytes(value: &[u8], to: &mut Vec<u8>) {
    long(value.len() as i64, to);
    to.extend_from_slice(value);
}

/// Returns a number in two's complement without the bytes in front that only repeat its sign.
fn shortest(number: &[u8]) -> &[u8] {
    let mut number = number;
    while let [first, rest @ ..] = number
        && let Some(second) = rest.first()
        && matches!((first, second & 0x80), (0, 0) | (0xFF, 0x80))
    {
        number = rest;
    }
    number
}
