//! Upserts whose key is that of the message: a message without a value deletes its key.
//!
//! Without a registry, keys of upserts in Avro are plain values.
//!
//! The PRIMARY KEY comes from the value. If the value lacks it, or there is no value, it comes from the message's key: an
//! object of JSON or a record of Avro with the columns of the PRIMARY KEY, or the plain value of its only column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray, StructArray, new_null_array};
use arrow::buffer::Buffer;
use arrow::compute::kernels::nullif::nullif;
use arrow::compute::{CastOptions, cast_with_options, interleave};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use millstream_delta::sql_type;

use super::row_values::RowValues;
use crate::Result;
use crate::formats::avro::decoder::AvroDecoder;
use crate::formats::avro::schema::AvroSchema;
use crate::formats::changes::{Needs, nullable};
use crate::formats::decode::Decode;
use crate::formats::framing::Record;
use crate::formats::json::JsonDecoder;
use crate::formats::schemas::Schemas;
use crate::formats::upsert_json::UpsertDecoder;

/// A record of a keyed message in its block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    /// The start of the record: of the value, or of the key of a message without one.
    pub start: u32,
    /// The bytes of the key, if there is one.
    pub key: Option<(u32, u32)>,
    /// False for a tombstone, which deletes.
    pub has_value: bool,
    /// True if the message deletes, whatever its value.
    pub deletes: bool,
}

/// Decodes values with their keys.
pub(super) struct KeyedDecoder {
    values: Values,
    keys: Keys,
    needs: Needs,
    columns: SchemaRef,
}

enum Values {
    /// Rows with an operation.
    Json(UpsertDecoder),
    /// Rows whose operation was beside them.
    Rows(RowValues),
    Avro(AvroDecoder),
}

/// The decoder of keys.
struct Keys {
    fields: Vec<FieldRef>,
    records: Box<dyn Decode>,
    /// Returns true for keys that are records rather than plain values.
    is_record: fn(&[u8]) -> bool,
}

/// The messages of one call.
pub(super) struct KeyedRun<'a> {
    pub decoder: &'a KeyedDecoder,
    /// In the order of their starts.
    pub messages: &'a [Keyed],
}

impl KeyedDecoder {
    /// Creates the decoder of upserts in JSON, whose operation may be in a field.
    pub fn of_json(columns: &SchemaRef, key: &[usize], operation: &str) -> Result<KeyedDecoder> {
        let values = Values::Json(UpsertDecoder::new(columns, key, operation)?);
        let (keys, needs) = (Keys::of_json(columns, key)?, Needs::new(columns, key));
        Ok(KeyedDecoder { values, keys, needs, columns: columns.clone() })
    }

    /// Creates the decoder of rows in JSON whose messages say if they are deletes.
    pub fn of_rows(columns: &SchemaRef, key: &[usize]) -> Result<KeyedDecoder> {
        let values = Values::Rows(RowValues::new(&Arc::new(Schema::new(nullable(columns))))?);
        let (schema, fields) = key_fields(columns, key);
        let keys = Keys { fields, records: Box::new(RowValues::new(&schema)?), is_record: is_object };
        let needs = Needs::new(columns, key);
        Ok(KeyedDecoder { values, keys, needs, columns: columns.clone() })
    }

    /// Creates the decoder of upserts in Avro.
    pub fn of_avro(
        columns: &SchemaRef,
        key: &[usize],
        schemas: &Arc<Schemas<AvroSchema>>,
    ) -> Result<KeyedDecoder> {
        let (schema, fields) = key_fields(columns, key);
        let keys = Keys {
            fields,
            records: Box::new(AvroDecoder::new(&schema, schemas)?),
            is_record: match schemas.have_ids() {
                true => |key| key.first() == Some(&0),
                false => |_| false,
            },
        };
        let all = Arc::new(Schema::new(nullable(columns)));
        let values = Values::Avro(AvroDecoder::new(&all, schemas)?);
        Ok(KeyedDecoder { values, keys, needs: Needs::new(columns, key), columns: columns.clone() })
    }
}

fn key_fields(columns: &SchemaRef, key: &[usize]) -> (SchemaRef, Vec<FieldRef>) {
    let all = nullable(columns);
    let fields: Vec<FieldRef> = key.iter().map(|place| all[*place].clone()).collect();
    (Arc::new(Schema::new(fields.clone())), fields)
}

