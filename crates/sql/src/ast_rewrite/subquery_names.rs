//! Column names of a SELECT's result where several would be one, or where the planner's name can't be guessed.
//!
//! DataFusion names `(SELECT max(a) FROM t)` and `(SELECT max(a) FROM u)` alike, and refuses two columns of
//! one name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Values, VisitorMut,
};

use crate::ast_walk::walk_mut;
use crate::hidden_columns::{fold, last_name};
use crate::output_names::name_of;

/// Names columns whose subqueries alone tell them apart. Each has PostgreSQL's name if no other column has it,
/// and else its text.
pub(super) fn name_subqueries(select: &mut Select) {
    let forms: Vec<Option<(String, String)>> = select.projection.iter().map(form).collect();
    let others = |at: usize, test: &dyn Fn(&(String, String)) -> bool| {
        forms.iter().enumerate().any(|(other, form)| other != at && form.as_ref().is_some_and(test))
    };
    let is_alike = |at: usize| {
        forms[at]
            .as_ref()
            .is_some_and(|(form, text)| others(at, &|(other, written)| other == form && written != text))
    };
    let alike: Vec<usize> = (0..forms.len()).filter(|at| is_alike(*at)).collect();
    if alike.is_empty() {
        return;
    }
    let names: Vec<Option<String>> = select.projection.iter().map(item_name).collect();
    let has_wildcard = names.iter().any(Option::is_none);
    for at in alike {
        let SelectItem::UnnamedExpr(expression) = &select.projection[at] else { continue };
        let unique = name_of(expression)
            .filter(|name| names.iter().flatten().filter(|other| *other == name).count() == 1);
        let name = match unique {
            Some(name) if !has_wildcard => name,
            _ => format!("{expression}:{}", at + 1),
        };
        let expr = expression.clone();
        select.projection[at] = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
    }
}

/// Names columns that are fields of structs after the field, as in PostgreSQL: `s.a`, where no table is called `s`.
pub(super) fn name_fields(select: &mut Select) {
    let mut tables = Vec::new();
    let is_known = select.from.iter().all(|from| {
        let joined = from.joins.iter().all(|join| add_table(&join.relation, &mut tables));
        joined && add_table(&from.relation, &mut tables)
    });
    let names: Vec<Option<String>> = select.projection.iter().map(item_name).collect();
    // Under DISTINCT, sort expressions are looked up by their text.
    if !is_known || select.distinct.is_some() || names.iter().any(Option::is_none) {
        return;
    }
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(_)) = item else { continue };
        let Expr::CompoundIdentifier(parts) = &*expr else { continue };
        let (Some(first), Some(name)) = (parts.first().map(fold), parts.last().map(fold)) else { continue };
        let is_of_table = parts.len() == 2 && tables.contains(&first);
        if is_of_table || names.iter().flatten().filter(|other| **other == name).count() > 1 {
            continue;
        }
        let expr = expr.clone();
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
    }
}

/// Adds the name of an item of FROM. Returns false if the item may have columns under unknown names.
fn add_table(factor: &TableFactor, tables: &mut Vec<String>) -> bool {
    let name = match factor {
        TableFactor::Table { name, alias, .. } => {
            alias.as_ref().map(|alias| fold(&alias.name)).or_else(|| last_name(name))
        }
        TableFactor::Derived { alias: Some(alias), .. } => Some(fold(&alias.name)),
        _ => None,
    };
    let is_known = name.is_some();
    tables.extend(name);
    is_known
}

/// Returns a column's text with and without its subqueries; none for a column that has no subquery or has a
/// name.
fn form(item: &SelectItem) -> Option<(String, String)> {
    let SelectItem::UnnamedExpr(expression) = item else { return None };
    let mut bare = expression.clone();
    let mut emptied = Emptied(false);
    let _ = walk_mut(&mut bare, &mut emptied);
    emptied.0.then(|| (bare.to_string(), expression.to_string()))
}

/// Empties the subqueries of an expression; true if there were some.
struct Emptied(bool);

impl VisitorMut for Emptied {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let values = Values { explicit_row: false, value_keyword: false, rows: Vec::new() };
        *query.body = SetExpr::Values(values);
        (query.with, query.order_by, query.limit_clause, query.fetch) = (None, None, None, None);
        self.0 = true;
        ControlFlow::Continue(())
    }
}

/// Returns the name of a column as PostgreSQL gives it; none for `*`.
fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expression) => Some(name_of(expression).unwrap_or_default()),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    }
}

/// Gives columns of a query's result with the name of an earlier one another name. The result shows the names
/// that were written. Only a query that runs once can do that.
pub(super) fn rename_duplicates(statement: &mut Statement, once: bool) {
    if let Statement::Query(query) = statement
        && once
    {
        rename_in(&mut query.body);
    }
}

fn rename_in(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => rename_items(select),
        SetExpr::Query(query) => rename_in(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            rename_in(left);
            rename_in(right);
        }
        _ => {}
    }
}

fn rename_items(select: &mut Select) {
    // The names so far, and whether AS gave them.
    let mut seen: Vec<(String, bool)> = Vec::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let (name, given) = match item {
            SelectItem::ExprWithAlias { alias, .. } => (fold(alias), true),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => (fold(name), false),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => match names.last() {
                Some(name) => (fold(name), false),
                None => continue,
            },
            _ => continue,
        };
        // Columns of two tables may have one name.
        if seen.iter().any(|(other, other_given)| *other == name && (given || *other_given)) {
            let alias = Ident::with_quote('"', format!("{name}:{}", at + 1));
            match item {
                SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
                SelectItem::UnnamedExpr(expression) => {
                    let expr = expression.clone();
                    *item = SelectItem::ExprWithAlias { expr, alias };
                }
                _ => {}
            }
        }
        seen.push((name, given));
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::tokens::DIALECT;

    fn check(written: &str, expected: &str) {
        let mut statement = Parser::new(&DIALECT).try_with_sql(written).unwrap().parse_statement().unwrap();
        if let Statement::Query(query) = &mut statement
            && let SetExpr::Select(select) = query.body.as_mut()
        {
            name_subqueries(select);
        }
        rename_duplicates(&mut statement, true);
        assert_eq!(statement.to_string(), expected);
    }

    #[test]
    fn subqueries_are_named_where_they_would_be_one() {
        check(
            "SELECT (SELECT max(a) FROM t), (SELECT min(a) FROM t), b",
            "SELECT (SELECT max(a) FROM t) AS \"max\", (SELECT min(a) FROM t) AS \"min\", b",
        );
        check(
            "SELECT EXISTS (SELECT 1), EXISTS (SELECT 2)",
            "SELECT EXISTS (SELECT 1) AS \"EXISTS (SELECT 1):1\", EXISTS (SELECT 2) AS \"EXISTS (SELECT 2):2\"",
        );
        for same in ["SELECT (SELECT 1), (SELECT 1)", "SELECT (SELECT 1), EXISTS (SELECT 1), a, a"] {
            check(same, same);
        }
    }

    #[test]
    fn later_columns_of_one_name_are_renamed() {
        check(
            "SELECT a AS x, b AS X, x, c AS y FROM t",
            "SELECT a AS x, b AS \"x:2\", x AS \"x:3\", c AS y FROM t",
        );
        check("SELECT t.x, u.x FROM t, u", "SELECT t.x, u.x FROM t, u");
    }
}
