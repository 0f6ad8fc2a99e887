//! Functions of documents: `to_tsvector`, `ts_headline` and `ts_lexize`, of texts and of JSON.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringViewBuilder};
use arrow::datatypes::DataType;

use super::dictionary::{Config, Dictionary};
use super::headline::headline;
use super::headline_options::Options;
use super::query::Query;
use super::vector::{Vector, Words};
use super::{QUERY, config, query_at, text};
use crate::error::{Error, Result};
use crate::functions::json::value::Value;
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Json, Text};
    let mut vector = |name, params, others, kernel| {
        let returns = Returns::Marked(Mark::Tsvector);
        add(MarkedFunction::new(name, params, returns, Kernel::Text(kernel)).or(others));
    };
    vector("to_tsvector", &[Text], &[&[Text, Text]], of_text);
    vector("to_tsvector_json", &[Json], &[&[Text, Json]], |all, row| {
        let (config, at) = config(all, row, 1)?;
        of_json(all.text(at, row), config, Parts { strings: true, ..Parts::default() })
    });
    vector("json_to_tsvector", &[Json, Json], &[&[Text, Json, Json]], of_parts);
    vector("jsonb_to_tsvector", &[Json, Json], &[&[Text, Json, Json]], of_parts);
    let texts = Returns::Type(DataType::new_list(DataType::Utf8View, true));
    add(MarkedFunction::new("ts_lexize", &[Text, Text], texts, Kernel::Column(lexize)));
    let mut shown = |name, params, others, returns, kernel| {
        add(MarkedFunction::new(name, params, returns, Kernel::Text(kernel)).or(others));
    };
    // A call whose arguments have no types: of three, the first one is the configuration.
    let of_config: &[&[Param]] = &[&[Text, Text, Text], &[Text, Text, Text, Text]];
    shown("ts_headline", &[Text, QUERY], of_config, text(), |all, row| {
        let (config, at) = config(all, row, 2)?;
        of_document(all, row, config, at)
    });
    let default: &[&[Param]] = &[&[Text, QUERY, Text]];
    shown("ts_headline_default", &[Text, QUERY], default, text(), |all, row| {
        of_document(all, row, Config::default(), 0)
    });
    let jsons = [
        ("ts_headline_json", "ts_headline_json_of", Mark::Json),
        ("ts_headline_jsonb", "ts_headline_jsonb_of", Mark::Jsonb),
    ];
    for (name, name_of, mark) in jsons {
        let others: &[&[Param]] = &[&[Json, QUERY, Text]];
        shown(
            name,
            &[Json, QUERY],
            others,
            Returns::Marked(mark),
            match mark {
                Mark::Json => |all, row| of_json_document(all, row, Config::default(), 0, false),
                _ => |all, row| of_json_document(all, row, Config::default(), 0, true),
            },
        );
        let others: &[&[Param]] = &[&[Text, Json, QUERY, Text]];
        shown(
            name_of,
            &[Text, Json, QUERY],
            others,
            Returns::Marked(mark),
            match mark {
                Mark::Json => |all, row| of_json_document(all, row, config(all, row, 2)?.0, 1, false),
                _ => |all, row| of_json_document(all, row, config(all, row, 2)?.0, 1, true),
            },
        );
    }
}

fn of_text(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (config, at) = config(all, row, 1)?;
    let Some(document) = all.text(at, row) else { return Ok(None) };
    Ok(Some(Vector::of_words(Words::of(config, document))?.to_string()))
}

/// The parts of JSON that are searched.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    strings: bool,
    numbers: bool,
    booleans: bool,
    keys: bool,
}

