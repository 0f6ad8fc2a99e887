//! Makes `a.x` in a subquery a column of the outer table `a`, even if a table of the subquery has a column `a`.
//!
//! DataFusion looks for a field `x` of the subquery's own column `a` before it looks for an outer table. A
//! column with a schema, `public.a.x`, is no field of `a`, and matches the outer table under its plain name.
//!
//! As in PostgreSQL, the nearest table of the name counts. A subquery in FROM without LATERAL, and a query of
//! WITH, don't see the tables beside them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, Select, SetExpr, Statement, TableAlias,
    TableFactor, TableWithJoins, VisitorMut, With,
};

use crate::ast_walk::walk_mut;
use crate::hidden_columns::{fold, last_name};
use crate::relation::{PUBLIC, SYSTEM_SCHEMAS};

/// Rewrites the references of a statement's subqueries to outer tables.
pub(super) fn qualify(statement: &mut Statement) {
    let _ = walk_mut(statement, &mut Qualify::default());
}

/// A table that a query can name.
#[derive(Debug, PartialEq)]
struct Table {
    name: String,
    /// The schema that its columns may be written with, if they may.
    schema: Option<Ident>,
}

/// The tables that a query's expressions see.
#[derive(Default)]
struct Scope {
    tables: Vec<Table>,
    /// The tables of the query while one of its SELECTs, or a subquery that doesn't see them, is visited.
    saved: Vec<Vec<Table>>,
    /// The WITH of the query, which was visited before.
    with: Option<With>,
}

#[derive(Default)]
struct Qualify {
    scopes: Vec<Scope>,
}

impl Qualify {
    fn enter(&mut self, tables: Vec<Table>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.saved.push(std::mem::replace(&mut scope.tables, tables));
        }
    }

    fn leave(&mut self) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.tables = scope.saved.pop().unwrap_or_default();
        }
    }

    /// Returns the schema of the nearest table of this name if that belongs to an outer query, and can be qualified.
    fn schema_of_outer(&self, name: &str) -> Option<Ident> {
        let mut near = self.scopes.iter().rev();
        let find = |scope: &Scope| {
            scope.tables.iter().find(|table| table.name == name).map(|table| table.schema.clone())
        };
        match near.next().map(find) {
            None | Some(Some(_)) => None,
            Some(None) => near.find_map(find).flatten(),
        }
    }
}

impl VisitorMut for Qualify {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            walk_mut(with, self)?;
        }
        let tables = match query.body.as_ref() {
            SetExpr::Select(select) => tables_of(&select.from),
            _ => Vec::new(),
        };
        self.scopes.push(Scope { tables, saved: Vec::new(), with });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.with = self.scopes.pop().and_then(|scope| scope.with);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.enter(tables_of(&select.from));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        self.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if is_closed(factor) {
            self.enter(Vec::new());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if is_closed(factor) {
            self.leave();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expression
            && parts.len() == 2
            && let Some(schema) = self.schema_of_outer(&fold(&parts[0]))
        {
            parts.insert(0, schema);
        }
        ControlFlow::Continue(())
    }
}

/// True if a table in FROM is a subquery that doesn't see the tables beside it.
fn is_closed(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Derived { lateral: false, .. })
}

fn tables_of(from: &[TableWithJoins]) -> Vec<Table> {
    let mut tables = Vec::new();
    for table in from {
        add(&table.relation, &mut tables);
        table.joins.iter().for_each(|join| add(&join.relation, &mut tables));
    }
    tables
}

