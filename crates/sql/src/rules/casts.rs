//! Makes casts from text read PostgreSQL's forms: `'{1,2}'::INT[]`, `'\xff'::BYTEA`, `'1-2'::INTERVAL`,
//! `'2024-01-01 10:00'::TIMESTAMP`. Casts of times to text write PostgreSQL's form.
//!
//! The rule runs after types are resolved, so it also sees implicit casts, as in `bytes = '\xff'` and in an
//! INSERT's values.

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use millstream_delta::sql_type;

use crate::functions::read_text::{Kind, ReadText};
use crate::functions::time_text;
use crate::literals::time;
use crate::rules::names::map_parts;
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct TextCasts;

impl AnalyzerRule for TextCasts {
    fn name(&self) -> &str {
        "text_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(replace_in)?.data)
    }
}

fn replace_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    map_parts(node, replace)
}

fn replace(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (argument, field, lenient) = match &expression {
        Expr::Cast(Cast { expr, field }) => (expr, field, false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field, true),
        Expr::ScalarFunction(call) if call.name() == "array_to_string" => {
            return joined_times(expression, schema);
        }
        _ => return Ok(Transformed::no(expression)),
    };
    let target = field.data_type();
    if is_text(target) && argument.get_type(schema).is_ok_and(|found| time_text::text_type(&found).is_some())
    {
        return written(expression, schema);
    }
    let kind = match target {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Some(Kind::Bytes)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => Some(Kind::Interval),
        DataType::Timestamp(..) => Some(Kind::Time),
        target => depth(target).map(Kind::Lists),
    };
    if target.is_decimal() {
        return exact_literal(expression);
    }
    if target.is_floating()
        && let Some(float) = float_of(argument)
    {
        let literal = Expr::Literal(ScalarValue::Float64(Some(float)).cast_to(target)?, None);
        return Ok(Transformed::yes(literal));
    }
    let is_time = matches!(target, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    if (kind.is_none() && !is_time) || !argument.get_type(schema).is_ok_and(|found| is_text(&found)) {
        return Ok(Transformed::no(expression));
    }
    let is_literal = matches!(argument.as_ref(), Expr::Literal(..));
    let kind = match kind {
        Some(kind) if !is_time || !is_literal => kind,
        _ => return rewrite_time(expression),
    };
    // This rule runs again on a plan that it has rewritten.
    if kind == Kind::Time && ReadText::is_call(argument, &kind) {
        return Ok(Transformed::no(expression));
    }
    let read = ReadText::call(kind, lenient, argument.as_ref().clone());
    if read.get_type(schema)? == *target {
        return Ok(Transformed::yes(read));
    }
    Ok(Transformed::yes(match expression {
        Expr::TryCast(cast) => Expr::TryCast(TryCast { expr: Box::new(read), ..cast }),
        Expr::Cast(cast) => Expr::Cast(Cast { expr: Box::new(read), ..cast }),
        other => other,
    }))
}

/// Replaces a cast of a time to text, or of an array of times.
fn written(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(Transformed::yes(match expression {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            let text = time_text::function().call(vec![*expr]);
            match text.get_type(schema)? == *field.data_type() {
                true => text,
                false => Expr::Cast(Cast { expr: Box::new(text), field }),
            }
        }
        other => other,
    }))
}

