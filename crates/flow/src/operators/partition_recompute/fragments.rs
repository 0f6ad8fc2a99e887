//! The plan that gives the answers of keys, and its copies.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use datafusion::physical_plan::ExecutionPlan;

use crate::Result;
use crate::driver::Driver;
use crate::leaf::{Slot, with_slots};
use crate::parallelism::lock;

/// A plan with the slots that its leaves read, by input.
#[derive(Debug)]
struct Fragment {
    plan: Arc<dyn ExecutionPlan>,
    slots: Vec<Vec<Slot>>,
}

/// Runs the plan over the rows of some keys at a time, on a copy of its own for each thread.
#[derive(Debug)]
pub(super) struct Fragments {
    original: Fragment,
    /// Copies that no thread runs.
    idle: Mutex<Vec<Fragment>>,
}

impl Fragment {
    /// Returns a copy with slots of its own.
    fn copy(&self) -> Result<Fragment> {
        let fresh = |leaves: &Vec<Slot>| leaves.iter().map(|_| Slot::default()).collect::<Vec<_>>();
        let slots: Vec<Vec<Slot>> = self.slots.iter().map(fresh).collect();
        let pairs: Vec<_> = self.slots.iter().flatten().zip(slots.iter().flatten()).collect();
        Ok(Fragment { plan: with_slots(&self.plan, &pairs)?, slots })
    }

    /// Fills the leaves with the rows of an input.
    fn fill(&self, input: usize, batches: &[RecordBatch]) {
        self.slots[input].iter().for_each(|slot| slot.fill(batches.to_vec()));
    }
}

impl Fragments {
    /// Returns a plan without copies; `slots` are those that its leaves read, by input.
    pub(super) fn new(plan: Arc<dyn ExecutionPlan>, slots: Vec<Vec<Slot>>) -> Fragments {
        Fragments { original: Fragment { plan, slots }, idle: Mutex::default() }
    }

    pub(super) fn plan(&self) -> &dyn ExecutionPlan {
        self.original.plan.as_ref()
    }

    /// Runs the plan over the rows that `rows` returns of each input.
    pub(super) fn run(
        &self,
        driver: &Driver,
        rows: impl Fn(usize) -> Result<Vec<RecordBatch>>,
    ) -> Result<Vec<RecordBatch>> {
        let idle = lock(&self.idle).pop();
        let fragment = idle.map_or_else(|| self.original.copy(), Ok)?;
        let mut inputs = 0..fragment.slots.len();
        let filled = inputs.try_for_each(|input| {
            fragment.fill(input, &rows(input)?);
            Ok(())
        });
        let batches = filled.and_then(|()| driver.run(&fragment.plan));
        // Drops the slots' references even after a failure, so that the rows are not held twice.
        (0..fragment.slots.len()).for_each(|input| fragment.fill(input, &[]));
        lock(&self.idle).push(fragment);
        batches
    }
}
