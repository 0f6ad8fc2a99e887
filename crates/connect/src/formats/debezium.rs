//! Debezium's change events: an envelope of `before`, `after` and `op`. As JSON, one a line, it is alone or under
//! `payload` beside its `schema`. As Avro it is the record itself.
//!
//! Of `before` only the key of a deleted row is read: the engine knows the old row, and `before` may be
//! wrong or absent.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray, StructArray};
use arrow::buffer::Buffer;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::avro::decoder::AvroDecoder;
use super::avro::schema::AvroSchema;
use super::changes::{Needs, nullable, object};
use super::decode::Decode;
use super::framing::Record;
use super::json::JsonDecoder;
use super::schemas::Schemas;
use crate::Result;

/// Decodes change events.
pub(crate) struct DebeziumDecoder {
    /// The decoder of envelopes: `before`, `after`, `op`, and in JSON `payload`.
    envelopes: Box<dyn Decode>,
    needs: Needs,
}

/// The parts of the envelopes, one row an event.
struct Envelopes {
    before: StructArray,
    after: StructArray,
    operations: StringViewArray,
}

impl DebeziumDecoder {
    /// Creates a decoder of events in JSON about rows with these columns and this key.
    pub fn new(columns: &SchemaRef, key: &[usize]) -> Result<DebeziumDecoder> {
        let envelope = envelope(columns, key);
        let mut fields = envelope.clone();
        fields.push(Arc::new(object("payload", envelope)));
        let envelopes = Box::new(JsonDecoder::new(&Arc::new(Schema::new(fields)))?);
        Ok(DebeziumDecoder { envelopes, needs: Needs::new(columns, key) })
    }

    /// Creates a decoder of events in Avro about rows with these columns and this key.
    pub fn of_avro(
        columns: &SchemaRef,
        key: &[usize],
        schemas: &Arc<Schemas<AvroSchema>>,
    ) -> Result<DebeziumDecoder> {
        let fields = Arc::new(Schema::new(envelope(columns, key)));
        let envelopes = Box::new(AvroDecoder::new(&fields, schemas)?);
        Ok(DebeziumDecoder { envelopes, needs: Needs::new(columns, key) })
    }
}

/// Returns the fields of an envelope.
fn envelope(columns: &SchemaRef, key: &[usize]) -> Vec<FieldRef> {
    let after = nullable(columns);
    let before: Vec<FieldRef> = key.iter().map(|place| after[*place].clone()).collect();
    vec![
        Arc::new(object("before", before)),
        Arc::new(object("after", after)),
        Arc::new(Field::new("op", DataType::Utf8View, true)),
    ]
}

impl Decode for DebeziumDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        let Some(events) = Envelopes::of(&self.envelopes.decode(block, records)?)? else {
            return Ok(Vec::new());
        };
        let goes = events.goes()?;
        let keys = self.needs.key();
        let mut columns = Vec::with_capacity(events.after.num_columns() + 1);
        for (place, column) in events.after.columns().iter().enumerate() {
            columns.push(match keys.iter().position(|key| *key == place) {
                Some(at) if goes.true_count() > 0 => {
                    zip(&goes, events.before.column(at), column).map_err(|error| error.to_string())?
                }
                _ => column.clone(),
            });
        }
        let path = |name: &str, goes: bool| format!("{}.{name}", if goes { "before" } else { "after" });
        self.needs.check(&columns, &goes, path)?;
        columns.push(Arc::new(goes));
        Ok(columns)
    }

    fn explain(&self, record: &[u8], error: String) -> String {
        self.envelopes.explain(record, error)
    }

    fn is_text(&self) -> bool {
        self.envelopes.is_text()
    }
}

impl Envelopes {
    /// Returns the envelopes in decoded columns. If an event has a `payload`, the envelope is taken from
    /// there.
    fn of(columns: &[ArrayRef]) -> Result<Option<Envelopes>, String> {
        let [before, after, operations, payload @ ..] = columns else { return Ok(None) };
        let mut parts = [before.clone(), after.clone(), operations.clone()];
        if let Some(payload) = payload.first().map(|payload| payload.as_struct())
            && payload.null_count() < payload.len()
        {
            let wrapped: BooleanArray = (0..payload.len()).map(|row| Some(payload.is_valid(row))).collect();
            for (part, inner) in parts.iter_mut().zip(payload.columns()) {
                *part = zip(&wrapped, inner, part).map_err(|error| error.to_string())?;
            }
        }
        let [before, after, operations] = parts;
        Ok(Some(Envelopes {
            before: before.as_struct().clone(),
            after: after.as_struct().clone(),
            operations: operations.as_string_view().clone(),
        }))
    }

    /// Returns true for each delete. Fails if an event has no valid operation, or lacks the row that it
    /// needs.
    fn goes(&self) -> Result<BooleanArray, String> {
        let goes = self.operations.iter().enumerate().map(|(row, operation)| match operation {
            Some("c" | "r" | "u") if self.after.is_valid(row) => Ok(Some(false)),
            Some(operation @ ("c" | "r" | "u")) => Err(format!(
                "field 'after' is missing or null, but op is '{operation}': the new row was expected"
            )),
            Some("d") if self.before.is_valid(row) => Ok(Some(true)),
            Some("d") => {
                Err("field 'before' is missing or null, but op is 'd': the key of the deleted row was \
                              expected there (of PostgreSQL: REPLICA IDENTITY DEFAULT or FULL)"
                    .to_string())
            }
            Some("t") => Err(
                "op 't' (TRUNCATE) is not supported yet: it names no key; delete the rows one by one, or \
                              start again with another source"
                    .to_string(),
            ),
            Some(other) => Err(format!("field 'op' is '{other}', but 'c', 'r', 'u' or 'd' was expected")),
            None => {
                Err("field 'op' is missing or null, but 'c', 'r', 'u' or 'd' was expected, in an envelope \
                         {\"before\": …, \"after\": …, \"op\": …} or under \"payload\""
                    .to_string())
            }
        });
        goes.collect()
    }
}
