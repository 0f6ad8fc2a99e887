//! Gives unique names to the computed columns of a SELECT in an INSERT. The names don't matter there, and the
//! planner demands unique ones.

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, SelectItem, SetExpr};

use super::tree::quoted;
use crate::hidden_columns::fold;

/// Names the items of the SELECTs that a query's rows come from.
pub(super) fn alias_items(query: &mut Query) {
    name_set(&mut query.body);
}

fn name_set(set: &mut SetExpr) {
    match set {
        SetExpr::Select(select) => name_select(select),
        SetExpr::Query(query) => alias_items(query),
        SetExpr::SetOperation { left, right, .. } => {
            name_set(left);
            name_set(right);
        }
        _ => {}
    }
}

fn name_select(select: &mut Select) {
    let all = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    // Under DISTINCT, sort expressions are looked up by their text.
    let distinct = select.distinct.is_some();
    let mut seen: Vec<String> = Vec::new();
    for (place, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let (text, is_column) = match &*expr {
            Expr::Identifier(name) => (fold(name), true),
            Expr::CompoundIdentifier(names) => (names.last().map(fold).unwrap_or_default(), true),
            other => (other.to_string(), false),
        };
        let repeated = seen.contains(&text);
        if repeated || (is_column && all) || (!is_column && !distinct) {
            let alias = quoted(&format!("item {}", place + 1));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
        seen.push(text);
    }
}
