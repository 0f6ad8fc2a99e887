//! The names of built-in functions and of a plan's columns.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::error::Error;
use crate::event_time;
use crate::relation::Relations;
use crate::suggestion;

/// True if a built-in function has this name.
pub(crate) fn is_function(state: &SessionState, name: &str) -> bool {
    state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
}

/// Functions of ksqlDB, with a hint for each.
const FOREIGN: &[(&str, &str)] = &[
    (
        "latest_by_offset",
        "The order of arrival is no part of a batch's answer. Write last_value(x ORDER BY ts) IGNORE NULLS, or ORDER BY \
         _batch_id for the order of batches.",
    ),
    (
        "earliest_by_offset",
        "The order of arrival is no part of a batch's answer. Write first_value(x ORDER BY ts) IGNORE NULLS, or ORDER BY \
         _batch_id for the order of batches.",
    ),
    ("count_distinct", "Write count(DISTINCT x)."),
    ("topk", "Write row_number() OVER (ORDER BY x DESC), and keep the numbers up to k."),
    ("extractjsonfield", "Write j::JSON ->> 'a'."),
    ("format_timestamp", "Write to_char(ts, 'YYYY-MM-DD')."),
    ("parse_timestamp", "Write to_timestamp(text, 'YYYY-MM-DD')."),
];

/// Adds similar names to an unknown function's error. DataFusion's single suggestion is often far off.
pub(super) fn suggest_functions(state: &SessionState, error: Error, relations: &dyn Relations) -> Error {
    let name = error.message.strip_prefix("function \"").and_then(|rest| rest.strip_suffix("\" not found"));
    let Some(name) = name.map(str::to_string) else { return error };
    if name == "proctime" {
        let message = format!("{name}() is only allowed in JOIN … FOR SYSTEM_TIME AS OF {name}()");
        return Error { message, ..error }
            .hint("The time a row was read is _batch_time of its stream or source.");
    }
    if let Some(hint) = event_time::gap_fill_hint(&name) {
        return error.hint(hint);
    }
    if state.window_functions().contains_key(&name) {
        let message = format!("function \"{name}\" needs an OVER clause");
        return Error { message, ..error }.hint(format!("Write {name}() OVER (ORDER BY …)."));
    }
    if relations.is_scalar(&name) {
        let message = format!("{name}() in a continuous query, and in a statement that changes rows,");
        return Error { message: Error::unsupported(message).message, ..error }
            .hint("It reads the catalog or the session. Use a SELECT, which runs once.");
    }
    if let Some((_, hint)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return error.hint(*hint);
    }
    let users = relations.routine_catalog().routine_names();
    match suggestion::did_you_mean(&name, function_names(state).chain(users.iter().map(String::as_str))) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Returns the names of all built-in functions, in no order.
pub fn function_names(state: &SessionState) -> impl Iterator<Item = &str> {
    let scalar = state.scalar_functions().keys();
    let names = scalar.chain(state.aggregate_functions().keys());
    names.chain(state.window_functions().keys()).map(String::as_str)
}

/// Returns the plan with these column names. DataFusion loses the names of a UNION ALL if its first branch
/// turns out to be empty.
pub(super) fn under(plan: Arc<dyn ExecutionPlan>, named: &DFSchema) -> Result<Arc<dyn ExecutionPlan>> {
    let has = plan.schema();
    let names = || named.fields().iter().map(|field| field.name());
    if has.fields().iter().map(|field| field.name()).eq(names()) || has.fields().len() != named.fields().len()
    {
        return Ok(plan);
    }
    let columns = has.fields().iter().zip(names()).enumerate().map(|(at, (field, name))| {
        let column = Arc::new(Column::new(field.name(), at));
        ProjectionExpr { expr: column, alias: name.clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn columns_keep_the_names_of_a_branch_that_is_empty() {
        let tables = Tables::new().table("t", "(k INT)", "VALUES (1)");
        let sql = "SELECT k AS c FROM t WHERE 0 IN (1, NULL) UNION ALL (VALUES (10) UNION ALL SELECT 0)";
        let query = tables.planner.query(sql, &tables).unwrap();
        let names: Vec<&String> = query.schema.fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, ["c"]);
        let rows = tables.execute(&query.plan, &|batch| vec![batch]).unwrap();
        assert_eq!(rows[0].schema().field(0).name(), "c");
        tables.check(sql, &["0", "10"]);
    }
}
