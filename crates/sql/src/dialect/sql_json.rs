//! The syntax of SQL/JSON that the parser lacks.
//!
//! | written | read as |
//! | --- | --- |
//! | `json_value(j, p PASSING x AS a ERROR ON EMPTY DEFAULT 'y' ON ERROR)` | `json_value(j, p, jsonb_build_object('a', x), 'e', '=' \|\| 'y'::TEXT)` |
//! | `json_value(j, p RETURNING INT)` | `TRY_CAST(json_value(j, p) AS INT)` |
//! | `json_value(j, p RETURNING INT ERROR ON ERROR)` | `CAST(json_value(j, p, '{}', NULL, 'e') AS INT)` |
//! | `json_query(j, p WITH WRAPPER EMPTY ARRAY ON EMPTY)` | `json_query(j, p, '{}', 'w', '=[]', NULL)` |
//! | `json_exists(j, p TRUE ON ERROR)` | `json_exists(j, p, '{}', 't')` |
//! | `json_object(KEY k VALUE v, l VALUE w)` | `json_object_of(k, v, l, w)` |
//! | `json_object(k VALUE v ABSENT ON NULL)` | `json_object_present_of(k, v)` |
//! | `json_array(x, y)`, `json_array(x, y NULL ON NULL)` | `json_array_present_of(x, y)`, `json_array_of(x, y)` |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{BinaryOperator, CaseWhen, CastKind, DataType, Expr, Value};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::calls::call;
use super::xml::{expected, is_next, takes, text};
use crate::ast_walk::visit_expressions;

/// A form and the function that reads it behind its opening bracket.
type Form = (&'static str, fn(&mut Parser<'_>) -> Result<Expr, ParserError>);

const FORMS: [Form; 5] = [
    ("json_value", value),
    ("json_query", query),
    ("json_exists", exists),
    ("json_object", object),
    ("json_array", array),
];

/// Returns the name of a column that such a form makes.
pub(crate) fn shown_name(function: &str) -> Option<&'static str> {
    match function {
        "json_object_of" | "json_object_present_of" => Some("json_object"),
        "json_array_of" | "json_array_present_of" => Some("json_array"),
        _ => None,
    }
}

/// Reads a form, if one is next.
pub(crate) fn parse(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    if parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    let (name, read) = FORMS.iter().find(|(name, _)| is_next(parser, 0, name))?;
    let form = |parser: &mut Parser<'_>| {
        parser.advance_token();
        parser.advance_token();
        let read = read(parser)?;
        parser.expect_token(&Token::RParen)?;
        Ok(read)
    };
    match *name {
        // PostgreSQL's json_object(array, array) is a call.
        "json_object" => parser.maybe_parse(form).transpose(),
        _ => Some(form(parser)),
    }
}

/// The result that ON EMPTY or ON ERROR asks for.
enum Otherwise {
    Null,
    Error,
    Value(Box<Expr>),
}

impl Otherwise {
    /// Returns the argument of the function.
    fn argument(&self) -> Expr {
        match self {
            Otherwise::Null => null(),
            Otherwise::Error => text("e"),
            Otherwise::Value(value) => match literal(value) {
                Some(written) => text(format!("={written}")),
                None => behind_sign(value.as_ref().clone()),
            },
        }
    }
}

fn literal(value: &Expr) -> Option<&str> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(written) | Value::Number(written, _) => Some(written),
            _ => None,
        },
        _ => None,
    }
}

/// Writes `'=' || value::TEXT`.
fn behind_sign(value: Expr) -> Expr {
    let value = cast(CastKind::Cast, value, &DataType::Text);
    Expr::BinaryOp { left: Box::new(text("=")), op: BinaryOperator::StringConcat, right: Box::new(value) }
}

/// The clauses behind the path of a form.
struct Clauses {
    returning: Option<DataType>,
    on_empty: Otherwise,
    on_error: Otherwise,
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn cast(kind: CastKind, value: Expr, data_type: &DataType) -> Expr {
    Expr::Cast { kind, expr: Box::new(value), data_type: data_type.clone(), array: false, format: None }
}

/// Reads the value, the path and the variables.
fn arguments(parser: &mut Parser<'_>) -> Result<Vec<Expr>, ParserError> {
    let json = parser.parse_expr()?;
    if takes(parser, &["FORMAT", "JSON"]) && takes(parser, &["ENCODING"]) {
        parser.parse_identifier()?;
    }
    parser.expect_token(&Token::Comma)?;
    let path = parser.parse_expr()?;
    let variables = match takes(parser, &["PASSING"]) {
        false => text("{}"),
        true => {
            let named = parser.parse_comma_separated(|parser| {
                let value = parser.parse_expr()?;
                parser.expect_keyword(Keyword::AS)?;
                let name = parser.parse_identifier()?;
                let name = if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() };
                Ok([text(name), value])
            })?;
            call("jsonb_build_object", named.into_iter().flatten().collect())
        }
    };
    Ok(vec![json, path, variables])
}

