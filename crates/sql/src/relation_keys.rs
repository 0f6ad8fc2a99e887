//! Plans every relation of a FROM as DataFusion does, but drops unsound keys that DataFusion infers
//! ([`crate::rules::keys`]), and names the column of `unnest(a) AS x` like the alias.
//!
//! DataFusion's planner relies on keys before any rule runs. If `id` is a key, `GROUP BY id` includes the
//! other columns, and the frame of `OVER (ORDER BY id)` has no peers. After UNNEST `id` is no longer a key,
//! whether the rows come from a subquery, a view or a WITH query.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::{TableAlias, TableAliasColumnDef, TableFactor};

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
        let (relation, alias) = without_alias(relation);
        let plan = context.plan(relation)?;
        // Planners copy a plan for each place that names it, so its size is checked first.
        refuse_large(&plan)?;
        let plan = with_sound_keys(plan)?;
        let alias = alias.map(|alias| with_column(alias, &plan));
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// Takes the alias of `unnest(a) AS x`.
fn without_alias(mut relation: TableFactor) -> (TableFactor, Option<TableAlias>) {
    let taken = match &mut relation {
        TableFactor::UNNEST { alias, array_exprs, .. } if array_exprs.len() == 1 => {
            alias.take_if(|alias| alias.columns.is_empty())
        }
        _ => None,
    };
    (relation, taken)
}

/// Gives the alias's name to the only column of a function's rows, as PostgreSQL does. The fields of a struct keep their
/// own names.
fn with_column(mut alias: TableAlias, plan: &LogicalPlan) -> TableAlias {
    if plan.schema().fields().len() == 1 {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    alias
}
