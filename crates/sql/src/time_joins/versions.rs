//! `FOR SYSTEM_TIME AS OF`: the moment as of which the right table of a join is read.

use std::any::Any;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Constraint};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{Expr as ExprTree, FunctionArguments};

use crate::error::Error;
use crate::hidden_columns::last_name;
use crate::relation::RelationTable;

const USAGE: &str =
    "Write JOIN rates FOR SYSTEM_TIME AS OF PROCTIME() r ON …, or AS OF o.ts with a time of the left side.";

/// True if a moment is the arrival of a row: `PROCTIME()`.
pub(super) fn is_present(at: &ExprTree) -> bool {
    let ExprTree::Function(call) = at else { return false };
    let bare = matches!(&call.args, FunctionArguments::List(list) if list.args.is_empty());
    bare && last_name(&call.name).as_deref() == Some("proctime")
}

/// Builds the comparison for the right row that was valid at a time of the left side: the last one up to it.
pub(super) fn valid_at(
    at: ExprTree,
    left: &LogicalPlan,
    right: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> PlanResult<(Expr, Operator, Expr)> {
    let text = at.to_string();
    let at = context.sql_to_expr(at, left.schema())?;
    if at.column_refs().is_empty() {
        return Err(Error::unsupported(format!(
            "a join FOR SYSTEM_TIME AS OF {text}, which is not a time of the left side"
        ))
        .hint(USAGE)
        .into());
    }
    let provider = scanned(right).ok_or_else(|| {
        Error::unsupported("FOR SYSTEM_TIME AS OF a time, of a relation that is not a table or source")
            .hint("Write ASOF JOIN, which names the times to compare: ON … AND o.ts >= r.ts.")
    })?;
    let table = (provider.as_ref() as &dyn Any).downcast_ref::<RelationTable>();
    let table = table.ok_or_else(|| Error::bug("a relation without a table"))?;
    let name = table.name();
    let time = table.event_time().ok_or_else(|| {
        Error::invalid(format!(
            "FOR SYSTEM_TIME AS OF {text}: no column holds the time from which a row of \"{name}\" is valid"
        ))
        .hint(format!(
            "Declare it in the definition of \"{name}\", as in WATERMARK FOR ts AS ts; or write ASOF \
                 JOIN: ON … AND o.ts >= r.ts."
        ))
    })?;
    let columns = table.columns();
    let keeps_one = table.constraints().is_some_and(|all| {
        all.iter().any(|constraint| {
            let (Constraint::PrimaryKey(key) | Constraint::Unique(key)) = constraint;
            !key.iter().any(|at| columns.fields().get(*at).is_some_and(|field| field.name() == time))
        })
    });
    if keeps_one {
        return Err(Error::invalid(format!(
            "FOR SYSTEM_TIME AS OF {text}: \"{name}\" keeps the last row of each key, not those before it"
        ))
        .hint(format!(
            "Add \"{time}\" to its PRIMARY KEY, so that it keeps all versions, or read it AS OF PROCTIME()."
        ))
        .into());
    }
    let column = right.schema().qualified_field_with_unqualified_name(time)?;
    Ok((at, Operator::GtEq, Expr::Column(Column::from(column))))
}

/// Returns the relation whose unchanged rows a plan returns.
fn scanned(plan: &LogicalPlan) -> Option<Arc<dyn TableProvider>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => scanned(&alias.input),
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            (provider.as_ref() as &dyn Any).is::<RelationTable>().then_some(provider)
        }
        _ => None,
    }
}

/// Returns the error for a version of a table outside of a join, whose moment is undefined.
pub(super) fn misplaced() -> Error {
    Error::unsupported("FOR SYSTEM_TIME AS OF other than behind a table that is joined, by JOIN or LEFT JOIN")
        .hint(USAGE)
}