impl Values {
    fn rows(&self, block: &Buffer, records: &[Record]) -> Result<(Vec<ArrayRef>, BooleanArray), String> {
        match self {
            Values::Json(decoder) => decoder.rows(block, records),
            Values::Rows(decoder) => Ok((decoder.decode(block, records)?, no_deletes(records))),
            Values::Avro(decoder) => Ok((decoder.decode(block, records)?, no_deletes(records))),
        }
    }
}

fn no_deletes(records: &[Record]) -> BooleanArray {
    BooleanArray::from(vec![false; records.len()])
}

impl Keys {
    fn of_json(columns: &SchemaRef, key: &[usize]) -> Result<Keys> {
        let (schema, fields) = key_fields(columns, key);
        Ok(Keys { fields, records: Box::new(JsonDecoder::new(&schema)?), is_record: is_object })
    }

    /// Returns the columns of keys.
    fn columns(&self, block: &Buffer, keys: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let bytes = |key: &Record| &block[key.start as usize..key.end as usize];
        let places: Vec<bool> = keys.iter().map(|key| (self.is_record)(bytes(key))).collect();
        let part = |wanted: bool| -> Vec<Record> {
            let chosen = keys.iter().zip(&places).filter(|(_, is_record)| **is_record == wanted);
            chosen.map(|(key, _)| *key).collect()
        };
        let (records, plain) = (part(true), part(false));
        let records = match records.is_empty() {
            true => None,
            false => Some(
                self.records
                    .decode(block, &records)
                    .map_err(|error| format!("the message's key: {}", self.records.explain(&[], error)))?,
            ),
        };
        let plain = match plain.is_empty() {
            true => None,
            false => Some(vec![self.plain(plain.iter().map(bytes))?]),
        };
        let (first, second) = match (records, plain) {
            (Some(only), None) | (None, Some(only)) => return Ok(only),
            (Some(records), Some(plain)) => (records, plain),
            (None, None) => return Ok(Vec::new()),
        };
        let (mut next, mut indices) = ([0_usize, 0], Vec::with_capacity(keys.len()));
        for is_record in places {
            let of = usize::from(!is_record);
            indices.push((of, next[of]));
            next[of] += 1;
        }
        let merged = first.iter().zip(&second).map(|(record, plain)| {
            interleave(&[record.as_ref(), plain.as_ref()], &indices).map_err(|error| error.to_string())
        });
        merged.collect()
    }

    /// Returns plain values as the only column of the key.
    fn plain<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<ArrayRef, String> {
        let [field] = self.fields.as_slice() else {
            let names: Vec<&str> = self.fields.iter().map(|field| field.name().as_str()).collect();
            return Err(format!(
                "the message's key is a plain value, but a record with the columns of the PRIMARY KEY was expected: {}",
                names.join(", ")
            ));
        };
        let texts: Result<Vec<String>, String> = keys.map(plain_text).collect();
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts?));
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&texts, field.data_type(), &options).map_err(|error| {
            format!(
                "the message's key is no value of column '{}', which is {}: {error}",
                field.name(),
                sql_type(field.data_type())
            )
        })
    }
}

/// Returns true if a key is an object of JSON.
fn is_object(key: &[u8]) -> bool {
    key.trim_ascii_start().first() == Some(&b'{')
}

/// Returns the text of a plain key: of a string of JSON its value.
fn plain_text(key: &[u8]) -> Result<String, String> {
    if key.first() == Some(&b'"')
        && let Ok(text) = serde_json::from_slice(key)
    {
        return Ok(text);
    }
    std::str::from_utf8(key)
        .map(str::to_string)
        .map_err(|error| format!("the message's key is no UTF-8: {error}"))
}

