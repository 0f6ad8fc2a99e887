//! `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'` in a column list: how far event time has come.
//!
//! ```
//! use millstream_sql::{Planner, TokenReader};
//! let sql = "(ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')";
//! let columns = Planner::new().columns(&mut TokenReader::new(sql).unwrap()).unwrap();
//! let watermark = columns.watermark.unwrap();
//! assert_eq!((watermark.column, watermark.delay_ns), (0, 5_000_000_000));
//! ```

use std::ops::Range;

use arrow::datatypes::{DataType, IntervalMonthDayNano, Schema, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as ExprTree};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::batches::length_text;
use crate::columns::NoRelations;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::event_time::interval_value;
use crate::planner::Planner;
use crate::reader::TokenReader;
use crate::suggestion;
use crate::tokens::DIALECT;

const NANOS_PER_DAY: i64 = 86_400_000_000_000;

const USAGE: &str =
    "Write WATERMARK FOR ts AS ts - INTERVAL '5 seconds': how long rows may be behind the newest one.";

/// The watermark of a relation: it trails the largest value of a column by a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The column, a timestamp.
    pub column: usize,
    /// The delay in nanoseconds.
    pub delay_ns: i64,
}

impl Watermark {
    /// Renders the watermark of a column of this name: `ts - 5 seconds`.
    pub fn text(&self, column: &str) -> String {
        match (self.delay_ns, self.delay_ns % 1_000) {
            (0, _) => column.to_string(),
            (delay, 0) => format!("{column} - {}", length_text(delay / 1_000)),
            (delay, _) => format!("{column} - {delay} nanoseconds"),
        }
    }

    /// Returns the delay in the unit of a timestamp's type, rounded up.
    pub fn delay_in(&self, data_type: &DataType) -> i64 {
        let unit = match data_type {
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            _ => 1,
        };
        self.delay_ns / unit + i64::from(self.delay_ns % unit != 0)
    }
}

/// A watermark as it was written, before all columns are known.
pub(crate) struct Written {
    name: String,
    at: Range<usize>,
    delay_ns: i64,
}

impl Written {
    /// Resolves the watermark against these columns.
    pub(crate) fn of(self, schema: &Schema) -> Result<Watermark> {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let column = names().position(|name| name == self.name).ok_or_else(|| {
            Error::invalid(format!("column \"{}\" of the watermark not found", self.name))
                .maybe_hint(suggestion::hint(&self.name, "columns", names()))
                .at(self.at.clone())
        })?;
        match schema.field(column).data_type() {
            DataType::Timestamp(..) => Ok(Watermark { column, delay_ns: self.delay_ns }),
            other => {
                let found = millstream_delta::sql_type(other);
                let name = &self.name;
                Err(Error::invalid(format!(
                    "column \"{name}\" of the watermark is {found}, but a timestamp was expected"
                ))
                .at(self.at))
            }
        }
    }
}

impl Planner {
    /// Reads `ts AS expr` after WATERMARK FOR, for a relation with these columns.
    pub fn watermark_of(&self, reader: &mut TokenReader, schema: &Schema) -> Result<Watermark> {
        self.watermark(reader)?.of(schema)
    }

    /// Reads `ts AS expr` after WATERMARK FOR.
    pub(crate) fn watermark(&self, reader: &mut TokenReader) -> Result<Written> {
        let at = reader.position();
        let name = reader.identifier().map_err(|_| reader.expected("the column of the watermark"))?;
        reader.expect_keyword(&["AS"])?;
        let start = reader.position();
        let (mut tokens, mut depth): (Vec<TokenWithSpan>, i32) = (Vec::new(), 0);
        for lexeme in reader.rest() {
            match &lexeme.token.token {
                Token::LParen => depth += 1,
                Token::RParen | Token::Comma if depth == 0 => break,
                Token::RParen => depth -= 1,
                _ => {}
            }
            tokens.push(lexeme.token.clone());
        }
        if tokens.is_empty() {
            return Err(reader.expected("an expression"));
        }
        for _ in 0..tokens.len() {
            reader.next();
        }
        let place = start.start..reader.last_position().end;
        let text = &reader.text()[place.clone()];
        let wrong = |what: String| Error::invalid(what).hint(USAGE).at(place.clone());
        let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
        let parsed = parser.parse_expr().ok().filter(|_| parser.peek_token().token == Token::EOF);
        let not_a_delay = || {
            wrong(format!("the watermark of \"{name}\" is {text}, which is not the column less an interval"))
        };
        let delay = match unnested(parsed.ok_or_else(not_a_delay)?) {
            ExprTree::Identifier(column) if same(&column, &name) => IntervalMonthDayNano::ZERO,
            ExprTree::BinaryOp { left, op: BinaryOperator::Minus, right } if matches!(unnested((*left).clone()), ExprTree::Identifier(column) if same(&column, &name)) => {
                self.length(*right).ok_or_else(not_a_delay)?
            }
            _ => return Err(not_a_delay()),
        };
        let days = i64::from(delay.days).checked_mul(NANOS_PER_DAY);
        let delay_ns = days.and_then(|days| days.checked_add(delay.nanoseconds));
        match delay_ns {
            Some(delay_ns) if delay.months == 0 && delay_ns >= 0 => Ok(Written { name, at, delay_ns }),
            _ if delay.months != 0 => {
                Err(wrong(format!("the watermark of \"{name}\" trails by months, which differ in length")))
            }
            _ => Err(wrong(format!("the watermark of \"{name}\" is ahead of the newest row"))),
        }
    }

