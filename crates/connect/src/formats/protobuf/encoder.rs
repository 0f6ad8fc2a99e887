//! Rows as Protobuf: a proto3 schema for the columns of a relation, and a message for each row.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Float32Array, Float64Array, Int64Array,
    ListArray, MapArray, RecordBatch, StringViewArray, StructArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Int64Type, SchemaRef, TimeUnit, UInt64Type,
};
use millstream_delta::sql_type;

use crate::{Error, Result};

/// The wire types: a varint, eight bytes, a length with as many bytes, four bytes.
const VARINT: u32 = 0;
const EIGHT: u32 = 1;
const BYTES: u32 = 2;
const FOUR: u32 = 5;

/// Encodes rows of one schema.
///
/// A column that may be NULL is an optional field. TIMESTAMP and TIMESTAMPTZ are google.protobuf.Timestamp. NUMERIC, DATE,
/// TIME and INTERVAL are their text. A list that is NULL is as good as an empty one.
#[derive(Clone, Debug)]
pub struct ProtobufEncoder {
    columns: SchemaRef,
    schema: String,
}

impl ProtobufEncoder {
    /// Creates the encoder of a relation with these columns, whose message has this name. Fails for columns whose names or
    /// types Protobuf can't hold.
    pub fn new(columns: &SchemaRef, name: &str) -> Result<ProtobufEncoder> {
        let message = definition(columns.fields(), name).map_err(Error::Invalid)?.join("\n");
        let import = match message.contains("google.protobuf.Timestamp") {
            true => "import \"google/protobuf/timestamp.proto\";\n\n",
            false => "",
        };
        Ok(ProtobufEncoder {
            columns: columns.clone(),
            schema: format!("syntax = \"proto3\";\n\n{import}{message}\n"),
        })
    }

    /// Returns the schema, as a registry takes it.
    pub fn schema_text(&self) -> &str {
        &self.schema
    }

    /// Encodes each row, without a header.
    pub fn encode(&self, rows: &RecordBatch) -> std::result::Result<Vec<Vec<u8>>, String> {
        let fields = self.columns.fields();
        if fields.len() != rows.num_columns() {
            return Err(format!(
                "{} columns were to be encoded, but the schema has {}",
                rows.num_columns(),
                fields.len()
            ));
        }
        let parts = parts(fields, rows.columns())?;
        let row = |row: usize| {
            let mut message = Vec::new();
            write_row(&parts, row, &mut message)?;
            Ok(message)
        };
        (0..rows.num_rows()).map(row).collect()
    }
}

/// Returns the definition of a message, with those of the messages within it, as lines.
fn definition(fields: &Fields, name: &str) -> std::result::Result<Vec<String>, String> {
    check_names(fields)?;
    let mut lines = vec![format!("message {name} {{")];
    for field in fields {
        if let Some(inner) = inner_fields(field.data_type()) {
            let inner = definition(inner, &inner_name(field.name(), fields))?;
            lines.extend(inner.iter().map(|line| format!("  {line}")));
        }
    }
    for (field, number) in fields.iter().zip(1..) {
        let label = match field.data_type() {
            DataType::List(_) | DataType::Map(..) => "",
            _ if field.is_nullable() => "optional ",
            _ => "",
        };
        let of = type_of(field, &inner_name(field.name(), fields))?;
        lines.push(format!("  {label}{of} {} = {number};", field.name()));
    }
    lines.push("}".into());
    Ok(lines)
}

/// Returns the fields of the messages that are the values of a type.
fn inner_fields(data_type: &DataType) -> Option<&Fields> {
    match data_type {
        DataType::Struct(fields) => Some(fields),
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => match entry[1].data_type() {
                DataType::Struct(fields) => Some(fields),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Returns the name of the message of a field: fields and messages share their names.
fn inner_name(field: &str, fields: &Fields) -> String {
    let mut name = format!("{field}_type");
    while fields.iter().any(|other| *other.name() == name) {
        name.push('_');
    }
    name
}

/// Returns the type of a field; `inner` is the name of the message within it.
fn type_of(field: &Field, inner: &str) -> std::result::Result<String, String> {
    let of = |data_type: &DataType| value_type(data_type, inner).ok_or_else(|| unwritable(field));
    match field.data_type() {
        DataType::List(item) => Ok(format!("repeated {}", of(item.data_type())?)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => {
                let is_key =
                    |key: &DataType| key.is_integer() || key.is_string() || *key == DataType::Boolean;
                match is_key(entry[0].data_type()) {
                    true => Ok(format!("map<{}, {}>", of(entry[0].data_type())?, of(entry[1].data_type())?)),
                    false => Err(unwritable(field)),
                }
            }
            _ => Err(unwritable(field)),
        },
        other => of(other),
    }
}

/// Returns the type of a single value; `None` if there is none.
fn value_type(data_type: &DataType, inner: &str) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "bool".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int32".into(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => "uint32".into(),
        DataType::Int64 => "int64".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::Float16 | DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Timestamp(..) => "google.protobuf.Timestamp".into(),
        DataType::Struct(fields) if !fields.is_empty() => inner.into(),
        bytes if is_bytes(bytes) => "bytes".into(),
        text if text.is_string() || is_written_as_text(text) => "string".into(),
        _ => return None,
    })
}

