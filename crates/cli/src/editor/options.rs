//! Completion inside `WITH (…)`: the options of a connector, and their known values.

use std::ops::Range;

use millstream::Names;
use millstream::connect::OptionDoc;

use crate::editor::complete::Completion;

/// Options whose values are files or directories.
const PATHS: &[&str] = &["path"];

/// Returns the options possible after these tokens of the statement; `None` if none is expected.
pub fn names(before: &[&str], names: &Names) -> Option<Vec<String>> {
    let list = list(before)?;
    match list.last() {
        None | Some(&",") => {}
        _ => return None,
    }
    let given: Vec<String> = keys(list).map(str::to_lowercase).collect();
    let mut options: Vec<String> = known(before, list, names).map(|option| option.name.to_owned()).collect();
    options.push("connector".to_owned());
    options.retain(|option| !given.contains(option) && !option.contains('<'));
    options.sort_unstable();
    options.dedup();
    Some(options)
}

/// Completes the string at `range`, after these tokens: the value of an option.
pub fn value(before: &[&str], range: Range<usize>, text: &str, names: &Names) -> Option<Completion> {
    let list = list(before)?;
    let (sign, rest) = list.split_last()?;
    let key = rest.last()?.trim_matches('"').to_lowercase();
    if *sign != "=" {
        return None;
    }
    if PATHS.contains(&key.as_str()) {
        return Some(Completion::File(range));
    }
    let values: Vec<String> = match key.as_str() {
        "connector" => names.connectors.iter().map(|connector| connector.name().to_owned()).collect(),
        key => known(before, list, names).filter(|option| option.name == key).flat_map(values_of).collect(),
    };
    let typed = &text[range.clone()];
    let mut texts: Vec<String> = values
        .into_iter()
        .filter(|value| value.starts_with(typed))
        .map(|value| format!("{value}'"))
        .collect();
    texts.sort_unstable();
    texts.dedup();
    Some(Completion::Texts { start: range.start, texts })
}

/// Returns the tokens in the parenthesis of `WITH (` so far; `None` outside of one.
fn list<'a, 'b>(before: &'b [&'a str]) -> Option<&'b [&'a str]> {
    let makes = before.first()?.eq_ignore_ascii_case("CREATE");
    let open = before.windows(2).rposition(|pair| pair[0].eq_ignore_ascii_case("WITH") && pair[1] == "(")?;
    let list = &before[open + 2..];
    let depth = |sign: &str| list.iter().filter(|token| **token == sign).count();
    (makes && depth(")") <= depth("(")).then_some(list)
}

/// Returns the names before each `=`.
fn keys<'a, 'b>(list: &'b [&'a str]) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
    list.windows(2).filter(|pair| pair[1] == "=").map(|pair| pair[0])
}

/// Returns the options of the named connector, or of all connectors if none is named yet.
fn known<'n>(
    before: &[&str],
    list: &[&str],
    names: &'n Names,
) -> impl Iterator<Item = &'n OptionDoc> + use<'n> {
    let is_kind = |word: &&&str| !["OR", "REPLACE"].iter().any(|other| word.eq_ignore_ascii_case(other));
    let sink = before.iter().skip(1).find(is_kind).is_some_and(|kind| kind.eq_ignore_ascii_case("SINK"));
    let named = list.windows(3).find(|part| part[0].eq_ignore_ascii_case("connector") && part[1] == "=");
    let named = named.map(|part| part[2].trim_matches('\'').to_owned());
    let fits = move |name: &str| named.as_deref().is_none_or(|named| named == name);
    names
        .connectors
        .iter()
        .filter(move |connector| fits(connector.name()))
        .flat_map(move |connector| if sink { connector.sink_options() } else { connector.source_options() })
}

/// Returns the values of an option that has only a few.
fn values_of(option: &OptionDoc) -> Vec<String> {
    if matches!(option.default, Some("true" | "false")) {
        return vec!["true".to_owned(), "false".to_owned()];
    }
    if option.name == "format" {
        return ["csv", "json", "parquet", "text"].map(str::to_owned).into();
    }
    Vec::new()
}
