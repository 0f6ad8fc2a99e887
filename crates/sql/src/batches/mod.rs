//! Queries that run once per batch, `SELECT … FOR EACH BATCH`, and the windows over batches that they read.
//!
//! ```sql
//! SELECT word, count(*) FROM LAST(words, INTERVAL '30 seconds', INTERVAL '10 seconds') GROUP BY word FOR EACH BATCH
//! ```
//!
//! A window is a relation with a name of its own, `LAST(words, 30 seconds, 10 seconds)`. A plan's scans use
//! that name, and a [`Window`] defines it. A window over anything but a relation is one over a query that
//! itself runs once per batch.
//!
//! Deliberately absent: the definition of a batch, and the check that a relation is append-only. The engine
//! has both.

mod clock;
mod update_state;
mod windows;

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::Statement;

use crate::error::Result;
use crate::hidden_columns;
use crate::planner::{Planner, Query};
use crate::reader::TokenReader;
use crate::relation::Relations;
pub use clock::BatchClock;
pub(crate) use clock::{BATCH_TIME, clock_in};
pub use windows::{OPERATION, length_text};
use windows::{WithWindows, take_windows};

/// A query that runs once per batch.
#[derive(Debug, Clone)]
pub struct BatchQuery {
    /// The planned query. `reads` names the relations below its windows, not the windows.
    pub query: Query,
    /// The windows that the plan scans.
    pub windows: Vec<Window>,
    /// The clock of the batch time, if the plan reads it.
    pub clock: Option<BatchClock>,
}

/// A relation of a [`BatchQuery`] that the catalog doesn't have.
#[derive(Debug, Clone)]
pub struct Window {
    /// The name that the plan's scans use.
    pub name: String,
    /// The input of the window.
    pub of: WindowOf,
    /// The kind of window, which selects the rows.
    pub kind: WindowKind,
}

/// The input of a window.
#[derive(Debug, Clone)]
pub enum WindowOf {
    /// A relation of the catalog.
    Relation(String),
    /// The results of another query per batch.
    Query(Box<BatchQuery>),
}

/// The rows that a window contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// `LAST(s, length, slide)`: the rows of the batches of a length of time, in microseconds, again after
    /// each slide. Without a slide, the window is evaluated after each batch.
    Last {
        /// The window's length: batches after T - length, up to T.
        length: i64,
        /// The slide: T is a multiple of it.
        slide: Option<i64>,
    },
    /// `CHANGES(s)`: the changes of the batch, with the column [`OPERATION`].
    Changes,
    /// The rows of the batch: of a query that UPDATE_STATE reads, or of UPDATE_STATE itself.
    Batch,
}

impl Window {
    /// Returns the slide of the window or of its input; none if the rows change with each batch.
    fn slide(&self) -> Option<i64> {
        match (self.kind, &self.of) {
            (WindowKind::Last { slide, .. }, _) => slide,
            (WindowKind::Batch, WindowOf::Query(query)) => query.slide(),
            (WindowKind::Changes | WindowKind::Batch, _) => None,
        }
    }
}

impl BatchQuery {
    /// Returns the slide of the windows; none if the query runs at each batch.
    pub fn slide(&self) -> Option<i64> {
        self.windows.iter().find_map(Window::slide)
    }

    /// Returns every relation of the catalog that the query reads, also through windows.
    fn all_reads(&self) -> Vec<String> {
        let mut reads: BTreeSet<String> = self.query.reads.iter().cloned().collect();
        for window in &self.windows {
            reads.remove(&window.name);
            match &window.of {
                WindowOf::Relation(name) => drop(reads.insert(name.clone())),
                WindowOf::Query(query) => reads.extend(query.query.reads.iter().cloned()),
            }
        }
        reads.into_iter().collect()
    }
}