    /// Evaluates a constant interval.
    fn length(&self, written: ExprTree) -> Option<IntervalMonthDayNano> {
        let context = Context::new(self.state(), self.type_planner(), &NoRelations, &[]);
        let options = ParserOptions::from(&self.state().config_options().sql_parser);
        let planner = SqlToRel::new_with_options(&context, options);
        interval_value(planner.sql_to_expr(written, &DFSchema::empty(), &mut PlannerContext::new()).ok()?)
    }
}

/// Removes parentheses around an expression.
fn unnested(expr: ExprTree) -> ExprTree {
    match expr {
        ExprTree::Nested(inner) => unnested(*inner),
        other => other,
    }
}

/// True if a name in an expression is that of a column.
fn same(written: &datafusion::sql::sqlparser::ast::Ident, column: &str) -> bool {
    match written.quote_style {
        Some(_) => written.value == column,
        None => written.value.to_lowercase() == column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watermark(written: &str) -> Result<Option<Watermark>> {
        let sql = format!("(k INT, WATERMARK FOR {written}, ts TIMESTAMPTZ, \"T\" TIMESTAMP)");
        Planner::new().columns(&mut TokenReader::new(&sql).unwrap()).map(|columns| columns.watermark)
    }

    #[test]
    fn a_watermark_trails_its_column() {
        for (written, column, delay_ns) in [
            ("ts AS ts", 1, 0),
            ("ts AS ts - INTERVAL '5 seconds'", 1, 5_000_000_000),
            ("ts AS ts - INTERVAL '5' SECOND", 1, 5_000_000_000),
            ("TS AS (Ts - '1 day 00:00:01')", 1, NANOS_PER_DAY + 1_000_000_000),
            ("\"T\" AS \"T\" - (INTERVAL '1 minute' + INTERVAL '1 second')", 2, 61_000_000_000),
        ] {
            assert_eq!(watermark(written), Ok(Some(Watermark { column, delay_ns })), "{written}");
        }
        let watermark = Watermark { column: 0, delay_ns: 1_000_001 };
        assert_eq!(watermark.delay_in(&DataType::Timestamp(TimeUnit::Millisecond, None)), 2);
        assert_eq!(watermark.text("ts"), "ts - 1000001 nanoseconds");
        assert_eq!(Watermark { column: 0, delay_ns: 90_000_000_000 }.text("ts"), "ts - 90 seconds");
        assert_eq!(Watermark { column: 0, delay_ns: 0 }.text("ts"), "ts");
    }

    #[test]
    fn what_is_no_watermark_is_refused() {
        for (written, expected) in [
            ("nope AS nope", "column \"nope\" of the watermark not found"),
            ("k AS k", "column \"k\" of the watermark is INT, but a timestamp was expected"),
            ("ts AS k", "the watermark of \"ts\" is k, which is not the column less an interval"),
            ("ts AS ts - k", "the watermark of \"ts\" is ts - k, which is not the column less an interval"),
            ("ts AS ts - INTERVAL '1 month'", "trails by months"),
            ("ts AS ts - INTERVAL '-1 s'", "is ahead of the newest row"),
            ("ts AS", "expected an expression"),
            ("ts AS ts, WATERMARK FOR ts AS ts", "there is more than one watermark"),
        ] {
            let error = watermark(written).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}
