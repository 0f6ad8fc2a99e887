//! Plans every relation of a FROM as the query engine does, without the keys that it makes up ([`crate::rules::keys`]).
//!
//! Its planner relies on keys before any rule runs: to `GROUP BY id` it adds the other columns where `id` is a key, and the
//! frame of `OVER (ORDER BY id)` has no peers then. Of rows that were unnested `id` is none, however they were made: by a
//! subquery, a view or a WITH query.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::TableFactor;

use crate::complexity::refuse_large;
use crate::rules::keys::with_sound_keys;

/// The planner, which must be asked before all others.
#[derive(Debug, Default)]
pub(crate) struct SoundRelations {
    /// Whether it is asked about the relation that it has just asked for.
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
        // What planners do to a plan makes a copy for each place that names it: it must not become large first.
        refuse_large(&plan)?;
        let plan = with_sound_keys(plan)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}
