//! `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'` in a column list: how far event time has come.
//!
//! The watermark is an expression that never decreases while the column increases. So its value for the largest time is
//! the largest of its values. A delay is the plain case; other expressions are a [`WatermarkFunction`].
//!
//! ```
//! use millstream_sql::{Planner, TokenReader};
//! let sql = "(ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')";
//! let columns = Planner::new().columns(&mut TokenReader::new(sql).unwrap()).unwrap();
//! let watermark = columns.watermark.unwrap();
//! assert_eq!((watermark.column, watermark.delay_ns), (0, 5_000_000_000));
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, IntervalMonthDayNano, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as ExprTree};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_delta::sql_type;

use crate::batches::length_text;
use crate::columns::NoRelations;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::event_time::interval_value;
use crate::generated_columns::row_expression;
use crate::planner::Planner;
use crate::reader::{TokenReader, is_word};
use crate::routines::simplified_expression;
use crate::suggestion;
use crate::temporal_filter::{Obstacle, TimeArgument};
use crate::tokens::{DIALECT, Lexeme};

const NANOS_PER_DAY: i64 = 86_400_000_000_000;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A time at which the function of a watermark must have a value: 2024-01-01, in seconds since 1970.
const SAMPLE_SECONDS: i64 = 1_704_067_200;

const USAGE: &str = "Write WATERMARK FOR ts AS ts - INTERVAL '5 seconds': how long rows may be behind the newest one. \
     The expression may also contain date_trunc, date_bin, casts, greatest and least, as in date_trunc('minute', ts) - \
     INTERVAL '5 seconds'.";

/// The watermark of a relation: it trails the largest value of a column by a delay, or follows it by a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The column, a timestamp.
    pub column: usize,
    /// The delay in nanoseconds; 0 with a function.
    pub delay_ns: i64,
    /// The function of the column, if the watermark is more than a delay.
    pub function: Option<Arc<WatermarkFunction>>,
}

impl Watermark {
    /// Renders the watermark of a column of this name: `ts - 5 seconds`.
    pub fn text(&self, column: &str) -> String {
        if let Some(function) = &self.function {
            return function.pieces.join(column);
        }
        match (self.delay_ns, self.delay_ns % 1_000) {
            (0, _) => column.to_string(),
            (delay, 0) => format!("{column} - {}", length_text(delay / 1_000)),
            (delay, _) => format!("{column} - {delay} nanoseconds"),
        }
    }

    /// Returns the delay in the unit of a timestamp's type, rounded up.
    pub fn delay_in(&self, data_type: &DataType) -> i64 {
        let unit = match data_type {
            DataType::Timestamp(unit, _) => nanos_each(*unit),
            _ => 1,
        };
        self.delay_ns / unit + i64::from(self.delay_ns % unit != 0)
    }
}

/// A nondecreasing function of one time, by which a watermark follows its column.
#[derive(Clone, Debug)]
pub struct WatermarkFunction {
    /// The text of the expression, split at the name of the column.
    pieces: Vec<String>,
    physical: Arc<dyn PhysicalExpr>,
    /// The column, the only one of the rows that the expression is evaluated over.
    schema: SchemaRef,
}

impl PartialEq for WatermarkFunction {
    fn eq(&self, other: &WatermarkFunction) -> bool {
        self.pieces == other.pieces && self.schema == other.schema
    }
}

impl Eq for WatermarkFunction {}

impl WatermarkFunction {
    /// Returns the watermark for the largest time, both as counts of the column's unit; `None` if it is NULL or out of
    /// range. The watermark is rounded down. Fails if the expression does.
    pub fn at(&self, newest: i64) -> Result<Option<i64>> {
        Ok(self.evaluate(newest)?)
    }

