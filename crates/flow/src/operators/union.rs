//! UNION ALL: the changes of several relations as one.

use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Cut, Delta, under_schema};

use crate::operator::{
    Abilities, Content, Description, KeepsResult, NoState, Operator, Output, Properties, RowByRow,
};
use crate::point_lookup::Wanted;
use crate::{Error, Result};

/// Forwards the deltas of all its inputs.
#[derive(Debug)]
pub struct Union {
    properties: Properties,
    inputs: usize,
}

impl Union {
    /// Returns a union of `inputs` inputs whose output has `schema`; it is append-only if all inputs are.
    pub fn new(schema: SchemaRef, append_only: bool, inputs: usize) -> Union {
        Union { properties: Properties { append_only, ..Properties::of(schema) }, inputs }
    }
}

impl RowByRow for Union {
    fn run_rows(&self, rows: &Chunk) -> Result<Vec<Chunk>> {
        Ok(vec![rows.clone()])
    }
}

impl Operator for Union {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        Description { name: "Union", ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Delta::default();
        for delta in inputs {
            output.append((*delta).clone().with_schema(&self.properties.schema)?);
        }
        Ok(output.into())
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { row_by_row: Some(self), result: Some(self), ..Abilities::default() }
    }
}

impl NoState for Union {}

impl KeepsResult for Union {
    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content {
        let mut all = Vec::new();
        for place in 0..self.inputs {
            match input(place)? {
                Ok(batches) => {
                    all.extend(batches.iter().map(|batch| under_schema(batch, &self.properties.schema)))
                }
                Err(error) => return Some(Err(error)),
            }
        }
        Some(all.into_iter().collect::<Result<_, _>>().map_err(Error::from))
    }

    fn content_wanted(&self, wanted: &Wanted, input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        self.content(&|place| input(place, wanted))
    }
}
