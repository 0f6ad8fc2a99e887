//! Keeps two of DataFusion's optimizer rules from treating NULLs as equal that are not.
//!
//! A join with a key from `IS NOT DISTINCT FROM` treats NULL as equal to NULL for all its keys. The rule that
//! finds join keys in a condition may add keys of an ordinary `=` to such a join in a later pass. The rule
//! that orders inner joins gives all of them the setting of the outermost. Here both rules skip such joins.
//! The latter also skips lookup joins, whose sides can't be exchanged.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::{Join, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::aggregate_filters::AggregateFilters;
use super::constants::Constants;
use super::keys::{self, DistinctGroups};
use super::sort_keys::DifferentSortKeys;
use crate::time_joins::looks_up;

/// An optimizer rule of the session.
type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// Returns the rules with guards on these two, on the push-down of filters and on the rewriting of DISTINCT.
/// Also adds corrections of keys before rules that rely on them, and our rules for constants and sort keys.
pub(crate) fn guarded(rules: &[Rule]) -> Vec<Rule> {
    let guard = |rule: &Rule| match rule.name() {
        "extract_equijoin_predicate" => Arc::new(Guarded { rule: Arc::clone(rule), whole_plan: false }),
        "eliminate_cross_join" => Arc::new(Guarded { rule: Arc::clone(rule), whole_plan: true }) as Rule,
        "push_down_filter" => Arc::new(AggregateFilters { rule: Arc::clone(rule) }),
        "replace_distinct_aggregate" => Arc::new(DistinctGroups { rule: Arc::clone(rule) }),
        _ => Arc::clone(rule),
    };
    let before = |rule: &Rule| match rule.name() {
        "simplify_expressions" => Some(Arc::new(Constants) as Rule),
        name => keys::before(name),
    };
    let last: [Rule; 1] = [Arc::new(DifferentSortKeys)];
    rules.iter().flat_map(|rule| before(rule).into_iter().chain([guard(rule)])).chain(last).collect()
}

#[derive(Debug)]
struct Guarded {
    rule: Rule,
    /// True if the rule traverses the plan itself.
    whole_plan: bool,
}

impl OptimizerRule for Guarded {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let kept = match &plan {
            LogicalPlan::Join(join) if !self.whole_plan => equals_nulls(join),
            _ if self.whole_plan => holds_one(&plan)?,
            _ => false,
        };
        if kept { Ok(Transformed::no(plan)) } else { self.rule.rewrite(plan, config) }
    }
}

fn equals_nulls(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// True if a join must stay as it is: it treats NULLs as equal, or is a lookup join.
fn stays(join: &Join) -> bool {
    equals_nulls(join) || looks_up(join.filter.as_ref())
}

fn holds_one(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && stays(join));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
