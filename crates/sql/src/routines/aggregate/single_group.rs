//! Adapts an accumulator of many groups to a single group.

use std::fmt;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::scalar::ScalarValue;

/// The single group.
pub(super) struct SingleGroup {
    groups: Box<dyn GroupsAccumulator + Sync>,
}

impl SingleGroup {
    pub(super) fn new(
        mut groups: Box<dyn GroupsAccumulator + Sync>,
        inputs: &[DataType],
    ) -> Result<SingleGroup> {
        let nothing: Vec<ArrayRef> = inputs.iter().map(new_empty_array).collect();
        groups.update_batch(&nothing, &[], None, 1)?;
        Ok(SingleGroup { groups })
    }
}

impl fmt::Debug for SingleGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleGroup")
    }
}

impl Accumulator for SingleGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let count = values.first().map_or(0, |value| value.len());
        self.groups.update_batch(values, &vec![0; count], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.groups.evaluate(EmitTo::All)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<SingleGroup>() + self.groups.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.groups.state(EmitTo::All)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let count = states.first().map_or(0, |state| state.len());
        self.groups.merge_batch(states, &vec![0; count], 1)
    }
}
