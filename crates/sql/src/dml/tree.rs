//! Builds pieces of syntax trees for the queries behind UPDATE and DELETE.

use datafusion::sql::sqlparser::ast::{
    self, Ident, ObjectName, Query as QueryTree, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins,
};

use crate::error::{Error, Result};
use crate::hidden_columns::fold;
use crate::relation::SYSTEM_SCHEMAS;

/// Returns the SELECT of a template.
pub(crate) fn select_of(tree: &mut QueryTree) -> Result<&mut ast::Select> {
    match tree.body.as_mut() {
        SetExpr::Select(select) => Ok(select),
        _ => Err(Error::bug("a template is no SELECT")),
    }
}

/// Returns an identifier that is not folded.
pub(crate) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// Builds `alias.name`.
pub(crate) fn column(alias: &Ident, name: &str) -> ast::Expr {
    ast::Expr::CompoundIdentifier(vec![quoted(&fold(alias)), quoted(name)])
}

/// Builds `table.name AS alias`.
pub(crate) fn aliased(table: &Ident, name: &str, alias: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr: column(table, name), alias: quoted(alias) }
}

/// Builds a FROM item without joins.
pub(crate) fn plain_from(relation: TableFactor) -> TableWithJoins {
    TableWithJoins { relation, joins: Vec::new() }
}

/// Builds a table factor from a name.
pub(crate) fn named_table(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// Builds a table factor from a name and an alias.
pub(crate) fn named_factor(name: ObjectName, alias: Ident) -> TableFactor {
    let mut factor = named_table(name);
    if let TableFactor::Table { alias: place, .. } = &mut factor {
        *place = Some(TableAlias { explicit: true, name: alias, columns: Vec::new(), at: None });
    }
    factor
}

/// Returns an error if a table's schema is one of the engine's own, whose rows can't be changed.
pub(crate) fn system_schema(name: &ObjectName, table: &str) -> Option<Error> {
    let schema = name.0.iter().rev().nth(1)?.as_ident().map(fold)?;
    SYSTEM_SCHEMAS.contains(&schema.as_str()).then(|| {
        Error::invalid(format!("\"{table}\" can't be changed: the schema {schema} is the engine's own"))
    })
}
