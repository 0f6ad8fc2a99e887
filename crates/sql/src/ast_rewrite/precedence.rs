//! Corrects the precedence of AND, OR and NOT around `IS [NOT] DISTINCT FROM`.
//!
//! The parser takes everything after `DISTINCT FROM` for its right side: `a IS NOT DISTINCT FROM b AND c`
//! becomes `a IS NOT DISTINCT FROM (b AND c)`. Parentheses in the text appear as `Nested` in the tree. So an
//! AND or OR without them moves up again: out of the right side, past a NOT, and an OR past an AND before it.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Corrects an expression whose parts are correct.
pub(super) fn settle(expression: &mut Expr) {
    let found = std::mem::replace(expression, Expr::value(Value::Null));
    *expression = match found {
        Expr::IsDistinctFrom(left, right) => {
            rotate(*right, &mut |right| Expr::IsDistinctFrom(left.clone(), Box::new(right)))
        }
        Expr::IsNotDistinctFrom(left, right) => {
            rotate(*right, &mut |right| Expr::IsNotDistinctFrom(left.clone(), Box::new(right)))
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            rotate(*expr, &mut |expr| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) })
        }
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => rotate(*right, &mut |right| {
            Expr::BinaryOp { left: left.clone(), op: BinaryOperator::And, right: Box::new(right) }
        }),
        other => other,
    };
}

/// Applies `wrap` to the first operand of `right`, and keeps operators of lower precedence outside.
fn rotate(right: Expr, wrap: &mut dyn FnMut(Expr) -> Expr) -> Expr {
    match right {
        Expr::BinaryOp { left, op, right } if matches!(op, BinaryOperator::And | BinaryOperator::Or) => {
            let left = rotate(*left, wrap);
            Expr::BinaryOp { left: Box::new(left), op, right }
        }
        operand => wrap(operand),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use crate::ast_walk::walk_mut;
    use crate::tokens::DIALECT;

    fn check(written: &str, expected: &str) {
        let parse = |text: &str| Parser::new(&DIALECT).try_with_sql(text).unwrap().parse_expr().unwrap();
        let mut found = parse(written);
        let _ = walk_mut(
            &mut found,
            &mut super::super::RewriteStatement {
                known: &|_| false,
                columns: &|_| None,
                with: Vec::new(),
                merged: 0,
            },
        );
        assert_eq!(found.to_string(), written, "the text stays");
        let mut meant = parse(expected);
        let _ = walk_mut(
            &mut meant,
            &mut super::super::RewriteStatement {
                known: &|_| false,
                columns: &|_| None,
                with: Vec::new(),
                merged: 0,
            },
        );
        let bare = |expr: &super::Expr| {
            let mut expr = expr.clone();
            let _ = walk_mut(&mut expr, &mut Bare);
            expr
        };
        assert_eq!(bare(&found), bare(&meant), "{written}");
    }

    /// Removes parentheses, so that trees can be compared.
    struct Bare;

    impl datafusion::sql::sqlparser::ast::VisitorMut for Bare {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut super::Expr) -> std::ops::ControlFlow<()> {
            if let super::Expr::Nested(inner) = expr {
                *expr = inner.as_ref().clone();
            }
            std::ops::ControlFlow::Continue(())
        }
    }

    #[test]
    fn and_or_and_not_stay_outside() {
        for op in ["IS NOT DISTINCT FROM", "IS DISTINCT FROM"] {
            let check = |written: &str, expected: &str| {
                check(&written.replace("~", op), &expected.replace("~", op));
            };
            check("a ~ b AND c", "(a ~ b) AND c");
            check("a ~ b OR c AND d", "(a ~ b) OR (c AND d)");
            check("p AND a ~ b AND c OR d", "((p AND (a ~ b)) AND c) OR d");
            check("p OR a ~ b AND c OR d", "p OR (((a ~ b) AND c) OR d)");
            check("NOT a ~ b AND c", "(NOT (a ~ b)) AND c");
            check("a ~ b AND c ~ d AND e", "((a ~ b) AND (c ~ d)) AND e");
            check("a ~ (b AND c)", "a ~ (b AND c)");
            check("a ~ b + 1 AND c", "(a ~ (b + 1)) AND c");
            check("a ~ b BETWEEN 1 AND 2 AND c", "(a ~ (b BETWEEN 1 AND 2)) AND c");
            check("a ~ CASE WHEN b AND c THEN d END AND e", "(a ~ (CASE WHEN b AND c THEN d END)) AND e");
        }
    }
}
