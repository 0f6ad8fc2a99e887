//! The condition of an ASOF JOIN: equalities between both sides, and one comparison of their times.

use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::Expr as ExprTree;

use crate::error::{Error, Result};

/// The parts of the condition. The first of each pair is over the left side, the second over the right.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// The pairs of equal expressions.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// The comparison of the times.
    pub(super) time: Option<(Expr, Operator, Expr)>,
}

impl Conditions {
    /// Adds a condition as written.
    pub(super) fn take(
        &mut self,
        written: ExprTree,
        (left, right): (&LogicalPlan, &LogicalPlan),
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<()> {
        let text = written.to_string();
        let both = left.schema().join(right.schema())?;
        for part in split_conjunction_owned(context.sql_to_expr(written, &both)?) {
            self.part(part, left, right).map_err(|error| match error {
                Some(error) => error,
                None => unexpected(&text),
            })?;
        }
        Ok(())
    }

    /// Adds one part of a condition. The error is none if the part doesn't compare both sides.
    fn part(
        &mut self,
        part: Expr,
        left: &LogicalPlan,
        right: &LogicalPlan,
    ) -> std::result::Result<(), Option<Error>> {
        let Expr::BinaryExpr(BinaryExpr { left: first, op, right: second }) = part else { return Err(None) };
        let (first, second) = (*first, *second);
        let (mine, op, theirs) = match () {
            _ if is_of(&first, left) && is_of(&second, right) => (first, op, second),
            _ if is_of(&first, right) && is_of(&second, left) => (second, op.swap().ok_or(None)?, first),
            _ => return Err(None),
        };
        match op {
            Operator::Eq => self.keys.push((mine, theirs)),
            Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq if self.time.is_none() => {
                self.time = Some((mine, op, theirs));
            }
            Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq => {
                return Err(Some(
                    Error::invalid(
                        "ASOF JOIN: its condition compares the sides twice, but it has one nearest row",
                    )
                    .hint("Keep one of >=, >, <= and < in it, and put the other into WHERE."),
                ));
            }
            _ => return Err(None),
        }
        Ok(())
    }

    /// Takes the comparison of the times, which is required.
    pub(super) fn compared(&mut self) -> Result<(Expr, Operator, Expr)> {
        self.time.take().ok_or_else(no_time)
    }
}

/// True if an expression is over columns of a side, and has some.
fn is_of(expr: &Expr, side: &LogicalPlan) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|column| side.schema().has_column(column))
}

pub(super) fn no_time() -> Error {
    Error::invalid("ASOF JOIN: its condition compares no times of both sides")
        .hint("Write ASOF JOIN … ON a.k = b.k AND a.ts >= b.ts, or MATCH_CONDITION (a.ts >= b.ts) before ON.")
}

fn unexpected(text: &str) -> Error {
    Error::invalid(format!(
        "ASOF JOIN: in {text} a term is not a comparison of a value of the left side with one of the right side"
    ))
    .hint(
        "Its condition consists of equalities and one of >=, >, <= and <, joined by AND. Conditions on one \
         side alone go into a subquery or into WHERE.",
    )
}
