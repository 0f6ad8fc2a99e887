//! Paths of SQL/JSON: `jsonb_path_query(j, '$.a[*] ? (@ > $min)', '{"min": 2}')`, `@?` and `@@`.
//!
//! Deliberately absent: the canonical text of the type `jsonpath`, which is a text here.

mod eval;
mod numbers;
mod parser;
mod syntax;
mod template;
mod times;
mod tokens;

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::datatypes::DataType;

use super::function::{Arguments, JsonFunction, Kernel, Param, Returns};
use super::marks::Mark;
use super::value::Value;
use crate::error::{Error, Result};
use crate::sqlstate;
use eval::{Context, Fail};
use syntax::Path;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(JsonFunction)) {
    use Param::{Bool, Json, Text};
    let mut query = |name, returns, kernel| {
        let function = JsonFunction::new(name, &[Json, Text, Json, Bool], returns, Kernel::Column(kernel));
        add(function.optional(2));
    };
    let boolean = || Returns::Type(DataType::Boolean);
    let jsonb = || Returns::Marked(Mark::Jsonb);
    let values = || Returns::Type(DataType::new_list(DataType::Utf8View, true));
    query("jsonb_path_exists", boolean(), |all| booleans(all, exists, ZONELESS));
    query("jsonb_path_match", boolean(), |all| booleans(all, matches, ZONELESS));
    query("jsonb_path_query_array", jsonb(), |all| texts(all, array, ZONELESS));
    query("jsonb_path_query_first", jsonb(), |all| texts(all, first, ZONELESS));
    query("jsonb_path_values", values(), |all| lists(all, ZONELESS));
    query("jsonb_path_exists_tz", boolean(), |all| booleans(all, exists, ZONED));
    query("jsonb_path_match_tz", boolean(), |all| booleans(all, matches, ZONED));
    query("jsonb_path_query_array_tz", jsonb(), |all| texts(all, array, ZONED));
    query("jsonb_path_query_first_tz", jsonb(), |all| texts(all, first, ZONED));
    query("jsonb_path_values_tz", values(), |all| lists(all, ZONED));
    let params = &[Json, Text];
    let kernel = Kernel::Column(|all| booleans(all, exists, SILENT));
    add(JsonFunction::new("jsonb_path_exists_opr", params, boolean(), kernel));
    let kernel = Kernel::Column(|all| booleans(all, matches, SILENT));
    add(JsonFunction::new("jsonb_path_match_opr", params, boolean(), kernel));
}

/// The differences between the functions.
#[derive(Clone, Copy)]
struct Mode {
    zones: bool,
    silent: bool,
}

const ZONELESS: Mode = Mode { zones: false, silent: false };
const ZONED: Mode = Mode { zones: true, silent: false };
const SILENT: Mode = Mode { zones: false, silent: true };

/// The items that a path found in a row.
struct Found {
    items: Vec<Value>,
    /// True if an error, which is suppressed, ended the search.
    failed: bool,
    silent: bool,
    strict: bool,
}

/// Evaluates the path of each row; none for NULL.
fn each<T>(
    all: &Arguments,
    mode: Mode,
    mut result: impl FnMut(Found) -> Result<Option<T>>,
) -> Result<Vec<Option<T>>> {
    let mut out = Vec::with_capacity(all.rows);
    // The path is usually the same in all rows.
    let mut parsed: Option<(String, Path)> = None;
    for row in 0..all.rows {
        let has_null = all.columns.iter().any(|column| super::build::is_null(column, row));
        let (Some(json), Some(text), false) = (all.text(0, row), all.text(1, row), has_null) else {
            out.push(None);
            continue;
        };
        if parsed.as_ref().is_none_or(|(known, _)| known != text) {
            parsed = Some((text.to_string(), parser::parse(text)?));
        }
        let Some((_, path)) = &parsed else { continue };
        let variables = all.text(2, row).map(Value::parse).transpose()?;
        if variables.as_ref().is_some_and(|variables| !matches!(variables, Value::Object(_))) {
            return Err(Error::invalid("\"vars\" argument is not an object")
                .hint("Jsonpath parameters should be encoded as key-value pairs of \"vars\" object.")
                .code(sqlstate::INVALID_PARAMETER_VALUE));
        }
        let root = Value::parse(json)?;
        let silent = mode.silent || all.flag(3, row).unwrap_or(false);
        let context = Context {
            root: &root,
            variables: variables.as_ref(),
            strict: path.strict,
            zones: mode.zones,
            steps: Cell::new(0),
        };
        let (items, error) = context.query(path);
        let failed = error.is_some();
        match error {
            None => {}
            Some(Fail::Soft(_)) if silent => {}
            Some(Fail::Soft(error) | Fail::Hard(error)) => return Err(error),
        }
        let items = items.into_iter().map(eval::Item::into_value).collect();
        out.push(result(Found { items, failed, silent, strict: path.strict })?);
    }
    Ok(out)
}

fn booleans(all: &Arguments, result: fn(Found) -> Result<Option<bool>>, mode: Mode) -> Result<ArrayRef> {
    Ok(Arc::new(BooleanArray::from(each(all, mode, result)?)))
}

fn texts(all: &Arguments, result: fn(Found) -> Result<Option<String>>, mode: Mode) -> Result<ArrayRef> {
    Ok(Arc::new(StringViewArray::from_iter(each(all, mode, result)?)))
}

fn exists(found: Found) -> Result<Option<bool>> {
    let is_found = !found.items.is_empty();
    // In lax mode, the search ends with the first item.
    Ok((!found.failed || (is_found && !found.strict)).then_some(is_found))
}

fn matches(found: Found) -> Result<Option<bool>> {
    match &found.items[..] {
        [Value::Bool(flag)] => Ok(Some(*flag)),
        [Value::Null] => Ok(None),
        _ if found.silent => Ok(None),
        _ => Err(Error::invalid("single boolean result is expected")
            .code(sqlstate::SINGLETON_SQL_JSON_ITEM_REQUIRED)),
    }
}

fn array(found: Found) -> Result<Option<String>> {
    Ok(Some(Value::Array(found.items).text()))
}

fn first(found: Found) -> Result<Option<String>> {
    Ok(found.items.first().map(Value::text))
}

/// Returns the items that paths find as lists of JSON.
fn lists(all: &Arguments, mode: Mode) -> Result<ArrayRef> {
    let found = each(all, mode, |found| Ok(Some(found.items)))?;
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for items in found {
        for item in items.iter().flatten() {
            out.values().append_value(item.text());
        }
        out.append(items.is_some());
    }
    Ok(Arc::new(out.finish()))
}
