//! A join without an equality, one side of which has few rows: the single row of an uncorrelated subquery, or
//! a constant.
//!
//! The answer of each row of the other side depends only on that row and the few rows. So only inserted and
//! deleted rows are joined; all rows are joined again only if the few rows change.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::ExecutionPlan;
use millstream_delta::{Chunk, Cut, Delta, consolidate, under_schema};
use millstream_state::{Rows, Spillable, Tables};

use crate::failure::{Failure, surviving};
use crate::leaf::Slot;
use crate::operator::{Description, Growth, Operator, Output, Properties, State};
use crate::operators::full_recompute::fragment_text;
use crate::{Driver, Result};

/// One side of the join.
#[derive(Debug)]
pub struct Side {
    /// The operator's input.
    pub input: usize,
    /// The columns of the side's rows.
    pub schema: SchemaRef,
    /// The slot from which the join reads the side.
    pub slot: Slot,
}

/// The parts of a Broadcast operator.
#[derive(Debug)]
pub struct BroadcastSpec {
    /// The properties of the output.
    pub properties: Properties,
    /// The join, which preserves no row of the few.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The side with any number of rows.
    pub many: Side,
    /// The side with few rows.
    pub few: Side,
    /// True if the few rows never change.
    pub constant: bool,
}

/// Joins each row with few other rows.
#[derive(Debug)]
pub struct Broadcast {
    properties: Properties,
    plan: Arc<dyn ExecutionPlan>,
    many: Side,
    few: Side,
    /// The rows of the larger side, unless the few never change.
    kept: Option<Rows>,
    few_rows: Rows,
    driver: Driver,
}

impl Broadcast {
    /// Returns the operator without rows.
    pub fn new(parts: BroadcastSpec, driver: &Driver) -> Broadcast {
        let BroadcastSpec { properties, plan, many, few, constant } = parts;
        Broadcast {
            properties,
            plan,
            kept: (!constant).then(|| Rows::new(many.schema.clone())),
            few_rows: Rows::new(few.schema.clone()),
            many,
            few,
            driver: driver.clone(),
        }
    }

    /// Returns the answers of some rows joined with the current few rows.
    fn answers(&self, delta: &Delta) -> Result<Output> {
        let mut output = Output::default();
        if delta.is_empty() {
            return Ok(output);
        }
        self.few.slot.fill(self.few_rows.snapshot().batches()?);
        let answered = self.join_each(delta, &mut output);
        self.few.slot.fill(Vec::new());
        answered.map(|()| output)
    }

    fn join_each(&self, delta: &Delta, output: &mut Output) -> Result<()> {
        let (inserts, deletes) = delta.split_by_sign()?;
        for (part, sign) in [(inserts, 1), (deletes, -1)] {
            for chunk in &part.chunks {
                let rows = Chunk::insert(chunk.expand()?);
                let mut failures = Vec::new();
                for (_, batches) in surviving(rows, &mut failures, |chunk| self.join(&chunk.rows))? {
                    let chunk = if sign > 0 { Chunk::insert } else { Chunk::delete };
                    batches.into_iter().for_each(|batch| output.rows.push(chunk(batch)));
                }
                let signed = |failure: Failure| Failure { weight: failure.weight * sign, ..failure };
                output.failures.extend(failures.into_iter().map(signed));
            }
        }
        Ok(())
    }

    fn join(&self, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        self.many.slot.fill(vec![rows.clone()]);
        let batches = self.driver.run(&self.plan);
        self.many.slot.fill(Vec::new());
        let full = batches?.into_iter().filter(|batch| batch.num_rows() > 0);
        full.map(|batch| Ok(under_schema(&batch, &self.properties.schema)?)).collect()
    }

    /// Returns the answers of all kept rows, with the weights that `chunk` gives them.
    fn all_answers(&self, chunk: fn(RecordBatch) -> Chunk) -> Result<Output> {
        let mut all = Delta::default();
        if let Some(kept) = &self.kept {
            kept.snapshot().batches()?.into_iter().for_each(|rows| all.push(chunk(rows)));
        }
        self.answers(&all)
    }
}