fn is_bytes(data_type: &DataType) -> bool {
    data_type.is_binary() || matches!(data_type, DataType::FixedSizeBinary(_))
}

fn is_written_as_text(data_type: &DataType) -> bool {
    data_type.is_decimal()
        || matches!(
            data_type,
            DataType::Date32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Interval(_)
                | DataType::Duration(_)
        )
}

fn unwritable(field: &Field) -> String {
    format!(
        "column '{}' has type {}, which Protobuf can't hold: cast it to TEXT",
        field.name(),
        sql_type(field.data_type())
    )
}

/// Fails for names that Protobuf doesn't take, or that are the same in JSON or as the type of a map's entries.
fn check_names(fields: &Fields) -> std::result::Result<(), String> {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for field in fields {
        let name = field.name().as_str();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() || !name.chars().all(is_word) {
            return Err(format!(
                "column '{name}' has a name that Protobuf doesn't take: letters, digits and underscores were expected, no \
                 digit first. Give it another name with AS"
            ));
        }
        let camel = camel_case(name);
        let entry = match field.data_type() {
            DataType::Map(..) => {
                let (first, rest) = camel.split_at(1);
                Some(format!("{}{rest}Entry", first.to_uppercase()))
            }
            _ => None,
        };
        for used in [Some(camel), entry].into_iter().flatten() {
            if let Some(other) = taken.insert(used.clone(), name) {
                return Err(format!(
                    "columns '{other}' and '{name}' are both '{used}' in Protobuf: give one another name with AS"
                ));
            }
        }
    }
    Ok(())
}

/// Returns the name of a field in JSON: underscores go, and letters after them are capitals.
fn camel_case(name: &str) -> String {
    let (mut camel, mut capital) = (String::with_capacity(name.len()), false);
    for char in name.chars() {
        match (char, capital) {
            ('_', _) => capital = true,
            (char, true) => {
                camel.push(char.to_ascii_uppercase());
                capital = false;
            }
            (char, false) => camel.push(char),
        }
    }
    if camel.is_empty() { name.to_string() } else { camel }
}

/// A field to write, in the widest type of its kind.
struct Part {
    name: String,
    number: u32,
    values: Values,
}

enum Values {
    Boolean(BooleanArray),
    Whole(Int64Array),
    Unsigned(UInt64Array),
    Float(Float32Array),
    Double(Float64Array),
    Text(StringViewArray),
    Bytes(BinaryViewArray),
    /// Times in so many parts a second.
    Instant(Int64Array, i64),
    Struct(StructArray, Vec<Part>),
    List(ListArray, Box<Part>),
    /// Entries with a field for the key and one for the value.
    Map(MapArray, [Box<Part>; 2]),
}

fn parts(fields: &Fields, columns: &[ArrayRef]) -> std::result::Result<Vec<Part>, String> {
    let numbered = fields.iter().zip(columns).zip(1..);
    numbered.map(|((field, column), number)| part(field, number, column)).collect()
}

