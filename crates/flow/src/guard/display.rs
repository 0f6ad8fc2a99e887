//! Checked arithmetic in the expressions that operators run, displayed as it was written.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::overflow::Checked;

/// Returns the expression with calls of [`Checked`] displayed as they were written.
pub(crate) fn as_written(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let written = expr.transform_up(|part| {
        Ok(match checked(part.as_ref()) {
            Some(_) => Transformed::yes(Arc::new(DisplayAsWritten { call: part }) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(part),
        })
    })?;
    Ok(written.data)
}

fn checked(expr: &dyn PhysicalExpr) -> Option<&Checked> {
    expr.downcast_ref::<ScalarFunctionExpr>()?.fun().inner().downcast_ref()
}

/// Takes a failing row and its reason.
pub(crate) type Fail<'a> = dyn FnMut(usize, &dyn Fn() -> String) + 'a;

/// A call of [`Checked`].
#[derive(Debug, Eq)]
pub(crate) struct DisplayAsWritten {
    call: Arc<dyn PhysicalExpr>,
}

impl DisplayAsWritten {
    /// Returns the values for some operands, NULL for failing rows, and calls `fail` with the failing rows.
    pub(crate) fn in_range(&self, operands: &[ArrayRef], fail: &mut Fail<'_>) -> Option<ArrayRef> {
        checked(self.call.as_ref())?.in_range(operands, fail)
    }
}

impl PartialEq for DisplayAsWritten {
    fn eq(&self, other: &DisplayAsWritten) -> bool {
        self.call.eq(&other.call)
    }
}

impl Hash for DisplayAsWritten {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.call.hash(state);
    }
}

impl fmt::Display for DisplayAsWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(arithmetic) = checked(self.call.as_ref()) else { return self.call.fmt(f) };
        let text = |(place, operand): (usize, &Arc<dyn PhysicalExpr>)| {
            let binds =
                match (operand.downcast_ref::<BinaryExpr>(), operand.downcast_ref::<DisplayAsWritten>()) {
                    (Some(binary), _) => Some(binary.op().precedence()),
                    (_, Some(written)) => checked(written.call.as_ref()).map(Checked::precedence),
                    _ => None,
                };
            // Arithmetic associates to the left, so a right operand of equal precedence needs parentheses.
            let least = arithmetic.precedence().saturating_add(u8::from(place > 0));
            match binds.is_some_and(|binds| binds < least) {
                true => format!("({operand})"),
                false => operand.to_string(),
            }
        };
        f.write_str(&arithmetic.text(self.call.children().into_iter().enumerate().map(text)))
    }
}

impl PhysicalExpr for DisplayAsWritten {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.call.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.call.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.call.evaluate(batch)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.call.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.call.children()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(DisplayAsWritten { call: Arc::clone(&self.call).with_new_children(children)? }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
