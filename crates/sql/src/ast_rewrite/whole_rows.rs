//! Writes `row_to_json(t)` and `json_agg(t)` of the whole row of a table or subquery `t` with its columns.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Select, SelectItem, SetExpr,
    TableAlias, TableFactor, visit_expressions_mut,
};

use super::{call, text};

/// Functions of JSON that take rows.
const FUNCTIONS: [&str; 10] = [
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
];

/// Returns the columns of a relation.
pub(super) type Columns<'a> = dyn Fn(&str) -> Option<Vec<String>> + 'a;

/// A table in FROM.
struct Table {
    alias: Ident,
    columns: Vec<String>,
}

/// Replaces names of tables among the arguments of these functions.
pub(super) fn name_columns(select: &mut Select, of_relation: &Columns<'_>) {
    let mut tables: Option<Vec<Table>> = None;
    let from = select.from.clone();
    let _ = visit_expressions_mut(select, |part| {
        let Expr::Function(function) = part else { return ControlFlow::<()>::Continue(()) };
        let FunctionArguments::List(list) = &mut function.args else { return ControlFlow::Continue(()) };
        if !FUNCTIONS.contains(&function.name.to_string().to_lowercase().as_str()) {
            return ControlFlow::Continue(());
        }
        for argument in &mut list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument else { continue };
            let Expr::Identifier(name) = &*expression else { continue };
            let tables = tables.get_or_insert_with(|| {
                let factors = from.iter().flat_map(|from| {
                    std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
                });
                factors.filter_map(|factor| table(factor, of_relation)).collect()
            });
            let is_column =
                tables.iter().any(|table| table.columns.iter().any(|column| *column == folded(name)));
            let found = tables.iter().find(|table| folded(&table.alias) == folded(name));
            if let (false, Some(found)) = (is_column, found) {
                *expression = found.row();
            }
        }
        ControlFlow::Continue(())
    });
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
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
            Some(Table { alias: alias.as_ref().map_or(last, |alias| alias.name.clone()), columns })
        }
        TableFactor::Derived { subquery, alias: Some(alias), .. } => {
            let columns = renamed(&Some(alias.clone()), columns_of(subquery)?);
            Some(Table { alias: alias.name.clone(), columns })
        }
        _ => None,
    }
}

/// Returns the name of a WITH query, and its columns if the text gives them.
pub(super) fn columns_of_with(with: &Cte) -> (String, Option<Vec<String>>) {
    let columns = columns_of(&with.query).map(|mut columns| {
        for (column, new) in columns.iter_mut().zip(&with.alias.columns) {
            *column = folded(&new.name);
        }
        columns
    });
    (folded(&with.alias.name), columns)
}

/// Returns the names of a subquery's columns, if the text gives them all.
fn columns_of(query: &Query) -> Option<Vec<String>> {
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(query) => body = query.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return None,
        }
    };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(folded),
        _ => None,
    };
    select.projection.iter().map(name).collect()
}
