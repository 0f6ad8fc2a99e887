//! Limits on the depth of a statement and the size of its plan.
//!
//! A statement that is too deep is refused before any code walks its tree. The depth is therefore counted on
//! tokens. Each operator of a chain is a level, since `1 + 1 + 1` is a tree as deep as it is long. So are set
//! operations, joins and parentheses. Terms of a list, arguments of a call and rows of VALUES are siblings
//! and add no level.

mod copies;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};
use crate::sqlstate;

pub(crate) use copies::{Size, refuse_copies};

/// The most levels that a statement may have.
pub const DEPTH_MAX: usize = 20_000;

/// The most nodes that a plan may have after views and WITH queries replace their names.
pub const NODES_MAX: u64 = 100_000;

/// The most nodes that a subquery may have which its plan names twice.
const TWICE_MAX: u64 = 5_000;

/// The most parts that an operand may have in all the places together where a rule writes it, unless it is small.
const REPEATED_MAX: u64 = 5_000;
const SMALL: u64 = 64;

/// The levels counted so far within one pair of parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    sets: usize,
    joins: usize,
    conditions: usize,
    operators: usize,
    is_from: bool,
}

impl Level {
    fn depth(self) -> usize {
        self.sets + self.joins + self.conditions + self.operators + 1
    }

    /// Adds the levels of a token. A token that begins a new part resets the counts of the part before.
    fn read(&mut self, token: &Token) {
        match token {
            Token::Comma => {
                self.joins += usize::from(self.is_from);
                (self.conditions, self.operators) = (0, 0);
            }
            Token::Word(word) if word.quote_style.is_none() => self.read_keyword(word.keyword),
            Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            _ => self.operators += 1,
        }
    }

    fn read_keyword(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
                *self = Level { sets: self.sets + 1, ..Level::default() };
            }
            Keyword::JOIN => {
                *self = Level { sets: self.sets, joins: self.joins + 1, is_from: true, ..Level::default() }
            }
            Keyword::FROM | Keyword::USING => {
                *self = Level { sets: self.sets, joins: self.joins, is_from: true, ..Level::default() }
            }
            Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::SELECT => {
                (self.conditions, self.operators, self.is_from) = (0, 0, false);
            }
            Keyword::AND | Keyword::OR => (self.conditions, self.operators) = (self.conditions + 1, 0),
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE => (self.conditions, self.operators) = (0, 0),
            Keyword::NOT
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::IN
            | Keyword::COLLATE
            | Keyword::AT => {
                self.operators += 1;
            }
            _ => {}
        }
    }
}

/// Fails if a statement is deeper than [`DEPTH_MAX`].
pub(crate) fn refuse_deep(tokens: &[TokenWithSpan]) -> Result<()> {
    let found = depth(tokens.iter().map(|token| &token.token));
    if found <= DEPTH_MAX {
        return Ok(());
    }
    let message = format!("the statement is {found} levels deep, and {DEPTH_MAX} is the maximum");
    Err(Error::invalid(message).code(sqlstate::STATEMENT_TOO_COMPLEX).hint(
        "Write x IN (…) for a chain of x = … OR, put long lists of values into a table and join it, or cut the \
         statement into several views.",
    ))
}

/// Fails if a plan has more than [`NODES_MAX`] nodes. A subplan that is named several times is one node in
/// memory before optimisation, but counts once for each name. Code that walks the plan visits it that often:
/// if each of twenty WITH queries doubles the one before it, the walk visits a million nodes.
pub(crate) fn refuse_large(plan: &LogicalPlan) -> Result<()> {
    let found = nodes(plan, &mut HashMap::new())?;
    if found <= NODES_MAX {
        return Ok(());
    }
    let message = format!(
        "the statement's plan has {found} nodes once views and WITH queries are inlined, and {NODES_MAX} \
         is the maximum"
    );
    Err(Error::invalid(message)
        .code(sqlstate::STATEMENT_TOO_COMPLEX)
        .hint("CREATE MATERIALIZED VIEW for a query that is used often: its rows are then computed once."))
}

/// Fails if a subquery of IN has more than [`TWICE_MAX`] nodes. The plan names it twice, so subqueries of IN that lie
/// within each other double with every level.
pub(crate) fn refuse_twice(subquery: &LogicalPlan) -> Result<()> {
    let found = nodes(subquery, &mut HashMap::new())?;
    if found <= TWICE_MAX {
        return Ok(());
    }
    let message = format!(
        "the subquery of an IN has {found} nodes once what it holds is planned, and {TWICE_MAX} is the maximum"
    );
    Err(Error::invalid(message).code(sqlstate::STATEMENT_TOO_COMPLEX).hint(
        "Use x IN (SELECT …) as a condition of its own, joined by AND and of a column of the query, write EXISTS, or \
         CREATE MATERIALIZED VIEW for an inner query.",
    ))
}

