//! Converts the constant relations of a query to tables: VALUES, series, derived tables and WITH queries that
//! read nothing. The oracle can then insert and delete their rows.

use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, Query, SetExpr, Statement as SqlStatement, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};

use super::plain::{self, Plain};
use crate::oracle::statement;

/// The prefix of the names of these tables.
pub const PREFIX: &str = "hoisted_";

/// A query whose constant relations are tables.
pub struct Hoisted {
    /// Its text.
    pub sql: String,
    /// The tables: their names, and queries that give their rows.
    pub tables: Vec<(String, String)>,
}

/// Returns the query with its constant relations as tables, numbered from `first` on; `None` if there are
/// none.
#[allow(clippy::disallowed_methods)]
pub fn hoist(sql: &str, first: usize) -> Option<Hoisted> {
    let Ok(Statement::Statement(mut parsed)) = plain::parse(sql) else { return None };
    let SqlStatement::Query(top) = parsed.as_mut() else { return None };
    let mut hoist = Hoist { first, tables: Vec::new() };
    if let SetExpr::Values(_) = top.body.as_ref() {
        return None;
    }
    let _ = top.visit(&mut hoist);
    if hoist.tables.is_empty() {
        return None;
    }
    Some(Hoisted { sql: parsed.to_string(), tables: hoist.tables })
}

/// Returns the rows of each table; fails if one is not constant after all.
pub async fn contents(plain: &Plain, hoisted: &Hoisted) -> crate::drive::Result<Vec<(String, RecordBatch)>> {
    let mut contents = Vec::new();
    for (name, sql) in &hoisted.tables {
        contents.push((name.clone(), plain.query(sql).await?));
    }
    Ok(contents)
}

struct Hoist {
    first: usize,
    tables: Vec<(String, String)>,
}

impl Hoist {
    /// Returns the name of a new table for the rows of `sql`.
    fn table(&mut self, sql: String) -> String {
        if let Some((name, _)) = self.tables.iter().find(|(_, known)| *known == sql) {
            return name.clone();
        }
        let name = format!("{PREFIX}{}", self.first + self.tables.len());
        self.tables.push((name.clone(), sql));
        name
    }

    /// Replaces a query by `SELECT * FROM` a new table.
    fn replace(&mut self, query: &mut Query) {
        let name = self.table(query.to_string());
        if let Ok(Statement::Statement(all)) = plain::parse(&format!("SELECT * FROM {name}"))
            && let SqlStatement::Query(all) = *all
        {
            *query = *all;
        }
    }
}

impl VisitorMut for Hoist {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Some(with) = query.with.as_mut().filter(|with| !with.recursive) else {
            return ControlFlow::Continue(());
        };
        for cte in &mut with.cte_tables {
            if is_constant(&cte.query) {
                self.replace(&mut cte.query);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Derived { lateral: false, subquery, .. } if is_constant(subquery) => {
                self.replace(subquery);
            }
            TableFactor::Table { name, args, with_ordinality: false, .. } if args.is_some() => {
                let function = name.to_string().to_lowercase();
                if matches!(function.as_str(), "range" | "generate_series") {
                    let arguments = args
                        .as_ref()
                        .map(|args| args.args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
                    let call = format!("SELECT * FROM {function}({})", arguments.unwrap_or_default());
                    *name = ObjectName::from(vec![Ident::new(self.table(call))]);
                    *args = None;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Returns true if a query returns rows without reading a relation: VALUES, or SELECTs without FROM.
#[allow(clippy::disallowed_methods)]
fn is_constant(query: &Query) -> bool {
    let mut from = AnyFrom { found: false };
    let _ = query.visit(&mut from);
    !from.found && query.with.is_none() && statement::is_query(&query.to_string())
}

struct AnyFrom {
    found: bool,
}

impl Visitor for AnyFrom {
    type Break = ();

    fn pre_visit_table_factor(&mut self, _factor: &TableFactor) -> ControlFlow<()> {
        self.found = true;
        ControlFlow::Break(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expect: &str, tables: &[&str]) {
        let hoisted = hoist(sql, 1).unwrap();
        assert_eq!(hoisted.sql, expect);
        let found: Vec<&str> = hoisted.tables.iter().map(|(_, sql)| sql.as_str()).collect();
        assert_eq!(found, tables);
    }

    #[test]
    fn constant_relations_become_tables() {
        check(
            "SELECT a FROM (VALUES (1), (2)) AS t(a)",
            "SELECT a FROM (SELECT * FROM hoisted_1) AS t (a)",
            &["VALUES (1), (2)"],
        );
        check(
            "WITH c AS (SELECT 1 AS x UNION ALL SELECT 2) SELECT * FROM c, generate_series(1, 3) AS g(v)",
            "WITH c AS (SELECT * FROM hoisted_1) SELECT * FROM c, hoisted_2 AS g (v)",
            &["SELECT 1 AS x UNION ALL SELECT 2", "SELECT * FROM generate_series(1, 3)"],
        );
        assert!(hoist("SELECT 1", 1).is_none());
        assert!(hoist("VALUES (1)", 1).is_none());
        assert!(hoist("SELECT * FROM t", 1).is_none());
    }
}
