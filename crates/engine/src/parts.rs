//! The errors of a query's parts, each run alone. Tests use them to find out if a batch query succeeded only
//! because it never evaluated a row.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use millstream_flow::{Wanted, bound_recursion, guarded};
use millstream_sql::{Error, Result};

use crate::error;
use crate::event::Asked;
use crate::session::Session;
use crate::statements::{over, reads_batch, relations_of};

impl Session {
    /// Runs every part of the optimized plan of `query` as a query of its own. Returns the messages of those
    /// that fail. Omits parts that only work within the whole: those with an outer row, rounds of a
    /// recursion.
    #[doc(hidden)]
    pub async fn failing_parts(&mut self, query: &str) -> Result<Vec<String>> {
        let catalog = self.shared.catalog();
        let (settings, now) = self.settings().await?;
        let planner = self.planner(now);
        let query = planner.query(query, catalog.as_ref())?;
        // Read all rows: a part may lack the filter that selects the wanted ones.
        let all = |name| Asked { name, wanted: Wanted::default() };
        let asked = relations_of(&query.plan)?.into_iter().map(all).collect();
        let contents = self.contents(asked, reads_batch(&query.plan)?).await?;
        let plan = guarded(over(query.plan, &contents, &settings)?)?;
        let mut parts: Vec<LogicalPlan> = Vec::new();
        plan.apply_with_subqueries(|part| {
            parts.push(part.clone());
            Ok(TreeNodeRecursion::Continue)
        })?;
        let mut messages = Vec::new();
        for part in parts {
            let Ok(physical) = planner.physical(&part).await else { continue };
            let physical = bound_recursion(physical, &settings.limits)?;
            let done = self.shared.handle.spawn(collect(physical, planner.state().task_ctx())).await;
            match done.map_err(|error| Error::bug(error.to_string()))? {
                Ok(_) => {}
                Err(failed) => messages.push(error::flow(failed.into()).message),
            }
        }
        Ok(messages)
    }
}