fn part(field: &FieldRef, number: u32, column: &ArrayRef) -> std::result::Result<Part, String> {
    let as_type = |data_type: &DataType| -> std::result::Result<ArrayRef, String> {
        cast(column, data_type).map_err(|error| error.to_string())
    };
    let values = match field.data_type() {
        DataType::Boolean => Values::Boolean(column.as_boolean().clone()),
        unsigned if unsigned.is_unsigned_integer() => {
            Values::Unsigned(as_type(&DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
        }
        signed if signed.is_signed_integer() => {
            Values::Whole(as_type(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
        }
        DataType::Float16 | DataType::Float32 => {
            Values::Float(as_type(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
        }
        DataType::Float64 => Values::Double(column.as_primitive::<Float64Type>().clone()),
        DataType::Timestamp(unit, _) => {
            let parts = as_type(&DataType::Int64)?.as_primitive::<Int64Type>().clone();
            Values::Instant(parts, parts_per_second(*unit))
        }
        DataType::Struct(fields) => {
            let row = column.as_struct();
            Values::Struct(row.clone(), parts(fields, row.columns())?)
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            Values::List(list.clone(), Box::new(part(item, number, list.values())?))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => {
                let map = column.as_map();
                let (key, value) = (part(&entry[0], 1, map.keys())?, part(&entry[1], 2, map.values())?);
                Values::Map(map.clone(), [Box::new(key), Box::new(value)])
            }
            _ => return Err(unwritable(field)),
        },
        bytes if is_bytes(bytes) => Values::Bytes(as_type(&DataType::BinaryView)?.as_binary_view().clone()),
        _ => Values::Text(as_type(&DataType::Utf8View)?.as_string_view().clone()),
    };
    Ok(Part { name: field.name().clone(), number, values })
}

fn parts_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn write_row(parts: &[Part], row: usize, to: &mut Vec<u8>) -> std::result::Result<(), String> {
    parts.iter().try_for_each(|part| part.write_field(row, to))
}

impl Part {
    /// Writes the field of a row, unless it is NULL.
    fn write_field(&self, row: usize, to: &mut Vec<u8>) -> std::result::Result<(), String> {
        if self.is_null(row) {
            return Ok(());
        }
        match &self.values {
            Values::List(list, item) => self.write_list(item, range(list.value_offsets(), row), to),
            Values::Map(map, [key, value]) => {
                for place in range(map.value_offsets(), row) {
                    key.check_present(place, &self.name)?;
                    value.check_present(place, &self.name)?;
                    let mut entry = Vec::new();
                    key.write_field(place, &mut entry)?;
                    value.write_field(place, &mut entry)?;
                    self.write_tag(BYTES, to);
                    write_bytes(&entry, to);
                }
                Ok(())
            }
            _ => {
                self.write_tag(self.wire_type(), to);
                self.write_value(row, to)
            }
        }
    }

    fn write_list(
        &self,
        item: &Part,
        places: Range<usize>,
        to: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        places.clone().try_for_each(|place| item.check_present(place, &self.name))?;
        if places.is_empty() {
            return Ok(());
        }
        if item.wire_type() == BYTES {
            return places.into_iter().try_for_each(|place| item.write_field(place, to));
        }
        // Numbers are packed.
        let mut packed = Vec::new();
        places.into_iter().try_for_each(|place| item.write_value(place, &mut packed))?;
        self.write_tag(BYTES, to);
        write_bytes(&packed, to);
        Ok(())
    }

    /// Fails for a NULL within a list or a map.
    fn check_present(&self, place: usize, of: &str) -> std::result::Result<(), String> {
        match self.is_null(place) {
            false => Ok(()),
            true => Err(format!(
                "column '{of}' has a NULL within an array or a map, which Protobuf can't hold: remove it, for instance with \
                 array_remove"
            )),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Boolean(values) => values.is_null(row),
            Values::Whole(values) | Values::Instant(values, _) => values.is_null(row),
            Values::Unsigned(values) => values.is_null(row),
            Values::Float(values) => values.is_null(row),
            Values::Double(values) => values.is_null(row),
            Values::Text(values) => values.is_null(row),
            Values::Bytes(values) => values.is_null(row),
            Values::Struct(values, _) => values.is_null(row),
            Values::List(values, _) => values.is_null(row),
            Values::Map(values, _) => values.is_null(row),
        }
    }

    fn wire_type(&self) -> u32 {
        match &self.values {
            Values::Boolean(_) | Values::Whole(_) | Values::Unsigned(_) => VARINT,
            Values::Float(_) => FOUR,
            Values::Double(_) => EIGHT,
            _ => BYTES,
        }
    }

    fn write_tag(&self, wire_type: u32, to: &mut Vec<u8>) {
        write_varint(u64::from(self.number << 3 | wire_type), to);
    }

    /// Writes a single value without its tag.
    fn write_value(&self, row: usize, to: &mut Vec<u8>) -> std::result::Result<(), String> {
        match &self.values {
            Values::Boolean(values) => to.push(values.value(row).into()),
            Values::Whole(values) => write_varint(values.value(row) as u64, to),
            Values::Unsigned(values) => write_varint(values.value(row), to),
            Values::Float(values) => to.extend(values.value(row).to_le_bytes()),
            Values::Double(values) => to.extend(values.value(row).to_le_bytes()),
            Values::Text(values) => write_bytes(values.value(row).as_bytes(), to),
            Values::Bytes(values) => write_bytes(values.value(row), to),
            Values::Instant(values, per_second) => {
                let value = values.value(row);
                let nanos = value.rem_euclid(*per_second) * (1_000_000_000 / per_second);
                let mut instant = Vec::new();
                for (number, part) in [(1, value.div_euclid(*per_second)), (2, nanos)] {
                    if part != 0 {
                        write_varint(number << 3, &mut instant);
                        write_varint(part as u64, &mut instant);
                    }
                }
                write_bytes(&instant, to);
            }
            Values::Struct(_, parts) => {
                let mut inner = Vec::new();
                write_row(parts, row, &mut inner)?;
                write_bytes(&inner, to);
            }
            Values::List(..) | Values::Map(..) => {
                return Err(format!("column '{}' has a list within a list", self.name));
            }
        }
        Ok(())
    }
}

fn range(offsets: &[i32], row: usize) -> Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Writes seven bits a byte, the lowest first.
fn write_varint(value: u64, to: &mut Vec<u8>) {
    let mut rest = value;
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

fn write_bytes(value: &[u8], to: &mut Vec<u8>) {
    write_varint(value.len() as u64, to);
    to.extend_from_slice(value);
}
