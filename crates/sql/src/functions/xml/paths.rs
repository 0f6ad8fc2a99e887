//! XPaths over values of type XML: `xpath`, `xpath_exists`, `XMLEXISTS` and the rows of `XMLTABLE`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListBuilder, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::eval::{Found, Value, evaluate, evaluate_at};
use super::nodes::escape;
use super::parser::{Expression, parse};
use super::scan::{self, Purpose, declaration};
use super::tree::Document;
use crate::error::{Error, Result};
use crate::functions::marks::function::{Arguments, is_text};
use crate::literals::array;
use crate::sqlstate;

/// Reads a document for XPaths, with the namespaces of their prefixes.
fn document(text: &str, prefixes: HashMap<String, String>) -> Result<Document> {
    let start = declaration(text).ok().flatten().map_or(0, |found| found.end);
    let read = scan::read(&text[start..], Purpose::Nodes);
    let mut document = read.map_err(|fault| {
        Error::invalid(format!("could not parse XML document: {}", fault.in_line(&text[start..])))
            .hint("An XPath needs a document with one element at the top.")
            .code(sqlstate::INVALID_XML_DOCUMENT)
    })?;
    document.prefixes = Some(prefixes);
    Ok(document)
}

fn compiled(path: &str, what: &str) -> Result<Expression> {
    if path.is_empty() {
        let message = match what {
            "" => "empty XPath expression".to_string(),
            what => format!("{what} path filter must not be empty string"),
        };
        return Err(Error::invalid(message).code(sqlstate::DATA_EXCEPTION));
    }
    parse(path)
        .map_err(|error| Error { message: format!("invalid XPath expression: {}", error.message), ..error })
}

/// Returns the namespaces that an argument gives to prefixes: an array of pairs.
fn prefixes(all: &Arguments, at: usize, row: usize) -> Result<HashMap<String, String>> {
    let Some(column) =
        all.columns.get(at).filter(|column| !column.data_type().is_null() && column.is_valid(row))
    else {
        return Ok(HashMap::new());
    };
    let wrong = || {
        Error::invalid("invalid array for XML namespace mapping")
            .hint("Pass pairs of a prefix and a namespace: ARRAY[ARRAY['p', 'http://…']].")
            .code(sqlstate::DATA_EXCEPTION)
    };
    let mut found = HashMap::new();
    let mut add = |pair: &dyn Array| -> Result<()> {
        let texts = cast(pair, &DataType::Utf8View).map_err(|_| wrong())?;
        let texts = texts.as_string_view();
        if texts.len() != 2 {
            return Err(wrong());
        }
        if texts.is_null(0) || texts.is_null(1) {
            return Err(Error::invalid("neither namespace name nor URI may be null")
                .code(sqlstate::NULL_VALUE_NOT_ALLOWED));
        }
        found.insert(texts.value(0).to_string(), texts.value(1).to_string());
        Ok(())
    };
    if is_text(column.data_type()) {
        let texts = cast(column, &DataType::Utf8View).map_err(|_| wrong())?;
        let mut lists = array::Arrays::new(2);
        lists.push(Some(texts.as_string_view().value(row))).map_err(|_| wrong())?;
        let lists = lists.finish().map_err(|_| wrong())?;
        let pairs = lists.as_list::<i32>().value(0);
        let pairs = pairs.as_list_opt::<i32>().ok_or_else(wrong)?;
        (0..pairs.len()).try_for_each(|pair| add(&pairs.value(pair)))?;
        return Ok(found);
    }
    let pairs = column.as_list_opt::<i32>().ok_or_else(wrong)?.value(row);
    if pairs.is_empty() {
        return Ok(found);
    }
    let pairs = pairs.as_list_opt::<i32>().ok_or_else(wrong)?;
    (0..pairs.len()).try_for_each(|pair| add(&pairs.value(pair)))?;
    Ok(found)
}

/// The path of the last row, which most calls use for all rows.
#[derive(Default)]
struct Compiled(Option<(String, Expression)>);

impl Compiled {
    fn of(&mut self, path: &str, what: &str) -> Result<&Expression> {
        if self.0.as_ref().is_none_or(|(known, _)| known != path) {
            self.0 = Some((path.to_string(), compiled(path, what)?));
        }
        match &self.0 {
            Some((_, expression)) => Ok(expression),
            None => Err(Error::bug("an XPath was lost")),
        }
    }
}

fn create(error: Error) -> Error {
    Error { message: format!("could not create XPath object: {}", error.message), ..error }
}

/// Returns the nodes that a path finds, or its value, as XML.
fn found(document: &Document, value: &Value) -> Result<Vec<String>> {
    Ok(match value {
        Value::Nodes(nodes) => nodes.iter().map(|node| document.markup(*node)).collect::<Result<_>>()?,
        Value::Number(number) => vec![float(*number)],
        Value::Text(text) => {
            let mut out = String::new();
            escape(text, &mut out);
            vec![out]
        }
        Value::Flag(flag) => vec![flag.to_string()],
    })
}

