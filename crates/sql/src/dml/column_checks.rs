//! Checks new rows of columns that accept less than their Arrow type, such as UUID.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::functions::read_text::ReadText;
use crate::type_names::Checked;

/// Adds the checks of these columns to a plan of rows.
pub(super) fn check_declared_types(rows: LogicalPlan, columns: &Schema) -> Result<LogicalPlan> {
    if columns.fields().iter().all(|field| Checked::declared(field).is_none()) {
        return Ok(rows);
    }
    let schema = Arc::clone(rows.schema());
    let items = columns.fields().iter().enumerate().map(|(at, field)| {
        let item = Expr::Column(Column::from(schema.qualified_field(at)));
        match ReadText::checked(field, item.clone()) {
            Some(checked) => checked.alias(field.name()),
            None => item,
        }
    });
    LogicalPlanBuilder::from(rows).project(items)?.build()
}
