//! Guards against wrong optimisations of physical plans in DataFusion.
//!
//! - DataFusion records that all rows of an input have one value in a column, as under `WHERE k = 3`. It
//!   keeps that above an outer join or GROUPING SETS, which set some of the values to NULL. Then it omits a
//!   sort by that column. The guard drops such knowledge where values may have become NULL.
//! - For a UNION ALL, DataFusion knows that each branch has one value in a column, and sorts each branch by
//!   the rest. But the branches of a TopK share a bound on the first rows, as if all had one value. The guard
//!   drops knowledge of single branches.
//! - DataFusion treats a column as constant behind a filter that only fixes an expression of it. Examples for
//!   `x` are `CAST(x AS INT) = 3` and `x / 2 = 3`. The guard drops knowledge of rows behind such a filter.
//! - DataFusion omits a sort under an OFFSET without LIMIT if a projection between them drops a sort key. The
//!   guard keeps the order of the rows that a limit takes.
//! - If both sort by one column, DataFusion moves the sort of a limit's result below the limit, which then
//!   takes other rows. The guard keeps that sort above the limit.

pub(crate) mod checked_arithmetic;
pub(crate) mod lambda_columns;
pub(crate) mod missing_sorts;

use std::fmt;
use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, replace_children_if_necessary};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};

type Plan = Arc<dyn ExecutionPlan>;

/// The rule. It must run before DataFusion's own rules.
#[derive(Debug)]
pub(crate) struct Guards;

impl PhysicalOptimizerRule for Guards {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        let guarded = plan.transform_up(|node| {
            if node.is::<GlobalLimitExec>() || node.is::<LocalLimitExec>() {
                return Ok(Transformed::yes(GuardExec::over(keep_order(node)?.data, Guard::Choice)));
            }
            match mixes_rows(node.as_ref()) {
                true => Ok(Transformed::yes(GuardExec::over(node, Guard::Mixed))),
                false => Ok(Transformed::no(node)),
            }
        })?;
        Ok(guarded.data)
    }

    fn name(&self) -> &str {
        "guards"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// True if DataFusion's knowledge of a node's input rows does not hold for its output rows.
fn mixes_rows(node: &dyn ExecutionPlan) -> bool {
    let outer = |kind: JoinType| matches!(kind, JoinType::Left | JoinType::Right | JoinType::Full);
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return outer(*join.join_type());
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        return outer(*join.join_type());
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        return outer(join.join_type());
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let known = filter.properties().equivalence_properties().constants();
        return known.iter().any(|known| known.expr.is::<Column>()) && computes(filter.predicate());
    }
    node.is::<UnionExec>()
        || node.downcast_ref::<AggregateExec>().is_some_and(|groups| groups.group_expr().groups().len() > 1)
}

/// True if a condition evaluates more than plain columns.
fn computes(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let is_plain = match condition.downcast_ref::<BinaryExpr>() {
        Some(binary) => binary.op().is_logic_operator() || binary.op().supports_propagation(),
        None => {
            condition.is::<Column>()
                || condition.is::<Literal>()
                || condition.is::<NotExpr>()
                || condition.is::<IsNullExpr>()
                || condition.is::<IsNotNullExpr>()
        }
    };
    !is_plain || condition.children().into_iter().any(computes)
}

/// Guards the sort that determines the order of a node's rows.
fn keep_order(node: Plan) -> Result<Transformed<Plan>> {
    if let Some(sort) = node.downcast_ref::<SortExec>() {
        let order = sort.expr().clone();
        return Ok(Transformed::yes(GuardExec::over(node, Guard::Order(order))));
    }
    let [input] = node.children()[..] else { return Ok(Transformed::no(node)) };
    if node.is::<GuardExec>() || node.maintains_input_order() != [true] {
        return Ok(Transformed::no(node));
    }
    let input = keep_order(Arc::clone(input))?;
    match input.transformed {
        true => Ok(Transformed::yes(with_input(node, input.data)?)),
        false => Ok(Transformed::no(node)),
    }
}

fn with_input(node: Plan, input: Plan) -> Result<Plan> {
    replace_children_if_necessary(node, vec![input])
}

/// The reason for a guard.
#[derive(Clone, Debug)]
enum Guard {
    /// Nothing is known of the rows but their columns.
    Mixed,
    /// The rows must have this order.
    Order(LexOrdering),
    /// The rows were chosen by the order that they had. A sort by another order must come after the guard.
    Choice,
}

/// Passes rows on unchanged.
#[derive(Debug)]
struct GuardExec {
    input: Plan,
    guard: Guard,
    properties: Arc<PlanProperties>,
}

