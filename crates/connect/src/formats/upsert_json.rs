//! Upserts and deletes by key as JSON, one object a line.
//!
//! `{"id": 7, "name": "x"}` upserts the row with key 7; `{"_op": "delete", "id": 7}` deletes it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::changes::{Needs, nullable};
use super::decode::Decode;
use super::framing::Record;
use super::json::JsonDecoder;
use crate::{Error, Result};

/// The values of the operation field for upserts and for deletes: Millstream's words first, then those of
/// other change streams.
const COMES: [&str; 8] = ["upsert", "insert", "update", "update_insert", "c", "i", "u", "r"];
const LEAVES: [&str; 3] = ["delete", "update_delete", "d"];

/// Decodes rows with an operation each.
pub(crate) struct UpsertDecoder {
    json: JsonDecoder,
    needs: Needs,
    operation: String,
}

impl UpsertDecoder {
    /// Creates a decoder of rows with these columns and this key, whose operation is in the field
    /// `operation`.
    pub fn new(columns: &SchemaRef, key: &[usize], operation: &str) -> Result<UpsertDecoder> {
        if columns.field_with_name(operation).is_ok() {
            return Err(Error::Invalid(format!(
                "column '{operation}' has the name of the operation field: name another field with option \
                 op_field, or rename the column"
            )));
        }
        let mut fields = nullable(columns);
        fields.push(Arc::new(Field::new(operation, DataType::Utf8View, true)));
        let json = JsonDecoder::new(&Arc::new(Schema::new(fields)))?;
        Ok(UpsertDecoder { json, needs: Needs::new(columns, key), operation: operation.to_string() })
    }

    /// Returns the columns of records, and true for each delete. A record may lack what it needs.
    pub fn rows(&self, block: &Buffer, records: &[Record]) -> Result<(Vec<ArrayRef>, BooleanArray), String> {
        let mut columns = self.json.decode(block, records)?;
        let Some(operations) = columns.pop() else {
            return Ok((columns, BooleanArray::from(Vec::<bool>::new())));
        };
        let goes = self.goes(&operations)?;
        Ok((columns, goes))
    }

    /// Returns true for each delete.
    fn goes(&self, operations: &ArrayRef) -> Result<BooleanArray, String> {
        goes(operations.as_string_view()).map_err(|word| {
            format!(
                "field '{}' is '{word}', but 'upsert' (or insert, update) or 'delete' was expected",
                self.operation
            )
        })
    }
}

/// Returns true for each delete, by the words of the operations. An unknown word is the error.
pub(crate) fn goes(operations: &StringViewArray) -> Result<BooleanArray, String> {
    if operations.null_count() == operations.len() {
        return Ok(BooleanArray::from(vec![false; operations.len()]));
    }
    let one_of = |words: &[&str], word: &str| words.iter().any(|one| one.eq_ignore_ascii_case(word));
    let goes = operations.iter().map(|word| match word {
        None => Ok(Some(false)),
        Some(word) if one_of(&COMES, word) => Ok(Some(false)),
        Some(word) if one_of(&LEAVES, word) => Ok(Some(true)),
        Some(word) => Err(word.to_string()),
    });
    goes.collect()
}

impl Decode for UpsertDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let (mut columns, goes) = self.rows(block, records)?;
        self.needs.check(&columns, &goes, |name, _| name.to_string())?;
        columns.push(Arc::new(goes));
        Ok(columns)
    }

    fn explain(&self, record: &[u8], error: String) -> String {
        self.json.explain(record, error)
    }
}