impl Planner {
    /// Plans a query that runs once per batch. The text lacks the FOR EACH BATCH clause.
    pub fn batch_query(&self, text: &str, relations: &dyn Relations) -> Result<BatchQuery> {
        let reader = TokenReader::new(text)?;
        let mut tree = self.parser.parse_tree(&reader)?;
        let windows = take_windows(self, &mut tree, relations)?;
        let relations = WithWindows::new(relations, &windows);
        let shown = hidden_columns::hidden_columns_named(reader.rest(), &relations);
        hidden_columns::narrow_wildcards(&mut tree, &shown, &relations)?;
        let mut raw = self.translate(Statement::Query(tree), &shown, &relations, reader.text())?;
        let clock = BatchClock::default();
        let (plan, asked) = clock.replace_clocks(raw.plan)?;
        raw.plan = plan;
        let query = self.finish(raw, reader.text())?;
        let mut batch = BatchQuery {
            query,
            windows: windows.into_iter().map(|(window, _)| window).collect(),
            clock: asked.then_some(clock),
        };
        windows::check_slides(&batch.windows)?;
        batch.query.reads = batch.all_reads();
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table("s", "(k INT, v INT)", "VALUES (1, 10)")
            .table("t", "(k INT, w TEXT)", "VALUES (1, 'x')")
            .view("positive", "SELECT k, v FROM s WHERE v > 0")
    }

    fn windows(sql: &str) -> Vec<String> {
        let tables = tables();
        let query = tables.planner.batch_query(sql, &tables).unwrap();
        query.windows.iter().map(|window| window.name.clone()).collect()
    }

    #[test]
    fn windows_are_relations_of_their_own() {
        assert_eq!(
            windows("SELECT s.k FROM LAST(s, INTERVAL '30 seconds', INTERVAL '10' SECOND)"),
            ["LAST(s, 30 seconds, 10 seconds)"]
        );
        assert_eq!(
            windows("SELECT * FROM LAST(s, '1 minute') a JOIN last(public.s, INTERVAL '60 s') b USING (k)"),
            ["LAST(s, 1 minute)"]
        );
        assert_eq!(windows("SELECT * FROM changes(t) WHERE _op = 'insert'"), ["CHANGES(t)"]);
        assert_eq!(
            windows("SELECT k FROM LAST(LAST(s, INTERVAL '30 s', INTERVAL '10 s'), INTERVAL '60 s')"),
            ["LAST(LAST(s, INTERVAL '30 s', INTERVAL '10 s'), 1 minute, 10 seconds)"]
        );
        assert_eq!(windows("SELECT last, k FROM (SELECT 1 AS last, k FROM s)"), [""; 0]);
    }

    #[test]
    fn what_it_reads_is_in_the_catalog() {
        let tables = tables();
        let sql = "SELECT * FROM LAST(positive, '2 s') p JOIN CHANGES(t) USING (k)";
        let query = tables.planner.batch_query(sql, &tables).unwrap();
        assert_eq!(query.query.reads, ["positive", "t"]);
        assert!(query.clock.is_none());
        assert!(matches!(query.windows[0].of, WindowOf::Query(_)));
    }

    #[test]
    fn the_present_is_the_batch_time() {
        let tables = tables();
        let sql = "SELECT k, now() - INTERVAL '1 s' FROM s WHERE current_date > DATE '1970-01-01'";
        let query = tables.planner.batch_query(sql, &tables).unwrap();
        assert!(query.clock.is_some());
        query.query.check_determinism().unwrap();
    }

    fn refused(sql: &str, expected: &str) {
        let tables = tables();
        let error = tables.planner.batch_query(sql, &tables).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.message);
    }

    #[test]
    fn wrong_windows_are_refused() {
        refused("SELECT * FROM LAST(s)", "LAST takes a relation, a length and");
        refused("SELECT * FROM LAST(s, 30)", "a length of time");
        refused("SELECT * FROM LAST(s, INTERVAL '1 month')", "a month");
        refused("SELECT * FROM LAST(s, INTERVAL '-1 s')", "above zero");
        refused("SELECT * FROM LAST(nope, '1 s')", "relation \"nope\" not found");
        refused(
            "SELECT * FROM LAST(s, '4 s', '2 s') a, LAST(s, '4 s', '1 s') b",
            "slides of 2 seconds and of 1 second",
        );
        refused("SELECT * FROM LAST(LAST(s, '4 s', '2 s'), '5 s')", "no multiple of 2 seconds");
        refused("SELECT * FROM CHANGES(positive)", "a view");
    }
}