    fn evaluate(&self, newest: i64) -> datafusion::error::Result<Option<i64>> {
        let data_type = self.schema.field(0).data_type();
        let newest = cast(&Int64Array::from(vec![newest]), data_type)?;
        let row = RecordBatch::try_new(Arc::clone(&self.schema), vec![newest])?;
        let value = self.physical.evaluate(&row)?.into_array(1)?;
        let (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) = (value.data_type(), data_type)
        else {
            return Ok(None);
        };
        let (from, to) = (i128::from(nanos_each(*from)), i128::from(nanos_each(*to)));
        let counts = cast(&value, &DataType::Int64)?;
        let count = counts.as_primitive::<Int64Type>().iter().next().flatten();
        Ok(count.and_then(|count| i64::try_from((i128::from(count) * from).div_euclid(to)).ok()))
    }
}

fn nanos_each(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => NANOS_PER_SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// A watermark as it was written, before all columns are known.
pub(crate) struct Written {
    name: String,
    at: Range<usize>,
    /// The expression.
    text: String,
    /// The expression's position in the statement.
    place: Range<usize>,
    /// The expression, split at the name of the column.
    pieces: Vec<String>,
    /// The delay, if the expression is the column or the column less an interval.
    delay_ns: Option<i64>,
}

impl Written {
    /// Resolves the watermark against these columns.
    pub(crate) fn of(self, planner: &Planner, schema: &Schema) -> Result<Watermark> {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let column = names().position(|name| name == self.name).ok_or_else(|| {
            Error::invalid(format!("column \"{}\" of the watermark not found", self.name))
                .maybe_hint(suggestion::hint(&self.name, "columns", names()))
                .at(self.at.clone())
        })?;
        let field = schema.field(column);
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            let (name, found) = (&self.name, sql_type(field.data_type()));
            return Err(Error::invalid(format!(
                "column \"{name}\" of the watermark is {found}, but a timestamp was expected"
            ))
            .at(self.at));
        }
        match self.delay_ns {
            Some(delay_ns) => Ok(Watermark { column, delay_ns, function: None }),
            None => self.planned(planner, schema, column),
        }
    }

    /// Plans an expression that isn't written as a delay.
    fn planned(self, planner: &Planner, schema: &Schema, column: usize) -> Result<Watermark> {
        let field = schema.field(column);
        let row = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
        let of = format!("the watermark {}", self.text);
        let (logical, input) =
            row_expression(planner, &of, &self.text, &row).map_err(|error| self.unplanned(error, schema))?;
        let found = self.checked(planner, &logical, &input, field).map_err(|error| match error.span {
            Some(_) => error,
            None => error.at(self.place.clone()),
        })?;
        if let Some(delay_ns) = found {
            return Ok(Watermark { column, delay_ns, function: None });
        }
        let physical = planner.physical_expression(&logical, &input)?;
        let function = WatermarkFunction { pieces: self.pieces, physical, schema: row };
        // An expression that can't be computed is refused here, not when rows arrive.
        let DataType::Timestamp(unit, _) = field.data_type() else {
            return Err(Error::bug("the column of a watermark is no timestamp"));
        };
        let sample = SAMPLE_SECONDS.saturating_mul(NANOS_PER_SECOND / nanos_each(*unit));
        function.at(sample).map_err(|error| {
            let message = format!("{of}: {}", error.message);
            Error { message, span: None, ..error }.at(self.place.clone())
        })?;
        Ok(Watermark { column, delay_ns: 0, function: Some(Arc::new(function)) })
    }

    /// Fails unless an expression increases with the column and has its type. Returns the delay in nanoseconds, if the
    /// expression is one.
    fn checked(
        &self,
        planner: &Planner,
        logical: &Expr,
        input: &LogicalPlan,
        field: &Field,
    ) -> Result<Option<i64>> {
        let name = &self.name;
        let (simple, columns) = simplified_expression(planner, logical, input).map_err(|error| {
            let message = format!("the watermark {}: {}", self.text, error.message);
            Error { message, span: None, ..error }
        })?;
        let DataType::Timestamp(_, zone) = field.data_type() else { return Ok(None) };
        let zone_of = |part: &Expr| matches!(part, Expr::Column(_)).then(|| zone.clone());
        let time = TimeArgument { zone_of: &zone_of, has_bounds: true };
        let rises = time.rising(&simple).map_err(|obstacle| match obstacle {
            Obstacle::Unknown if !time.is_read_by(&simple) => {
                self.wrong(format!("doesn't depend on \"{name}\""))
            }
            Obstacle::Unknown => self.wrong(format!("isn't known to increase with \"{name}\"")),
            Obstacle::Months => self.wrong("adds or subtracts months, which differ in length").hint(
                "Count in days, as in ts - INTERVAL '30 days', or apply months to whole days, as in \
                 date_trunc('day', ts) - INTERVAL '1 month'.",
            ),
            Obstacle::SetBack(zone) => {
                self.wrong(format!("depends on days of the time zone {zone}, whose clocks are set back"))
            }
        })?;
        if rises.ahead_ns > 0 {
            return Err(self.wrong("is ahead of the newest row"));
        }
        let found = simple.get_type(&columns)?;
        if !matches!(&found, DataType::Timestamp(_, found) if found.is_some() == zone.is_some()) {
            let (found, wanted) = (sql_type(&found), sql_type(field.data_type()));
            return Err(self
                .wrong(format!("is of type {found}, but {wanted} was expected"))
                .hint(format!("Cast it: ({})::{wanted}.", self.text)));
        }
        Ok(i64::try_from(-rises.ahead_ns).ok().filter(|_| rises.is_shift))
    }

    /// Returns an error about the expression.
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        let message = format!("the watermark of \"{}\" is {}, which {what}", self.name, self.text);
        Error::invalid(message).hint(USAGE).at(self.place.clone())
    }

    /// Returns the error of an expression that can't be planned over the column alone.
    fn unplanned(&self, error: Error, schema: &Schema) -> Error {
        let missing = |name: &&str| error.message.ends_with(&format!("column \"{name}\" not found"));
        let mut names = schema.fields().iter().map(|field| field.name().as_str());
        if let Some(other) = names.find(missing) {
            return self
                .wrong(format!("depends on column \"{other}\", but only \"{}\" may occur", self.name));
        }
        let hint = error.hint.as_ref().map_or_else(|| USAGE.to_string(), |hint| format!("{hint} {USAGE}"));
        match error.span {
            Some(_) => error.shift(self.place.start),
            None => error.at(self.place.clone()),
        }
        .hint(hint)
    }

    /// Returns the nanoseconds of the interval by which the watermark trails the column.
    fn delay(&self, interval: IntervalMonthDayNano) -> Result<Option<i64>> {
        if interval.months != 0 {
            return Err(self.wrong("trails by months, which differ in length"));
        }
        let days = i64::from(interval.days).checked_mul(NANOS_PER_DAY);
        match days.and_then(|days| days.checked_add(interval.nanoseconds)) {
            Some(delay_ns) if delay_ns < 0 => Err(self.wrong("is ahead of the newest row")),
            delay_ns => Ok(delay_ns),
        }
    }
}

