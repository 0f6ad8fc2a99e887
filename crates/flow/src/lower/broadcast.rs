//! Broadcast for a join without an equality and with few rows on one side.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::logical_plan::Join;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};

use super::{Lowering, Resolve, keys, reads_relations, unique_keys};
use crate::Result;
use crate::leaf::{Leaf, Slot};
use crate::operator::{Cost, Properties};
use crate::operators::broadcast::{Broadcast, BroadcastSpec, Side};

impl Lowering<'_> {
    /// Returns Broadcast for `plan`, if it is such a join.
    pub(super) fn broadcast(&mut self, plan: &LogicalPlan, join: &Join) -> Result<Option<usize>> {
        if !join.on.is_empty() || !keys::is_stable(plan)? {
            return Ok(None);
        }
        let asked = asked_for_existence(join)?;
        let join = asked.as_ref().unwrap_or(join);
        let Some(few) = few(join, self.resolve)? else { return Ok(None) };
        let constant = !reads_relations(if few == 0 { &join.left } else { &join.right }, self.resolve)?;
        let mut nodes = Vec::with_capacity(2);
        let mut sides = Vec::with_capacity(2);
        let top = LogicalPlan::Join(join.clone()).map_children(|input| {
            let (schema, slot) = (input.schema().clone(), Slot::default());
            let leaf = Leaf::plan(sides.len(), schema.clone(), slot.clone());
            sides.push(Side { input: sides.len(), schema: schema.inner().clone(), slot });
            nodes.push(input);
            Ok(Transformed::yes(leaf))
        })?;
        let nodes = nodes.iter().map(|side| self.lower_or_whole(side)).collect::<Result<Vec<usize>>>()?;
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { return Ok(None) };
        let (many, few) = if few == 0 { (right, left) } else { (left, right) };
        let append_only = constant && self.builder.append_only(nodes[many.input]);
        let top = top.data;
        let key = unique_keys::columns(&top, &|leaf| match leaf == few.input {
            true if !constant => Some(Vec::new()),
            _ => self.builder.properties(nodes[leaf]).key.clone(),
        });
        let schema = top.schema().inner().clone();
        let cost = if constant { Cost::Delta } else { Cost::Few };
        let properties = Properties { append_only, key, cost, ..Properties::of(schema) };
        let parts = BroadcastSpec { properties, plan: self.driver.plan(&top)?, many, few, constant };
        let operator = Broadcast::new(parts, self.driver);
        Ok(Some(self.builder.push(operator, nodes)))
    }
}

/// The name of a count of rows.
const ROWS: &str = "rows";

/// Rewrites a join that asks only if the other side has rows, such as an uncorrelated EXISTS. The new join
/// has one row with the answer.
fn asked_for_existence(join: &Join) -> Result<Option<Join>> {
    use JoinType::*;
    if join.filter.is_some() {
        return Ok(None);
    }
    let asked = |side: &Arc<LogicalPlan>| -> Result<Arc<LogicalPlan>> {
        let rows = LogicalPlanBuilder::from(side.clone())
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias(ROWS)])?
            .filter(col(ROWS).gt(lit(0_i64)))?;
        Ok(Arc::new(rows.build()?))
    };
    Ok(match join.join_type {
        LeftSemi | LeftAnti | LeftMark => Some(Join { right: asked(&join.right)?, ..join.clone() }),
        RightSemi | RightAnti | RightMark => Some(Join { left: asked(&join.left)?, ..join.clone() }),
        _ => None,
    })
}

/// Returns the side of a join that has one row at most or never changes, and whose rows the join doesn't
/// preserve.
fn few(join: &Join, resolve: Resolve<'_>) -> Result<Option<usize>> {
    use JoinType::*;
    for (side, plan) in [(1, &join.right), (0, &join.left)] {
        let linear = match join.join_type {
            Inner => true,
            Left | LeftSemi | LeftAnti | LeftMark => side == 1,
            Right | RightSemi | RightAnti | RightMark => side == 0,
            Full => false,
        };
        let few = linear
            && (unique_keys::columns(plan, &|_| None).is_some_and(|key| key.is_empty())
                || !reads_relations(plan, resolve)?);
        if few {
            return Ok(Some(side));
        }
    }
    Ok(None)
}