fn returning(parser: &mut Parser<'_>) -> Result<Option<DataType>, ParserError> {
    if !takes(parser, &["RETURNING"]) {
        return Ok(None);
    }
    let data_type = parser.parse_data_type()?;
    takes(parser, &["FORMAT", "JSON"]);
    Ok(Some(data_type))
}

/// Reads `NULL ON EMPTY DEFAULT 'x' ON ERROR`.
fn clauses(parser: &mut Parser<'_>, returning: Option<DataType>) -> Result<Clauses, ParserError> {
    let mut clauses = Clauses { returning, on_empty: Otherwise::Null, on_error: Otherwise::Null };
    while parser.peek_token_ref().token != Token::RParen {
        let found = if takes(parser, &["NULL"]) {
            Otherwise::Null
        } else if takes(parser, &["ERROR"]) {
            Otherwise::Error
        } else if takes(parser, &["EMPTY", "OBJECT"]) {
            Otherwise::Value(Box::new(text("{}")))
        } else if takes(parser, &["EMPTY", "ARRAY"]) || takes(parser, &["EMPTY"]) {
            Otherwise::Value(Box::new(text("[]")))
        } else if takes(parser, &["DEFAULT"]) {
            Otherwise::Value(Box::new(parser.parse_expr()?))
        } else {
            return expected(parser, "RETURNING, NULL, ERROR, DEFAULT or )");
        };
        if takes(parser, &["ON", "EMPTY"]) {
            clauses.on_empty = found;
        } else if takes(parser, &["ON", "ERROR"]) {
            clauses.on_error = found;
        } else {
            return expected(parser, "ON EMPTY or ON ERROR");
        }
    }
    Ok(clauses)
}

impl Clauses {
    /// Completes a call, and casts its result to the type.
    fn call(self, name: &str, mut arguments: Vec<Expr>) -> Result<Expr, ParserError> {
        let is_plain = matches!((&self.on_empty, &self.on_error), (Otherwise::Null, Otherwise::Null));
        let has_variables = !matches!(arguments.get(2), Some(Expr::Value(_)));
        let has_wrapper = arguments.len() > 3;
        match is_plain && !has_wrapper {
            true => arguments.truncate(if has_variables { 3 } else { 2 }),
            false => arguments.extend([self.on_empty.argument(), self.on_error.argument()]),
        }
        let found = call(name, arguments);
        let Some(to) = self.returning else { return Ok(found) };
        Ok(match self.on_error {
            Otherwise::Null => cast(CastKind::TryCast, found, &to),
            Otherwise::Error => cast(CastKind::Cast, found, &to),
            Otherwise::Value(default) => {
                refuse_nested(&found)?;
                let read = cast(CastKind::TryCast, found.clone(), &to);
                // A value that can't be cast is an error that the clause handles.
                let fails = Expr::BinaryOp {
                    left: Box::new(Expr::IsNotNull(Box::new(found))),
                    op: BinaryOperator::And,
                    right: Box::new(Expr::IsNull(Box::new(read.clone()))),
                };
                let default = cast(CastKind::Cast, *default, &to);
                case(fails, default, read)
            }
        })
    }
}

