//! The ORDER BY of a query's whole result, for readers that get all of it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Sort, SortExpr};
use datafusion::physical_plan::ExecutionPlan;

use crate::leaf::{Leaf, Slot};
use crate::{Driver, Result};

/// The outermost ORDER BY of a query.
#[derive(Debug)]
pub struct Order {
    slot: Slot,
    plan: Arc<dyn ExecutionPlan>,
    driver: Driver,
}

impl Order {
    /// Returns the order of a plan's rows; `None` if it has none, or one by an expression that is no column
    /// of the result.
    pub fn of(plan: &LogicalPlan, driver: &Driver) -> Result<Option<Order>> {
        let Some(expr) = outermost(plan) else { return Ok(None) };
        let slot = Slot::default();
        let input = Arc::new(Leaf::plan(0, plan.schema().clone(), slot.clone()));
        let plan = driver.plan(&LogicalPlan::Sort(Sort { expr, input, fetch: None }))?;
        Ok(Some(Order { slot, plan, driver: driver.clone() }))
    }

    /// Sorts the rows.
    pub fn sort(&self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.slot.fill(rows);
        let sorted = self.driver.run(&self.plan);
        self.slot.fill(Vec::new());
        sorted
    }
}

fn outermost(plan: &LogicalPlan) -> Option<Vec<SortExpr>> {
    match plan {
        LogicalPlan::Sort(sort) => Some(sort.expr.clone()),
        LogicalPlan::Limit(limit) => outermost(&limit.input),
        LogicalPlan::Projection(projection) => {
            let sorts = outermost(&projection.input)?;
            sorts.into_iter().map(|sort| shown(sort, projection)).collect()
        }
        _ => None,
    }
}

/// Rewrites the order to a column that a projection returns.
fn shown(sort: SortExpr, projection: &Projection) -> Option<SortExpr> {
    let place = projection.expr.iter().position(|expr| expr.clone().unalias() == sort.expr)?;
    let column = projection.schema.columns().into_iter().nth(place)?;
    Some(SortExpr { expr: Expr::Column(column), ..sort })
}
