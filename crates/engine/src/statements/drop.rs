//! `DROP kind [IF EXISTS] name [, …] [CASCADE]`; a function or aggregate may be followed by its arguments.

use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader, routine_name, split_schema, sqlstate};

use super::create_function::parameters;
use super::create_type::refuse_named;
use super::table::{STATEMENTS, or};
use crate::catalog::{Catalog, Definition, Object, schema_key, schema_of_key};
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static DROP: Statement = Statement {
    words: &[&["DROP"]],
    synopsis: concat!(
        "DROP SOURCE | TABLE | VIEW | MATERIALIZED VIEW | STREAM | SINK | SUBSCRIPTION | FUNCTION | AGGREGATE | SCHEMA | SEQUENCE | TYPE | DOMAIN\n",
        "  [IF EXISTS] name [, …] [CASCADE | RESTRICT];",
    ),
    purpose: "remove objects",
    pages: &["drop"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let kinds = STATEMENTS.kinds();
    let Some(kind) = reader.one_of(&kinds) else {
        let mut kinds: Vec<String> = kinds.iter().map(|words| words.join(" ")).collect();
        kinds.push("INDEX".into());
        return Err(reader.expected(&or(&kinds)));
    };
    let kind = kinds[kind].join(" ");
    let lenient = reader.keyword(&["IF", "EXISTS"]);
    let names = names_of(session, &kind, &mut reader)?;
    let cascade = reader.keyword(&["CASCADE"]);
    if !cascade {
        reader.keyword(&["RESTRICT"]);
    }
    reader.expect_end()?;
    let mut tag = Tag::new(format!("DROP {kind}"));
    let mut dropped: Vec<Arc<str>> = Vec::new();
    for (name, at) in &names {
        let Some(object) = working.catalog.find(name) else {
            if lenient {
                tag.notices.push(format!(
                    "{} \"{}\" does not exist, nothing was done",
                    kind.to_lowercase(),
                    shown(name)
                ));
                continue;
            }
            return Err(working
                .catalog
                .get(name)
                .map_or_else(|error| error, |_| Error::bug("found and not"))
                .at(at.clone()));
        };
        let found = object.definition.kind().to_uppercase();
        if found != kind {
            return Err(Error::invalid(format!(
                "\"{name}\" is a {}, not a {}",
                found.to_lowercase(),
                kind.to_lowercase()
            ))
            .at(at.clone())
            .hint(format!("Use DROP {found} {name}.")));
        }
        dropped.push(name.clone());
    }
    let at = names.first().map_or(0..0, |(_, at)| at.clone());
    let mut all = with_dependants(working, &dropped, cascade).map_err(|error| error.at(at.clone()))?;
    let owned: Vec<Arc<str>> = all.iter().flat_map(|name| owned_sequences(&working.catalog, name)).collect();
    if owned.iter().any(|name| !all.contains(name)) {
        dropped.extend(owned);
        all = with_dependants(working, &dropped, cascade).map_err(|error| error.at(at))?;
    }
    refuse_named(working, &all)?;
    tag.notices.extend(
        all.iter().filter(|name| !dropped.contains(name)).map(|name| format!("\"{name}\" was dropped too")),
    );
    if !all.is_empty() {
        working.drop(all);
    }
    Ok(tag)
}

/// Reads the names of objects, each with its position.
fn names_of(
    session: &Session,
    kind: &str,
    reader: &mut TokenReader<'_>,
) -> Result<Vec<(Arc<str>, Range<usize>)>> {
    let mut names = Vec::new();
    loop {
        let name: Arc<str> = match kind {
            "FUNCTION" | "AGGREGATE" => routine(session, reader)?.into(),
            "SCHEMA" => schema_key(&reader.identifier()?).into(),
            _ => reader.relation_name()?.into(),
        };
        names.push((name, reader.last_position()));
        if !reader.symbol(Token::Comma) {
            return Ok(names);
        }
    }
}

/// Fails if a table would be dropped only because a default calls a sequence: its rows are worth more.
fn refuse_numbered(
    working: &Working,
    name: &str,
    dependants: &[Arc<str>],
    dropped: &[Arc<str>],
) -> Result<()> {
    let is_table = |other: &&Arc<str>| {
        let object = working.catalog.find(other);
        object.is_some_and(|object| matches!(object.definition, Definition::Table { .. }))
    };
    let goes_with_schema = |other: &str| {
        let schema = split_schema(other).map(|(schema, _)| schema_key(schema));
        schema.is_some_and(|schema| dropped.iter().any(|name| **name == *schema))
    };
    let mut tables = dependants.iter().filter(is_table);
    match tables.find(|other| !dropped.contains(other) && !goes_with_schema(other)) {
        None => Ok(()),
        Some(table) => Err(Error::invalid(format!(
            "\"{}\" can't be dropped: a default of table \"{table}\" takes the numbers of a sequence that would go, too",
            shown(name)
        ))
        .hint("ALTER TABLE … ALTER COLUMN … DROP DEFAULT first, or name the table in the statement.")
        .code(sqlstate::DEPENDENT_OBJECTS_STILL_EXIST)),
    }
}

/// Returns the sequences that are dropped together with a table, which owns them.
fn owned_sequences(catalog: &Catalog, table: &str) -> Vec<Arc<str>> {
    let is_owned = |object: &&Arc<Object>| match &object.definition {
        Definition::Sequence(options) => options.is_owned_by(table),
        _ => false,
    };
    catalog.objects().filter(is_owned).map(|object| object.name.clone()).collect()
}

/// Returns a name as users know it.
fn shown(name: &str) -> &str {
    schema_of_key(name).unwrap_or(name)
}

/// Reads a function or aggregate and returns its key. The arguments are optional, since names are unique.
pub(super) fn routine(session: &Session, reader: &mut TokenReader<'_>) -> Result<String> {
    let name = reader.routine()?;
    if *reader.peek() == Token::LParen {
        parameters(session, reader)?;
    }
    Ok(routine_name(&name))
}

/// Returns the objects to drop, dependent objects first.
fn with_dependants(working: &Working, dropped: &[Arc<str>], cascade: bool) -> Result<Vec<Arc<str>>> {
    let mut all: Vec<Arc<str>> = Vec::new();
    for name in dropped {
        let dependants = working.catalog.dependants(name);
        let others: Vec<&str> =
            dependants.iter().filter(|other| !dropped.contains(other)).map(AsRef::as_ref).collect();
        if !others.is_empty() && !cascade {
            let others = others.join(", ");
            let error = match schema_of_key(name) {
                Some(schema) => format!("schema \"{schema}\" has {others}"),
                None => format!("\"{name}\" is read by {others}"),
            };
            return Err(Error::invalid(error).hint("Drop these first, or use CASCADE to drop them too."));
        }
        refuse_numbered(working, name, &dependants, dropped)?;
        all.extend(dependants.into_iter().rev());
        all.push(name.clone());
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|name| seen.insert(name.clone()));
    Ok(all)
}
