//! Fields of a lambda's parameters: `x.price` in `transform(items, x -> x.price)`, which would be a column of a table `x`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, LambdaFunction};

use super::{call, scopes, text};
use crate::ast_walk::visit_expressions_mut;

/// Writes `get_field(x, 'price')` for `x.price` where `x` is a parameter.
pub(super) fn name_fields(lambda: &mut LambdaFunction) {
    let names: Vec<String> = lambda.params.iter().map(|parameter| scopes::folded(&parameter.name)).collect();
    let _ = visit_expressions_mut(lambda.body.as_mut(), |part| {
        if let Expr::CompoundIdentifier(path) = part
            && let Some((first, fields)) = path.split_first()
            && names.contains(&scopes::folded(first))
        {
            let of = Expr::Identifier(first.clone());
            let field = |of: Expr, name: &Ident| call("get_field", vec![of, text(&scopes::folded(name))]);
            *part = fields.iter().fold(of, field);
        }
        ControlFlow::<()>::Continue(())
    });
}