impl Planner {
    /// Reads `ts AS expr` after WATERMARK FOR, for a relation with these columns.
    pub fn watermark_of(&self, reader: &mut TokenReader, schema: &Schema) -> Result<Watermark> {
        self.watermark(reader)?.of(self, schema)
    }

    /// Reads `ts AS expr` after WATERMARK FOR.
    pub(crate) fn watermark(&self, reader: &mut TokenReader) -> Result<Written> {
        let at = reader.position();
        let name = reader.identifier().map_err(|_| reader.expected("the column of the watermark"))?;
        reader.expect_keyword(&["AS"])?;
        let start = reader.position().start;
        let lexemes = expression(reader);
        if lexemes.is_empty() {
            return Err(reader.expected("an expression"));
        }
        for _ in 0..lexemes.len() {
            reader.next();
        }
        let place = start..reader.last_position().end;
        let text = reader.text()[place.clone()].to_string();
        let pieces = pieces(reader.text(), &place, &lexemes, &name);
        let mut written = Written { name, at, text, place, pieces, delay_ns: None };
        let tokens: Vec<TokenWithSpan> = lexemes.into_iter().map(|lexeme| lexeme.token).collect();
        refuse_foreign(&tokens, &written)?;
        if let Some(interval) = written_delay(self, tokens, &written.name) {
            written.delay_ns = written.delay(interval)?;
        }
        Ok(written)
    }
}

