//! The decoder of records of Avro.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};

use super::input::Input;
use super::plan::{RowPlan, resolve};
use super::read::read;
use super::schema::AvroSchema;
use crate::formats::decode::Decode;
use crate::formats::framing::Record;
use crate::formats::schemas::{Known, Schemas};
use crate::formats::target::{StructTarget, Target, Values, Wrong};
use crate::{Error, Result};

/// Decodes records of several writers into the same columns.
pub(crate) struct AvroDecoder {
    columns: Fields,
    schemas: Arc<Schemas<AvroSchema>>,
    /// The plan of each writer's schema.
    plans: Mutex<HashMap<Option<u32>, Arc<Resolved>>>,
}

/// A writer's schema, and its plan.
struct Resolved {
    schema: Arc<Known<AvroSchema>>,
    plan: std::result::Result<RowPlan, String>,
}

impl AvroDecoder {
    /// Creates a decoder into columns. Fails for types that Avro's values can't become.
    pub fn new(columns: &SchemaRef, schemas: &Arc<Schemas<AvroSchema>>) -> Result<AvroDecoder> {
        StructTarget::new(columns.fields()).map_err(Error::Invalid)?;
        Ok(AvroDecoder {
            columns: columns.fields().clone(),
            schemas: schemas.clone(),
            plans: Mutex::default(),
        })
    }

    fn resolved(&self, id: Option<u32>) -> std::result::Result<Arc<Resolved>, String> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = plans.get(&id) {
            return Ok(known.clone());
        }
        let schema = self.schemas.get(id)?;
        let plan = match schema.as_ref() {
            Ok(schema) => resolve(schema, &self.columns),
            Err(error) => Err(error.clone()),
        };
        let resolved = Arc::new(Resolved { schema, plan });
        plans.insert(id, resolved.clone());
        Ok(resolved)
    }

    fn decode_all(
        &self,
        block: &Buffer,
        records: &[Record],
        to: &mut Target,
    ) -> std::result::Result<(), String> {
        let mut latest: Option<(Option<u32>, Arc<Resolved>)> = None;
        for record in records {
            let bytes = &block[record.start as usize..record.end as usize];
            let (id, datum) = self.schemas.split(bytes)?;
            let resolved = match &latest {
                Some((known, resolved)) if *known == id => resolved.clone(),
                _ => self.resolved(id)?,
            };
            resolved.read(datum, to).map_err(|error| match id {
                Some(id) => format!("{error} (schema id {id})"),
                None => error,
            })?;
            latest = Some((id, resolved));
        }
        Ok(())
    }
}

impl Resolved {
    fn read(&self, datum: &[u8], to: &mut Target) -> std::result::Result<(), String> {
        let (schema, plan) = match (self.schema.as_ref(), &self.plan) {
            (Ok(schema), Ok(plan)) => (schema, plan),
            (_, Err(error)) | (Err(error), _) => return Err(error.clone()),
        };
        let mut input = Input::new(datum);
        let done = match (plan, &mut to.values) {
            (RowPlan::Fields(plan), _) => read(plan, schema, &mut input, to),
            (RowPlan::Only(plan), Values::Struct(row)) => match row.children.first_mut() {
                Some(only) => read(plan, schema, &mut input, only).map(|()| row.push_valid()),
                None => Err(Wrong::new("has no column")),
            },
            (RowPlan::Only(_), _) => Err(Wrong::new("has no column")),
        };
        done.map_err(|wrong| wrong.to_string())?;
        match input.left() {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left behind the record's value")),
        }
    }
}

impl Decode for AvroDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> std::result::Result<Vec<ArrayRef>, String> {
        let row = Field::new("", DataType::Struct(self.columns.clone()), false);
        let mut to = Target::new(&Arc::new(row))?;
        self.decode_all(block, records, &mut to)?;
        match to.values {
            Values::Struct(row) => row.columns(),
            _ => Ok(Vec::new()),
        }
    }

    fn explain(&self, _record: &[u8], error: String) -> String {
        error
    }

    fn is_text(&self) -> bool {
        false
    }
}
