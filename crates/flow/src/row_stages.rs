//! The stages of a flow that computes each row by itself, for readers of its result while the flow is elsewhere.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::Result;
use crate::dag::Node;
use crate::failing_rows::StageOver;
use crate::flow::Flow;
use crate::operator::RowByRow;
use crate::operators::stateless::{content_through, row_wanted};
use crate::point_lookup::Wanted;

/// Returns the only input of an operator that computes each row of it by itself.
pub(crate) fn row_by_row_input(node: &Node) -> Option<usize> {
    match node {
        Node::Operator { operator, inputs } if operator.abilities().row_by_row.is_some() => {
            match inputs[..] {
                [input] => Some(input),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The stages of a flow over one relation that computes each row by itself, in their order.
#[derive(Clone, Debug)]
pub struct RowStages(Vec<Arc<StageOver>>);

impl RowStages {
    /// Returns the stages of a flow; none if it does more than computing each row of one relation.
    pub fn of(flow: &Flow) -> Option<RowStages> {
        let nodes = &flow.dag.nodes;
        let (mut stages, mut place) = (Vec::new(), nodes.len().checked_sub(1)?);
        while let Node::Operator { operator, .. } = &nodes[place] {
            place = row_by_row_input(&nodes[place])?;
            stages.extend(operator.abilities().row_by_row.map(RowByRow::stages));
        }
        Some(RowStages(stages.into_iter().rev().flatten().cloned().collect()))
    }

    /// Returns the result, given all rows of the relation.
    pub fn content(&self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        content_through(&self.0, rows)
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