impl Parts {
    /// Reads `"all"` or `["string", "numeric", "boolean", "key"]`.
    fn read(text: &str) -> Result<Parts> {
        let wrong = |message: String| {
            Error::invalid(message)
                .hint("Possible values are: \"string\", \"numeric\", \"boolean\", \"key\", and \"all\".")
                .code(sqlstate::INVALID_PARAMETER_VALUE)
        };
        let names = match Value::parse(text)? {
            Value::Array(names) => names,
            name @ Value::String(_) => vec![name],
            other => {
                let found = other.type_name();
                return Err(wrong(format!(
                    "wrong flag type, only arrays and scalars are allowed, found {found}"
                )));
            }
        };
        let mut parts = Parts::default();
        for name in names {
            let Value::String(name) = name else {
                return Err(wrong("flag array element is not a string".into()));
            };
            match name.as_str() {
                "all" => parts = Parts { strings: true, numbers: true, booleans: true, keys: true },
                "string" => parts.strings = true,
                "numeric" => parts.numbers = true,
                "boolean" => parts.booleans = true,
                "key" => parts.keys = true,
                _ => return Err(wrong(format!("wrong flag in flag array: \"{name}\""))),
            }
        }
        Ok(parts)
    }

    /// Adds the words of a value. A value's words don't follow those of the one before directly.
    fn add(self, value: &Value, config: Config, words: &mut Words) {
        let mut text = |is_searched: bool, text: &str| {
            let before = words.found.len();
            if is_searched {
                words.add(config, text);
            }
            words.last += usize::from(words.found.len() > before);
        };
        match value {
            Value::Null => {}
            Value::Bool(flag) => text(self.booleans, if *flag { "true" } else { "false" }),
            Value::Number(digits) => text(self.numbers, digits),
            Value::String(found) => text(self.strings, found),
            Value::Array(elements) => elements.iter().for_each(|element| self.add(element, config, words)),
            Value::Object(members) => {
                for (name, value) in members {
                    let before = words.found.len();
                    if self.keys {
                        words.add(config, name);
                    }
                    words.last += usize::from(words.found.len() > before);
                    self.add(value, config, words);
                }
            }
        }
    }
}

fn of_json(document: Option<&str>, config: Config, parts: Parts) -> Result<Option<String>> {
    let Some(document) = document else { return Ok(None) };
    let mut words = Words::default();
    parts.add(&Value::as_written(document)?, config, &mut words);
    Ok(Some(Vector::of_words(words)?.to_string()))
}

fn of_parts(all: &Arguments, row: usize) -> Result<Option<String>> {
    let (config, at) = config(all, row, 2)?;
    let Some(parts) = all.text(at + 1, row) else { return Ok(None) };
    of_json(all.text(at, row), config, Parts::read(parts)?)
}

fn lexize(all: &Arguments) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for row in 0..all.rows {
        let (Some(name), Some(word)) = (all.text(0, row), all.text(1, row)) else {
            out.append(false);
            continue;
        };
        if let Some(lexeme) = Dictionary::named(name)?.lexeme(word) {
            out.values().append_value(lexeme);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// Returns the query and the options of a headline, which follow the document at a place.
fn asked(all: &Arguments, row: usize, document_at: usize) -> Result<Option<(Query, Options)>> {
    let Some(query) = query_at(all, document_at + 1, row)? else { return Ok(None) };
    let options = Options::read(all.text(document_at + 2, row).unwrap_or_default())?;
    Ok(Some((query, options)))
}

fn of_document(all: &Arguments, row: usize, config: Config, at: usize) -> Result<Option<String>> {
    let (Some(document), Some((query, options))) = (all.text(at, row), asked(all, row, at)?) else {
        return Ok(None);
    };
    Ok(Some(headline(config, document, &query, &options)))
}

/// Returns JSON with a headline in place of each string.
fn of_json_document(
    all: &Arguments,
    row: usize,
    config: Config,
    at: usize,
    is_binary: bool,
) -> Result<Option<String>> {
    let (Some(document), Some((query, options))) = (all.text(at, row), asked(all, row, at)?) else {
        return Ok(None);
    };
    let mut value = Value::as_written(document)?;
    change_strings(&mut value, &|text| headline(config, text, &query, &options));
    Ok(Some(if is_binary { value.text() } else { value.compact() }))
}

fn change_strings(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(elements) => elements.iter_mut().for_each(|element| change_strings(element, change)),
        Value::Object(members) => members.iter_mut().for_each(|(_, value)| change_strings(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
