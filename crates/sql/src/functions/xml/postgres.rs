//! PostgreSQL's functions of XML. Those with a syntax of their own get names and options as a literal: see `dialect/xml.rs`.

use arrow::datatypes::DataType;

use super::encode::{self, Texts};
use super::names::of_identifier;
use super::scan::Form;
use super::{paths, value};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// The character between names, which the parser writes.
const SEPARATOR: char = '\u{1f}';

const XML: Param = Param::Value(Mark::Xml);

/// Returns the function that a call means if its arguments have these types.
pub(crate) fn overload(name: &str, marks: &[Option<Mark>]) -> Option<&'static str> {
    let is_xml = |at: usize| marks.get(at).copied().flatten() == Some(Mark::Xml);
    match name {
        "xml_content" if is_xml(0) => Some("xml_plain"),
        "xpath" if is_xml(1) => Some("xml_xpath"),
        _ => None,
    }
}

/// True for a function whose arguments of type XML must not be text.
pub(crate) fn takes_xml(function: &str, at: usize) -> Option<&'static str> {
    Some(match (function, at) {
        ("xmlconcat", _) => "XMLCONCAT",
        ("xmlroot", 0) => "XMLROOT",
        ("xml_is_document", 0) => "IS DOCUMENT",
        ("xmlserialize_content" | "xmlserialize_document", 0) => "XMLSERIALIZE",
        ("xmlexists", 1) => "XMLEXISTS",
        ("xml_xpath" | "xpath_exists", 1) => "xpath",
        ("xml_table", 1) => "XMLTABLE",
        _ => return None,
    })
}

/// Lists the functions.
pub(in crate::functions) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    list_values(add);
    list_parts(add);
    list_paths(add);
}

/// Lists checks and conversions.
fn list_values(add: &mut dyn FnMut(MarkedFunction)) {
    let bool = || Returns::Type(DataType::Boolean);
    let text = || Returns::Type(DataType::Utf8View);
    let xml = || Returns::Marked(Mark::Xml);
    let check = |name, kernel| MarkedFunction::new(name, &[Param::Text], bool(), Kernel::Bool(kernel));
    let is_content = |all: &Arguments, row: usize| {
        Ok(all.text(0, row).map(|text| value::check(text, Form::Content).is_ok()))
    };
    let is_document = |all: &Arguments, row: usize| Ok(all.text(0, row).map(value::is_document));
    add(check("xml_is_well_formed", is_content));
    add(check("xml_is_well_formed_content", is_content));
    add(check("xml_is_well_formed_document", is_document));
    add(MarkedFunction::new("xml_is_document", &[XML], bool(), Kernel::Bool(is_document)));
    let parsed = |name, kernel| MarkedFunction::new(name, &[Param::Text], xml(), Kernel::Text(kernel));
    add(parsed("xmlparse_content", |all, row| parse(all, row, Form::Content)));
    add(parsed("xmlparse_document", |all, row| parse(all, row, Form::Document)));
    let written = |name, kernel| MarkedFunction::new(name, &[XML], text(), Kernel::Text(kernel));
    add(written("xmlserialize_content", |all, row| Ok(all.text(0, row).map(str::to_string))));
    add(written("xmlserialize_document", |all, row| match all.text(0, row) {
        Some(text) if !value::is_document(text) => {
            Err(Error::invalid("not an XML document").code(sqlstate::NOT_AN_XML_DOCUMENT))
        }
        text => Ok(text.map(str::to_string)),
    }));
}

fn parse(all: &Arguments, row: usize, form: Form) -> Result<Option<String>> {
    all.text(0, row).map(|text| value::canonical(text, form)).transpose()
}

