//! Renames a query of WITH that hides one of the same name in an outer WITH: DataFusion refuses the second name.
//!
//! As in PostgreSQL, a query of WITH sees the queries before it, and itself only in WITH RECURSIVE. So the inner `t` of `WITH t
//! AS (…) SELECT … FROM (WITH t AS (SELECT … FROM t) …)` reads the outer one.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, Query, Statement, TableAlias, TableFactor, VisitorMut, With,
};

use super::scopes::folded;
use crate::ast_walk::walk_mut;

/// Renames such queries, and the tables that mean them. A table keeps its name as its alias.
pub(super) fn tell_apart(statement: &mut Statement) {
    let _ = walk_mut(statement, &mut Names::default());
}

#[derive(Default)]
struct Names {
    /// The queries of WITH in sight, from outside to inside, with their new names.
    visible: Vec<(String, Option<String>)>,
    /// For each query around: the number of names in sight outside of it, and its WITH, which was visited before.
    around: Vec<(usize, Option<With>)>,
    renamed: usize,
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let outside = self.visible.len();
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            for table in &mut with.cte_tables {
                let name = folded(&table.alias.name);
                let is_hiding = self.visible[..outside].iter().any(|(other, _)| *other == name);
                let new = is_hiding.then(|| {
                    self.renamed += 1;
                    format!("{name}:{}", self.renamed)
                });
                if let Some(new) = &new {
                    table.alias.name = Ident::with_quote('"', new);
                }
                if with.recursive {
                    self.visible.push((name, new));
                    walk_mut(&mut table.query, self)?;
                } else {
                    walk_mut(&mut table.query, self)?;
                    self.visible.push((name, new));
                }
            }
        }
        self.around.push((outside, with));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some((outside, with)) = self.around.pop() {
            self.visible.truncate(outside);
            query.with = with;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args: None, alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let [part] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let Some(ident) = part.as_ident().cloned() else { return ControlFlow::Continue(()) };
        let written = folded(&ident);
        let found = self.visible.iter().rev().find(|(name, _)| *name == written);
        if let Some((_, Some(new))) = found {
            *name = ObjectName::from(vec![Ident::with_quote('"', new)]);
            alias.get_or_insert_with(|| TableAlias {
                explicit: true,
                name: ident,
                columns: Vec::new(),
                at: None,
            });
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn the_nearest_query_of_a_name_counts() {
        let tables = Tables::new();
        tables.check(
            "WITH t AS (SELECT 1 AS a) SELECT * FROM (WITH t AS (SELECT 2 AS a) SELECT t.a FROM t) AS u, t",
            &["2|1"],
        );
        tables.check(
            "WITH t AS (SELECT 1 AS a) SELECT * FROM (WITH t AS (SELECT a + 5 AS a FROM t) SELECT a FROM t) AS u",
            &["6"],
        );
        tables.check(
            "WITH t AS (SELECT 1 AS a) SELECT (WITH t AS (SELECT 3 AS a), u AS (SELECT a * 2 AS a FROM t) SELECT a FROM u) AS b, a \
             FROM t",
            &["6|1"],
        );
    }
}