/// Makes `array_to_string` join the texts of times.
fn joined_times(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(mut call) = expression else { return Ok(Transformed::no(expression)) };
    let holds_times =
        |list: &Expr| list.get_type(schema).is_ok_and(|found| time_text::text_type(&found).is_some());
    match call.args.first_mut() {
        Some(list) if holds_times(list) => {
            *list = time_text::function().call(vec![std::mem::take(list)]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
    }
}

/// Restores the digits of a decimal literal, which the planner reads as a float.
fn exact_literal(mut expression: Expr) -> Result<Transformed<Expr>> {
    let argument = match &mut expression {
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => expr.as_mut(),
        _ => return Ok(Transformed::no(expression)),
    };
    match argument {
        Expr::Literal(value, _) => match value {
            ScalarValue::Float64(Some(float)) if float.is_finite() => {
                *value = ScalarValue::Utf8(Some(float.to_string()));
                Ok(Transformed::yes(expression))
            }
            _ => Ok(Transformed::no(expression)),
        },
        _ => Ok(Transformed::no(expression)),
    }
}

/// Returns the float nearest to a NUMERIC literal. Converting through the decimal would round twice.
fn float_of(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Negative(inner) => float_of(inner).map(|float| -float),
        Expr::Cast(Cast { expr, field }) if field.data_type().is_decimal() => match expr.as_ref() {
            Expr::Literal(value, _) => value.try_as_str()??.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Rewrites a literal time that is a word or lacks seconds.
fn rewrite_time(mut expression: Expr) -> Result<Transformed<Expr>> {
    let (argument, field, lenient) = match &mut expression {
        Expr::Cast(Cast { expr, field }) => (expr, field, false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field, true),
        _ => return Ok(Transformed::no(expression)),
    };
    let Expr::Literal(value, _) = argument.as_mut() else { return Ok(Transformed::no(expression)) };
    let rewritten = match value.try_as_str() {
        Some(Some(text)) => time::rewrite_literal(text, &sql_type(field.data_type())),
        _ => return Ok(Transformed::no(expression)),
    };
    match rewritten {
        Ok(Some(text)) => *value = ScalarValue::Utf8(Some(text)),
        Err(error) if !lenient => return Err(error.into()),
        _ => return Ok(Transformed::no(expression)),
    }
    Ok(Transformed::yes(expression))
}

/// Returns the nesting depth of lists; none for other types.
fn depth(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(1 + depth(item.data_type()).unwrap_or(0))
        }
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table(
            "t",
            "(id INT, tags TEXT[], grid INT[][], raw BYTEA, pause INTERVAL, at TIMESTAMP, s TEXT)",
            "VALUES (1, '{a,b}', '{{1,2},{3,4}}', '\\xff00', '1-2', '2024-01-01 10:00', '{7,8}'), \
             (2, NULL, '{}', 'a\\\\b', 'P1D', 'epoch', '{}')",
        )
    }

    #[test]
    fn values_of_an_insert_are_read() {
        tables().check(
            "SELECT id, tags, grid, raw, pause, at FROM t",
            &[
                "1|[a, b]|[[1, 2], [3, 4]]|ff00|14 mons|2024-01-01T10:00:00",
                "2|NULL|[]|615c62|1 days|1970-01-01T00:00:00",
            ],
        );
    }

    #[test]
    fn casts_are_read_whoever_wrote_them() {
        let tables = tables();
        tables.check("SELECT id FROM t WHERE raw = '\\xFF00'", &["1"]);
        tables.check("SELECT id FROM t WHERE at > '2024-01-01 09:59'", &["1"]);
        tables.check("SELECT s::INT[], s::BIGINT[] AS b FROM t", &["[7, 8]|[7, 8]", "[]|[]"]);
        tables.check("SELECT TRY_CAST('{1' AS INT[]), TRY_CAST('{x}' AS INT[]) AS b", &["NULL|[NULL]"]);
        tables.check("SELECT TRY_CAST('\\xf' AS BYTEA), TRY_CAST('1 foo' AS INTERVAL)", &["NULL|NULL"]);
        tables.check("SELECT '1 02:03:04'::INTERVAL", &["1 days 2 hours 3 mins 4.000000000 secs"]);
    }

    #[test]
    fn numbers_keep_their_digits() {
        let tables = Tables::new().table(
            "n",
            "(f DOUBLE PRECISION, d NUMERIC(50, 20))",
            "VALUES (3.141592653589793, 1.1), (0.30000000000000004, 12345678901234567890.12345678901234567890), \
             (-3.14159265358979323846, -9007199254740993.5)",
        );
        tables.check(
            "SELECT f, d FROM n",
            &[
                "-3.141592653589793|-9007199254740993.50000000000000000000",
                "0.30000000000000004|12345678901234567890.12345678901234567890",
                "3.141592653589793|1.10000000000000000000",
            ],
        );
        tables.check(
            "SELECT d FROM n WHERE f = 0.30000000000000004",
            &["12345678901234567890.12345678901234567890"],
        );
        tables.check("SELECT arrow_typeof(0.1), arrow_typeof(1.10)", &["Float64|Float64"]);
        tables.check("SELECT arrow_typeof(0.12345678901234567890)", &["Decimal128(20, 20)"]);
    }

    #[test]
    fn wrong_texts_are_shown() {
        let tables = tables();
        tables.fails(
            "SELECT '{1,2'::INT[]",
            "'{1,2' is no value for an array: expected an array in braces, as in {1,2} or {\"a, b\",NULL}",
        );
        tables.fails(
            "SELECT 'infinity'::TIMESTAMP",
            "'infinity' is no TIMESTAMP here: infinite times are not supported\nHINT: Use NULL, or a date \
             that is far away.",
        );
    }
}
