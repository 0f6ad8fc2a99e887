//! `unnest` of multiranges: DataFusion's takes arrays alone.
//!
//! A statement whose `unnest` DataFusion refuses is planned again with `unnest(multirange_or_array(x))`. The rule in
//! `rules/marked_types.rs` replaces the inner call by `multirange_elements(x)`, or by `x`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Statement, TableFactor, Value, VisitorMut,
};

use super::call;
use crate::ast_walk::walk_mut;
use crate::functions::marks::shape::EITHER;

/// The error of DataFusion for an argument that is no array.
const REFUSED: &str = "unnest() can only be applied to array";

/// Returns true if DataFusion refused an `unnest`, and the statement can be planned with calls of [`EITHER`], which are
/// added to it.
pub(crate) fn wrap(statement: &mut Statement, error: &str) -> bool {
    let mut calls = Calls { found: false };
    if error.contains(REFUSED) {
        let _ = walk_mut(statement, &mut calls);
    }
    calls.found
}

/// The visitor that adds the calls.
struct Calls {
    found: bool,
}

impl Calls {
    fn add(&mut self, argument: &mut Expr) {
        let own = std::mem::replace(argument, Expr::value(Value::Null));
        *argument = call(EITHER, vec![own]);
        self.found = true;
    }
}

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression
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
