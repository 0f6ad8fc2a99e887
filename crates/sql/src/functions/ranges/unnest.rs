//! The function `multirange_or_array` that `ast_rewrite/multiranges.rs` adds.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::marks::Mark;
use crate::functions::marks::columns::column_of;
use crate::functions::marks::function::is_text;
use crate::functions::marks::shape::{EITHER, Shape};
use crate::functions::scalar::{Label, Scalar};

/// Registers the function.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let typed = |found: &[DataType]| {
        Ok(match found.first() {
            Some(found) if is_text(found) => DataType::new_list(DataType::Utf8View, true),
            Some(found) => found.clone(),
            None => DataType::Null,
        })
    };
    registry.add(Scalar::labelled(EITHER, Label::Argument, typed, either));
}

/// The rule replaces all calls.
fn either(columns: &[ArrayRef]) -> Result<ArrayRef> {
    match columns.first() {
        Some(column) if !is_text(column.data_type()) => Ok(column.clone()),
        _ => Err(Error::invalid("unnest() takes an array or a multirange, not TEXT")
            .hint("Cast the argument.")
            .into()),
    }
}

/// True if each call of [`EITHER`] in a plan has an array or a multirange.
pub(crate) fn is_resolved(plan: &LogicalPlan) -> bool {
    let mut all = true;
    let walked = plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        let columns = |column: &Column| column_of(inputs.iter().copied(), column);
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.name() == EITHER
                    && let Some(argument) = call.args.first()
                {
                    let is_text = inputs.first().is_some_and(|input| {
                        argument.get_type(input.schema()).is_ok_and(|found| is_text(&found))
                    });
                    all &= !is_text || Shape::mark(argument, &columns).is_some_and(Mark::is_multirange);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    all && walked.is_ok()
}