impl GuardExec {
    fn over(input: Plan, guard: Guard) -> Plan {
        let known = match guard {
            Guard::Order(_) | Guard::Choice => input.equivalence_properties().clone(),
            Guard::Mixed => EquivalenceProperties::new(input.schema()),
        };
        let properties = PlanProperties::new(
            known,
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Arc::new(GuardExec { input, guard, properties: Arc::new(properties) })
    }
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardExec")
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &str {
        "GuardExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let order = if let Guard::Order(order) = &self.guard { Some(order.clone()) } else { None };
        vec![order.map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![matches!(self.guard, Guard::Order(_))]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Plan>) -> Result<Plan> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(GuardExec::over(input, self.guard.clone()))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table("t", "(k INT PRIMARY KEY, v INT)", "VALUES (7, 1), (3, 1), (1, 2)")
    }

    #[test]
    fn a_column_that_a_join_fills_is_sorted_by() {
        let one = "(SELECT k AS c FROM t WHERE k = 3) AS b";
        let literal = "(SELECT 3 AS c) AS b";
        let rows = ["1|NULL|1", "3|3|3", "7|NULL|2"];
        for side in [one, literal] {
            let number = "SELECT k, c, row_number() OVER (ORDER BY c DESC NULLS FIRST) FROM";
            tables().check(&format!("{number} t LEFT JOIN {side} ON t.k = b.c"), &rows);
            tables().check(&format!("{number} t FULL JOIN {side} ON t.k = b.c"), &rows);
            tables().check(&format!("{number} {side} RIGHT JOIN t ON t.k = b.c"), &rows);
            tables().check(
                &format!("{number} t LEFT JOIN {side} ON t.k >= b.c"),
                &["1|NULL|1", "3|3|2", "7|3|3"],
            );
            let sql = format!("SELECT c FROM t LEFT JOIN {side} ON t.k = b.c ORDER BY c NULLS FIRST LIMIT 2");
            tables().check(&sql, &["NULL", "NULL"]);
        }
    }

    #[test]
    fn a_column_that_grouping_sets_fill_is_sorted_by() {
        let cube = "SELECT k, v, count(*) AS n FROM t WHERE k = 3 GROUP BY CUBE(k, v)";
        tables().check(
            &format!("SELECT k, v, row_number() OVER (ORDER BY k DESC NULLS FIRST, v) FROM ({cube}) AS g"),
            &["3|1|3", "3|NULL|4", "NULL|1|1", "NULL|NULL|2"],
        );
    }

    #[test]
    fn a_limit_takes_the_first_of_all_branches() {
        let sql = "SELECT 1 AS a, k AS b FROM t UNION ALL SELECT 2, 0 ORDER BY a, b LIMIT 1";
        (0..50).for_each(|_| tables().check(sql, &["1|1"]));
    }

    #[test]
    fn an_offset_skips_the_first_rows() {
        let rest = "SELECT k FROM t ORDER BY v DESC, k OFFSET 1";
        tables().check(&format!("({rest}) EXCEPT ALL (SELECT 0)"), &["3", "7"]);
        tables().check(&format!("SELECT k, count(*) FROM ({rest}) AS x GROUP BY k"), &["3|1", "7|1"]);
        tables().check(
            "SELECT k FROM (SELECT DISTINCT ON (v) k FROM t ORDER BY v, k OFFSET 1) AS x WHERE k NOT IN (SELECT 0)",
            &["1"],
        );
    }

    #[test]
    fn a_column_behind_a_condition_on_what_is_computed_of_it_is_sorted_by() {
        let tables = Tables::new().table(
            "t",
            "(k INT PRIMARY KEY, x DOUBLE)",
            "VALUES (7, 3.9), (6, 3.1), (4, 3.0), (5, 3.5), (-6, 3.2)",
        );
        let numbered = |condition: &str, by: &str| {
            format!("SELECT k, row_number() OVER (ORDER BY {by}) AS n FROM t WHERE {condition}")
        };
        tables.check(&numbered("CAST(k AS BOOLEAN)", "k"), &["-6|1", "4|2", "5|3", "6|4", "7|5"]);
        tables.check(&numbered("CAST(x AS INT) = 3", "x"), &["-6|3", "4|1", "6|2"]);
        tables.check(&numbered("int(x) = 3", "x"), &["-6|3", "4|1", "5|4", "6|2", "7|5"]);
        tables.check(&numbered("k / 2 = 3", "k DESC"), &["6|2", "7|1"]);
        tables.check(&numbered("k = 4 AND x > 0", "k, x"), &["4|1"]);
        tables.check(
            "SELECT array_agg(k) OVER () AS a, row_number() OVER (PARTITION BY k) AS n FROM t \
             WHERE CAST(k AS BOOLEAN) AND k < 5",
            &["[-6, 4]|1", "[-6, 4]|1"],
        );
    }

    #[test]
    fn a_window_has_all_rows_of_a_limit_with_an_offset() {
        let tables = Tables::new().table("t", "(k INT, v INT)", "VALUES (1, NULL), (2, NULL), (3, NULL)");
        let limited =
            "SELECT 0 AS c FROM t UNION ALL SELECT v FROM t ORDER BY c DESC NULLS LAST LIMIT 5 OFFSET 2";
        let sql = format!("SELECT count(*) OVER (ORDER BY c) AS n FROM ({limited}) AS x");
        tables.check(&sql, &["1", "4", "4", "4"]);
    }
}
