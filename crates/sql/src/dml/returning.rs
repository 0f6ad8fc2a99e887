//! RETURNING: the rows that a statement changes, as its clause selects from them.
//!
//! The clause is a query over the new rows of an INSERT or UPDATE, or the old ones of a DELETE. Code that runs the
//! statement binds these to the relation [`RETURNED`].

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Ident, SelectItem};

use super::tree::{named_factor, plain_from, quoted, select_of};
use super::with_relation::WithRelation;
use super::{Scope, Target};
use crate::error::{Error, Result};
use crate::planner::Query;
use crate::relation::parts_of;
use crate::sqlstate;

/// The relation of the rows that a statement changes. No statement can name it.
pub const RETURNED: &str = "\0returned";

/// A planned RETURNING clause.
#[derive(Debug, Clone)]
pub struct Returning {
    /// The query over [`RETURNED`].
    pub query: Query,
    /// For an INSERT into a table with a primary key: the query for the rows of the table with the keys of
    /// [`super::conflict::EXCLUDED`].
    pub existing: Option<Query>,
}

impl Returning {
    /// Returns the columns of its rows.
    pub fn columns(&self) -> SchemaRef {
        self.query.output_schema(&self.query.schema)
    }
}

impl Scope<'_> {
    /// Plans the RETURNING clause of an UPDATE or DELETE.
    pub(super) fn returning(
        &self,
        items: Option<Vec<SelectItem>>,
        target: &Target,
    ) -> Result<Option<Box<Returning>>> {
        let Some(items) = items else { return Ok(None) };
        let query = self.query_of_returned(items, &target.alias, &target.columns)?;
        Ok(Some(Box::new(Returning { query, existing: None })))
    }

    /// Plans the RETURNING clause of an INSERT.
    pub(super) fn returning_of_insert(
        &self,
        items: Option<Vec<SelectItem>>,
        table: &str,
        columns: &SchemaRef,
    ) -> Result<Option<Box<Returning>>> {
        let Some(items) = items else { return Ok(None) };
        let alias = self.alias.clone().unwrap_or_else(|| quoted(parts_of(table, self.relations).1));
        let query = self.query_of_returned(items, &alias, columns)?;
        let existing = self.existing(table, columns)?;
        Ok(Some(Box::new(Returning { query, existing })))
    }

    fn query_of_returned(&self, items: Vec<SelectItem>, alias: &Ident, columns: &SchemaRef) -> Result<Query> {
        let columns = Arc::clone(columns);
        let relations = WithRelation { all: self.relations, name: RETURNED, columns, key: None };
        let mut tree = self.template()?;
        let select = select_of(&mut tree)?;
        select.projection = items;
        select.from = vec![plain_from(named_factor(vec![quoted(RETURNED)].into(), alias.clone()))];
        tree.with = self.with.clone();
        let query = self.planner.plan_tree(tree, self.reader, &relations)?;
        // Aggregates and window functions would give rows of their own.
        let mut wrong = None;
        query.raw.apply(|node| {
            match node {
                LogicalPlan::Aggregate(_) => wrong = Some("aggregate functions"),
                LogicalPlan::Window(_) => wrong = Some("window functions"),
                LogicalPlan::Unnest(_) => wrong = Some("functions that return rows"),
                _ => return Ok(TreeNodeRecursion::Continue),
            }
            Ok(TreeNodeRecursion::Stop)
        })?;
        match wrong {
            Some(what) => Err(Error::invalid(format!("{what} are not allowed in RETURNING"))
                .hint("Use them in a subquery, or read the table afterwards.")
                .code(sqlstate::GROUPING_ERROR)),
            None => Ok(query),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringViewArray};

    use super::*;
    use crate::fixture::{Tables, lines};
    use crate::planner::Planner;
    use crate::reader::TokenReader;

    /// Plans a statement over tables of which one stands in for the changed rows, and runs its clause.
    fn returns(sql: &str, expected: &[&str]) -> Returning {
        let columns = "(id INT PRIMARY KEY, name TEXT)";
        let schema = Planner::new().columns(&mut TokenReader::new(columns).unwrap()).unwrap().schema;
        let changed: [ArrayRef; 2] =
            [Arc::new(Int32Array::from(vec![3])), Arc::new(StringViewArray::from(vec!["c"]))];
        let changed = RecordBatch::try_new(schema, changed.to_vec()).unwrap();
        let tables = Tables::new()
            .table("t", columns, "VALUES (1, 'a'), (2, 'b')")
            .table("u", "(id INT)", "VALUES (7)")
            .table("excluded", columns, "VALUES (2, 'x'), (3, 'y')")
            .rows(RETURNED, changed);
        let dml = tables.planner.dml(sql, &tables).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        let returning = *dml.returning.unwrap();
        let rows = tables.execute(&returning.query.plan, &|batch| vec![batch]).unwrap();
        assert_eq!(lines(&rows), expected, "{sql}");
        if let Some(existing) = &returning.existing {
            let rows = tables.execute(&existing.plan, &|batch| vec![batch]).unwrap();
            assert_eq!(lines(&rows), ["2|b"], "{sql}");
        }
        returning
    }

    #[test]
    fn the_clause_selects_from_the_changed_rows() {
        returns("DELETE FROM t AS x RETURNING *, x.id + 1, upper(name) AS n", &["3|c|4|C"]);
        returns("UPDATE t SET name = u.id FROM u WHERE t.id = u.id RETURNING t.name", &["c"]);
        let insert =
            returns("INSERT INTO t AS x VALUES (3, 'c') RETURNING x.*, (SELECT max(id) FROM u)", &["3|c|7"]);
        assert!(insert.existing.is_some());
        let of_bag = returns("INSERT INTO u VALUES (1) RETURNING id", &["3"]);
        assert!(of_bag.existing.is_none());
    }
}
