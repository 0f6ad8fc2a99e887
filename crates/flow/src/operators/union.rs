//! UNION ALL: the changes of several relations as one.

use arrow::array::RecordBatch;
use millstream_delta::{Cut, Delta};

use crate::Result;
use crate::operator::{Cost, Description, Operator, Properties};

/// Puts out the deltas of all its inputs.
#[derive(Debug)]
pub struct Union {
    properties: Properties,
}

impl Union {
    /// A union whose output has `schema`; it only appends when all its inputs do.
    pub fn new(schema: arrow::datatypes::SchemaRef, append_only: bool) -> Union {
        Union { properties: Properties { schema, append_only, cost: Cost::Delta } }
    }
}

impl Operator for Union {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        Description { name: "Union", ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Delta> {
        let mut output = Delta::default();
        for delta in inputs {
            output.append((*delta).clone().with_schema(&self.properties.schema)?);
        }
        Ok(output)
    }

    fn content(&self) -> Option<Result<Vec<RecordBatch>>> {
        None
    }

    fn state_rows(&self) -> usize {
        0
    }

    fn state_bytes(&self) -> usize {
        0
    }
}
