//! Writes `row_to_json(t)` and `json_agg(t)` of the whole row of a table or subquery `t` with its columns.

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinOperator, Query, Select,
    SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, WildcardAdditionalOptions,
};

use super::scopes::{self, folded};
use super::{call, pivot, text};
use crate::error::{Error, Result};

/// Functions of JSON that take rows.
const FUNCTIONS: [&str; 11] = [
    "to_json",
    "to_jsonb",
    "row_to_json",
    "json_agg",
    "jsonb_agg",
    "json_build_array",
    "jsonb_build_array",
    "json_build_object",
    "jsonb_build_object",
    "json_object_agg",
    "jsonb_object_agg",
];

/// Returns the columns of a relation.
pub(super) type Columns<'a> = dyn Fn(&str) -> Option<Vec<String>> + 'a;

/// A table in FROM.
struct Table {
    alias: Ident,
    columns: Vec<String>,
    /// True if an outer join may leave it without a row.
    is_optional: bool,
}

/// Replaces names of tables among the arguments of these functions.
pub(super) fn name_columns(select: &mut Select, of_relation: &Columns<'_>) -> Result<()> {
    let mut known: Option<Vec<Table>> = None;
    let from = select.from.clone();
    let mut refused = None;
    scopes::change(select, of_relation, &mut |part, hides| {
        let Expr::Function(function) = part else { return };
        let FunctionArguments::List(list) = &mut function.args else { return };
        if !FUNCTIONS.contains(&function.name.to_string().to_lowercase().as_str()) {
            return;
        }
        for argument in &mut list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument else { continue };
            let Expr::Identifier(name) = &*expression else { continue };
            if hides(name) {
                continue;
            }
            let tables = known.get_or_insert_with(|| tables(&from, of_relation));
            let is_column =
                tables.iter().any(|table| table.columns.iter().any(|column| *column == folded(name)));
            let found = tables.iter().find(|table| folded(&table.alias) == folded(name));
            match found {
                Some(found) if !is_column && found.is_optional => refused = Some(name.value.clone()),
                Some(found) if !is_column => *expression = found.row(),
                _ => {}
            }
        }
    });
    match refused {
        None => Ok(()),
        Some(name) => {
            let what = format!("the whole row of \"{name}\", which an outer join may leave without a row,");
            Err(Error::unsupported(what).hint("Name its columns, as in json_build_object('a', t.a)."))
        }
    }
}

/// Returns the tables of FROM.
fn tables(from: &[TableWithJoins], of_relation: &Columns<'_>) -> Vec<Table> {
    use JoinOperator::{AsOf, FullOuter, Left, LeftOuter, OuterApply, Right, RightOuter};
    let mut all: Vec<Table> = Vec::new();
    for from in from {
        let before = all.len();
        all.extend(table(&from.relation, of_relation));
        for join in &from.joins {
            if matches!(join.join_operator, Right(_) | RightOuter(_) | FullOuter(_)) {
                all.iter_mut().skip(before).for_each(|table| table.is_optional = true);
            }
            let is_optional = matches!(
                join.join_operator,
                Left(_) | LeftOuter(_) | FullOuter(_) | OuterApply | AsOf { .. }
            );
            all.extend(table(&join.relation, of_relation).map(|table| Table { is_optional, ..table }));
        }
    }
    all
}

impl Table {
    fn row(&self) -> Expr {
        let field = |column: &String| {
            let value = Expr::CompoundIdentifier(vec![self.alias.clone(), Ident::with_quote('"', column)]);
            [text(column), value]
        };
        call("named_struct", self.columns.iter().flat_map(field).collect())
    }
}

fn table(factor: &TableFactor, of_relation: &Columns<'_>) -> Option<Table> {
    let renamed = |alias: &Option<TableAlias>, mut columns: Vec<String>| {
        for (column, new) in columns.iter_mut().zip(alias.iter().flat_map(|alias| &alias.columns)) {
            *column = folded(&new.name);
        }
        columns
    };
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let last = name.0.last()?.as_ident()?.clone();
            let columns = renamed(alias, of_relation(&folded(&last))?);
            let alias = alias.as_ref().map_or(last, |alias| alias.name.clone());
            Some(Table { alias, columns, is_optional: false })
        }
        TableFactor::Derived { subquery, alias: Some(alias), .. } => {
            let columns = renamed(&Some(alias.clone()), columns_of(subquery, of_relation)?);
            Some(Table { alias: alias.name.clone(), columns, is_optional: false })
        }
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
            table(&pivot::as_subquery(factor, of_relation)?, of_relation)
        }
        _ => None,
    }
}

/// Returns the names of the columns of a relation in FROM, if they are known.
pub(super) fn column_names(factor: &TableFactor, of_relation: &Columns<'_>) -> Option<Vec<String>> {
    match factor {
        TableFactor::Derived { subquery, alias: None, .. } => columns_of(subquery, of_relation),
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
            column_names(&pivot::as_subquery(factor, of_relation)?, of_relation)
        }
        _ => table(factor, of_relation).map(|table| table.columns),
    }
}

/// Returns the name of a WITH query, and its columns if they are known.
pub(super) fn columns_of_with(with: &Cte, of_relation: &Columns<'_>) -> (String, Option<Vec<String>>) {
    let columns = columns_of(&with.query, of_relation).map(|mut columns| {
        for (column, new) in columns.iter_mut().zip(&with.alias.columns) {
            *column = folded(&new.name);
        }
        columns
    });
    (folded(&with.alias.name), columns)
}

/// Returns the names of a subquery's columns, if all are known. Those of `*` are known for a single table.
fn columns_of(query: &Query, of_relation: &Columns<'_>) -> Option<Vec<String>> {
    let mut body = query.body.as_ref();
    let mut has_with = query.with.is_some();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(query) => {
                has_with |= query.with.is_some();
                body = query.body.as_ref();
            }
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            SetExpr::Values(values) => {
                let width = values.rows.first()?.len();
                return Some((1..=width).map(|number| format!("column{number}")).collect());
            }
            _ => return None,
        }
    };
    let mut columns = Vec::with_capacity(select.projection.len());
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => columns.push(folded(alias)),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => columns.push(folded(name)),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => columns.push(folded(parts.last()?)),
            // A query of its own WITH may have the name of a relation.
            SelectItem::Wildcard(options)
                if *options == WildcardAdditionalOptions::default() && !has_with =>
            {
                let [from] = select.from.as_slice() else { return None };
                if !from.joins.is_empty() || !select.lateral_views.is_empty() {
                    return None;
                }
                columns.extend(column_names(&from.relation, of_relation)?);
            }
            _ => return None,
        }
    }
    Some(columns)
}
