//! Default values of columns: `status TEXT DEFAULT 'new'`, `at TIMESTAMPTZ DEFAULT now()`.
//!
//! The column keeps the default's text ([`millstream_delta::default_of`]). Its value is the one that an
//! INSERT of that text would store. It is a constant, or an expression that has a value for each statement, such as
//! `now()`, or for each row, such as `gen_random_uuid()`. A column that is added to a table must have a constant.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{default_of, sql_type_of, type_alone, with_default};

use crate::error::{Error, Result};
use crate::generated_columns::empty_row;
use crate::identity::Identity;
use crate::planner::Planner;
use crate::reader::{TokenReader, is_word};
use crate::relation::OneRelation;
use crate::routines::has_queries;
use crate::tokens::DIALECT;
use crate::tree_rewrite::TreeRewrite;

/// The function that gives the next number of an identity column's sequence. The rows of the table keep the number, so that
/// the sequence need not be saved.
pub const NEXT_OF_IDENTITY: &str = "identity_nextval";

/// The name of the table that a default is planned for.
const TABLE: &str = "the_table";

/// A column's default, ready to be computed.
#[derive(Debug)]
pub enum ColumnDefault {
    /// The same value in each row.
    Constant(ScalarValue),
    /// An expression without columns.
    Computed(Arc<dyn PhysicalExpr>),
}

impl ColumnDefault {
    /// Returns the values of the default in new rows.
    pub fn column(&self, rows: usize) -> Result<ArrayRef> {
        match self {
            ColumnDefault::Constant(value) => Ok(value.to_array_of_size(rows)?),
            ColumnDefault::Computed(expr) => {
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let empty =
                    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
                let empty = empty.map_err(|error| Error::bug(error.to_string()))?;
                Ok(expr.evaluate(&empty)?.into_array(rows)?)
            }
        }
    }
}

impl ColumnDefault {
    /// Returns a column's default, ready to be computed for rows of one statement; NULL without one. The planner has the
    /// time of the statement.
    pub fn of(planner: &Planner, field: &Field) -> Result<ColumnDefault> {
        Ok(match default_expr(planner, field)? {
            None => ColumnDefault::Constant(ScalarValue::try_from(field.data_type())?),
            Some(Expr::Literal(value, _)) => ColumnDefault::Constant(value),
            Some(expr) => ColumnDefault::Computed(planner.physical_expression(&expr, &empty_row(planner)?)?),
        })
    }
}

/// Returns a column's default as an expression; none if it is NULL.
pub(crate) fn default_expr(planner: &Planner, field: &Field) -> Result<Option<Expr>> {
    default_text(field).map(|text| expression_of(planner, field, &text, 0..text.len())).transpose()
}

/// Returns the text by which a column's default is computed.
fn default_text(field: &Field) -> Option<Cow<'_, str>> {
    match Identity::of(field) {
        Some(identity) => {
            Some(format!("{NEXT_OF_IDENTITY}('{}')", identity.sequence.replace('\'', "''")).into())
        }
        None => default_of(field).map(Cow::Borrowed),
    }
}

impl Planner {
    /// Returns a column's default; none if it is NULL. Fails if it isn't a constant.
    pub fn default_value(&self, field: &Field) -> Result<Option<ScalarValue>> {
        default_of(field).map(|text| constant(self, field, text, 0..text.len())).transpose()
    }

    /// Returns the defaults of several columns; NULL for those without one. Fails if one isn't a constant.
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
        expression_of(self, &field, text, place)?;
        Ok(with_default(field, Some(text)))
    }
}

/// Returns the value of a constant in a column. `place` is its position in the statement.
pub(crate) fn constant(
    planner: &Planner,
    field: &Field,
    text: &str,
    place: Range<usize>,
) -> Result<ScalarValue> {
    match expression_of(planner, field, text, place.clone())? {
        Expr::Literal(value, _) => Ok(value),
        _ => Err(Error::invalid(format!(
            "the default of column \"{}\" is {text}, but a constant of type {} was expected",
            field.name(),
            sql_type_of(field)
        ))
        .hint("Write a literal, such as 0, 'new' or DATE '2026-01-31'.")
        .at(place)),
    }
}

/// Returns the expression of a default, of the column's type. `place` is its position in the statement.
fn expression_of(planner: &Planner, field: &Field, text: &str, place: Range<usize>) -> Result<Expr> {
    let name = field.name();
    let alone = type_alone(field).with_nullable(true);
    let relations = OneRelation { name: TABLE, schema: Arc::new(Schema::new(vec![alone])) };
    let prefix = format!("INSERT INTO {TABLE} (\"{}\") SELECT (", name.replace('"', "\"\""));
    let planned = planner.dml(&format!("{prefix}{text})"), &relations).map_err(|error| {
        let span = error.span_behind(prefix.len(), text.len()).unwrap_or(0..place.len());
        let message = format!("the default of column \"{name}\": {}", error.message);
        Error { message, ..error }.at(span).shift(place.start)
    })?;
    let none = DFSchema::empty();
    let found = single(&planned.query.plan).filter(|expr| {
        !has_queries(expr) && expr.get_type(&none).is_ok_and(|found| found == *field.data_type())
    });
    found.ok_or_else(|| {
        Error::invalid(format!(
            "the default of column \"{name}\" is {text}, but an expression of type {} without columns was expected",
            sql_type_of(field)
        ))
        .hint("Write a literal, such as 0, 'new' or DATE '2026-01-31', or a function, such as now().")
        .at(place)
    })
}

/// Returns the expression that computes the single value of a plan.
fn single(plan: &LogicalPlan) -> Option<Expr> {
    match plan {
        LogicalPlan::Projection(node) => {
            let [expr] = &node.expr[..] else { return None };
            let expr = expr.clone().unalias_nested().data;
            if expr.column_refs().is_empty() {
                return Some(expr);
            }
            let inner = single(&node.input)?;
            let is_column = |part: Expr| match part {
                Expr::Column(_) => Ok(Transformed::yes(inner.clone())),
                other => Ok(Transformed::no(other)),
            };
            expr.rewrite_up(is_column).map(|expr| expr.data).ok()
        }
        LogicalPlan::SubqueryAlias(node) => single(&node.input),
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
    let text = default_text(field).unwrap_or("NULL".into());
    let parsed = Parser::new(&DIALECT).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
    let parsed = parsed.map_err(|error| Error::bug(format!("a default that was read before: {error}")))?;
    Ok(ast::Expr::Nested(Box::new(parsed)))
}