/// Fails if a rule that writes an operand several times would make too much of it. Such operands within each other grow by
/// that factor with every level.
pub(crate) fn refuse_repeated(operand: &Expr, times: usize) -> Result<()> {
    let found = parts(operand)?;
    if found <= SMALL || found.saturating_mul(times as u64) <= REPEATED_MAX {
        return Ok(());
    }
    let message = format!(
        "an operand of {found} parts would be planned {times} times, and {REPEATED_MAX} parts are the maximum"
    );
    Err(Error::invalid(message).code(sqlstate::STATEMENT_TOO_COMPLEX).hint(copies::HINT))
}

/// Returns the number of expressions in an expression. A node of a subquery's plan counts for several.
pub(crate) fn parts(expression: &Expr) -> Result<u64> {
    let mut count = 0_u64;
    expression.apply(|part| {
        let within = subquery_of(part).map_or(Ok(0), |plan| nodes(plan, &mut HashMap::new()))?;
        count = count.saturating_add(1).saturating_add(within.saturating_mul(copies::QUERY_PARTS));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(count)
}

/// Returns the plan of an expression that is a subquery.
pub(crate) fn subquery_of(expression: &Expr) -> Option<&Arc<LogicalPlan>> {
    Some(match expression {
        Expr::ScalarSubquery(subquery) => &subquery.subquery,
        Expr::Exists(exists) => &exists.subquery.subquery,
        Expr::InSubquery(within) => &within.subquery.subquery,
        Expr::SetComparison(set) => &set.subquery.subquery,
        _ => return None,
    })
}

fn nodes(plan: &LogicalPlan, known: &mut HashMap<*const LogicalPlan, u64>) -> Result<u64> {
    if let Some(count) = known.get(&std::ptr::from_ref(plan)) {
        return Ok(*count);
    }
    let mut count = 1_u64;
    for input in plan.inputs() {
        count = count.saturating_add(nodes(input, known)?);
    }
    let mut subqueries = Vec::new();
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            subqueries.extend(subquery_of(expr).cloned());
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    for subquery in subqueries {
        count = count.saturating_add(nodes(&subquery, known)?);
    }
    known.insert(std::ptr::from_ref(plan), count);
    Ok(count)
}

/// Returns about how deep the tree of these tokens is, at the least.
fn depth<'a>(tokens: impl Iterator<Item = &'a Token>) -> usize {
    let (mut level, mut outside, mut above, mut most) = (Level::default(), Vec::new(), 0, 0);
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                outside.push(level);
                above += level.depth();
                level = Level::default();
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                level = outside.pop().unwrap_or_default();
                above -= level.depth().min(above);
                // `x[1][2]` and `f(1)(2)` continue the expression that the brackets made.
                level.operators += usize::from(*token == Token::RBracket);
            }
            token => level.read(token),
        }
        most = most.max(above + level.depth());
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokenise;

    fn depth_of(sql: &str) -> usize {
        depth(tokenise(sql).unwrap().iter().map(|lexeme| &lexeme.token.token))
    }

    #[test]
    fn chains_are_deep_and_lists_are_not() {
        let of = |count: usize, term: &str, between: &str| vec![term; count].join(between);
        for (term, between) in
            [("1", " + "), ("a = 1", " AND "), ("SELECT 1", " UNION ALL "), ("t", " JOIN ")]
        {
            let found = depth_of(&format!("SELECT {}", of(1000, term, between)));
            assert!((1000..1010).contains(&found), "{found} levels of {between}");
        }
        let casts = format!("SELECT 1{}", "::int".repeat(500));
        let parentheses = format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500));
        let from = format!("SELECT 1 FROM {} WHERE true", of(500, "t", ", "));
        for deep in [casts, parentheses, from] {
            assert!((500..510).contains(&depth_of(&deep)), "{} levels: {deep}", depth_of(&deep));
        }
        let list = format!("SELECT a IN ({}), b + 1", of(1000, "1 + 1", ", "));
        let rows = format!("INSERT INTO t VALUES {}", of(1000, "(-1, 2 * 3)", ", "));
        let cases = format!("SELECT CASE {} END", of(1000, "WHEN a = 1 AND b THEN c + 1", " "));
        for flat in [list, rows, cases] {
            assert!(depth_of(&flat) < 20, "{} levels", depth_of(&flat));
        }
    }
}
