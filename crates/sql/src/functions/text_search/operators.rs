//! Plans the operators of full text search.

use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::expression_type::type_of;
use crate::functions::json::operators::{column_in, shown, typed};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::is_literal;
use crate::functions::marks::function::is_text;
use crate::functions::marks::shape::Shape;

/// The planner. It must be asked before those of JSON, which takes `@@`, and of arrays, which takes `&&`.
#[derive(Debug)]
pub(crate) struct TextSearchOperators;

impl ExprPlanner for TextSearchOperators {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let columns = |column: &Column| column_in(schema, column);
        let mark = |side: &Expr| Shape::mark(side, &columns);
        let marks = (mark(&written.left), mark(&written.right));
        let name = match written.op {
            BinaryOperator::AtAt if !marks.0.is_some_and(Mark::is_json) => {
                let is_text = |side: &Expr| is_literal(side) || is_text(&type_of(side, schema));
                (is_text(&written.left) && is_text(&written.right)).then_some("ts_match")
            }
            BinaryOperator::Custom(ref symbol) if symbol == "<->" => Some("tsquery_phrase"),
            BinaryOperator::StringConcat => {
                function(Operator::StringConcat, &written.left, &written.right, marks)
            }
            BinaryOperator::AtArrow => function(Operator::AtArrow, &written.left, &written.right, marks),
            BinaryOperator::ArrowAt => function(Operator::ArrowAt, &written.left, &written.right, marks),
            BinaryOperator::PGOverlap if has_query(&written.left, &written.right, marks) => {
                Some("tsquery_and")
            }
            _ => None,
        };
        let Some(name) = name else { return Ok(PlannerResult::Original(written)) };
        let label = format!("{} {} {}", shown(&written.left), written.op, shown(&written.right));
        let RawBinaryExpr { op, left, right } = written;
        let (left, right) = (typed(left), typed(right));
        Ok(match call(name, vec![left.clone(), right.clone()]) {
            Some(planned) => PlannerResult::Planned(planned.alias(label)),
            None => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        })
    }
}

type Marks = (Option<Mark>, Option<Mark>);

/// True if an operand is a TSQUERY, and the other one a TSQUERY or a literal.
fn has_query(left: &Expr, right: &Expr, marks: Marks) -> bool {
    both(Mark::Tsquery, left, right, marks)
}

fn both(mark: Mark, left: &Expr, right: &Expr, marks: Marks) -> bool {
    let is = |found: Option<Mark>, side: &Expr| found == Some(mark) || (found.is_none() && is_literal(side));
    (marks.0 == Some(mark) || marks.1 == Some(mark)) && is(marks.0, left) && is(marks.1, right)
}

/// Returns the function of an operator that other types have too; none if its operands are of these.
pub(crate) fn function(op: Operator, left: &Expr, right: &Expr, marks: Marks) -> Option<&'static str> {
    let is_query = has_query(left, right, marks);
    match op {
        Operator::StringConcat if both(Mark::Tsvector, left, right, marks) => Some("tsvector_concat"),
        Operator::StringConcat if is_query => Some("tsquery_or"),
        Operator::AtArrow if is_query => Some("tsquery_contains"),
        Operator::ArrowAt if is_query => Some("tsquery_contained"),
        _ => None,
    }
}