fn add(factor: &TableFactor, tables: &mut Vec<Table>) {
    let named = |alias: &TableAlias| Table { name: fold(&alias.name), schema: Some(Ident::new(PUBLIC)) };
    let plain = |name: &ObjectName, qualifiable: bool| {
        let written = name.0.iter().rev().nth(1).map(|part| part.as_ident().cloned());
        let can_be = |schema: &Ident| qualifiable && !SYSTEM_SCHEMAS.contains(&fold(schema).as_str());
        let schema = written.unwrap_or_else(|| Some(Ident::new(PUBLIC))).filter(can_be);
        last_name(name).map(|name| Table { name, schema })
    };
    match factor {
        TableFactor::NestedJoin { table_with_joins, alias } => {
            tables.extend(alias.as_ref().map(named));
            tables.extend(tables_of(std::slice::from_ref(table_with_joins.as_ref())));
        }
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. }
        | TableFactor::MatchRecognize { alias: Some(alias), .. } => tables.push(named(alias)),
        TableFactor::Table { name, args: None, .. } => tables.extend(plain(name, true)),
        // The rows of a function go by its name, or by the name of the relation that it is called with.
        TableFactor::Table { name, args: Some(arguments), .. } => {
            tables.extend(plain(name, false));
            tables.extend(
                arguments.args.iter().filter_map(relation_in).map(|name| Table { name, schema: None }),
            );
        }
        TableFactor::Function { name, args, .. } => {
            tables.extend(plain(name, false));
            tables.extend(args.iter().filter_map(relation_in).map(|name| Table { name, schema: None }));
        }
        TableFactor::MatchRecognize { table, .. } => add(table, tables),
        _ => {}
    }
}

/// Returns the name of a relation among a function's arguments.
fn relation_in(argument: &FunctionArg) -> Option<String> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name))) => Some(fold(name)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(names))) => {
            names.last().map(fold)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::fixture::Tables;
    use crate::tokens::DIALECT;

    fn check(written: &str, expected: &str) {
        let mut statement = Parser::new(&DIALECT).try_with_sql(written).unwrap().parse_statement().unwrap();
        qualify(&mut statement);
        assert_eq!(statement.to_string(), expected);
    }

    #[test]
    fn only_outer_tables_get_the_schema() {
        check(
            "SELECT o.x FROM t AS o WHERE EXISTS (SELECT 1 FROM b WHERE b.x = o.x ORDER BY O.y)",
            "SELECT o.x FROM t AS o WHERE EXISTS (SELECT 1 FROM b WHERE b.x = public.o.x ORDER BY public.O.y)",
        );
        for same in [
            "SELECT s.a FROM (SELECT s.a FROM b) AS s",
            "WITH c AS (SELECT s.a FROM b) SELECT s.a, c.a FROM s, c",
            "SELECT (SELECT o.x FROM b AS o) FROM t AS o",
            "SELECT (SELECT pg_class.oid FROM b) FROM pg_catalog.pg_class",
        ] {
            check(same, same);
        }
        check(
            "SELECT 1 FROM a, LATERAL (SELECT a.x FROM b) AS l",
            "SELECT 1 FROM a, LATERAL (SELECT public.a.x FROM b) AS l",
        );
        check(
            "SELECT (WITH c AS (SELECT a.x FROM b) SELECT 1 FROM c) FROM a",
            "SELECT (WITH c AS (SELECT public.a.x FROM b) SELECT 1 FROM c) FROM a",
        );
    }

    #[test]
    fn an_outer_table_comes_before_a_field_of_a_column() {
        let tables = Tables::new().table("t", "(id INT, x INT)", "VALUES (1, 10), (2, 99)").table(
            "b",
            "(id INT, o INT, x INT)",
            "VALUES (1, 7, 10), (2, 8, 20)",
        );
        tables.check("SELECT o.id FROM t AS o WHERE EXISTS (SELECT 1 FROM b WHERE b.x = o.x)", &["1"]);
        tables.fails(
            "SELECT o.id FROM t AS o WHERE EXISTS (SELECT 1 FROM b WHERE b.x = o.y)",
            "column \"y\" not found in \"o\"\nLINE 1: SELECT o.id FROM t AS o WHERE EXISTS (SELECT 1 FROM b \
             WHERE b.x = o.y)\n                                                                          ^^^\nHINT: \
             There is only b.",
        );
    }
}
