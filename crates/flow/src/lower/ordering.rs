//! The orders of operators that keep the rows of their input sorted.

use arrow::compute::SortOptions;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr};

use super::{Choice, Lowering};
use crate::Result;
use crate::sorted::Ordering;

impl Lowering<'_> {
    /// Returns the node of a plan; uses FullRecompute if there is nothing cheaper.
    pub(super) fn lower_or_whole(&mut self, plan: &LogicalPlan) -> Result<usize> {
        match self.lower(plan)? {
            Some(input) => Ok(input),
            None => self.whole(plan, Choice::Cheapest),
        }
    }

    /// Returns the order of the rows of a node, which are those of a plan: by partition, then by the
    /// requested order, then by columns that break ties.
    pub(super) fn ordering(
        &self,
        input: usize,
        plan: &LogicalPlan,
        partition: &[Expr],
        order: &[SortExpr],
    ) -> Result<Ordering> {
        let known: Vec<&Expr> = partition.iter().chain(order.iter().map(|sort| &sort.expr)).collect();
        let expression = |expr: &Expr| self.driver.expression(expr, plan);
        let options = |sort: &SortExpr| SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
        Ok(Ordering {
            partition: partition.iter().map(expression).collect::<Result<_>>()?,
            order: order
                .iter()
                .map(|sort| Ok((expression(&sort.expr)?, options(sort))))
                .collect::<Result<_>>()?,
            ties: self.ties(input, plan, &known),
            ..Ordering::default()
        })
    }

    /// Returns the columns that break ties between rows of a node that are equal in some expressions.
    pub(super) fn ties(&self, input: usize, plan: &LogicalPlan, known: &[&Expr]) -> Vec<usize> {
        let schema = plan.schema();
        // A key separates rows of one snapshot, but not a row from the one that it replaces.
        let apart = match &self.nodes[input].properties().key {
            Some(key) if self.append_only(input) => key.clone(),
            _ => (0..schema.fields().len()).collect(),
        };
        let is_known = |at: &usize| {
            let column = Column::from(schema.qualified_field(*at));
            known.iter().any(|expr| matches!(expr, Expr::Column(known) if *known == column))
        };
        apart.into_iter().filter(|at| !is_known(at)).collect()
    }
}
