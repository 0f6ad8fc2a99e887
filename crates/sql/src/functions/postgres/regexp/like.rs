//! LIKE of any pattern of an array: `text LIKE ANY (ARRAY['a%', 'b%'])`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use regex::Regex;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::{Kernel, Scalar};

/// Registers the functions, which a rewrite of LIKE calls.
pub(super) fn register(registry: &mut Registry<'_>) {
    let functions: [(&'static str, Kernel); 4] = [
        ("like_any", |columns| matched(columns, false, false)),
        ("not_like_any", |columns| matched(columns, false, true)),
        ("ilike_any", |columns| matched(columns, true, false)),
        ("not_ilike_any", |columns| matched(columns, true, true)),
    ];
    for (name, kernel) in functions {
        registry.add(Scalar::any(name, typed, kernel));
    }
}

fn typed(found: &[DataType]) -> Result<DataType> {
    match found {
        [text, DataType::List(item)]
            if (text.is_string() || text.is_null())
                && (item.data_type().is_string() || item.data_type().is_null()) =>
        {
            Ok(DataType::Boolean)
        }
        _ => Err(Error::invalid("LIKE ANY takes a text and an array of patterns")
            .hint("Write x LIKE ANY (ARRAY['a%', 'b%']).")
            .into()),
    }
}

/// Returns true if any pattern matches. Otherwise, a pattern that is NULL makes the result NULL.
fn matched(columns: &[ArrayRef], ignore_case: bool, negated: bool) -> Result<ArrayRef> {
    let texts = cast(&columns[0], &DataType::Utf8View)?;
    let texts = texts.as_string_view();
    let lists = columns[1].as_list::<i32>();
    let mut known: HashMap<String, Regex> = HashMap::new();
    let rows = (0..texts.len()).map(|row| {
        if texts.is_null(row) || lists.is_null(row) {
            return Ok(None);
        }
        let patterns = cast(&lists.value(row), &DataType::Utf8View)?;
        let mut result = Some(false);
        for pattern in patterns.as_string_view() {
            let Some(pattern) = pattern else {
                result = None;
                continue;
            };
            if !known.contains_key(pattern) {
                known.insert(pattern.to_string(), compiled(pattern, ignore_case)?);
            }
            let fits = known.get(pattern).is_some_and(|regex| regex.is_match(texts.value(row)) != negated);
            if fits {
                return Ok(Some(true));
            }
        }
        Ok(result)
    });
    Ok(Arc::new(rows.collect::<Result<BooleanArray>>()?))
}

fn compiled(pattern: &str, ignore_case: bool) -> Result<Regex> {
    let mut out = String::from(if ignore_case { "(?is)^" } else { "(?s)^" });
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '%' => {
                out.push_str(".*");
                continue;
            }
            '_' => {
                out.push('.');
                continue;
            }
            '\\' => chars
                .next()
                .ok_or_else(|| Error::invalid("LIKE pattern must not end with escape character"))?,
            c => c,
        };
        let mut buffer = [0; 4];
        out.push_str(&regex::escape(literal.encode_utf8(&mut buffer)));
    }
    out.push('$');
    Ok(Regex::new(&out)
        .map_err(|error| Error::invalid(format!("the pattern '{pattern}' is too large: {error}")))?)
}
