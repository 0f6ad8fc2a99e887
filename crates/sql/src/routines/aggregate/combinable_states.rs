//! Accumulates combinable states: one per group, updated by each row on arrival.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::concat;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::super::fold::{Fold, States};
use super::Machine;

/// The states of all groups.
pub(super) struct CombinableStates {
    machine: Machine,
    combine: Option<Fold>,
    states: States,
}

impl CombinableStates {
    pub(super) fn new(machine: Machine) -> Result<CombinableStates> {
        let values = machine.initial.to_array_of_size(0)?;
        let combine = machine.combine.clone();
        Ok(CombinableStates { machine, combine, states: States { values, begun: Vec::new() } })
    }

    fn grow(&mut self, count: usize) -> Result<()> {
        let missing = count.saturating_sub(self.states.begun.len());
        if missing > 0 {
            let new = self.machine.initial.to_array_of_size(missing)?;
            self.states.values = concat(&[self.states.values.as_ref(), new.as_ref()])?;
            self.states.begun.resize(count, false);
        }
        Ok(())
    }

    fn take(&mut self, emit_to: EmitTo) -> States {
        let all = self.states.begun.len();
        let count = match emit_to {
            EmitTo::All => all,
            EmitTo::First(count) => count.min(all),
        };
        let rest = self.states.values.slice(count, all - count);
        let values = std::mem::replace(&mut self.states.values, rest).slice(0, count);
        let rest = self.states.begun.split_off(count);
        States { values, begun: std::mem::replace(&mut self.states.begun, rest) }
    }
}

impl GroupsAccumulator for CombinableStates {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.grow(count)?;
        let (values, groups) = super::ordered_rows::filtered(values, groups, filter)?;
        self.machine.step.fold(&mut self.states, &values, &groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let states = self.take(emit_to);
        self.machine.results(states.values)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.take(emit_to);
        Ok(vec![states.values, Arc::new(BooleanArray::from(states.begun))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.grow(count)?;
        let (values, groups) =
            super::ordered_rows::filtered(&values[..1], groups, Some(values[1].as_boolean()))?;
        let Some(combine) = &self.combine else { return Ok(()) };
        combine.fold(&mut self.states, &values, &groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let count = values.first().map_or(0, |value| value.len());
        let mut fresh = CombinableStates::new(self.machine.clone())?;
        fresh.update_batch(values, &(0..count).collect::<Vec<_>>(), filter, count)?;
        fresh.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.states.values.get_array_memory_size() + self.states.begun.capacity()
    }
}
