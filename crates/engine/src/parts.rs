//! What the parts of a query fail with when each is run alone: for tests, which ask whether a batch answered only
//! because it never came to look at a row.

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
    /// Runs every part of the optimised plan of `query` as a query of its own, and gives the messages of those that
    /// fail. Parts that only have a meaning within the whole (a row outside, a round of a recursion) are left out.
    #[doc(hidden)]
    pub async fn failing_parts(&mut self, query: &str) -> Result<Vec<String>> {
        let catalog = self.shared.catalog();
        let (settings, now) = self.settings().await?;
        let planner = self.planner(now);
        let query = planner.query(query, catalog.as_ref())?;
        // All rows: a part may be one without the filter that says which are wanted.
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
