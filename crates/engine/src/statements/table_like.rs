//! `CREATE TABLE t (LIKE other [INCLUDING …], …)`: the columns of another relation, as they are now.
//!
//! The statement is replaced by one with the columns in its text. The other relation may change, or be dropped, afterwards.

use std::ops::Range;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{checks_of, default_of, exact_sql_type_of, generated_of};
use millstream_sql::functions::quote_ident;
use millstream_sql::{Error, Identity, IndexKind, Result, TableIndex, TokenReader, is_hidden};

use crate::catalog::{Catalog, Definition, Object};

/// The parts of a table that INCLUDING names, in the order of [`Parts`].
const PARTS: [&str; 5] = ["DEFAULTS", "GENERATED", "IDENTITY", "CONSTRAINTS", "INDEXES"];

/// Parts that tables have in PostgreSQL alone, or that aren't in the text of a table.
const OTHERS: [&str; 4] = ["COMMENTS", "COMPRESSION", "STATISTICS", "STORAGE"];

/// True for each part that is copied.
type Parts = [bool; PARTS.len()];

/// Returns the statement with the columns of other relations in their place; `None` if there is no LIKE. The reader is behind
/// the name of the table.
pub(super) fn expanded(catalog: &Catalog, reader: &TokenReader<'_>) -> Result<Option<String>> {
    let mut ahead = reader.clone();
    if !ahead.symbol(Token::LParen) {
        return Ok(None);
    }
    let mut parts: Vec<(Range<usize>, String)> = Vec::new();
    let (mut depth, mut begins) = (1, true);
    while depth > 0 && !ahead.is_end() {
        if begins
            && depth == 1
            && let Some(found) = like(catalog, &mut ahead)?
        {
            parts.push(found);
        }
        begins = false;
        match ahead.next() {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma => begins = depth == 1,
            _ => {}
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let (mut text, mut from) = (String::new(), 0);
    for (place, columns) in parts {
        text.push_str(&reader.text()[from..place.start]);
        text.push_str(&columns);
        from = place.end;
    }
    text.push_str(&reader.text()[from..]);
    Ok(Some(text))
}

/// Reads `LIKE relation [INCLUDING part | EXCLUDING part]…`. Returns its place, and the columns. A column may be called `like`,
/// so the relation must be there.
fn like(catalog: &Catalog, reader: &mut TokenReader<'_>) -> Result<Option<(Range<usize>, String)>> {
    let (mut ahead, start) = (reader.clone(), reader.position().start);
    if !ahead.keyword(&["LIKE"]) {
        return Ok(None);
    }
    let Ok(name) = ahead.relation_name() else { return Ok(None) };
    let at = ahead.last_position();
    let is_clause = ahead.is_keyword(&["INCLUDING"]) || ahead.is_keyword(&["EXCLUDING"]);
    if !is_clause && !matches!(ahead.peek(), Token::Comma | Token::RParen) {
        return Ok(None);
    }
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let Some(schema) = object.definition.schema() else {
        let kind = object.definition.kind();
        return Err(Error::invalid(format!("\"{name}\" is a {kind}: it has no columns")).at(at));
    };
    let mut copied: Parts = [false; PARTS.len()];
    while let Some(choice) = ahead.one_of(&[&["INCLUDING"], &["EXCLUDING"]]) {
        let part = ahead.position();
        let word = ahead.identifier()?.to_uppercase();
        match (word.as_str(), PARTS.iter().position(|known| *known == word)) {
            ("ALL", _) => copied = [choice == 0; PARTS.len()],
            (_, Some(place)) => copied[place] = choice == 0,
            (other, None) if OTHERS.contains(&other) => {}
            _ => {
                let error = format!("LIKE … INCLUDING {word}: expected ALL, {}", PARTS.join(", "));
                return Err(Error::invalid(error).at(part));
            }
        }
    }
    let place = start..ahead.last_position().end;
    *reader = ahead;
    Ok(Some((place, declared(object, schema, &copied))))
}

/// Returns the declarations of a relation's columns and constraints.
fn declared(object: &Object, schema: &Schema, copied: &Parts) -> String {
    let [defaults, generated, identity, constraints, indexes] = *copied;
    let column = |field: &Field| {
        let mut text = format!("{} {}", quote_ident(field.name()), exact_sql_type_of(field));
        match (Identity::of(field), generated_of(field), default_of(field)) {
            (Some(of), _, _) if identity => {
                let kind = if of.always { "ALWAYS" } else { "BY DEFAULT" };
                let (first, step) = (of.start, of.increment);
                text += &format!(" GENERATED {kind} AS IDENTITY (START WITH {first} INCREMENT BY {step})");
            }
            (None, Some(expression), _) if generated => {
                text += &format!(" GENERATED ALWAYS AS ({expression}) STORED");
            }
            (None, None, Some(default)) if defaults => text += &format!(" DEFAULT {default}"),
            _ => {}
        }
        if !field.is_nullable() {
            text += " NOT NULL";
        }
        text
    };
    let visible = || schema.fields().iter().filter(|field| !is_hidden(field));
    let mut all: Vec<String> = visible().map(|field| column(field)).collect();
    let list = |places: &[usize]| {
        let names = places.iter().map(|place| quote_ident(schema.field(*place).name()));
        names.collect::<Vec<_>>().join(", ")
    };
    let named = |name: &str| match name.starts_with('.') {
        true => String::new(),
        false => format!("CONSTRAINT {} ", quote_ident(name)),
    };
    if constraints {
        let checks = visible().flat_map(|field| checks_of(field));
        all.extend(checks.map(|(name, condition)| format!("{}CHECK ({condition})", named(name))));
    }
    if indexes {
        if let Definition::Table { key, .. } = &object.definition
            && !key.is_empty()
        {
            all.push(format!("PRIMARY KEY ({})", list(key)));
        }
        for index in TableIndex::all(schema).into_iter().filter(|index| index.kind != IndexKind::Plain) {
            let nulls = if index.nulls_distinct { "" } else { " NULLS NOT DISTINCT" };
            all.push(format!("UNIQUE{nulls} ({})", list(&index.columns)));
        }
    }
    all.join(", ")
}
