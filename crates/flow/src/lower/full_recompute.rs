//! FullRecompute for plans without a cheaper operator.

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;

use super::{Choice, Lowering, external, is_open, lookup_join, reads_relations, temporal};
use crate::Result;
use crate::leaf::{Leaf, Slot};
use crate::operators::full_recompute::FullRecompute;

impl Lowering<'_> {
    /// Returns the node of a plan; uses FullRecompute if there is nothing cheaper.
    pub(super) fn lower_or_whole(&mut self, plan: &LogicalPlan) -> Result<usize> {
        match self.lower(plan)? {
            Some(input) => Ok(input),
            None => self.whole(plan, Choice::Cheapest),
        }
    }

    /// Returns one FullRecompute operator for `plan`, over its largest parts that have cheaper operators.
    pub(super) fn whole(&mut self, plan: &LogicalPlan, choice: Choice) -> Result<usize> {
        let why = std::mem::take(&mut self.why);
        let mut inputs = Vec::new();
        let mut slots = Vec::new();
        let fragment = plan.clone().transform_down_with_subqueries(|node| {
            let scan_only = choice == Choice::WholeOnly && !matches!(node, LogicalPlan::TableScan(_));
            let scan_only = scan_only && !temporal::is_temporal(&node)?;
            if scan_only
                || !reads_relations(&node, self.resolve).map_err(external)?
                || is_open(&node).map_err(external)?
            {
                return Ok(Transformed::no(node));
            }
            let Some(input) = self.lower(&node).map_err(external)? else { return Ok(Transformed::no(node)) };
            let slot = Slot::default();
            let leaf = Leaf::plan(slots.len(), node.schema().clone(), slot.clone());
            inputs.push(input);
            slots.push((node.schema().inner().clone(), slot));
            Ok(Transformed::new(leaf, true, TreeNodeRecursion::Jump))
        })?;
        if lookup_join::is_within(&fragment.data)? {
            return Err(lookup_join::refused("the enclosing query needs all its rows at once"));
        }
        let operator =
            FullRecompute::new(fragment.data, slots, self.driver, why, self.limits.whole_rows_max)?;
        Ok(self.builder.push(operator, inputs))
    }
}