/// Returns a number as PostgreSQL writes a DOUBLE PRECISION.
fn float(number: f64) -> String {
    decimal(&format!("{number:e}"), 15)
}

/// Returns a number, given the shortest digits of `{:e}`, as PostgreSQL writes it: with an exponent from so many digits on.
pub(super) fn decimal(shortest: &str, digits_max: i32) -> String {
    let (digits, exponent) = match shortest {
        "NaN" => return shortest.into(),
        "inf" => return "Infinity".into(),
        "-inf" => return "-Infinity".into(),
        _ => shortest.split_once('e').unwrap_or((shortest, "0")),
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..digits_max).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let all = digits.replace('.', "");
    match usize::try_from(exponent) {
        Err(_) => format!("{sign}0.{}{all}", "0".repeat((-exponent - 1) as usize)),
        Ok(before) if all.len() <= before + 1 => format!("{sign}{all:0<0$}", before + 1),
        Ok(before) => format!("{sign}{}.{}", &all[..=before], &all[before + 1..]),
    }
}

/// Returns what a path finds in a document.
#[cfg(test)]
pub(super) fn strings(path: &str, text: &str, prefixes: &HashMap<String, String>) -> Result<Vec<String>> {
    super::value::check(text, super::scan::Form::Content)?;
    let document = document(text, prefixes.clone())?;
    found(&document, &evaluate(&document, &compiled(path, "")?)?)
}

/// `xpath(path, xml [, namespaces])`
pub(super) fn xpath(all: &Arguments) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    let mut path = Compiled::default();
    for row in 0..all.rows {
        let (Some(written), Some(text)) = (all.text(0, row), all.text(1, row)) else {
            out.append_null();
            continue;
        };
        let document = document(text, prefixes(all, 2, row)?)?;
        let value = evaluate(&document, path.of(written, "")?).map_err(create)?;
        found(&document, &value)?.iter().for_each(|text| out.values().append_value(text));
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// `xpath_exists(path, xml [, namespaces])`: true if a path finds a node, or has a value.
pub(super) fn exists(all: &Arguments) -> Result<ArrayRef> {
    let mut path = Compiled::default();
    let one = |row| {
        let (Some(written), Some(text)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
        let document = document(text, prefixes(all, 2, row)?)?;
        let value = evaluate(&document, path.of(written, "")?).map_err(create)?;
        Ok(Some(!matches!(value, Value::Nodes(nodes) if nodes.is_empty())))
    };
    Ok(Arc::new((0..all.rows).map(one).collect::<Result<BooleanArray>>()?))
}

/// The kind of a column of XMLTABLE, as the letter by which `ast_rewrite/xml.rs` writes it.
const ORDINALITY: u8 = b'o';
const XML: u8 = b'x';
const NUMBER: u8 = b'n';

/// The rows of XMLTABLE, as arrays of texts. The arguments are the path of the rows, the document, the namespaces, the letters of
/// the columns, their names and their paths.
pub(super) fn table(all: &Arguments) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
    let mut path = Compiled::default();
    let mut columns: Vec<Compiled> = Vec::new();
    for row in 0..all.rows {
        let (Some(written), Some(text)) = (all.text(0, row), all.text(1, row)) else {
            out.append(true);
            continue;
        };
        let document = document(text, prefixes(all, 2, row)?)?;
        let kinds = all.text(3, row).unwrap_or_default().as_bytes();
        columns.resize_with(kinds.len(), Compiled::default);
        let nodes = match evaluate(&document, path.of(written, "row")?).map_err(create)? {
            Value::Nodes(nodes) => nodes,
            _ => Vec::new(),
        };
        for (place, node) in nodes.into_iter().enumerate() {
            for (at, kind) in kinds.iter().enumerate() {
                let value = match *kind {
                    ORDINALITY => Some((place + 1).to_string()),
                    kind => {
                        let path = all.text(4 + at, row).ok_or_else(|| {
                            Error::invalid("the path of a column of XMLTABLE is NULL")
                                .code(sqlstate::DATA_EXCEPTION)
                        })?;
                        cell(&document, columns[at].of(path, "column")?, node, kind)?
                    }
                };
                out.values().values().append_option(value);
            }
            out.values().append(true);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// Returns the value of a column in a row.
fn cell(document: &Document, path: &Expression, node: Found, kind: u8) -> Result<Option<String>> {
    let value = evaluate_at(document, path, node).map_err(create)?;
    Ok(Some(match &value {
        Value::Nodes(nodes) if nodes.is_empty() => return Ok(None),
        Value::Nodes(_) if kind == XML => found(document, &value)?.concat(),
        Value::Nodes(nodes) if nodes.len() > 1 => {
            return Err(Error::invalid("more than one value returned by column XPath expression")
                .hint("Write a path of one node, such as a[1], or declare the column as XML.")
                .code(sqlstate::CARDINALITY_VIOLATION));
        }
        Value::Text(_) if kind == XML => found(document, &value)?.concat(),
        Value::Flag(flag) if kind == NUMBER => u8::from(*flag).to_string(),
        value => value.text(document),
    }))
}
