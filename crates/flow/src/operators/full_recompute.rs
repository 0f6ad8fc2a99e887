//! FullRecompute (Whole in EXPLAIN), for any query: keeps its whole input, recomputes the answer and emits the difference.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use millstream_delta::{Chunk, Cut, Delta, consolidate, under_schema};
use millstream_state::{Rows, Spillable, Tables};

use crate::failure::{Failure, reason};
use crate::leaf::Slot;
use crate::operator::{
    Abilities, Content, Cost, Description, Growth, KeepsResult, Operator, Output, Properties, State,
};
use crate::{Driver, Error, Result};

/// Runs a plan fragment in DataFusion over the kept rows of its inputs. The delta is the difference to the
/// previous answer.
#[derive(Debug)]
pub struct FullRecompute {
    properties: Properties,
    inputs: Vec<RecomputeInput>,
    fragment: Fragment,
    emitted: Rows,
    /// The reason why there is no answer over the present input.
    failed: Option<String>,
    driver: Driver,
    why: String,
    rows_max: usize,
}

/// One input: its rows, and the slot from which the plan reads them.
#[derive(Debug)]
struct RecomputeInput {
    rows: Rows,
    slot: Slot,
}

/// The plan that runs in each epoch.
#[derive(Debug)]
enum Fragment {
    /// Planned once, reset between runs.
    Physical(Arc<dyn ExecutionPlan>),
    /// A recursive query's physical plan can't run twice, so it alone is planned each time.
    Recursive(Box<LogicalPlan>),
}

impl FullRecompute {
    /// Returns the operator for `plan`, whose leaves read `inputs`. It fails if it must keep more than
    /// `rows_max` input rows.
    pub fn new(
        plan: LogicalPlan,
        inputs: Vec<(arrow::datatypes::SchemaRef, Slot)>,
        driver: &Driver,
        why: String,
        rows_max: usize,
    ) -> Result<FullRecompute> {
        let schema = plan.schema().inner().clone();
        let fragment = if is_recursive(&plan)? {
            Fragment::Recursive(Box::new(plan))
        } else {
            Fragment::Physical(driver.plan(&plan)?)
        };
        Ok(FullRecompute {
            emitted: Rows::new(schema.clone()),
            properties: Properties { cost: Cost::Whole, ..Properties::of(schema) },
            inputs: inputs
                .into_iter()
                .map(|(schema, slot)| RecomputeInput { rows: Rows::new(schema), slot })
                .collect(),
            fragment,
            failed: None,
            driver: driver.clone(),
            why,
            rows_max,
        })
    }

    fn check_size(&self) -> Result<()> {
        let rows: usize = self.inputs.iter().map(|input| input.rows.num_rows()).sum();
        if rows > self.rows_max {
            return Err(Error::Limit(format!(
                "its operator Whole would keep {rows} rows, but whole_rows_max is {}: make the query cheaper (EXPLAIN \
                 shows why it needs Whole) or SET whole_rows_max higher before creating it",
                self.rows_max
            )));
        }
        Ok(())
    }

    fn compute(&self) -> Result<Vec<RecordBatch>> {
        let result = self.fill().and_then(|()| match &self.fragment {
            Fragment::Physical(plan) => self.driver.run(plan),
            Fragment::Recursive(plan) => self.driver.plan(plan).and_then(|plan| self.driver.run(&plan)),
        });
        // Drops the slots' references even after a failure, so that the rows are not held twice.
        self.inputs.iter().for_each(|input| input.slot.fill(Vec::new()));
        result
    }

    fn fill(&self) -> Result<()> {
        for input in &self.inputs {
            input.slot.fill(input.rows.snapshot().batches()?);
        }
        Ok(())
    }
}

