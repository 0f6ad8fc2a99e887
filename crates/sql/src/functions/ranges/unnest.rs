//! `unnest` of multiranges: DataFusion's takes arrays alone.
//!
//! A statement whose `unnest` DataFusion refuses is planned again with `unnest(multirange_or_array(x))`. The rule in
//! `rules/marked_types.rs` replaces the inner call by `multirange_elements(x)`, or by `x`.

use std::ops::ControlFlow;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Statement, TableFactor, Value,
    VisitMut, VisitorMut,
};

use crate::ast_rewrite::call;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::marks::Mark;
use crate::functions::marks::columns::column_of;
use crate::functions::marks::function::is_text;
use crate::functions::marks::shape::Shape;
use crate::functions::scalar::{Label, Scalar};

/// The function that a rewritten statement calls.
pub(crate) const EITHER: &str = "multirange_or_array";

/// The error of DataFusion for an argument that is no array.
const REFUSED: &str = "unnest() can only be applied to array";

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

/// Returns true if DataFusion refused an `unnest`, and the statement can be planned with calls of [`EITHER`], which are
/// added to it.
pub(crate) fn wrap(statement: &mut Statement, error: &str) -> bool {
    let mut calls = Calls { found: false };
    if error.contains(REFUSED) {
        let _ = statement.visit(&mut calls);
    }
    calls.found
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

/// The visitor that adds the calls.
struct Calls {
    found: bool,
}

impl Calls {
    fn add(&mut self, argument: &mut SqlExpr) {
        let own = std::mem::replace(argument, SqlExpr::value(Value::Null));
        *argument = call(EITHER, vec![own]);
        self.found = true;
    }
}

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::Function(function) = expression
            && function.name.to_string().eq_ignore_ascii_case("unnest")
            && let FunctionArguments::List(list) = &mut function.args
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_mut_slice()
        {
            self.add(argument);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::UNNEST { array_exprs, .. } = factor {
            array_exprs.iter_mut().for_each(|argument| self.add(argument));
        }
        ControlFlow::Continue(())
    }
}
