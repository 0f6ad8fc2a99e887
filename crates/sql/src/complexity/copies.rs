//! Limits how often planning copies the parts of an expression.
//!
//! Some expressions are planned with an operand written twice: `coalesce(a, b)` as
//! `CASE WHEN a IS NOT NULL THEN a ELSE b END`, `x BETWEEN a AND b` as `x >= a AND x <= b`. If such expressions lie
//! within each other, the copies double with every level: 30 levels, 400 characters, would take more memory than
//! there is. The copies are therefore counted on the parsed statement, before any code makes them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{Expr, LimitClause, Query, Statement, Visitor};

use crate::ast_rewrite::{bare, times_of_rows};
use crate::ast_walk::walk;
use crate::error::{Error, Result};
use crate::relation::Relations;
use crate::sqlstate;

/// The most parts that an expression may have with all copies, if these are most of it.
const PARTS_MAX: u64 = 200_000;
const COPIES_MAX: u64 = 64;

/// The parts that a subquery counts for: its operators cost more than those of expressions.
pub(super) const QUERY_PARTS: u64 = 100;

/// What to do about an expression that is copied too often.
pub(super) const HINT: &str =
    "Compute inner parts in a subquery in FROM, in WITH or in a view, and name them there.";

/// The number of parts of an expression, as written and with all copies.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) written: u64,
    copied: u64,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.written = self.written.saturating_add(other.written);
        self.copied = self.copied.saturating_add(other.copied);
    }

    /// Adds parts that are copied. Fails if they are too many.
    pub(crate) fn copy(&mut self, parts: u64) -> Result<()> {
        self.copied = self.copied.saturating_add(parts);
        self.check()
    }

    /// Fails if the copies are too many.
    fn check(self) -> Result<()> {
        if self.copied <= PARTS_MAX || self.copied / COPIES_MAX < self.written {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "an expression is nested too deeply: planned, its {} parts would become more than {PARTS_MAX}",
            self.written
        ))
        .code(sqlstate::STATEMENT_TOO_COMPLEX)
        .hint(HINT))
    }
}

struct Copies<'a> {
    state: &'a SessionState,
    relations: &'a dyn Relations,
    /// The sizes of the expressions that are being read, from the outermost on.
    open: Vec<Size>,
    /// The limits of the queries that are being read.
    limits: HashSet<*const Expr>,
}

/// Fails if planning would copy parts of an expression too often.
pub(crate) fn refuse_copies(
    statement: &Statement,
    state: &SessionState,
    relations: &dyn Relations,
) -> Result<()> {
    match walk(statement, &mut Copies { state, relations, open: Vec::new(), limits: HashSet::new() }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

impl Visitor for Copies<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        self.limits.extend(limits_of(query).map(std::ptr::from_ref));
        if let Some(open) = self.open.last_mut() {
            open.add(Size { written: QUERY_PARTS, copied: QUERY_PARTS });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<Error> {
        self.open.push(Size { written: 1, copied: 1 });
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Error> {
        let mut size = self.open.pop().unwrap_or_default();
        size.copied = size.copied.saturating_mul(self.times(expression));
        if let Err(error) = size.check() {
            return ControlFlow::Break(error);
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
        // A condition on the number of a row can have a limit twice: see `ast_rewrite/limits.rs`.
        let as_limit = 1 + u64::from(self.limits.contains(&std::ptr::from_ref(expression)));
        as_limit
            * match expression {
                Expr::Function(call) => 1 + u64::from(self.repeats(&call.name.to_string().to_lowercase())),
                Expr::BinaryOp { left, op, .. } => times_of_rows(op, left),
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

/// The limits of a query but FETCH, which takes a number.
fn limits_of(query: &Query) -> impl Iterator<Item = &Expr> {
    let (limit, offset) = match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
        None => (None, None),
    };
    limit.into_iter().chain(offset)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;
    use crate::user_types::{Domain, UserType};

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
    fn limits_count_twice() {
        let tables = Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2)");
        for part in [
            "(SELECT a FROM t LIMIT 5 OFFSET @)",
            "(SELECT a FROM t ORDER BY a OFFSET @ ROWS FETCH FIRST 1 ROW WITH TIES)",
        ] {
            let nested = |levels: usize| {
                let all = (0..levels).fold("(SELECT 1)".to_string(), |inner, _| part.replace('@', &inner));
                format!("SELECT {all} AS r")
            };
            assert!(tables.planner.query(&nested(2), &tables).is_ok(), "{part}");
            let error = tables.planner.query(&nested(20), &tables).unwrap_err();
            assert!(error.message.contains("nested too deeply"), "{part}: {}", error.message);
        }
    }

    #[test]
    fn conditions_of_domains_are_copies() {
        let tables = Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2)");
        let domain = |checks: &[&str], not_null: bool| {
            let checks = checks.iter().map(|check| (None, check.to_string())).collect();
            UserType::Domain(Domain { base: "INT".into(), checks, not_null, ..Domain::default() })
        };
        let types = tables.planner.types();
        types.define("odd", domain(&["value > 0", "value % 2 = 1"], false));
        types.define("known", domain(&[], true));
        types.define("large", domain(&["value > 0"; 400], false));
        for name in ["odd", "known"] {
            let nested =
                |levels: usize| format!("SELECT a{} AS r FROM t", format!("::{name}").repeat(levels));
            tables.check(&nested(2), &["1"]);
            for levels in [12, 40] {
                let error = tables.planner.query(&nested(levels), &tables).unwrap_err();
                assert!(error.message.contains("nested too deeply"), "{name}: {}", error.message);
            }
        }
        let many = |count: usize, name: &str| {
            format!("SELECT array_length([{}])", vec![format!("1::{name}"); count].join(", "))
        };
        tables.check(&many(500, "odd"), &["500"]);
        let error = tables.planner.query(&many(200, "large"), &tables).unwrap_err();
        assert!(error.message.contains("nested too deeply"), "{}", error.message);
    }

    #[test]
    fn shapes_in_comparisons_are_copied_up_to_a_size() {
        let tables = Tables::new().table("t", "(b BOX, c BOX)", "VALUES ('(1,1),(0,0)', '(2,2),(0,0)')");
        for part in [
            "CASE WHEN @ IN (b, c, b, c, b) THEN b ELSE c END",
            "CASE @ WHEN c THEN b WHEN b THEN c WHEN b THEN b END",
            "nullif(@, c)",
        ] {
            let nested = |levels: usize| {
                let all = (0..levels).fold("b".to_string(), |inner, _| part.replace('@', &inner));
                format!("SELECT {all} AS r FROM t")
            };
            assert!(tables.planner.query(&nested(2), &tables).is_ok(), "{part}");
            let error = tables.planner.query(&nested(12), &tables).unwrap_err();
            assert!(error.message.contains("would be planned"), "{part}: {}", error.message);
        }
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