impl KeyedRun<'_> {
    fn message(&self, record: &Record) -> Option<&Keyed> {
        let place = self.messages.binary_search_by_key(&record.start, |message| message.start);
        place.ok().and_then(|place| self.messages.get(place))
    }

    fn deletes(&self, record: &Record) -> bool {
        self.message(record).is_some_and(|message| message.deletes)
    }

    fn has_value(&self, record: &Record) -> bool {
        self.message(record).is_some_and(|message| message.has_value)
    }

    /// Removes the bytes of tombstones from the last column. After compaction a topic may hold a tombstone, but no
    /// earlier value of its key: deleting a missing row is then no mistake.
    pub fn forgive(&self, columns: &mut [ArrayRef], records: &[Record]) -> Result<(), String> {
        let Some(last) = columns.last_mut().filter(|last| last.null_count() < last.len()) else {
            return Ok(());
        };
        let tombstones: BooleanArray = records.iter().map(|record| Some(!self.has_value(record))).collect();
        let (fields, mut parts, nulls) = last.as_struct().clone().into_parts();
        if let Some(bytes) = parts.last_mut() {
            *bytes = nullif(bytes, &tombstones).map_err(|error| error.to_string())?;
        }
        *last = Arc::new(StructArray::try_new(fields, parts, nulls).map_err(|error| error.to_string())?);
        Ok(())
    }
}

impl Decode for KeyedRun<'_> {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let KeyedDecoder { values, keys, needs, columns } = self.decoder;
        let with_value: Vec<Record> =
            records.iter().filter(|record| self.has_value(record)).copied().collect();
        let (rows, goes) = match with_value.is_empty() {
            true => {
                let empty = |field: &FieldRef| new_null_array(field.data_type(), 0);
                (columns.fields().iter().map(empty).collect(), BooleanArray::from(Vec::<bool>::new()))
            }
            false => values.rows(block, &with_value)?,
        };
        let lacks_key = |row: usize| needs.key().iter().any(|place| rows[*place].is_null(row));
        // The place of each record among the values, and among the keys.
        let (mut places, mut wanted, mut row) = (Vec::with_capacity(records.len()), Vec::new(), 0);
        for record in records {
            let has_value = self.has_value(record);
            let of_value = has_value.then_some(row);
            row += usize::from(has_value);
            let key = self.message(record).and_then(|message| message.key);
            let of_key = match key.filter(|_| of_value.is_none_or(lacks_key)) {
                Some((start, end)) => {
                    wanted.push(Record { start, end, next: end + 1 });
                    Some(wanted.len() - 1)
                }
                None => None,
            };
            places.push((of_value, of_key));
        }
        let goes_of = |(record, (value, _)): (&Record, &(Option<usize>, Option<usize>))| {
            Some(self.deletes(record) || value.is_none_or(|row| goes.value(row)))
        };
        let all_go: BooleanArray = records.iter().zip(&places).map(goes_of).collect();
        let mut all = match wanted.is_empty() {
            true => rows,
            false => {
                let keys = keys.columns(block, &wanted)?;
                merged(&rows, &keys, needs.key(), &places)?
            }
        };
        needs.check(&all, &all_go, |name, _| name.to_string())?;
        all.push(Arc::new(all_go));
        Ok(all)
    }

    fn explain(&self, record: &[u8], error: String) -> String {
        match &self.decoder.values {
            Values::Json(decoder) => decoder.explain(record, error),
            Values::Rows(decoder) => decoder.explain(record, error),
            Values::Avro(_) => error,
        }
    }

    fn is_text(&self) -> bool {
        !matches!(self.decoder.values, Values::Avro(_))
    }
}

/// Returns the columns of records that take parts of their key that the value lacks from the message's key.
fn merged(
    rows: &[ArrayRef],
    keys: &[ArrayRef],
    key: &[usize],
    places: &[(Option<usize>, Option<usize>)],
) -> Result<Vec<ArrayRef>, String> {
    let column = |(place, values): (usize, &ArrayRef)| {
        let none = new_null_array(values.data_type(), 1);
        let of_key = key.iter().position(|part| *part == place).and_then(|part| keys.get(part));
        let sources = [values.as_ref(), of_key.unwrap_or(&none).as_ref(), none.as_ref()];
        let index = |(value, from_key): &(Option<usize>, Option<usize>)| match (value, from_key) {
            (None, Some(key)) if of_key.is_some() => (1, *key),
            (Some(row), Some(key)) if of_key.is_some() && values.is_null(*row) => (1, *key),
            (Some(row), _) => (0, *row),
            (None, _) => (2, 0),
        };
        let indices: Vec<(usize, usize)> = places.iter().map(index).collect();
        interleave(&sources, &indices).map_err(|error| error.to_string())
    };
    rows.iter().enumerate().map(column).collect()
}
