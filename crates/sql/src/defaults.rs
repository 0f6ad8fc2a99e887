//! Default values of columns: `status TEXT DEFAULT 'new'`.
//!
//! The column keeps the default's text ([`millstream_delta::default_of`]). Its value is the one that an
//! INSERT of that text would store, and never changes: a default that isn't a constant is refused in the
//! declaration.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{default_of, sql_type_of, with_default};

use crate::error::{Error, Result};
use crate::planner::Planner;
use crate::reader::{TokenReader, is_word};
use crate::relation::OneRelation;
use crate::tokens::DIALECT;

/// The name of the table that a default is planned for.
const TABLE: &str = "the_table";

impl Planner {
    /// Returns a column's default; none if it is NULL.
    pub fn default_value(&self, field: &Field) -> Result<Option<ScalarValue>> {
        default_of(field).map(|text| self.constant(field, text, 0..text.len())).transpose()
    }

    /// Returns the defaults of several columns; NULL for those without one.
    pub fn default_values<'a>(&self, fields: impl Iterator<Item = &'a Field>) -> Result<Vec<ScalarValue>> {
        let value = |field: &Field| match self.default_value(field)? {
            Some(value) => Ok(value),
            None => ScalarValue::try_from(field.data_type()).map_err(Error::from),
        };
        fields.map(value).collect()
    }

    /// Reads the expression after DEFAULT in a column's declaration, up to one of these words.
    pub(crate) fn default(&self, reader: &mut TokenReader<'_>, field: Field, ends: &[&str]) -> Result<Field> {
        let place = expression(reader, ends)?;
        let text = &reader.text()[place.clone()];
        self.constant(&field, text, place)?;
        Ok(with_default(field, Some(text)))
    }

    /// Returns an expression's value in a column. `place` is the expression's position in the statement.
    fn constant(&self, field: &Field, text: &str, place: Range<usize>) -> Result<ScalarValue> {
        let name = field.name();
        let alone = with_default(field.clone(), None).with_nullable(true);
        let relations = OneRelation { name: TABLE, schema: Arc::new(Schema::new(vec![alone])) };
        let prefix = format!("INSERT INTO {TABLE} (\"{}\") SELECT (", name.replace('"', "\"\""));
        let planned = self.dml(&format!("{prefix}{text})"), &relations).map_err(|error| {
            let span = error.span_behind(prefix.len(), text.len()).unwrap_or(0..place.len());
            let message = format!("the default of column \"{name}\": {}", error.message);
            Error { message, ..error }.at(span).shift(place.start)
        })?;
        let value = folded(&planned.query.plan).filter(|value| value.data_type() == *field.data_type());
        value.ok_or_else(|| {
            Error::invalid(format!(
                "the default of column \"{name}\" is {text}, but a constant of type {} was expected",
                sql_type_of(field)
            ))
            .hint("Write a literal, such as 0, 'new' or DATE '2026-01-31'.")
            .at(place)
        })
    }
}

/// Returns the single value of a plan, if the plan is already folded to a constant.
fn folded(plan: &LogicalPlan) -> Option<ScalarValue> {
    match plan {
        LogicalPlan::Projection(node) => match &node.expr[..] {
            [expr] => match expr.clone().unalias_nested().data {
                Expr::Literal(value, _) => Some(value),
                Expr::Column(_) => folded(&node.input),
                _ => None,
            },
            _ => None,
        },
        LogicalPlan::SubqueryAlias(node) => folded(&node.input),
        _ => None,
    }
}

/// Takes an expression up to a comma, a closing parenthesis or one of these words after its first token.
pub(crate) fn expression(reader: &mut TokenReader<'_>, ends: &[&str]) -> Result<Range<usize>> {
    let start = reader.position().start;
    let (mut count, mut depth) = (0, 0);
    for lexeme in reader.rest() {
        match &lexeme.token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen if depth == 0 => break,
            Token::RParen | Token::RBracket => depth -= 1,
            Token::Comma if depth == 0 => break,
            token if depth == 0 && count > 0 && ends.iter().any(|word| is_word(token, word)) => break,
            _ => {}
        }
        count += 1;
    }
    if count == 0 {
        return Err(reader.expected("a value, as in 'text', 1 or true"));
    }
    for _ in 0..count {
        reader.next();
    }
    Ok(start..reader.last_position().end)
}

/// Returns a column's default as a syntax tree.
pub(crate) fn tree(field: &Field) -> Result<ast::Expr> {
    let text = default_of(field).unwrap_or("NULL");
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    let parsed = parsed.map_err(|error| Error::bug(format!("a default that was read before: {error}")))?;
    Ok(ast::Expr::Nested(Box::new(parsed)))
}