impl Operator for FullRecompute {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let detail = match &self.fragment {
            Fragment::Physical(plan) => fragment_text(plan.as_ref()),
            Fragment::Recursive(_) => "recursive query, planned each epoch".into(),
        };
        Description {
            name: "Whole",
            detail,
            state: "its input, its result".into(),
            state_key: None,
            growth: Growth::With("its input".into()),
            why: self.why.clone(),
        }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        for (kept, delta) in self.inputs.iter_mut().zip(inputs) {
            kept.rows.apply(delta)?;
        }
        self.check_size()?;
        let mut change = Delta::default();
        let mut failures = Vec::new();
        let mut failed = None;
        match self.compute() {
            Ok(batches) => {
                for batch in batches {
                    change.push(Chunk::insert(under_schema(&batch, &self.properties.schema)?));
                }
            }
            // There is no answer until the input changes again, so the previous one is retracted.
            Err(error) => failed = Some(reason(&error).ok_or(error)?),
        }
        if failed != self.failed {
            let of = |message: String, weight| Failure { message, row: String::new(), weight };
            failures.extend(self.failed.take().map(|message| of(message, -1)));
            failures.extend(failed.clone().map(|message| of(message, 1)));
            self.failed = failed;
        }
        for batch in self.emitted.snapshot().batches()? {
            let weights = Int64Array::from(vec![-1; batch.num_rows()]);
            change.push(Chunk { rows: batch, weights: Some(weights) });
        }
        let change = consolidate(change, &self.properties.schema)?;
        self.emitted.apply(&change)?;
        Ok(Output { rows: change, failures, ..Output::default() })
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { result: Some(self), ..Abilities::default() }
    }
}

impl State for FullRecompute {
    fn reset(&mut self) -> Result<()> {
        self.inputs.iter_mut().for_each(|input| input.rows = Rows::new(input.rows.schema().clone()));
        self.emitted = Rows::new(self.properties.schema.clone());
        self.failed = None;
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        for (place, input) in self.inputs.iter().enumerate() {
            kept.put_delta(&format!("input{place}"), &input.rows.snapshot().delta()?)?;
        }
        kept.put_delta("emitted", &self.emitted.snapshot().delta()?)?;
        kept.put_text_if("failed", self.failed.as_deref());
        Ok(kept)
    }

    fn save_changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        for (place, input) in self.inputs.iter().enumerate() {
            input.rows.save_changed(&format!("input{place}"), &mut kept)?;
        }
        self.emitted.save_changed("emitted", &mut kept)?;
        kept.put_text_if("failed", self.failed.as_deref());
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        for (place, input) in self.inputs.iter_mut().enumerate() {
            input.rows.apply(&kept.take_delta(&format!("input{place}"))?)?;
        }
        self.emitted.apply(&kept.take_delta("emitted")?)?;
        self.failed = kept.take_text_if("failed");
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.emitted.num_rows() + self.inputs.iter().map(|input| input.rows.num_rows()).sum::<usize>()
    }

    fn state_bytes(&self) -> usize {
        self.emitted.memory_bytes() + self.inputs.iter().map(|input| input.rows.memory_bytes()).sum::<usize>()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.emitted);
        self.inputs.iter_mut().for_each(|input| show(&mut input.rows));
    }
}

impl KeepsResult for FullRecompute {
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        Some(self.emitted.snapshot().batches().map_err(Error::from))
    }

    fn keeps_all(&self) -> bool {
        true
    }
}

/// Returns the physical nodes of the fragment, from the root, without the leaves.
pub(crate) fn fragment_text(plan: &dyn ExecutionPlan) -> String {
    let mut names = Vec::new();
    let mut rest = vec![plan];
    while let Some(plan) = rest.pop() {
        if !matches!(plan.name(), "LeafExec" | "CooperativeExec" | "GuardExec") {
            names.push(plan.name().trim_end_matches("Exec").to_string());
        }
        rest.extend(plan.children().into_iter().rev().map(AsRef::as_ref));
    }
    names.join(", ")
}

fn is_recursive(plan: &LogicalPlan) -> Result<bool> {
    let mut recursive = false;
    plan.apply_with_subqueries(|node| {
        recursive |= matches!(node, LogicalPlan::RecursiveQuery(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(recursive)
}
