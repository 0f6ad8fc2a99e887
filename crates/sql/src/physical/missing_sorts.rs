//! Adds missing sorts to a physical plan.
//!
//! DataFusion's rule that sorts the inputs of windows skips inputs that it considers sorted, such as the
//! single row of an aggregate without GROUP BY. If the property it relied on is gone afterwards, DataFusion
//! refuses the plan.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::sorts::sort::SortExec;

use super::Plan;

/// The rule. It must run before the check that refuses such plans.
#[derive(Debug)]
pub(crate) struct MissingSorts;

impl PhysicalOptimizerRule for MissingSorts {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        Ok(plan.transform_up(sort_inputs)?.data)
    }

    fn name(&self) -> &str {
        "sorted"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn sort_inputs(node: Plan) -> Result<Transformed<Plan>> {
    let mut inputs: Vec<Plan> = node.children().into_iter().cloned().collect();
    let mut changed = false;
    for (input, wanted) in inputs.iter_mut().zip(node.required_input_ordering()) {
        let Some(wanted) = wanted.map(|wanted| wanted.into_single()) else { continue };
        if !input.equivalence_properties().ordering_satisfy_requirement(wanted.clone())? {
            let several = input.output_partitioning().partition_count() > 1;
            let sort = SortExec::new(LexOrdering::from(wanted), Arc::clone(input));
            *input = Arc::new(sort.with_preserve_partitioning(several));
            changed = true;
        }
    }
    match changed {
        true => Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?)),
        false => Ok(Transformed::no(node)),
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn windows_over_one_row_are_sorted() {
        let tables = Tables::new().table("t", "(k INT, v INT)", "VALUES (1, 5), (2, 7)");
        tables.check(
            "SELECT min(f) OVER (ORDER BY z) AS a, corr(0.0, 0.0) OVER (PARTITION BY z) AS b, first_value(m) OVER () AS c \
             FROM (SELECT first_value(v ORDER BY k) AS f, any_value(v) AS m, CAST(0 AS NUMERIC(10, 2)) AS z FROM t)",
            &["5|NULL|5"],
        );
        tables.check(
            "SELECT min(first_value(CAST(0 AS NUMERIC(10, 2)) ORDER BY k)) OVER (ORDER BY CAST(0 AS NUMERIC(10, 2))) AS a, \
             corr(0.0, 0.0) OVER (PARTITION BY CAST(0 AS NUMERIC(10, 2))) AS b, \
             first_value(any_value(CAST(0 AS NUMERIC(10, 2)) % CAST(3 AS NUMERIC(5, 0)))) OVER () AS c FROM t",
            &["0.00|NULL|0.00"],
        );
    }
}
