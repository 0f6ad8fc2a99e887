//! Plans every relation of a FROM as DataFusion does, but drops unsound keys that DataFusion infers
//! ([`crate::rules::keys`]).
//!
//! DataFusion's planner relies on keys before any rule runs. If `id` is a key, `GROUP BY id` includes the
//! other columns, and the frame of `OVER (ORDER BY id)` has no peers. After UNNEST `id` is no longer a key,
//! whether the rows come from a subquery, a view or a WITH query.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::TableFactor;

use crate::complexity::refuse_large;
use crate::rules::keys::with_sound_keys;

/// The planner. It must be asked before all others.
#[derive(Debug, Default)]
pub(crate) struct SoundRelations {
    /// True while DataFusion passes back the relation that this planner asked it to plan.
    is_asked_again: AtomicBool,
}

impl RelationPlanner for SoundRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        if self.is_asked_again.swap(false, Ordering::Relaxed) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        self.is_asked_again.store(true, Ordering::Relaxed);
        let plan = context.plan(relation)?;
        // Planners copy a plan for each place that names it, so its size is checked first.
        refuse_large(&plan)?;
        let plan = with_sound_keys(plan)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}
