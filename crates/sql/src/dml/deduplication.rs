//! Makes UPDATE … FROM change each row once, even if FROM matches it several times.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, SortExpr};
use datafusion::sql::sqlparser::ast::{self, SelectItem, TableAlias, TableFactor, TableWithJoins};

use super::tree::{column, named_table, plain_from, quoted, select_of};
use super::{Scope, Target};
use crate::error::{Error, Result};
use crate::rules::orderable;

/// The column that numbers the rows of an UPDATE … FROM.
const ROW: &str = "__row";

impl Scope<'_> {
    /// Numbers the target's rows, so that a row that FROM matches several times is changed once.
    pub(super) fn number_rows(
        &self,
        select: &mut ast::Select,
        target: &Target,
        from: Vec<TableWithJoins>,
    ) -> Result<()> {
        let mut inner = self.parse(&format!("SELECT *, row_number() OVER () AS \"{ROW}\" FROM x"))?;
        let TableFactor::Table { name, .. } = &target.factor else {
            return Err(Error::bug("the target of an UPDATE is no table"));
        };
        select_of(&mut inner)?.from = vec![plain_from(named_table(name.clone()))];
        let derived = TableFactor::Derived {
            lateral: false,
            subquery: inner,
            alias: Some(TableAlias {
                explicit: true,
                name: target.alias.clone(),
                columns: Vec::new(),
                at: None,
            }),
            sample: None,
        };
        select
            .projection
            .push(SelectItem::ExprWithAlias { expr: column(&target.alias, ROW), alias: quoted(ROW) });
        select.from = vec![plain_from(derived)];
        select.from.extend(from);
        Ok(())
    }
}

/// Keeps one match per row: the first by the new values.
pub(super) fn keep_first_match(plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let column = |at: usize| Expr::Column(Column::from(schema.qualified_field(at)));
    let count = schema.fields().len() - 1;
    let row = column(count);
    let mut order = vec![SortExpr::new(row.clone(), true, false)];
    let later = (0..count).filter(|at| orderable(schema.field(*at).data_type()));
    order.extend(later.map(|at| SortExpr::new(column(at), true, false)));
    LogicalPlanBuilder::from(plan)
        .distinct_on(vec![row], (0..count).map(column).collect(), Some(order))?
        .build()
}
