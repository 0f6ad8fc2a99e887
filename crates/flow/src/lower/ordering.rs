//! The orders of operators that keep the rows of their input sorted.

use arrow::compute::SortOptions;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr};

use crate::operator::Properties;
use crate::sorted::Ordering;
use crate::{Driver, Result};

/// Returns the order of rows with some properties, which are those of a plan: by partition, then by the
/// requested order, then by columns that break ties.
pub(super) fn ordering(
    rows: &Properties,
    plan: &LogicalPlan,
    partition: &[Expr],
    order: &[SortExpr],
    driver: &Driver,
) -> Result<Ordering> {
    let known: Vec<&Expr> = partition.iter().chain(order.iter().map(|sort| &sort.expr)).collect();
    let expression = |expr: &Expr| driver.expression(expr, plan);
    let options = |sort: &SortExpr| SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
    Ok(Ordering {
        partition: partition.iter().map(expression).collect::<Result<_>>()?,
        order: order
            .iter()
            .map(|sort| Ok((expression(&sort.expr)?, options(sort))))
            .collect::<Result<_>>()?,
        ties: ties(rows, plan, &known),
        ..Ordering::default()
    })
}

/// Returns the columns that break ties between rows that are equal in some expressions.
pub(super) fn ties(rows: &Properties, plan: &LogicalPlan, known: &[&Expr]) -> Vec<usize> {
    let schema = plan.schema();
    // A key separates rows of one snapshot, but not a row from the one that it replaces.
    let apart = match &rows.key {
        Some(key) if rows.append_only => key.clone(),
        _ => (0..schema.fields().len()).collect(),
    };
    let is_known = |at: &usize| {
        let column = Column::from(schema.qualified_field(*at));
        known.iter().any(|expr| matches!(expr, Expr::Column(known) if *known == column))
    };
    apart.into_iter().filter(|at| !is_known(at)).collect()
}
