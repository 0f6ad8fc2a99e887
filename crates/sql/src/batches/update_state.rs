//! Finds the expansion of UPDATE_STATE in a query that runs once per batch, see
//! [`crate::dialect::update_state`].
//!
//! UPDATE_STATE returns the keys that its function was called for in the batch. It is a window over a query
//! of its own, which keeps its states from batch to batch. That query takes the rows of each batch of a
//! relation, or else of a query below it.

use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins};

use crate::routines::folding_query;

/// Returns the text of a derived table's call, without the filter of keys that have no state.
pub(super) fn call(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let ([SelectItem::Wildcard(_)], [TableWithJoins { relation, joins }]) =
        (select.projection.as_slice(), select.from.as_slice())
    else {
        return None;
    };
    match relation {
        TableFactor::Derived { subquery, .. } if joins.is_empty() && folding_query(subquery).is_some() => {
            Some(subquery.to_string())
        }
        _ => None,
    }
}

/// Returns the input of the fold in such a call.
pub(super) fn input(query: &mut Query) -> Option<&mut TableFactor> {
    folding_query(query)?;
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    match select.from.as_mut_slice() {
        [TableWithJoins { relation, joins }] if joins.is_empty() => Some(relation),
        _ => None,
    }
}

/// Returns the name that qualifies the columns of an input.
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
