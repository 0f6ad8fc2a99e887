//! Requires boolean conditions: in WHERE, HAVING, ON, FILTER, CASE WHEN, and under NOT, AND and OR.
//!
//! DataFusion's planner would accept numbers and texts in CASE WHEN and FILTER. Elsewhere it refuses them
//! itself, but its errors name neither the clause nor an SQL type.

use std::str::FromStr;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::sql_type;

use crate::error::Error;
use crate::rules::names::input_schema;
use crate::sqlstate;
use crate::tokens;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct Conditions;

impl AnalyzerRule for Conditions {
    fn name(&self) -> &str {
        "conditions"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            let schema = input_schema(node);
            node.apply_expressions(|expression| {
                expression.apply(|part| check(part, &schema).map(|()| TreeNodeRecursion::Continue))
            })
        })?;
        Ok(plan)
    }
}

fn check(expression: &Expr, schema: &DFSchema) -> Result<()> {
    let is_boolean = |clause: &str, condition: &Expr| match condition.get_type(schema) {
        // A literal text may be a boolean; a parameter's type isn't known yet.
        Ok(DataType::Boolean | DataType::Null) | Err(_) => Ok(()),
        Ok(_) if matches!(condition, Expr::Literal(ScalarValue::Utf8(_), _)) => Ok(()),
        Ok(found) => Err(not_boolean(&format!("the condition of {clause}"), &found).into()),
    };
    match expression {
        Expr::Case(case) if case.expr.is_none() => {
            case.when_then_expr.iter().try_for_each(|(when, _)| is_boolean("CASE WHEN", when))
        }
        Expr::AggregateFunction(call) => {
            call.params.filter.iter().try_for_each(|filter| is_boolean("FILTER", filter))
        }
        Expr::WindowFunction(call) => {
            call.params.filter.iter().try_for_each(|filter| is_boolean("FILTER", filter))
        }
        _ => Ok(()),
    }
}

fn not_boolean(what: &str, found: &DataType) -> Error {
    Error::invalid(format!("{what} is of type {}; a boolean is expected", sql_type(found)))
        .hint("Compare it with something, as in x <> 0.")
        .code(sqlstate::DATATYPE_MISMATCH)
}

/// Rewords the planner's error about a condition. `sql` is the statement.
pub(crate) fn reworded(message: &str, sql: Option<&str>) -> Option<Error> {
    let found = |text: &str| DataType::from_str(text.trim()).ok();
    if let Some(rest) = message.strip_prefix("Cannot create filter with non-boolean predicate ") {
        let (_, data_type) = rest.rsplit_once(" returning ")?;
        return Some(not_boolean(&format!("the condition of {}", filtering(sql)), &found(data_type)?));
    }
    if let Some(data_type) = message.strip_prefix("Join condition must be boolean type, but got ") {
        return Some(not_boolean("the condition of ON", &found(data_type)?));
    }
    if let Some(data_type) = message.strip_prefix("Unary operator 'NOT' requires a boolean expression, got ")
    {
        return Some(not_boolean("the argument of NOT", &found(data_type)?));
    }
    let sides = message.strip_prefix("Cannot infer common argument type for logical boolean operation ")?;
    let (operator, (left, right)) =
        ["AND", "OR"].into_iter().find_map(|op| Some((op, sides.split_once(&format!(" {op} "))?)))?;
    let wrong = [left, right].into_iter().filter_map(found).find(|side| *side != DataType::Boolean)?;
    Some(not_boolean(&format!("an argument of {operator}"), &wrong))
}

/// Lists the clauses of a statement that filter.
fn filtering(sql: Option<&str>) -> String {
    let lexemes = sql.and_then(|sql| tokens::tokenise(sql).ok()).unwrap_or_default();
    let clauses = [(Keyword::WHERE, "WHERE"), (Keyword::HAVING, "HAVING"), (Keyword::QUALIFY, "QUALIFY")];
    let is_there = |keyword: Keyword| {
        lexemes
            .iter()
            .any(|lexeme| matches!(&lexeme.token.token, Token::Word(word) if word.keyword == keyword))
    };
    let there: Vec<&str> =
        clauses.into_iter().filter(|(keyword, _)| is_there(*keyword)).map(|(_, name)| name).collect();
    if there.is_empty() { "WHERE".into() } else { there.join(" or ") }
}
