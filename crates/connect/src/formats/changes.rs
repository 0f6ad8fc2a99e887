//! Change feeds: a record inserts, updates or deletes the row with its key.
//!
//! A decoder of such a format returns the declared columns, of which all but the key may be NULL. A last
//! column is true for deletes. [`tell_origins`] replaces that column by the position and the bytes of each
//! delete's record. The engine needs both to report a delete of a missing row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Int64Array, StructArray, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use super::debezium::DebeziumDecoder;
use super::decode::Decode;
use super::framing::Record;
use super::text::repeated;
use super::upsert_json::UpsertDecoder;
use crate::{BadRow, Error, Options, Result, SourceSpec, deleted_field};

/// The encoding of operations in the records of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// The row itself, with a field that holds the operation.
    Upsert {
        /// The field's name.
        operation: String,
    },
    /// Debezium's envelope.
    Debezium,
}

impl Changes {
    /// Returns the format with this name, if it is a change feed.
    pub fn named(name: &str, options: &Options) -> Option<Changes> {
        match name {
            "upsert_json" => {
                let operation = options.get("op_field").unwrap_or("_op").to_string();
                Some(Changes::Upsert { operation })
            }
            "debezium_json" => Some(Changes::Debezium),
            _ => None,
        }
    }

    /// Returns the name for `format = '…'`.
    pub fn name(&self) -> &'static str {
        match self {
            Changes::Upsert { .. } => "upsert_json",
            Changes::Debezium => "debezium_json",
        }
    }

    /// Creates a decoder of records with these columns, whose key is the columns `key`.
    pub fn decoder(&self, columns: &SchemaRef, key: &[usize]) -> Result<Box<dyn Decode>> {
        Ok(match self {
            Changes::Upsert { operation } => Box::new(UpsertDecoder::new(columns, key, operation)?),
            Changes::Debezium => Box::new(DebeziumDecoder::new(columns, key)?),
        })
    }

    /// Fails if a source can't be a feed of this format.
    pub fn check(&self, spec: &SourceSpec) -> Result<()> {
        match (&spec.columns, spec.key.is_empty()) {
            (Some(columns), false) => self.decoder(columns, &spec.key).map(|_| ()),
            _ => Err(Error::Invalid(format!(
                "source '{}' has no PRIMARY KEY, and format '{}' changes rows by their key: CREATE SOURCE {} \
                 (column type PRIMARY KEY, …) WITH …",
                spec.name,
                self.name(),
                spec.name
            ))),
        }
    }
}

/// Returns the schema of decoded rows: the declared columns, which a delete may lack, and the origin of
/// deletes.
pub(crate) fn decoded_schema(columns: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<FieldRef> = nullable(columns);
    fields.push(Arc::new(deleted_field()));
    Arc::new(Schema::new(fields))
}

/// Returns the columns as nullable fields.
pub(crate) fn nullable(columns: &SchemaRef) -> Vec<FieldRef> {
    let nullable = |field: &FieldRef| Arc::new(field.as_ref().clone().with_nullable(true));
    columns.fields().iter().map(nullable).collect()
}

/// The required values of a record.
#[derive(Debug)]
pub(crate) struct Needs {
    columns: SchemaRef,
    key: Vec<usize>,
}

impl Needs {
    /// Creates the requirements of these columns with this key.
    pub fn new(columns: &SchemaRef, key: &[usize]) -> Needs {
        Needs { columns: columns.clone(), key: key.to_vec() }
    }

    /// Returns the column numbers of the key.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Fails if a record lacks its key, or an upsert lacks a NOT NULL value. `path` returns the name of a
    /// column's field, for a delete (true) or an upsert.
    pub fn check(
        &self,
        columns: &[ArrayRef],
        goes: &BooleanArray,
        path: impl Fn(&str, bool) -> String,
    ) -> Result<(), String> {
        for (place, (field, column)) in self.columns.fields().iter().zip(columns).enumerate() {
            let in_key = self.key.contains(&place);
            if (field.is_nullable() && !in_key) || column.null_count() == 0 {
                continue;
            }
            let lacks = |row: &usize| column.is_null(*row) && (in_key || !goes.value(*row));
            if let Some(row) = (0..column.len()).find(lacks) {
                let name = path(field.name(), goes.value(row));
                let why = if in_key { "it is part of the PRIMARY KEY" } else { "it is declared NOT NULL" };
                return Err(format!("field '{name}' is missing or null, but {why}: a value was expected"));
            }
        }
        Ok(())
    }
}

/// Replaces the last column, which is true for deletes, by the origin of their records. The new column
/// points into `block`, which holds the records; `positions` are those of the records in the split.
pub(crate) fn tell_origins(
    columns: &mut Vec<ArrayRef>,
    records: &[Record],
    (block, positions): (&Buffer, &[u64]),
    split: &str,
) -> Result<()> {
    let Some(goes) = columns.pop() else { return Ok(()) };
    let field = deleted_field();
    let goes = goes.as_boolean();
    if goes.true_count() == 0 {
        columns.push(new_null_array(field.data_type(), records.len()));
        return Ok(());
    }
    let mut bytes = BinaryViewBuilder::with_capacity(records.len());
    let in_block = bytes.append_block(block.clone());
    for (record, goes) in records.iter().zip(goes.values()) {
        let length = (record.end - record.start).min(BadRow::BYTES_MAX as u32);
        let appended = if goes { length } else { 0 };
        bytes.try_append_view(in_block, record.start, appended).map_err(|error| {
            Error::Bug(format!("a record of '{split}' doesn't lie in the block it was read from: {error}"))
        })?;
    }
    let offsets = positions.iter().map(|position| *position as i64);
    let origin: Vec<ArrayRef> = vec![
        Arc::new(repeated(split, records.len())),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(bytes.finish()),
    ];
    let DataType::Struct(fields) = field.data_type() else { return Ok(()) };
    let nulls = NullBuffer::new(goes.values().clone());
    columns.push(Arc::new(StructArray::new(fields.clone(), origin, Some(nulls))));
    Ok(())
}

/// Returns the positions of records in a stream of which `offset` is the start of their block.
pub(crate) fn positions_in_stream(records: &[Record], offset: u64) -> Vec<u64> {
    records.iter().map(|record| offset + u64::from(record.start)).collect()
}

/// Returns a nullable field that is a struct of these fields.
pub(super) fn object(name: &str, fields: Vec<FieldRef>) -> Field {
    Field::new(name, DataType::Struct(Fields::from(fields)), true)
}
