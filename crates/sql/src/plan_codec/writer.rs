//! Collects the parts of a plan that is being written.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, FieldRef, Schema};
use arrow::ipc::writer::StreamWriter;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{DFSchema, DFSchemaRef, Dependency, TableReference};
use datafusion::execution::SessionState;
use datafusion::scalar::ScalarValue;
use serde_json::{Value, json};

use super::CodecResult;
use crate::batches::BatchClock;

/// The most levels of nested plans and expressions, since each takes stack. Chains of operators don't count.
const DEPTH_MAX: usize = 64;

/// The parts written so far. Each comes after the parts that it refers to by index.
pub(crate) struct PlanEncoder<'a> {
    pub(super) state: &'a SessionState,
    parts: Vec<Value>,
    fields: Vec<FieldRef>,
    places: HashMap<FieldRef, usize>,
    schemas: Vec<(DFSchemaRef, Value)>,
    values: Vec<ScalarValue>,
    clocks: Vec<BatchClock>,
    depth: usize,
}

impl<'a> PlanEncoder<'a> {
    pub(super) fn new(state: &'a SessionState, clocks: Vec<BatchClock>) -> PlanEncoder<'a> {
        PlanEncoder {
            state,
            clocks,
            parts: Vec::new(),
            fields: Vec::new(),
            places: HashMap::new(),
            schemas: Vec::new(),
            values: Vec::new(),
            depth: 0,
        }
    }

    /// Adds a part and returns its index.
    pub(super) fn push(&mut self, part: Value) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }

    /// Writes parts that are nested one level deeper.
    pub(super) fn deeper<T>(&mut self, write: impl FnOnce(&mut Self) -> CodecResult<T>) -> CodecResult<T> {
        if self.depth == DEPTH_MAX {
            return Err(format!("what is nested deeper than {DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }

    /// Returns the index of a field. Equal fields are written once.
    pub(super) fn field(&mut self, field: &FieldRef) -> usize {
        if let Some(place) = self.places.get(field) {
            return *place;
        }
        self.fields.push(field.clone());
        self.places.insert(field.clone(), self.fields.len() - 1);
        self.fields.len() - 1
    }

    /// Adds a value and returns its index.
    pub(super) fn value(&mut self, value: &ScalarValue) -> usize {
        self.values.push(value.clone());
        self.values.len() - 1
    }

    /// Encodes a schema: the indexes of its fields, and its metadata.
    pub(super) fn schema(&mut self, schema: &Schema) -> Value {
        let fields: Vec<usize> = schema.fields().iter().map(|field| self.field(field)).collect();
        json!({"fields": fields, "metadata": schema.metadata()})
    }

    /// Returns the index of a node's columns. Equal ones are written once.
    pub(crate) fn columns(&mut self, schema: &DFSchemaRef) -> usize {
        let known = self
            .schemas
            .iter()
            .position(|(other, _)| Arc::ptr_eq(other, schema) || other.as_ref() == schema.as_ref());
        if let Some(place) = known {
            return place;
        }
        let written = self.columns_json(schema);
        self.schemas.push((schema.clone(), written));
        self.schemas.len() - 1
    }

    fn columns_json(&mut self, schema: &DFSchema) -> Value {
        let fields: Vec<Value> = schema
            .iter()
            .map(|(qualifier, field)| json!([qualifier.map(reference), self.field(field)]))
            .collect();
        let dependencies: Vec<Value> = schema
            .functional_dependencies()
            .iter()
            .map(|of| {
                json!({
                    "of": of.source_indices, "on": of.target_indices, "nullable": of.nullable,
                    "single": of.mode == Dependency::Single,
                })
            })
            .collect();
        json!({"fields": fields, "metadata": schema.metadata(), "dependencies": dependencies})
    }

    /// Returns the index of a clock.
    pub(super) fn clock(&self, clock: &BatchClock) -> Option<usize> {
        self.clocks.iter().position(|other| other == clock)
    }

    /// Returns all parts written so far, for comparison.
    pub(super) fn to_json(&self) -> (Vec<Value>, Vec<Value>, Vec<FieldRef>, Vec<ScalarValue>) {
        let schemas = self.schemas.iter().map(|(_, written)| written.clone()).collect();
        (self.parts.clone(), schemas, self.fields.clone(), self.values.clone())
    }

    /// Encodes the whole plan: JSON, the fields, the values.
    pub(super) fn finish(self, mut head: Value) -> CodecResult<Vec<u8>> {
        let schemas: Vec<Value> = self.schemas.into_iter().map(|(_, written)| written).collect();
        head["clocks"] = self.clocks.iter().map(|_| Value::Bool(true)).collect();
        head["parts"] = Value::Array(self.parts);
        head["schemas"] = Value::Array(schemas);
        let fields = stream(Schema::new(self.fields), Vec::new())?;
        let arrays = self.values.iter().map(|value| value.to_array().map_err(|error| error.to_string()));
        let arrays = arrays.collect::<CodecResult<Vec<ArrayRef>>>()?;
        let field = |array: &ArrayRef| Field::new("", array.data_type().clone(), true);
        let values = stream(Schema::new(arrays.iter().map(field).collect::<Vec<_>>()), arrays)?;
        let mut bytes = Vec::new();
        for part in [head.to_string().into_bytes(), fields, values] {
            let length = u32::try_from(part.len()).map_err(|_| "what is longer than 4 GiB".to_string())?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}

/// Writes an Arrow IPC stream of one row, or of none.
fn stream(schema: Schema, row: Vec<ArrayRef>) -> CodecResult<Vec<u8>> {
    let failed = |error: arrow::error::ArrowError| error.to_string();
    let schema = Arc::new(schema);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
    if !row.is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(schema, row, &options).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

/// Encodes the parts of a relation's name.
pub(super) fn reference(of: &TableReference) -> Value {
    match of {
        TableReference::Bare { table } => json!([table.as_ref()]),
        TableReference::Partial { schema, table } => json!([schema.as_ref(), table.as_ref()]),
        TableReference::Full { catalog, schema, table } => {
            json!([catalog.as_ref(), schema.as_ref(), table.as_ref()])
        }
    }
}

/// Encodes a field's metadata.
pub(super) fn metadata(of: Option<&FieldMetadata>) -> Value {
    of.map_or(Value::Null, |metadata| json!(metadata.inner()))
}
