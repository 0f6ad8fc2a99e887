//! Changes the expressions of a node and keeps the names of its columns.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};

use crate::tree_rewrite::{ExpressionsRewrite, TreeRewrite};

/// True if an expression of a node has a part that satisfies a condition.
pub(crate) fn has_part(node: &LogicalPlan, satisfies: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expression| {
        found = expression.exists(|part| Ok(satisfies(part)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Changes each expression of a node under its old name. The expressions of GROUPING SETS keep their own
/// names: an alias around the sets would hide them from code that looks for sets.
pub(crate) fn map_named(
    node: LogicalPlan,
    mut change: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let mut named = |expression: Expr| {
        let name = names.save(&expression);
        Ok(change(expression)?.update_data(|expression| name.restore(expression)))
    };
    node.rewrite_expressions(|expression| match expression {
        Expr::GroupingSet(_) => expression.map_children(&mut named),
        other => named(other),
    })
}

/// Returns the columns of a node's inputs.
pub(crate) fn input_schema(node: &LogicalPlan) -> DFSchema {
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    schema
}

/// Changes the parts of each expression of a node, inner ones first, given the columns of its inputs. Keeps the old names.
pub(crate) fn map_parts(
    node: LogicalPlan,
    mut change: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = input_schema(&node);
    map_named(node, |expression| expression.rewrite_up(|part| change(part, &schema)))
}

/// Casts the columns of a plan, which keep their names.
pub(crate) fn with_casts(input: Arc<LogicalPlan>, casts: &[Option<DataType>]) -> Result<Arc<LogicalPlan>> {
    if casts.iter().all(Option::is_none) {
        return Ok(input);
    }
    let columns = input.schema().iter().zip(casts).map(|((qualifier, field), target)| {
        let column = Expr::Column((qualifier, field).into());
        match target {
            Some(target) => cast(column, target.clone()).alias_qualified(qualifier.cloned(), field.name()),
            None => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(Arc::new(LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(columns)?.build()?))
}

/// Names a column, unless that is its name.
pub(crate) fn under_name(column: Expr, qualifier: Option<&TableReference>, name: &str) -> Expr {
    match &column {
        Expr::Column(Column { relation, name: found, .. })
            if relation.as_ref() == qualifier && found == name =>
        {
            column
        }
        _ => column.alias_qualified(qualifier.cloned(), name),
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn sets_stay_sets() {
        let tables = Tables::new().table("t", "(x NUMERIC(5, 1))", "VALUES (1), (2), (0.5)");
        // The literal is read as a decimal, which appears in the expression's name.
        let set = "CASE WHEN x >= CAST(1.5 AS NUMERIC(5, 1)) THEN 2 ELSE 1 END";
        for groups in ["ROLLUP (SET)", "CUBE (SET)", "GROUPING SETS ((SET), ())"] {
            let groups = groups.replace("SET)", &format!("{set})"));
            tables.check(
                &format!("SELECT {set}, last_value(x ORDER BY x, x), count(*) FROM t GROUP BY {groups}"),
                &["1|1.0|2", "2|2.0|1", "NULL|2.0|3"],
            );
        }
    }
}
