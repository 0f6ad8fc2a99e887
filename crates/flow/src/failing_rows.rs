//! Rows for which a stage of an operator fails, kept as rows.
//!
//! A row costs far less than its text and its reason. Both follow from the row alone, so they are computed
//! when somebody reads them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta, RowEncoder, under_schema};

use crate::Result;
use crate::failure::{self, Failure, surviving_exprs, surviving_rows};
use crate::operators::stateless::Stage;

/// A stage of an operator, with the columns of its input.
#[derive(Debug)]
pub struct StageOver {
    stage: Stage,
    input: SchemaRef,
    /// True if its failing rows can be kept as rows: their types have a row encoding.
    keeps_rows: bool,
}

/// A stage of an operator in which rows fail.
#[derive(Clone, Debug)]
pub struct FailingStage {
    /// The place of the operator's node in its flow.
    pub(crate) node: usize,
    /// The number of the stage in its operator.
    pub(crate) number: usize,
    /// The name of the operator.
    pub(crate) operator: &'static str,
    pub(crate) stage: Arc<StageOver>,
}

/// Rows that fail in a stage, with their weights.
#[derive(Clone, Debug)]
pub struct FailingRows {
    /// The stage.
    pub stage: FailingStage,
    /// The rows, with the columns of the stage's input.
    pub rows: Delta,
}

impl StageOver {
    pub(crate) fn new(stage: Stage, input: SchemaRef) -> StageOver {
        let keeps_rows = RowEncoder::new(&input).is_ok();
        StageOver { stage, input, keeps_rows }
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Runs the stage over rows. Rows that fail are added to `failing`, or to `failures` if they can't be kept
    /// as rows.
    pub(crate) fn run(
        &self,
        chunk: Chunk,
        failing: &mut Vec<Chunk>,
        failures: &mut Vec<Failure>,
    ) -> Result<Vec<Chunk>> {
        let (exprs, run) = (self.stage.exprs(), |chunk: &Chunk| self.stage.run(chunk.clone()));
        let pieces = match self.keeps_rows {
            true => {
                let combine = |chunk, values| self.stage.combine(chunk, values);
                surviving_rows(exprs, chunk, failing, run, combine)?
            }
            false => surviving_exprs(exprs, chunk, failures, run)?,
        };
        Ok(pieces.into_iter().map(|(_, after)| after).collect())
    }

    /// Returns the failures of rows that fail in the stage.
    fn failures(&self, chunk: Chunk) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        let run = |chunk: &Chunk| self.stage.run(chunk.clone()).map(|_| ());
        let passing = surviving_exprs(self.stage.exprs(), chunk, &mut failures, run)?;
        // Only the row itself decides if it fails, so there should be none of these.
        for (chunk, ()) in passing {
            for row in 0..chunk.rows.num_rows() {
                let message = "the row failed, but doesn't fail any more".to_string();
                let text = failure::row_text(&chunk.rows, row)?;
                failures.push(Failure { message, row: text, weight: chunk.weight(row) });
            }
        }
        Ok(failures)
    }
}

impl FailingStage {
    /// Returns the places of the operator in its flow and of the stage in its operator.
    pub fn place(&self) -> (usize, usize) {
        (self.node, self.number)
    }

    /// Returns the columns of its input.
    pub fn schema(&self) -> &SchemaRef {
        &self.stage.input
    }

    /// Returns rows that fail in the stage as errors: a delta of [`crate::ERRORS`].
    pub fn errors(&self, rows: &Delta) -> Result<Delta> {
        let failures = self.failures(rows)?;
        failure::delta(failures.iter().map(|failure| (self.operator, failure)))
    }

    pub(crate) fn failures(&self, rows: &Delta) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for chunk in &rows.chunks {
            failures.append(&mut self.stage.failures(chunk.clone())?);
        }
        Ok(failures)
    }
}

impl FailingRows {
    /// Returns rows that fail in a stage of an operator; the flow adds the operator.
    pub(crate) fn of(number: usize, stage: &Arc<StageOver>, chunks: Vec<Chunk>) -> Result<FailingRows> {
        let mut rows = Delta::default();
        for Chunk { rows: failing, weights } in chunks {
            rows.push(Chunk { rows: under_schema(&failing, &stage.input)?, weights });
        }
        let stage = FailingStage { node: 0, number, operator: "", stage: stage.clone() };
        Ok(FailingRows { stage, rows })
    }

    /// Adds the rows to those of their stage among `all`. A row may leave in one chunk and arrive in a later one.
    pub(crate) fn add_to(self, all: &mut Vec<FailingRows>) {
        match all.iter_mut().find(|other| other.stage.number == self.stage.number) {
            Some(other) => other.rows.append(self.rows),
            None => all.push(self),
        }
    }

    /// Returns the rows as those of the operator at a node.
    pub(crate) fn at(self, node: usize, operator: &'static str) -> FailingRows {
        FailingRows { stage: FailingStage { node, operator, ..self.stage }, rows: self.rows }
    }
}