/// Returns the tokens up to a comma or a closing parenthesis.
fn expression(reader: &TokenReader) -> Vec<Lexeme> {
    let (mut lexemes, mut depth): (Vec<Lexeme>, i32) = (Vec::new(), 0);
    for lexeme in reader.rest() {
        match &lexeme.token.token {
            Token::LParen => depth += 1,
            Token::RParen | Token::Comma if depth == 0 => break,
            Token::RParen => depth -= 1,
            _ => {}
        }
        lexemes.push(lexeme.clone());
    }
    lexemes
}

/// Splits the text of an expression at the name of a column.
fn pieces(statement: &str, place: &Range<usize>, lexemes: &[Lexeme], column: &str) -> Vec<String> {
    let (mut pieces, mut from) = (Vec::new(), place.start);
    for (at, lexeme) in lexemes.iter().enumerate() {
        let calls = lexemes.get(at + 1).is_some_and(|next| next.token.token == Token::LParen);
        if let Token::Word(word) = &lexeme.token.token
            && names(&word.value, word.quote_style, column)
            && !calls
        {
            pieces.push(statement[from..lexeme.range.start].to_string());
            from = lexeme.range.end;
        }
    }
    pieces.push(statement[from..place.end].to_string());
    pieces
}

/// Fails if an expression calls a function that Flink allows in a watermark alone.
fn refuse_foreign(tokens: &[TokenWithSpan], written: &Written) -> Result<()> {
    for call in tokens.windows(2).filter(|pair| pair[1].token == Token::LParen) {
        if is_word(&call[0].token, "SOURCE_WATERMARK") {
            let what = "asks the connector for its watermark, which no connector has";
            return Err(written.wrong(what));
        }
        if is_word(&call[0].token, "PROCTIME") {
            return Err(written.wrong("is processing time, but event time was expected").hint(
                "Leave WATERMARK out for windows of processing time: sources and streams have the column _batch_start, \
                 with a watermark of its own, as in TUMBLE(s, _batch_start, INTERVAL '1 minute').",
            ));
        }
    }
    Ok(())
}

/// Reads the column, or the column less a constant interval. Returns the interval; `None` for other expressions.
fn written_delay(
    planner: &Planner,
    tokens: Vec<TokenWithSpan>,
    column: &str,
) -> Option<IntervalMonthDayNano> {
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    let parsed = parser.parse_expr().ok().filter(|_| parser.peek_token().token == Token::EOF)?;
    match unnested(parsed) {
        tree if is_column(&tree, column) => Some(IntervalMonthDayNano::ZERO),
        ExprTree::BinaryOp { left, op: BinaryOperator::Minus, right } => {
            is_column(&unnested(*left), column).then(|| length(planner, *right)).flatten()
        }
        _ => None,
    }
}

fn is_column(tree: &ExprTree, column: &str) -> bool {
    matches!(tree, ExprTree::Identifier(name) if names(&name.value, name.quote_style, column))
}