/// Refuses a form within another one that is written three times, or as its default: each level would multiply the statement.
fn refuse_nested(call: &Expr) -> Result<(), ParserError> {
    let is_form = |part: &Expr| match part {
        Expr::Case { else_result: Some(read), .. } => {
            matches!(read.as_ref(), Expr::Cast { kind: CastKind::TryCast, expr, .. } if matches!(expr.as_ref(), Expr::Function(_)))
        }
        _ => false,
    };
    let found = visit_expressions(call, |part| match is_form(part) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(()) => Err(ParserError::ParserError(
            "RETURNING with DEFAULT ON ERROR within another one is not supported: compute the inner one in a subquery".into(),
        )),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn case(condition: Expr, result: Expr, otherwise: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: Some(Box::new(otherwise)),
    }
}

fn value(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let arguments = arguments(parser)?;
    let returning = returning(parser)?;
    clauses(parser, returning)?.call("json_value", arguments)
}

fn query(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let mut arguments = arguments(parser)?;
    let returning = returning(parser)?;
    let mut how = String::new();
    if takes(parser, &["WITH"]) {
        let is_conditional = takes(parser, &["CONDITIONAL"]);
        takes(parser, &["UNCONDITIONAL"]);
        how.push(if is_conditional { 'c' } else { 'w' });
        wrapper(parser)?;
    } else if takes(parser, &["WITHOUT"]) {
        wrapper(parser)?;
    }
    let keeps = takes(parser, &["KEEP"]);
    if keeps || takes(parser, &["OMIT"]) {
        if !takes(parser, &["QUOTES"]) {
            return expected(parser, "QUOTES");
        }
        takes(parser, &["ON", "SCALAR", "STRING"]);
        let is_text = matches!(
            returning,
            Some(DataType::Text | DataType::String(_) | DataType::Varchar(_) | DataType::CharacterVarying(_))
        );
        how.push_str(match (keeps, is_text) {
            (true, _) => "",
            (false, true) => "t",
            (false, false) => "o",
        });
    }
    let clauses = clauses(parser, returning)?;
    let is_plain = matches!((&clauses.on_empty, &clauses.on_error), (Otherwise::Null, Otherwise::Null));
    if !how.is_empty() || !is_plain {
        arguments.push(text(how));
    }
    clauses.call("json_query", arguments)
}

fn wrapper(parser: &mut Parser<'_>) -> Result<(), ParserError> {
    takes(parser, &["ARRAY"]);
    if takes(parser, &["WRAPPER"]) { Ok(()) } else { expected(parser, "WRAPPER") }
}

fn exists(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let mut arguments = arguments(parser)?;
    let known = [("TRUE", "t"), ("FALSE", "f"), ("UNKNOWN", "u"), ("ERROR", "e")];
    let found = known.into_iter().find(|(word, _)| takes(parser, &[word, "ON", "ERROR"]));
    arguments.extend(found.map(|(_, letter)| text(letter)));
    Ok(call("json_exists", arguments))
}

/// Reads `NULL ON NULL` or `ABSENT ON NULL`. Returns true if NULLs are kept; none without the clause.
fn on_null(parser: &mut Parser<'_>) -> Option<bool> {
    match takes(parser, &["NULL", "ON", "NULL"]) {
        true => Some(true),
        false => takes(parser, &["ABSENT", "ON", "NULL"]).then_some(false),
    }
}

/// Casts the JSON that a form builds to the type of its last clause.
fn built(parser: &mut Parser<'_>, name: &str, arguments: Vec<Expr>) -> Result<Expr, ParserError> {
    let json = call(name, arguments);
    Ok(match returning(parser)? {
        Some(to) => cast(CastKind::Cast, json, &to),
        None => json,
    })
}

fn is_empty(parser: &Parser<'_>) -> bool {
    parser.peek_token_ref().token == Token::RParen || is_next(parser, 0, "RETURNING")
}

fn object(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    if is_empty(parser) {
        return built(parser, "json_object_of", Vec::new());
    }
    let members = parser.parse_comma_separated(|parser| {
        // A column may be called key.
        if !is_next(parser, 1, "VALUE") {
            takes(parser, &["KEY"]);
        }
        let key = parser.parse_expr()?;
        if !takes(parser, &["VALUE"]) {
            return expected(parser, "VALUE");
        }
        Ok([key, parser.parse_expr()?])
    })?;
    let keeps = on_null(parser).unwrap_or(true);
    if takes(parser, &["WITHOUT", "UNIQUE"]) {
        takes(parser, &["KEYS"]);
    }
    let name = if keeps { "json_object_of" } else { "json_object_present_of" };
    built(parser, name, members.into_iter().flatten().collect())
}

fn array(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let items =
        if is_empty(parser) { Vec::new() } else { parser.parse_comma_separated(Parser::parse_expr)? };
    let keeps = on_null(parser).unwrap_or(false);
    built(parser, if keeps { "json_array_of" } else { "json_array_present_of" }, items)
}
