//! EXCEPT ALL and INTERSECT ALL count the copies of a row, as standard SQL has it: of three equal rows on the left and one
//! on the right, EXCEPT ALL leaves two.
//!
//! DataFusion plans them as an anti or a semi join, which would drop or keep all copies. The rule numbers the copies on
//! both sides, so that each copy meets at most one.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::logical_plan::Join;
use datafusion::logical_expr::{Distinct, Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

use crate::tree_rewrite::TreeRewrite;

/// Returns a name for the column with the number of a copy, which none of these columns has.
fn copy_name(columns: &[Column]) -> String {
    let mut name = "number of the copy".to_string();
    while columns.iter().any(|column| column.name == name) {
        name.push('\'');
    }
    name
}

/// The analyzer rule.
#[derive(Debug)]
pub struct SetCopies;

impl AnalyzerRule for SetCopies {
    fn name(&self) -> &str {
        "set_copies"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(rewrite)?.data)
    }
}

fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Join(join) if is_of_copies(&join) => Ok(Transformed::yes(numbered(join)?)),
        node => Ok(Transformed::no(node)),
    }
}

/// Returns true for the join of a set operation with ALL. No join that a statement names treats NULLs as equal.
fn is_of_copies(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftAnti | JoinType::LeftSemi)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
}

fn numbered(join: Join) -> Result<LogicalPlan> {
    let columns = join.left.schema().columns();
    let (mut left, mut right): (Vec<Column>, Vec<Column>) = (Vec::new(), Vec::new());
    for (one, other) in &join.on {
        if let (Expr::Column(one), Expr::Column(other)) = (one, other) {
            left.push(one.clone());
            right.push(other.clone());
        }
    }
    let columns_of_both = [columns.as_slice(), join.right.schema().columns().as_slice()].concat();
    let copy = copy_name(&columns_of_both);
    let sides = [(join.left, &left), (join.right, &right)].map(|(side, keys)| {
        let keys = keys.iter().cloned().map(Expr::Column).collect();
        let number = row_number().partition_by(keys).build()?;
        let name = number.schema_name().to_string();
        let items = side.schema().columns().into_iter().map(Expr::Column);
        let items: Vec<Expr> = items.chain([Expr::Column(Column::from_name(name)).alias(&copy)]).collect();
        LogicalPlanBuilder::from(side.as_ref().clone()).window(vec![number])?.project(items)?.build()
    });
    let [one, other] = sides;
    left.push(Column::from_name(&copy));
    right.push(Column::from_name(&copy));
    LogicalPlanBuilder::from(one?)
        .join_detailed(other?, join.join_type, (left, right), None, NullEquality::NullEqualsNull)?
        .project(columns.into_iter().map(Expr::Column))?
        .build()
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn copies_are_counted() {
        let tables = Tables::new()
            .table(
                "a",
                "(x INT, s TEXT)",
                "VALUES (1, 'a'), (1, 'a'), (1, 'a'), (2, NULL), (2, NULL), (3, 'c')",
            )
            .table("b", "(x BIGINT, s TEXT)", "VALUES (1, 'a'), (2, NULL), (2, NULL), (2, NULL), (4, 'd')");
        tables.check("SELECT * FROM a EXCEPT ALL SELECT * FROM b", &["1|a", "1|a", "3|c"]);
        tables.check("SELECT * FROM a INTERSECT ALL SELECT * FROM b", &["1|a", "2|NULL", "2|NULL"]);
        tables.check("SELECT * FROM b EXCEPT ALL SELECT * FROM a", &["2|NULL", "4|d"]);
        tables.check("SELECT * FROM a EXCEPT SELECT * FROM b", &["3|c"]);
        tables.check("SELECT x FROM a EXCEPT ALL SELECT x FROM a WHERE s IS NULL", &["1", "1", "1", "3"]);
        tables.check("SELECT a.x FROM a LEFT ANTI JOIN b ON a.x = b.x", &["3"]);
    }
}