impl Operator for Broadcast {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let (state, growth, why) = match &self.kept {
            Some(_) => (
                "its input",
                Growth::With("its input".into()),
                "when the few rows of one side change, all rows of the other are joined again",
            ),
            None => ("the constant side", Growth::Bounded, ""),
        };
        Description {
            name: "Broadcast",
            detail: fragment_text(self.plan.as_ref()),
            state: state.into(),
            state_key: None,
            growth,
            why: why.into(),
        }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let many = inputs[self.many.input];
        let few = consolidate(inputs[self.few.input].clone(), &self.few.schema)?;
        let mut output = Output::default();
        if !few.is_empty() {
            output = self.all_answers(Chunk::delete)?;
            self.few_rows.apply(&few)?;
        }
        if let Some(kept) = &mut self.kept {
            kept.apply(many)?;
        }
        if few.is_empty() || self.kept.is_none() {
            return self.answers(many);
        }
        let now = self.all_answers(Chunk::insert)?;
        output.failures.extend(now.failures);
        if output.rows.is_empty() {
            output.rows = now.rows;
        } else {
            output.rows.append(now.rows);
            output.rows = consolidate(output.rows, &self.properties.schema)?;
        }
        Ok(output)
    }
}

impl State for Broadcast {
    fn reset(&mut self) -> Result<()> {
        self.few_rows = Rows::new(self.few.schema.clone());
        self.kept = self.kept.take().map(|_| Rows::new(self.many.schema.clone()));
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_delta("few", &self.few_rows.snapshot().delta()?)?;
        if let Some(many) = &self.kept {
            kept.put_delta("many", &many.snapshot().delta()?)?;
        }
        Ok(kept)
    }

    fn save_changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.few_rows.save_changed("few", &mut kept)?;
        if let Some(many) = &self.kept {
            many.save_changed("many", &mut kept)?;
        }
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.few_rows.apply(&kept.take_delta("few")?)?;
        if let Some(many) = &mut self.kept {
            many.apply(&kept.take_delta("many")?)?;
        }
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.few_rows.num_rows() + self.kept.as_ref().map_or(0, Rows::num_rows)
    }

    fn state_bytes(&self) -> usize {
        self.few_rows.memory_bytes() + self.kept.as_ref().map_or(0, Rows::memory_bytes)
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.few_rows);
        self.kept.iter_mut().for_each(|kept| show(kept));
    }
}

#[cfg(test)]
mod tests {
    use millstream_delta::Delta;

    use crate::fixture::{Fixture, delta, step};

    #[test]
    fn a_value_that_stays_costs_nothing() {
        let fixture = Fixture::new();
        let mut flow =
            fixture.compile("SELECT t.k, t.v FROM t JOIN (SELECT max(v) AS m FROM u) AS q ON t.v < q.m");
        let none = Delta::default;
        step(&mut flow, 1, &[delta(&[(1, 2), (2, 5), (3, 9)], 1), delta(&[(0, 7)], 1)]);
        let met = |flow: &crate::Flow| {
            let operators = flow.operators();
            let broadcast =
                operators.iter().find(|operator| operator.title.starts_with("Broadcast")).unwrap();
            (broadcast.meter.steps, broadcast.meter.rows_out)
        };
        let before = met(&flow);
        // The maximum is the same.
        step(&mut flow, 2, &[none(), delta(&[(0, 3), (0, 7)], 1)]);
        // A value is inserted and deleted within the epoch.
        let mut both = delta(&[(0, 100)], 1);
        both.append(delta(&[(0, 100)], -1));
        assert!(step(&mut flow, 3, &[none(), both]).rows.is_empty());
        assert_eq!(met(&flow), before);
        assert!(!step(&mut flow, 4, &[none(), delta(&[(0, 100)], 1)]).rows.is_empty());
    }
}
