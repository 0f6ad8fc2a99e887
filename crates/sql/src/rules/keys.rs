//! Removes unsound keys of relations that DataFusion infers.
//!
//! DataFusion takes a key of some of a group's columns for a key of the whole group. An example is `k` in
//! `SELECT DISTINCT d.k, b.w FROM (SELECT DISTINCT k FROM a) AS d, b`, which is unique only in `d`. It also
//! keeps a table's key for its unnested rows. It then drops `w` from a GROUP BY above, or a DISTINCT
//! altogether, and its planner adds `w` to a GROUP BY `k`.
//!
//! Every node that a rule builds gets inferred keys again. So keys are corrected before a rule reads them,
//! and after the planner makes a relation. From rules that build nodes while they read keys, all keys are
//! hidden: those of tables up to those of groups.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Dependency, FunctionalDependence, FunctionalDependencies};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::tree_rewrite::TreeRewrite;

/// Returns the rule to run before one of DataFusion's rules that relies on keys.
pub(crate) fn before(rule: &str) -> Option<Arc<dyn OptimizerRule + Send + Sync>> {
    match rule {
        "eliminate_join" => Some(Arc::new(SoundKeys)),
        "eliminate_duplicated_expr" | "optimize_projections" => Some(Arc::new(HiddenKeys)),
        _ => None,
    }
}

/// Leaves one key per group: all columns of its GROUP BY.
#[derive(Debug, Default)]
struct SoundKeys;

impl OptimizerRule for SoundKeys {
    fn name(&self) -> &str {
        "sound_keys"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        sound(plan)
    }
}

/// Returns the plan with one key per group, and none for unnested rows.
pub(crate) fn with_sound_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(sound(plan)?.data)
}

fn sound(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    plan.rewrite_up(|node| {
        // Nodes above have inherited the keys.
        let mut node = if changed { node.recompute_schema()? } else { node };
        match node {
            LogicalPlan::Unnest(_) => changed |= set_keys(&mut node, FunctionalDependencies::empty())?,
            LogicalPlan::Aggregate(ref aggregate) if !is_sound(aggregate) => {
                let keys = FunctionalDependencies::new(vec![group_key(aggregate)?]);
                changed |= set_keys(&mut node, keys)?;
            }
            _ => {}
        }
        Ok(Transformed::new(node, changed, TreeNodeRecursion::Continue))
    })
}

fn is_sound(node: &Aggregate) -> bool {
    let all = node.group_expr_len().unwrap_or_default();
    node.schema.functional_dependencies().iter().all(|key| key.source_indices.len() >= all)
}

fn group_key(node: &Aggregate) -> Result<FunctionalDependence> {
    let key: Vec<usize> = (0..node.group_expr_len()?).collect();
    let nullable = key.iter().any(|at| node.schema.field(*at).is_nullable());
    let all = (0..node.schema.fields().len()).collect();
    Ok(FunctionalDependence::new(key, all, nullable).with_mode(Dependency::Single))
}

/// Removes all keys.
#[derive(Debug, Default)]
struct HiddenKeys;

impl OptimizerRule for HiddenKeys {
    fn name(&self) -> &str {
        "hidden_keys"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        plan.rewrite_up(|mut node| {
            let changed = set_keys(&mut node, FunctionalDependencies::empty())?;
            Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
        })
    }
}

/// Sets a node's keys, unless its schema is that of its input, or it has and gets none.
fn set_keys(node: &mut LogicalPlan, keys: FunctionalDependencies) -> Result<bool> {
    let Some(schema) = schema_of(node) else { return Ok(false) };
    if schema.functional_dependencies().is_empty() && keys.is_empty() {
        return Ok(false);
    }
    *schema = Arc::new(schema.as_ref().clone().with_functional_dependencies(keys)?);
    Ok(true)
}

/// Returns the schema of a node that has its own. Other nodes have their input's.
fn schema_of(node: &mut LogicalPlan) -> Option<&mut DFSchemaRef> {
    match node {
        LogicalPlan::Projection(node) => Some(&mut node.schema),
        LogicalPlan::Window(node) => Some(&mut node.schema),
        LogicalPlan::Aggregate(node) => Some(&mut node.schema),
        LogicalPlan::Join(node) => Some(&mut node.schema),
        LogicalPlan::Union(node) => Some(&mut node.schema),
        LogicalPlan::TableScan(node) => Some(&mut node.projected_schema),
        LogicalPlan::EmptyRelation(node) => Some(&mut node.schema),
        LogicalPlan::SubqueryAlias(node) => Some(&mut node.schema),
        LogicalPlan::Values(node) => Some(&mut node.schema),
        LogicalPlan::Distinct(Distinct::On(node)) => Some(&mut node.schema),
        LogicalPlan::Unnest(node) => Some(&mut node.schema),
        _ => None,
    }
}

