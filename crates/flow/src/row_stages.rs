//! The stages of a flow that computes each row by itself, for readers of its result while the flow is elsewhere.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_delta::Chunk;

use crate::Result;
use crate::dag::Node;
use crate::failing_rows::StageOver;
use crate::flow::Flow;
use crate::operators::stateless::{row_wanted, run_stages};
use crate::point_lookup::Wanted;

/// The stages of a flow over one relation that computes each row by itself, in their order.
#[derive(Clone, Debug)]
pub struct RowStages(Vec<Arc<StageOver>>);

impl RowStages {
    /// Returns the stages of a flow; none if it does more than computing each row of one relation.
    pub fn of(flow: &Flow) -> Option<RowStages> {
        let nodes = &flow.dag.nodes;
        let (mut stages, mut place) = (Vec::new(), nodes.len().checked_sub(1)?);
        while let Node::Operator { operator, inputs } = &nodes[place] {
            let &[input] = &inputs[..] else { return None };
            stages.push(operator.abilities().row_by_row?.stages());
            place = input;
        }
        Some(RowStages(stages.into_iter().rev().flatten().cloned().collect()))
    }

    /// Returns the result, given all rows of the relation.
    pub fn content(&self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let mut content = Vec::with_capacity(rows.len());
        for rows in rows {
            let ran = run_stages(&self.0, &Chunk::insert(rows))?;
            content.extend(ran.chunks.into_iter().map(|chunk| chunk.rows));
        }
        Ok(content)
    }

    /// Returns the rows of the relation that make the wanted rows of the result, and perhaps others.
    pub fn wanted(&self, wanted: &Wanted) -> Wanted {
        row_wanted(&self.0, wanted)
    }

    /// Returns true if each row becomes one row, and none fails.
    pub fn hands_on(&self) -> bool {
        self.0.iter().all(|stage| stage.stage().hands_on())
    }
}
