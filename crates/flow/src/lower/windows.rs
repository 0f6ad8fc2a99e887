//! Aggregates over windows of batches, which take each batch as it ends and drop it by themselves.

use datafusion::logical_expr::{Aggregate, LogicalPlan};

use super::{BatchWindow, Choice, Lowering, Resolve, holds_subquery, keys};
use crate::Result;
use crate::operators::{aggregate::sliding, update_state};

impl Lowering<'_> {
    /// Returns the operator for an aggregate over a window; `None` if the input is no window, or has no such
    /// operator.
    pub(super) fn sliding(&mut self, plan: &LogicalPlan, node: &Aggregate) -> Result<Option<usize>> {
        let Some(window) = window_below(&node.input, self.choice, self.resolve)? else { return Ok(None) };
        let Ok(operator) = sliding::lower(plan, node, window, self.driver)? else { return Ok(None) };
        self.batchwise = true;
        let input = self.lower(&node.input);
        self.batchwise = false;
        Ok(input?.map(|input| self.builder.push(operator, vec![input])))
    }

    /// Returns the operator for UPDATE_STATE; over a window it takes each batch as it ends.
    pub(super) fn update_state(&mut self, plan: &LogicalPlan, node: &Aggregate) -> Result<Option<usize>> {
        let of_batch = window_below(&node.input, self.choice, self.resolve)?.is_some();
        self.batchwise = of_batch;
        let input = self.lower(&node.input);
        self.batchwise = false;
        let Some(input) = input? else { return Ok(None) };
        let rows = match of_batch {
            true => update_state::Rows::OfBatch,
            false if self.builder.append_only(input) => update_state::Rows::Stay,
            false => update_state::Rows::Change,
        };
        let operator = update_state::lower(plan, node, rows, self.driver)?;
        Ok(Some(self.builder.push(operator, vec![input])))
    }
}

/// Returns the window below nodes that can't fail for a row: a failure would have to be retracted with
/// its row.
fn window_below(plan: &LogicalPlan, choice: Choice, resolve: Resolve<'_>) -> Result<Option<BatchWindow>> {
    if choice == Choice::WholeOnly {
        return Ok(None);
    }
    let mut plan = plan;
    loop {
        if holds_subquery(plan)?.is_some() || !keys::is_infallible(plan)? {
            return Ok(None);
        }
        plan = match plan {
            LogicalPlan::Projection(node) => &node.input,
            LogicalPlan::Filter(node) => &node.input,
            LogicalPlan::Unnest(node) => &node.input,
            LogicalPlan::SubqueryAlias(node) => &node.input,
            LogicalPlan::TableScan(scan) => {
                return Ok(resolve(scan).and_then(|relation| relation.window));
            }
            _ => return Ok(None),
        };
    }
}