/// Lists functions that build values. Texts of other types come from `xml_content` and `xml_attribute`.
fn list_parts(add: &mut dyn FnMut(MarkedFunction)) {
    let xml = || Returns::Marked(Mark::Xml);
    let text = || Returns::Type(DataType::Utf8View);
    let of = |name, params, kernel| MarkedFunction::new(name, params, xml(), Kernel::Text(kernel));
    add(of("xmlcomment", &[Param::Text], |all, row| all.text(0, row).map(value::comment).transpose()));
    add(of("xmlpi", &[Param::Text, Param::Text], |all, row| {
        let content = all.text(1, row);
        all.text(0, row).map(|target| value::instruction(target, content)).transpose()
    })
    .optional(1));
    add(of("xmlroot", &[XML, Param::Text, Param::Text], |all, row| {
        let (version, standalone) = (all.text(1, row), all.text(2, row).unwrap_or_default());
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if let Some(version) = version.filter(|version| version.is_empty() || !version.chars().all(is_name)) {
            return Err(
                Error::invalid(format!("XMLROOT: '{version}' is no version of XML")).hint("Use '1.0'.")
            );
        }
        Ok(all.text(0, row).map(|value| value::root(value, version, standalone)))
    })
    .called_on_null());
    add(of("xmlconcat", &[XML], |all, row| {
        Ok(value::concat((0..all.columns.len()).filter_map(|at| all.text(at, row))))
    })
    .repeated()
    .called_on_null());
    add(of("xml_agg_of", &[Param::Keys], |all, row| {
        Ok(all.keys(0, row)?.and_then(|values| value::concat(values.iter().flatten().map(String::as_str))))
    }));
    add(of("xmlelement", &[Param::Text, Param::Text], element).optional(1).repeated().called_on_null());
    add(of("xmlforest_of", &[Param::Text, Param::Text], forest).repeated().called_on_null());
    add(MarkedFunction::new("xml_not_null", &[Param::Text, Param::Text], text(), Kernel::Text(not_null))
        .called_on_null());
    let of_any = |name, kernel| MarkedFunction::new(name, &[Param::Any], text(), Kernel::Column(kernel));
    add(of_any("xml_content", |all| encode::texts(&all.columns[0], Texts::Escaped, Texts::Escaped)));
    add(of_any("xml_plain", |all| encode::texts(&all.columns[0], Texts::Plain, Texts::Plain)));
    add(of_any("xml_attribute", |all| encode::texts(&all.columns[0], Texts::Plain, Texts::Escaped)));
}

/// Returns the value of a column of XMLTABLE that is NOT NULL.
fn not_null(all: &Arguments, row: usize) -> Result<Option<String>> {
    match all.text(0, row) {
        Some(text) => Ok(Some(text.to_string())),
        None => {
            let column = all.text(1, row).unwrap_or_default();
            Err(Error::invalid(format!("null is not allowed in column \"{column}\""))
                .hint("Give it a DEFAULT, or leave out NOT NULL.")
                .code(sqlstate::NULL_VALUE_NOT_ALLOWED))
        }
    }
}

/// The first argument has the name of the element, and those of the attributes whose values follow.
fn element(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(names) = all.text(0, row) else { return Ok(None) };
    let mut names = names.split(SEPARATOR).map(of_identifier);
    let name = names.next().unwrap_or_default();
    let names: Vec<String> = names.collect();
    let content = (1 + names.len()..all.columns.len()).map(|at| all.text(at, row));
    let attributes = names.iter().enumerate().map(|(at, name)| (name.as_str(), all.text(1 + at, row)));
    Ok(Some(value::element(&name, attributes, content)))
}

/// The first argument has the names of the elements whose content follows.
fn forest(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(names) = all.text(0, row) else { return Ok(None) };
    let mut out = String::new();
    for (at, name) in names.split(SEPARATOR).map(of_identifier).enumerate() {
        if let Some(content) = all.text(1 + at, row) {
            out.push_str(&value::element(&name, std::iter::empty(), std::iter::once(Some(content))));
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

/// Lists functions with XPaths.
fn list_paths(add: &mut dyn FnMut(MarkedFunction)) {
    let bool = || Returns::Type(DataType::Boolean);
    let nodes = Returns::ListOf(|mark| (mark == Mark::Xml).then_some(mark));
    let path: &[Param] = &[Param::Text, XML, Param::Any];
    add(MarkedFunction::new("xml_xpath", path, nodes, Kernel::Column(paths::xpath)).optional(1));
    add(MarkedFunction::new("xpath_exists", path, bool(), Kernel::Column(paths::exists)).optional(1));
    add(MarkedFunction::new("xmlexists", &[Param::Text, XML], bool(), Kernel::Column(paths::exists)));
    let rows = DataType::new_list(DataType::new_list(DataType::Utf8View, true), true);
    let table: &[Param] = &[Param::Text, XML, Param::Any, Param::Text, Param::Text];
    add(MarkedFunction::new("xml_table", table, Returns::Type(rows), Kernel::Column(paths::table))
        .optional(1)
        .repeated());
}
