//! Paths of SQL/JSON: `jsonb_path_query(j, '$.a[*] ? (@ > $min)', '{"min": 2}')`, `@?` and `@@`.
//!
//! Deliberately absent: the canonical text of the type `jsonpath`, which is a text here.

mod eval;
mod numbers;
mod parser;
mod standard;
mod syntax;
mod template;
mod times;
mod tokens;

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::datatypes::DataType;

use super::value::Value;
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;
use eval::{Context, Fail};
use syntax::Path;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Bool, Json, Text};
    let mut query = |name, returns, kernel| {
        let function = MarkedFunction::new(name, &[Json, Text, Json, Bool], returns, Kernel::Column(kernel));
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
    add(MarkedFunction::new("jsonb_path_exists_opr", params, boolean(), kernel));
    let kernel = Kernel::Column(|all| booleans(all, matches, SILENT));
    add(MarkedFunction::new("jsonb_path_match_opr", params, boolean(), kernel));
    standard::list(add);
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

/// Searches a path and returns its result; none for NULL. The flag tells that soft errors are suppressed.
type Search<T> = fn(&Context<'_>, &Path, bool) -> Result<Option<T>>;

/// Returns the variables of a path, the third argument.
fn variables(all: &Arguments, row: usize) -> Result<Option<Value>> {
    let variables = all.text(2, row).map(Value::parse).transpose()?;
    if variables.as_ref().is_some_and(|variables| !matches!(variables, Value::Object(_))) {
        return Err(Error::invalid("\"vars\" argument is not an object")
            .hint("Jsonpath parameters should be encoded as key-value pairs of \"vars\" object.")
            .code(sqlstate::INVALID_PARAMETER_VALUE));
    }
    Ok(variables)
}

/// Evaluates the path of each row; none for NULL.
fn each<T>(all: &Arguments, mode: Mode, search: Search<T>) -> Result<Vec<Option<T>>> {
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
        let variables = variables(all, row)?;
        let root = Value::parse(json)?;
        let silent = mode.silent || all.flag(3, row).unwrap_or(false);
        let context = Context {
            root: &root,
            variables: variables.as_ref(),
            strict: path.strict,
            zones: mode.zones,
            steps: Cell::new(0),
        };
        out.push(search(&context, path, silent)?);
    }
    Ok(out)
}

/// Returns the error that ends a search; none if it is suppressed.
fn raised(fail: Fail, silent: bool) -> Result<()> {
    match fail {
        Fail::Soft(error) if !silent => Err(error),
        Fail::Hard(error) => Err(error),
        Fail::Soft(_) | Fail::Found => Ok(()),
    }
}

/// Returns the items that a path finds, up to an error that is suppressed.
fn items(context: &Context<'_>, path: &Path, silent: bool) -> Result<Vec<Value>> {
    let (items, error) = context.query(path);
    error.map_or(Ok(()), |fail| raised(fail, silent))?;
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match context.taken(item) {
            Ok(value) => values.push(value),
            Err(fail) => raised(fail, silent)?,
        }
    }
    Ok(values)
}

fn booleans(all: &Arguments, search: Search<bool>, mode: Mode) -> Result<ArrayRef> {
    Ok(Arc::new(BooleanArray::from(each(all, mode, search)?)))
}

fn texts(all: &Arguments, search: Search<String>, mode: Mode) -> Result<ArrayRef> {
    Ok(Arc::new(StringViewArray::from_iter(each(all, mode, search)?)))
}

fn exists(context: &Context<'_>, path: &Path, silent: bool) -> Result<Option<bool>> {
    match context.finds(path) {
        Ok(found) => Ok(Some(found)),
        Err(fail) => raised(fail, silent).map(|()| None),
    }
}

fn matches(context: &Context<'_>, path: &Path, silent: bool) -> Result<Option<bool>> {
    match &items(context, path, silent)?[..] {
        [Value::Bool(flag)] => Ok(Some(*flag)),
        [Value::Null] => Ok(None),
        _ if silent => Ok(None),
        _ => Err(Error::invalid("single boolean result is expected")
            .code(sqlstate::SINGLETON_SQL_JSON_ITEM_REQUIRED)),
    }
}

fn array(context: &Context<'_>, path: &Path, silent: bool) -> Result<Option<String>> {
    Ok(Some(Value::Array(items(context, path, silent)?).text()))
}

fn first(context: &Context<'_>, path: &Path, silent: bool) -> Result<Option<String>> {
    Ok(items(context, path, silent)?.first().map(Value::text))
}

/// Returns the items that paths find as lists of JSON.
fn lists(all: &Arguments, mode: Mode) -> Result<ArrayRef> {
    let found = each(all, mode, |context, path, silent| items(context, path, silent).map(Some))?;
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for items in found {
        for item in items.iter().flatten() {
            out.values().append_value(item.text());
        }
        out.append(items.is_some());
    }
    Ok(Arc::new(out.finish()))
}