/// Evaluates a constant interval.
fn length(planner: &Planner, written: ExprTree) -> Option<IntervalMonthDayNano> {
    let context = Context::new(planner.state(), planner.type_planner(), &NoRelations, &[]);
    let options = ParserOptions::from(&planner.state().config_options().sql_parser);
    let to_rel = SqlToRel::new_with_options(&context, options);
    interval_value(to_rel.sql_to_expr(written, &DFSchema::empty(), &mut PlannerContext::new()).ok()?)
}

/// Removes parentheses around an expression.
fn unnested(expr: ExprTree) -> ExprTree {
    match expr {
        ExprTree::Nested(inner) => unnested(*inner),
        other => other,
    }
}

/// True if a name in an expression, and its quote, are those of a column.
fn names(written: &str, quote: Option<char>, column: &str) -> bool {
    match quote {
        Some(_) => written == column,
        None => written.to_lowercase() == column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watermark(written: &str) -> Result<Option<Watermark>> {
        let sql = format!("(k INT, WATERMARK FOR {written}, ts TIMESTAMPTZ, \"T\" TIMESTAMP)");
        Planner::new().columns(&mut TokenReader::new(&sql).unwrap()).map(|columns| columns.watermark)
    }

    fn delayed(column: usize, delay_ns: i64) -> Watermark {
        Watermark { column, delay_ns, function: None }
    }

    #[test]
    fn a_watermark_trails_its_column() {
        for (written, column, delay_ns) in [
            ("ts AS ts", 1, 0),
            ("ts AS ts - INTERVAL '5 seconds'", 1, 5_000_000_000),
            ("ts AS ts - INTERVAL '5' SECOND", 1, 5_000_000_000),
            ("TS AS (Ts - '1 day 00:00:01')", 1, NANOS_PER_DAY + 1_000_000_000),
            ("\"T\" AS \"T\" - (INTERVAL '1 minute' + INTERVAL '1 second')", 2, 61_000_000_000),
            ("ts AS ts - INTERVAL '1' SECOND * 5", 1, 5_000_000_000),
            ("ts AS ts - INTERVAL '5 seconds' - INTERVAL '1 minute'", 1, 65_000_000_000),
            ("ts AS INTERVAL '-5 seconds' + ts", 1, 5_000_000_000),
            ("ts AS ts - INTERVAL '1 minute' + INTERVAL '1 second'", 1, 59_000_000_000),
        ] {
            assert_eq!(watermark(written), Ok(Some(delayed(column, delay_ns))), "{written}");
        }
        let watermark = delayed(0, 1_000_001);
        assert_eq!(watermark.delay_in(&DataType::Timestamp(TimeUnit::Millisecond, None)), 2);
        assert_eq!(watermark.text("ts"), "ts - 1000001 nanoseconds");
        assert_eq!(delayed(0, 90 * NANOS_PER_SECOND).text("ts"), "ts - 90 seconds");
        assert_eq!(delayed(0, 0).text("ts"), "ts");
    }

    #[test]
    fn a_watermark_follows_a_function_of_its_column() {
        // Counts of the column's unit, as seconds since 1970.
        let at = |expression: &str, data_type: &str, per_second: i64, newest: i64| {
            let sql = format!("(ts {data_type}, WATERMARK FOR ts AS {expression})");
            let columns = Planner::new().columns(&mut TokenReader::new(&sql).unwrap()).unwrap();
            let function = columns.watermark.unwrap().function.unwrap();
            function.at(newest * per_second).unwrap().map(|at| at.div_euclid(per_second))
        };
        for (expression, newest, expected) in [
            ("date_trunc('minute', ts) - INTERVAL '5 seconds'", 125, 115),
            ("date_trunc('minute', ts - INTERVAL '5 seconds')", 125, 120),
            ("date_trunc('hour', ts)", -1, -3_600),
            ("date_bin('1 minute', ts)", 125, 120),
            ("greatest(ts - INTERVAL '1 minute', TIMESTAMP '1970-01-01 00:01:40')", 125, 100),
            ("greatest(ts - INTERVAL '1 minute', TIMESTAMP '1970-01-01 00:01:40')", 185, 125),
            ("least(ts, date_trunc('minute', ts) + INTERVAL '10 seconds')", 125, 125),
            ("least(ts, date_trunc('minute', ts) + INTERVAL '10 seconds')", 135, 130),
        ] {
            for (data_type, per_second) in
                [("TIMESTAMP(0)", 1), ("TIMESTAMP(3)", 1_000), ("TIMESTAMP(6)", 1_000_000)]
            {
                let found = at(expression, data_type, per_second, newest);
                assert_eq!(found, Some(expected), "{expression} of {data_type}");
            }
        }
        let zoned = "greatest(date_trunc('day', ts), TIMESTAMPTZ '1970-01-02 00:00:00+00')";
        assert_eq!(at(zoned, "TIMESTAMPTZ(6)", 1_000_000, 5), Some(86_400));
    }

    #[test]
    fn a_function_keeps_its_text_under_another_name_of_the_column() {
        let found =
            watermark("\"T\" AS date_trunc('minute', \"T\") - INTERVAL '5 seconds'").unwrap().unwrap();
        assert_eq!((found.column, found.delay_ns), (2, 0));
        assert_eq!(found.text("at"), "date_trunc('minute', at) - INTERVAL '5 seconds'");
        assert_eq!(
            watermark("ts AS date_trunc('day', TS)").unwrap().unwrap().text("ts"),
            "date_trunc('day', ts)"
        );
    }

    #[test]
    fn what_is_no_watermark_is_refused() {
        for (written, expected) in [
            ("nope AS nope", "column \"nope\" of the watermark not found"),
            ("k AS k", "column \"k\" of the watermark is INT, but a timestamp was expected"),
            ("ts AS k", "the watermark of \"ts\" is k, which depends on column \"k\""),
            ("ts AS ts - k", "the watermark of \"ts\" is ts - k, which depends on column \"k\""),
            ("ts AS ts - INTERVAL '1 month'", "trails by months"),
            ("ts AS date_trunc('hour', ts) - INTERVAL '1 month'", "which adds or subtracts months"),
            ("ts AS ts - INTERVAL '-1 s'", "is ahead of the newest row"),
            ("ts AS ts + INTERVAL '1 s'", "is ahead of the newest row"),
            ("ts AS date_trunc('minute', ts) + INTERVAL '1 s'", "is ahead of the newest row"),
            ("ts AS TIMESTAMPTZ '2020-01-01 00:00:00+00'", "which doesn't depend on \"ts\""),
            ("\"T\" AS TIMESTAMP '2020-01-01' + (TIMESTAMP '2020-01-01' - \"T\")", "isn't known to increase"),
            ("ts AS nullif(ts, TIMESTAMPTZ '2020-01-01 00:00:00+00')", "isn't known to increase"),
            ("ts AS ts::date", "is of type DATE, but TIMESTAMPTZ"),
            ("ts AS max(ts)", "the watermark max(ts) is not an expression over the columns of its row"),
            ("ts AS (SELECT ts)", "is not an expression over the columns of its row"),
            ("ts AS now()", "the watermark now() would have another value each time"),
            ("ts AS date_trunc('minutte', ts)", "the watermark date_trunc('minutte', ts): "),
            ("ts AS SOURCE_WATERMARK()", "is SOURCE_WATERMARK(), which asks the connector for its watermark"),
            ("ts AS PROCTIME()", "is PROCTIME(), which is processing time"),
            ("ts AS", "expected an expression"),
            ("ts AS ts, WATERMARK FOR ts AS ts", "there is more than one watermark"),
        ] {
            let error = watermark(written).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
        let error = watermark("ts AS abs(k)").unwrap_err();
        assert!(
            error.hint.is_some_and(|hint| hint.contains("date_trunc, date_bin, casts, greatest and least"))
        );
    }
}
