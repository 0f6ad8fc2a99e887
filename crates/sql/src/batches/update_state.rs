//! Finds what stands for UPDATE_STATE in a query that is run once per batch, see [`crate::dialect::update_state`].
//!
//! What it gives are the keys that were called in the batch: a window over a query of its own, which keeps its states
//! from batch to batch. That query takes the rows of each batch of a relation, or else of a query below it.

use datafusion::sql::sqlparser::ast::{
    Expr, Query, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins,
};

use crate::routines::folding_function;

/// The text of the call that a derived table stands for, without what leaves out keys that have no state.
pub(super) fn call(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let ([SelectItem::Wildcard(_)], [TableWithJoins { relation, joins }]) =
        (select.projection.as_slice(), select.from.as_slice())
    else {
        return None;
    };
    match relation {
        TableFactor::Derived { subquery, .. } if joins.is_empty() && folds(subquery) => {
            Some(subquery.to_string())
        }
        _ => None,
    }
}

/// What the fold in such a call reads.
pub(super) fn input(query: &mut Query) -> Option<&mut TableFactor> {
    if !folds(query) {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    match select.from.as_mut_slice() {
        [TableWithJoins { relation, joins }] if joins.is_empty() => Some(relation),
        _ => None,
    }
}

/// Whether a query is the fold of UPDATE_STATE.
fn folds(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let Some(SelectItem::ExprWithAlias { expr: Expr::Function(function), .. }) = select.projection.last()
    else {
        return false;
    };
    let name = match function.name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    };
    name.is_some_and(|name| folding_function(&name.value).is_some())
}

/// The name under which the columns of what is read can be named.
pub(super) fn alias(factor: &TableFactor) -> Option<TableAlias> {
    match factor {
        TableFactor::Derived { alias, .. } => alias.clone(),
        TableFactor::Table { alias: Some(alias), .. } => Some(alias.clone()),
        TableFactor::Table { name, args: None, .. } => {
            let name = name.0.last()?.as_ident()?.clone();
            Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None })
        }
        _ => None,
    }
}
