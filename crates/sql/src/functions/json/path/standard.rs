//! `json_value`, `json_query` and `json_exists` of the SQL standard, with the results of PostgreSQL 17.
//!
//! [`crate::dialect::sql_json`] reads their clauses. What ON EMPTY or ON ERROR asks for arrives as a text: NULL, `e` for an error,
//! or a value behind `=`.

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringViewArray};
use arrow::datatypes::DataType;

use super::eval::{Context, Fail};
use super::syntax::Path;
use super::{parser, variables};
use crate::error::{Error, Result};
use crate::functions::json::value::Value;
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Json, Text};
    let kernel = Kernel::Column(values);
    let text = Returns::Type(DataType::Utf8View);
    let value = MarkedFunction::new("json_value", &[Json, Text, Json, Text, Text], text, kernel);
    add(value.optional(3).called_on_null());
    let kernel = Kernel::Column(queries);
    let jsonb = Returns::Marked(Mark::Jsonb);
    let query = MarkedFunction::new("json_query", &[Json, Text, Json, Text, Text, Text], jsonb, kernel);
    add(query.optional(4).called_on_null());
    let kernel = Kernel::Column(existences);
    let boolean = Returns::Type(DataType::Boolean);
    let exists = MarkedFunction::new("json_exists", &[Json, Text, Json, Text], boolean, kernel);
    add(exists.optional(2).called_on_null());
}

/// The result of a path, or the error that ON ERROR handles.
type Outcome<T> = std::result::Result<T, Error>;

/// Evaluates the path of each row; NULL where the value or the path is NULL.
fn each<T, R>(
    all: &Arguments,
    search: fn(&Context<'_>, &Path) -> Result<Outcome<T>>,
    result: impl Fn(usize, Outcome<T>) -> Result<Option<R>>,
) -> Result<Vec<Option<R>>> {
    let mut out = Vec::with_capacity(all.rows);
    // The path is usually the same in all rows.
    let mut parsed: Option<(String, Path)> = None;
    for row in 0..all.rows {
        let (Some(json), Some(text)) = (all.text(0, row), all.text(1, row)) else {
            out.push(None);
            continue;
        };
        if parsed.as_ref().is_none_or(|(known, _)| known != text) {
            parsed = Some((text.to_string(), parser::parse(text)?));
        }
        let Some((_, path)) = &parsed else { continue };
        let variables = variables(all, row)?;
        let outcome = match Value::parse(json) {
            Err(error) => Err(error),
            Ok(root) => {
                let variables = variables.as_ref();
                let steps = Cell::new(0);
                let context = Context { root: &root, variables, strict: path.strict, zones: false, steps };
                search(&context, path)?
            }
        };
        out.push(result(row, outcome)?);
    }
    Ok(out)
}

/// Returns the error of a failure, if it can be handled.
fn handled(fail: Fail) -> Result<Option<Error>> {
    match fail {
        Fail::Soft(error) => Ok(Some(error)),
        Fail::Hard(error) => Err(error),
        Fail::Found => Ok(None),
    }
}

fn items(context: &Context<'_>, path: &Path) -> Result<Outcome<Vec<Value>>> {
    let (items, fail) = context.query(path);
    if let Some(error) = fail.map(handled).transpose()?.flatten() {
        return Ok(Err(error));
    }
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match context.taken(item) {
            Ok(value) => values.push(value),
            Err(fail) => {
                if let Some(error) = handled(fail)? {
                    return Ok(Err(error));
                }
            }
        }
    }
    Ok(Ok(values))
}

/// Returns what a clause asks for, whose text is this argument.
fn otherwise(all: &Arguments, at: usize, row: usize, error: Error) -> Result<Option<String>> {
    match all.text(at, row) {
        None => Ok(None),
        Some("e") => Err(error),
        Some(value) => Ok(Some(value.trim_start_matches('=').to_string())),
    }
}

fn absent() -> Error {
    Error::invalid("no SQL/JSON item found for specified path").code(sqlstate::NO_SQL_JSON_ITEM)
}

fn values(all: &Arguments) -> Result<ArrayRef> {
    let (on_empty, on_error) = (3, 4);
    let found = each(all, items, |row, outcome| {
        let mut items = match outcome {
            Ok(items) => items,
            Err(error) => return otherwise(all, on_error, row, error),
        };
        match (items.pop(), items.is_empty()) {
            (None, _) => otherwise(all, on_empty, row, absent()),
            (Some(Value::Array(_) | Value::Object(_)), true) | (Some(_), false) => {
                let error =
                    Error::invalid("JSON path expression in JSON_VALUE must return single scalar item");
                otherwise(all, on_error, row, error.code(sqlstate::SQL_JSON_SCALAR_REQUIRED))
            }
            (Some(item), true) => Ok(item.into_text()),
        }
    })?;
    Ok(Arc::new(StringViewArray::from_iter(found)))
}

/// The fourth argument has the letter `w` for WITH WRAPPER, `c` for WITH CONDITIONAL WRAPPER, `o` for OMIT QUOTES, whose text is read
/// as JSON, and `t` for OMIT QUOTES of a result that is cast to TEXT.
fn queries(all: &Arguments) -> Result<ArrayRef> {
    let (how, on_empty, on_error) = (3, 4, 5);
    let found = each(all, items, |row, outcome| {
        let mut items = match outcome {
            Ok(items) => items,
            Err(error) => return otherwise(all, on_error, row, error),
        };
        let how = all.text(how, row).unwrap_or_default();
        let count = items.len();
        if count == 0 {
            return otherwise(all, on_empty, row, absent());
        }
        if how.contains('w') || how.contains('c') && count > 1 {
            return Ok(Some(Value::Array(items).text()));
        }
        match items.pop().filter(|_| count == 1) {
            Some(Value::String(text)) if how.contains('t') => Ok(Some(text)),
            Some(Value::String(text)) if how.contains('o') => match Value::parse(&text) {
                Ok(read) => Ok(Some(read.text())),
                Err(error) => otherwise(all, on_error, row, error),
            },
            Some(item) => Ok(Some(item.text())),
            None => {
                let message =
                    "JSON path expression in JSON_QUERY must return single item when no wrapper is requested";
                let error = Error::invalid(message)
                    .hint("WITH WRAPPER makes an array of the items.")
                    .code(sqlstate::MORE_THAN_ONE_SQL_JSON_ITEM);
                otherwise(all, on_error, row, error)
            }
        }
    })?;
    Ok(Arc::new(StringViewArray::from_iter(found)))
}

/// The fourth argument is `t` for TRUE ON ERROR, `u` for UNKNOWN ON ERROR and `e` for ERROR ON ERROR.
fn existences(all: &Arguments) -> Result<ArrayRef> {
    let on_error = 3;
    let exists = |context: &Context<'_>, path: &Path| match context.finds(path) {
        Ok(found) => Ok(Ok(found)),
        Err(fail) => Ok(handled(fail)?.map_or(Ok(true), Err)),
    };
    let found = each(all, exists, |row, outcome| match (outcome, all.text(on_error, row)) {
        (Ok(found), _) => Ok(Some(found)),
        (Err(error), Some("e")) => Err(error),
        (Err(_), Some("u")) => Ok(None),
        (Err(_), handling) => Ok(Some(handling == Some("t"))),
    })?;
    Ok(Arc::new(BooleanArray::from(found)))
}
