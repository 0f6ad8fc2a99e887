//! The names of sequences in calls and in the defaults of columns.
//!
//! A default keeps the whole name of its sequence, `nextval('public.s')`, so that it means the same on any search path.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::default_of;
use millstream_sql::{Identity, PUBLIC, Result, TokenReader, name_in, qualified_ident};

use super::missing;
use crate::catalog::{Catalog, Definition, Object};

/// Returns the name in the catalog of the sequence that a call names: `s`, `"S"`, `a.s`. Without a schema, it is the first one
/// on the search path.
pub(super) fn resolve(
    written: &str,
    catalog: Option<&Catalog>,
    exists: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut reader = TokenReader::new(written).ok()?;
    let is_qualified = reader.is_qualified();
    let name = reader.relation_name().ok()?;
    if !reader.is_end() {
        return None;
    }
    if is_qualified {
        let own =
            name.strip_prefix("pg_temp.").zip(catalog.and_then(|catalog| catalog.schemas().temporary()));
        let name = own.map(|(name, schema)| name_in(schema, name)).unwrap_or(name);
        return exists(&name).then_some(name);
    }
    let path = catalog.map(|catalog| catalog.schemas().path().to_vec()).filter(|path| !path.is_empty());
    let path = path.unwrap_or_else(|| vec![PUBLIC.into()]);
    path.iter().map(|schema| name_in(schema, &name)).find(|name| exists(name))
}

/// A sequence that a text calls: `nextval('s')`.
struct Called {
    /// The name as it is written.
    written: String,
    /// The position of the literal, with a cast to regclass.
    at: Range<usize>,
}

/// Returns the calls of `nextval` in a text.
fn calls(text: &str) -> Result<Vec<Called>> {
    let mut reader = TokenReader::new(text)?;
    let mut found = Vec::new();
    while !reader.is_end() {
        if !(reader.keyword(&["NEXTVAL"]) && reader.symbol(Token::LParen)) {
            if !reader.is_end() {
                reader.next();
            }
            continue;
        }
        let start = reader.position().start;
        let is_cast = reader.is_keyword(&["CAST"]) && *reader.peek_at(1) == Token::LParen;
        if is_cast {
            reader.next();
            reader.next();
        }
        let Ok(written) = reader.string() else { continue };
        let mut end = reader.last_position().end;
        let mut ahead = reader.clone();
        let begins_type = if is_cast { ahead.keyword(&["AS"]) } else { ahead.symbol(Token::DoubleColon) };
        if begins_type && ahead.keyword(&["PG_CATALOG"]) {
            ahead.symbol(Token::Period);
        }
        if begins_type && ahead.keyword(&["REGCLASS"]) && (!is_cast || ahead.symbol(Token::RParen)) {
            end = ahead.last_position().end;
            reader = ahead;
        } else if is_cast {
            continue;
        }
        found.push(Called { written, at: start..end });
    }
    Ok(found)
}

/// Returns a statement in which calls of `nextval` have whole names of sequences; none if it has no other call. A cast to
/// regclass goes. Fails if a sequence isn't there.
pub(crate) fn with_full_names(statement: &TokenReader<'_>, catalog: &Catalog) -> Result<Option<String>> {
    let statement = statement.text();
    let exists = |name: &str| is_sequence(catalog, name) || owner_of(catalog, name).is_some();
    let (mut text, mut copied) = (String::new(), 0);
    for Called { written, at } in calls(statement)? {
        let name = resolve(&written, Some(catalog), exists);
        let name = name.ok_or_else(|| missing(&written).at(at.clone()))?;
        text.push_str(&statement[copied..at.start]);
        text.push_str(&literal(&name));
        copied = at.end;
    }
    text.push_str(&statement[copied..]);
    Ok((text != statement).then_some(text))
}

/// Returns true if an object is a sequence.
pub(crate) fn is_sequence(catalog: &Catalog, name: &str) -> bool {
    catalog.find(name).is_some_and(|object| matches!(object.definition, Definition::Sequence(_)))
}

/// Returns the table whose identity column has a sequence of this name.
pub(crate) fn owner_of(catalog: &Catalog, name: &str) -> Option<Arc<str>> {
    let has = |object: &&Arc<Object>| identities(object).any(|sequence| sequence == name);
    catalog.objects().find(has).map(|object| object.name.clone())
}

/// Returns the sequences of an object's identity columns.
fn identities(object: &Object) -> impl Iterator<Item = String> {
    let columns = object.definition.schema().into_iter().flat_map(|schema| schema.fields());
    columns.filter_map(|field| Identity::of(field)).map(|identity| identity.sequence)
}

/// Returns the whole name of a sequence as a literal.
fn literal(name: &str) -> String {
    format!("'{}'", qualified_ident(name).replace('\'', "''"))
}

/// Returns the objects whose sequences the defaults of columns call: sequences, and tables with identity columns.
pub(crate) fn read_by_defaults(schema: &Schema, catalog: &Catalog) -> Vec<Arc<str>> {
    let written = schema.fields().iter().filter(|field| Identity::of(field).is_none());
    let defaults: Vec<&str> = written.filter_map(|field| default_of(field)).collect();
    if defaults.is_empty() {
        return Vec::new();
    }
    let called: Vec<Called> = defaults.iter().filter_map(|text| calls(text).ok()).flatten().collect();
    let is_called = |name: &str| called.iter().any(|call| call.written == qualified_ident(name));
    let is_read = |object: &&Arc<Object>| match object.definition {
        Definition::Sequence(_) => is_called(&object.name),
        _ => identities(object).any(|name| is_called(&name)),
    };
    catalog.objects().filter(is_read).map(|object| object.name.clone()).collect()
}

/// Returns a default or a statement after a sequence was renamed; none if it doesn't call it.
pub(crate) fn with_renamed_sequence(text: &str, from: &str, to: &str) -> Option<String> {
    let mut renamed = text.to_string();
    for call in calls(text).ok()?.iter().rev().filter(|call| call.written == qualified_ident(from)) {
        renamed.replace_range(call.at.clone(), &literal(to));
    }
    (renamed != text).then_some(renamed)
}
