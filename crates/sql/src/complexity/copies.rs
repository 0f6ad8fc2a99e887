//! Limits how often planning copies the parts of an expression.
//!
//! Some expressions are planned with an operand written twice: `coalesce(a, b)` as
//! `CASE WHEN a IS NOT NULL THEN a ELSE b END`, `x BETWEEN a AND b` as `x >= a AND x <= b`. If such expressions lie
//! within each other, the copies double with every level: 30 levels, 400 characters, would take more memory than
//! there is. The copies are therefore counted on the parsed statement, before any code makes them.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{Expr, Query, Statement, Visit, Visitor};

use crate::error::{Error, Result};
use crate::relation::Relations;
use crate::sqlstate;

/// The most parts that an expression may have with all copies, if these are most of it.
const PARTS_MAX: u64 = 200_000;
const COPIES_MAX: u64 = 64;

/// The parts that a subquery counts for: its operators cost more than those of expressions.
const QUERY_PARTS: u64 = 100;

/// The number of parts of an expression, as written and with all copies.
#[derive(Clone, Copy, Default)]
struct Size {
    written: u64,
    copied: u64,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.written = self.written.saturating_add(other.written);
        self.copied = self.copied.saturating_add(other.copied);
    }

    fn is_too_much(self) -> bool {
        self.copied > PARTS_MAX && self.copied / COPIES_MAX >= self.written
    }
}

struct Copies<'a> {
    state: &'a SessionState,
    relations: &'a dyn Relations,
    /// The sizes of the expressions that are being read, from the outermost on.
    open: Vec<Size>,
}

/// Fails if planning would copy parts of an expression too often.
pub(crate) fn refuse_copies(
    statement: &Statement,
    state: &SessionState,
    relations: &dyn Relations,
) -> Result<()> {
    match statement.visit(&mut Copies { state, relations, open: Vec::new() }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(size) => Err(Error::invalid(format!(
            "an expression is nested too deeply: planned, its {} parts would become more than {PARTS_MAX}",
            size.written
        ))
        .code(sqlstate::STATEMENT_TOO_COMPLEX)
        .hint("Compute inner parts in a subquery in FROM, in WITH or in a view, and name them there.")),
    }
}

impl Visitor for Copies<'_> {
    type Break = Size;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Size> {
        if let Some(open) = self.open.last_mut() {
            open.add(Size { written: QUERY_PARTS, copied: QUERY_PARTS });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<Size> {
        self.open.push(Size { written: 1, copied: 1 });
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Size> {
        let mut size = self.open.pop().unwrap_or_default();
        size.copied = size.copied.saturating_mul(self.times(expression));
        if size.is_too_much() {
            return ControlFlow::Break(size);
        }
        if let Some(outer) = self.open.last_mut() {
            outer.add(size);
        }
        ControlFlow::Continue(())
    }
}

impl Copies<'_> {
    /// Returns true for a function that is planned with its arguments written twice. DataFusion derives the type of a
    /// function that is called by another name twice.
    fn repeats(&self, name: &str) -> bool {
        let is_alias = || self.state.scalar_functions().get(name).is_some_and(|known| known.name() != name);
        matches!(name, "coalesce" | "nvl" | "ifnull")
            || is_alias()
            || self.relations.routine_catalog().routine(name).is_some()
    }

    /// Returns how often the operands of an expression are written in its plan, at most.
    fn times(&self, expression: &Expr) -> u64 {
        match expression {
            Expr::Function(call) => 1 + u64::from(self.repeats(&call.name.to_string().to_lowercase())),
            Expr::Between { .. } | Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => 2,
            // A cast looks twice at whether its operand may be NULL, unless that is a cast.
            Expr::Cast { expr, .. } => 1 + u64::from(!matches!(bare(expr), Expr::Cast { .. })),
            // Short lists become comparisons.
            Expr::InList { list, .. } if list.len() <= 3 => list.len().max(1) as u64,
            Expr::InSubquery { expr, .. } if matches!(bare(expr), Expr::Tuple(_)) => 3,
            _ => 1,
        }
    }
}

fn bare(mut expression: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expression {
        expression = inner;
    }
    expression
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn copies_that_double_with_each_level_are_refused() {
        let tables = Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2)");
        let repeating = [
            "coalesce(@, 1)",
            "nvl(@, 1)",
            "coalesce(abs(@), b, 2)",
            "array_length(list_reverse(list_sort([@])))",
            "((@) BETWEEN 0 AND 5)::INT",
            "((@) IN (1, 2, 3))::INT",
            "((@) IS DISTINCT FROM 5)::INT",
            "((@) = 1 AND a = 1)::INT",
            "CASE WHEN (@, b) IN (SELECT a, b FROM t) THEN 1 END",
        ];
        for part in repeating {
            let nested = |levels: usize| {
                let all = (0..levels).fold("a".to_string(), |inner, _| part.replace('@', &inner));
                format!("SELECT {all} AS r FROM t")
            };
            let shallow = tables.planner.query(&nested(3), &tables);
            assert!(shallow.is_ok(), "{part}: {:?}", shallow.err());
            for levels in [18, 22] {
                let error = tables.planner.query(&nested(levels), &tables).unwrap_err();
                assert!(error.message.contains("nested too deeply"), "{part}: {}", error.message);
            }
        }
        let row = format!("SELECT {}1{} AS r", "ROW(".repeat(30), ")".repeat(30));
        tables.fails(
            &row,
            "an expression is nested too deeply: planned, its 18 parts would become more than 200000\n\
             HINT: Compute inner parts in a subquery in FROM, in WITH or in a view, and name them there.",
        );
    }

    #[test]
    fn other_expressions_may_be_deep() {
        let tables = Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2)");
        for part in ["abs(@)", "(@ + 1)", "CASE WHEN @ = 1 THEN 1 ELSE 2 END", "nullif(@, 7)", "(@)::BIGINT"]
        {
            let all = (0..14).fold("a".to_string(), |inner, _| part.replace('@', &inner));
            assert!(tables.planner.query(&format!("SELECT {all} AS r FROM t"), &tables).is_ok(), "{part}");
        }
        let casts = format!("SELECT a{} AS r FROM t", "::BIGINT::INT".repeat(100));
        tables.check(&casts, &["1"]);
        let list = vec!["1"; 50_000].join(", ");
        tables
            .check(&format!("SELECT coalesce(coalesce(a IN ({list}), true), false) AS r FROM t"), &["true"]);
    }

    #[test]
    fn subqueries_that_would_be_copied_too_often_are_refused() {
        let tables = Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2)");
        let nested = |levels: usize, of: &str| {
            format!("SELECT a FROM t WHERE {}true{}", of.repeat(levels), ")".repeat(levels))
        };
        for of in ["a = 1 OR a IN (SELECT a FROM t WHERE ", "1 IN (SELECT 1 FROM t WHERE "] {
            tables.check(&nested(4, of), &["1"]);
            let error = tables.planner.query(&nested(12, of), &tables).unwrap_err();
            assert!(error.message.contains("IN"), "{}", error.message);
        }
        tables.check(&nested(12, "a IN (SELECT a FROM t WHERE "), &["1"]);
    }
}