/// Rewrites DISTINCT to GROUP BY and never drops it: DataFusion's rule infers keys while it traverses a plan.
#[derive(Debug)]
pub(crate) struct DistinctGroups {
    /// DataFusion's rule, for DISTINCT ON.
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
                let groups = Aggregate::try_new(input, columns, Vec::new())?;
                Ok(Transformed::yes(LogicalPlan::Aggregate(groups)))
            }
            other => self.rule.rewrite(other, config),
        }
    }
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
        tables.check(&format!("SELECT count(*) FROM (SELECT k, w FROM {pairs} GROUP BY k, w) AS y"), &["4"]);
    }

    #[test]
    fn a_join_with_rows_that_share_a_key_repeats_rows() {
        let tables = Tables::new().table("a", "(k INT)", "VALUES (1), (1), (2)").table(
            "b",
            "(w INT)",
            "VALUES (10), (20), (20)",
        );
        let pairs = "(SELECT DISTINCT d.k, b.w FROM (SELECT DISTINCT k FROM a) AS d, b) AS x";
        tables
            .check(&format!("SELECT a.k FROM a JOIN {pairs} ON a.k = x.k"), &["1", "1", "1", "1", "2", "2"]);
    }

    #[test]
    fn a_key_of_a_table_is_no_key_of_its_unnested_rows() {
        let tables =
            Tables::new().table("t", "(id INT PRIMARY KEY, s TEXT)", "VALUES (1, 'a b a'), (2, 'b')");
        let words = "(SELECT id, unnest(string_to_array(s, ' ')) AS w FROM t) AS x";
        let rows = ["1|a|2", "1|b|1", "2|b|1"];
        tables.check(&format!("SELECT id, w, count(*) FROM {words} GROUP BY id, w"), &rows);
        tables.check(&format!("SELECT count(*) FROM (SELECT id FROM {words} GROUP BY id, w) AS y"), &["3"]);
        tables.check(&format!("SELECT id FROM (SELECT DISTINCT id, w FROM {words}) AS y"), &["1", "1", "2"]);
    }

    /// The planner's own use of keys, before any rule runs.
    #[test]
    fn a_group_by_what_was_a_key_is_by_nothing_else() {
        let tables = Tables::new()
            .table("t", "(id INT PRIMARY KEY, s TEXT)", "VALUES (1, 'a b a'), (2, 'b')")
            .table("a", "(k INT)", "VALUES (1), (1), (2)")
            .table("b", "(w INT)", "VALUES (10), (20), (20)")
            .view("words", "SELECT id, unnest(string_to_array(s, ' ')) AS w FROM t")
            .view("some", "SELECT * FROM words WHERE w <> 'z'");
        let subquery = "(SELECT id, unnest(string_to_array(s, ' ')) AS w FROM t) AS x";
        for words in [subquery, "words", "some", "(SELECT id, w FROM words) AS x"] {
            tables.check(&format!("SELECT id, count(*) FROM {words} GROUP BY id"), &["1|3", "2|1"]);
            tables.check(
                &format!("SELECT id, w, sum(1) OVER (ORDER BY id) FROM {words}"),
                &["1|a|3", "1|a|3", "1|b|3", "2|b|4"],
            );
            let ungrouped = format!("SELECT id, w FROM {words} GROUP BY id");
            let error = tables.planner.query(&ungrouped, &tables).unwrap_err();
            assert!(error.message.contains("must appear in GROUP BY"), "{}", error.message);
        }
        tables
            .check("WITH x AS (SELECT * FROM words) SELECT id, count(*) FROM x GROUP BY id", &["1|3", "2|1"]);
        let of_groups = "(SELECT k, unnest(array_agg(w)) AS w FROM a, b GROUP BY k) AS x";
        tables.check(&format!("SELECT k, count(*) FROM {of_groups} GROUP BY k"), &["1|6", "2|3"]);
        let pairs = "(SELECT d.k, b.w FROM (SELECT k FROM a GROUP BY k) AS d, b GROUP BY d.k, b.w) AS x";
        tables.check(&format!("SELECT k, count(*) FROM {pairs} GROUP BY k"), &["1|2", "2|2"]);
        tables.check("SELECT id, s, count(*) FROM t GROUP BY id", &["1|a b a|1", "2|b|1"]);
    }
}
