//! The number of rows of a relation: `SELECT count(*) FROM t`.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::Tables;

use crate::Result;
use crate::operator::{Description, Growth, Operator, Output, Properties, State};

/// Counts the rows of its input.
#[derive(Debug)]
pub struct RowCount {
    properties: Properties,
    /// The count that was emitted last; `None` before the first step.
    emitted: Option<i64>,
}

impl RowCount {
    /// Returns the operator with its only column, `count`.
    pub fn new() -> RowCount {
        let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::Int64, false)]));
        // The empty key: the output has at most one row.
        RowCount { properties: Properties { key: Some(Vec::new()), ..Properties::of(schema) }, emitted: None }
    }

    fn row(&self, count: i64) -> Result<RecordBatch> {
        let column = Arc::new(Int64Array::from(vec![count]));
        Ok(RecordBatch::try_new(self.properties.schema.clone(), vec![column])?)
    }
}

impl Operator for RowCount {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let state = "the count".to_string();
        Description { name: "RowCount", state, growth: Growth::Bounded, ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        let count = self.emitted.unwrap_or(0) + inputs.iter().map(|delta| delta.weight()).sum::<i64>();
        if self.emitted == Some(count) {
            return Ok(output);
        }
        if let Some(old) = self.emitted.replace(count) {
            output.rows.push(Chunk::delete(self.row(old)?));
        }
        output.rows.push(Chunk::insert(self.row(count)?));
        Ok(output)
    }
}

impl State for RowCount {
    fn reset(&mut self) -> Result<()> {
        self.emitted = None;
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let mut tables = Tables::default();
        tables.put_number_if("emitted", self.emitted);
        Ok(tables)
    }

    fn load(&mut self, tables: &mut Tables) -> Result<()> {
        self.emitted = tables.take_number_if("emitted");
        Ok(())
    }

    fn state_rows(&self) -> usize {
        usize::from(self.emitted.is_some())
    }

    fn state_bytes(&self) -> usize {
        size_of::<RowCount>()
    }
}
