//! Forgets keys of groups that the query engine makes up.
//!
//! It takes what determines a part of a group's columns for a key of the whole group: in `SELECT DISTINCT d.k, b.w FROM
//! (SELECT DISTINCT k FROM a) AS d, b` the column `k`, which `d` has once. Then it drops `w` from a GROUP BY above, or a
//! DISTINCT altogether. Here groups have one key, all that they are grouped by, whenever a rule is about to rely on it.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Dependency, FunctionalDependence, FunctionalDependencies};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rules of the query engine that rely on keys.
pub(crate) const RELYING: [&str; 3] = ["eliminate_join", "eliminate_duplicated_expr", "optimize_projections"];

/// The rule, to be run before each of [`RELYING`].
#[derive(Debug, Default)]
pub(crate) struct SoundKeys;

impl OptimizerRule for SoundKeys {
    fn name(&self) -> &str {
        "sound_keys"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut changed = false;
        plan.transform_up_with_subqueries(|node| {
            // What is above has taken the keys over.
            let node = if changed { node.recompute_schema()? } else { node };
            match node {
                LogicalPlan::Aggregate(aggregate) if !is_sound(&aggregate) => {
                    changed = true;
                    Ok(Transformed::yes(LogicalPlan::Aggregate(sound(aggregate)?)))
                }
                other => Ok(Transformed::new(
                    other,
                    changed,
                    datafusion::common::tree_node::TreeNodeRecursion::Continue,
                )),
            }
        })
    }
}

/// DISTINCT as GROUP BY, never left out: the query engine's rule makes keys up while it goes through a plan.
#[derive(Debug)]
pub(crate) struct DistinctGroups {
    /// The query engine's rule, for DISTINCT ON.
    pub(crate) rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl OptimizerRule for DistinctGroups {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Distinct(Distinct::All(input)) if !input.schema().fields().is_empty() => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                let groups = sound(Aggregate::try_new(input, columns, Vec::new())?)?;
                Ok(Transformed::yes(LogicalPlan::Aggregate(groups)))
            }
            other => self.rule.rewrite(other, config),
        }
    }
}

fn is_sound(node: &Aggregate) -> bool {
    let all = node.group_expr_len().unwrap_or_default();
    node.schema.functional_dependencies().iter().all(|key| key.source_indices.len() >= all)
}

fn sound(node: Aggregate) -> Result<Aggregate> {
    let key: Vec<usize> = (0..node.group_expr_len()?).collect();
    let nullable = key.iter().any(|at| node.schema.field(*at).is_nullable());
    let all = (0..node.schema.fields().len()).collect();
    let key = FunctionalDependence::new(key, all, nullable).with_mode(Dependency::Single);
    let keys = FunctionalDependencies::new(vec![key]);
    let schema = node.schema.as_ref().clone().with_functional_dependencies(keys)?;
    Aggregate::try_new_with_schema(node.input, node.group_expr, node.aggr_expr, Arc::new(schema))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn a_key_of_one_side_is_no_key_of_the_groups() {
        let tables = Tables::new().table("a", "(k INT)", "VALUES (1), (1), (2)").table(
            "b",
            "(w INT)",
            "VALUES (10), (20), (20)",
        );
        let pairs = "(SELECT DISTINCT d.k, b.w FROM (SELECT DISTINCT k FROM a) AS d, b) AS x";
        tables.check(&format!("SELECT DISTINCT k FROM {pairs}"), &["1", "2"]);
        tables.check(
            &format!("SELECT k, w, count(*) FROM {pairs} GROUP BY k, w"),
            &["1|10|1", "1|20|1", "2|10|1", "2|20|1"],
        );
        tables.check(&format!("SELECT k, count(*) FROM {pairs} GROUP BY k"), &["1|2", "2|2"]);
    }
}
