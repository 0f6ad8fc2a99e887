//! Rows that depend on no relation: `VALUES`, a `SELECT` without `FROM`.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use millstream_delta::{Chunk, Cut, Delta, under_schema};
use millstream_state::Tables;

use crate::failure::{Failure, reason};
use crate::operator::{Description, Operator, Output, Properties, State};
use crate::{Driver, Result};

/// Emits its rows when the query is created, and nothing later.
#[derive(Debug)]
pub struct Constant {
    properties: Properties,
    plan: Arc<dyn ExecutionPlan>,
    driver: Driver,
    started: bool,
}

impl Constant {
    /// Returns the operator for the rows of `plan`, which reads no relation.
    pub fn new(plan: &LogicalPlan, driver: &Driver) -> Result<Constant> {
        let schema = plan.schema().inner().clone();
        let properties = Properties { append_only: true, ..Properties::of(schema) };
        Ok(Constant { properties, plan: driver.plan(plan)?, driver: driver.clone(), started: false })
    }
}

impl Operator for Constant {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        Description { name: "Constant", ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, _inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        if std::mem::replace(&mut self.started, true) {
            return Ok(output);
        }
        match self.driver.run(&self.plan) {
            Ok(batches) => {
                for batch in batches {
                    output.rows.push(Chunk::insert(under_schema(&batch, &self.properties.schema)?));
                }
            }
            Err(error) => {
                let message = reason(&error).ok_or(error)?;
                output.failures.push(Failure { message, row: String::new(), weight: 1 });
            }
        }
        Ok(output)
    }
}

impl State for Constant {
    fn reset(&mut self) -> Result<()> {
        self.started = false;
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_number("started", i64::from(self.started));
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.started = kept.take_number("started")? != 0;
        Ok(())
    }

    fn state_rows(&self) -> usize {
        0
    }

    fn state_bytes(&self) -> usize {
        0
    }
}
