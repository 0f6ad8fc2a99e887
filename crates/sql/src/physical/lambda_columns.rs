//! Keeps DataFusion from moving columns below lambdas.
//!
//! A variable of a lambda has a number that counts the columns of its input. When DataFusion's rule `ProjectionPushdown`
//! leaves out columns of that input, it renumbers columns, not these variables: they would read other columns. It also
//! takes parts out of a lambda in a join's condition. Plans with lambdas keep their projections.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::{HigherOrderFunctionExpr, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// A rule that leaves plans with lambdas alone.
#[derive(Debug)]
struct WithoutLambdas(Rule);

/// Returns the rules, those that renumber columns guarded.
pub(crate) fn guarded(rules: Vec<Rule>) -> Vec<Rule> {
    let guard = |rule: Rule| -> Rule {
        match rule.name() {
            "ProjectionPushdown" => Arc::new(WithoutLambdas(rule)),
            _ => rule,
        }
    };
    rules.into_iter().map(guard).collect()
}

impl PhysicalOptimizerRule for WithoutLambdas {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match has_lambda(&plan)? {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn has_lambda(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(&mut |expression: &Arc<dyn PhysicalExpr>| {
            found |=
                expression.exists(|part| Ok(part.downcast_ref::<HigherOrderFunctionExpr>().is_some()))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
