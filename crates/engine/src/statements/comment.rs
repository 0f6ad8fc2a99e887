//! `COMMENT ON kind name IS 'text' | NULL`

use std::sync::Arc;

use millstream_sql::{Error, Result, TokenReader, column_name, is_hidden, suggestion};

use super::drop::routine;
use crate::catalog::Object;
use crate::ddl;
use crate::event::Change;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static COMMENT: Statement = Statement {
    words: &[&["COMMENT", "ON"]],
    synopsis: concat!(
        "COMMENT ON TABLE | SOURCE | VIEW | MATERIALIZED VIEW | STREAM | SINK | SUBSCRIPTION | SEQUENCE | FUNCTION | AGGREGATE name\n",
        "  IS 'text' | NULL;\n",
        "COMMENT ON COLUMN relation.column IS 'text' | NULL;",
    ),
    purpose: "describe an object or a column",
    pages: &["comment"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { ddl::alter(session, &reader, plan).await })),
    rules: Rules::ALTER,
};

/// The kinds of objects that keep their comments.
const KINDS: &[&[&str]] = &[
    &["COLUMN"],
    &["FUNCTION"],
    &["AGGREGATE"],
    &["TABLE"],
    &["SOURCE"],
    &["VIEW"],
    &["MATERIALIZED", "VIEW"],
    &["STREAM"],
    &["SINK"],
    &["SUBSCRIPTION"],
    &["SEQUENCE"],
];

/// The kinds of objects of PostgreSQL whose comments have no effect, as scripts that pg_dump writes have them.
const OTHERS: &[&[&str]] = &[
    &["CONSTRAINT"],
    &["DATABASE"],
    &["EXTENSION"],
    &["INDEX"],
    &["ROLE"],
    &["SCHEMA"],
    &["TRIGGER"],
    &["TYPE"],
    &["DOMAIN"],
];

/// Returns the change, and the version of the catalog that it is based on.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<(u64, Option<Change>, Tag)> {
    let catalog = session.catalog();
    let mut tag = Tag::new("COMMENT");
    if let Some(kind) = reader.one_of(OTHERS) {
        while !reader.is_end() && !reader.is_keyword(&["IS"]) {
            reader.next();
        }
        text(reader)?;
        tag.notices.push(format!("a comment on a {} is not kept", OTHERS[kind].join(" ").to_lowercase()));
        return Ok((catalog.version, None, tag));
    }
    let Some(kind) = reader.one_of(KINDS) else {
        let kinds: Vec<String> = KINDS.iter().map(|words| words.join(" ")).collect();
        return Err(reader.expected(&super::table::or(&kinds)));
    };
    let at = reader.position();
    let (name, column) = match kind {
        0 => column_name(reader).map(|(name, column)| (name, Some(column)))?,
        1 | 2 => (routine(session, reader)?, None),
        _ => (reader.relation_name()?, None),
    };
    let at = at.start..reader.last_position().end;
    // A start repeats comments, also one on a column that a later query of the view lacks.
    let has_column =
        |object: &Arc<Object>| column.as_ref().is_none_or(|name| check_column(object, name).is_ok());
    if session.is_recovering && !catalog.find(&name).is_some_and(has_column) {
        return Ok((catalog.version, None, tag));
    }
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let found = object.definition.kind().to_uppercase();
    if kind > 0 && found != KINDS[kind].join(" ") {
        return Err(Error::invalid(format!("\"{name}\" is a {}", found.to_lowercase()))
            .at(at)
            .hint(format!("Use COMMENT ON {found} {name}.")));
    }
    if let Some(column) = &column {
        check_column(object, column).map_err(|error| error.at(at))?;
    }
    let text = text(reader)?;
    let change = Change::Comment { on: object.name.clone(), column, text };
    Ok((catalog.version, Some(change), tag))
}

/// Reads the rest: `IS 'text'`, `IS NULL`.
fn text(reader: &mut TokenReader<'_>) -> Result<Option<String>> {
    reader.expect_keyword(&["IS"])?;
    let text = match reader.keyword(&["NULL"]) {
        true => None,
        false => Some(reader.string()?),
    };
    reader.expect_end()?;
    // As in PostgreSQL, an empty comment is none.
    Ok(text.filter(|text| !text.is_empty()))
}

fn check_column(object: &Arc<Object>, column: &str) -> Result<()> {
    let fields = object.definition.schema().into_iter().flat_map(|schema| schema.fields());
    let names: Vec<&str> =
        fields.filter(|field| !is_hidden(field)).map(|field| field.name().as_str()).collect();
    if names.contains(&column) {
        return Ok(());
    }
    let error =
        format!("column \"{column}\" of {} \"{}\" does not exist", object.definition.kind(), object.name);
    Err(Error::invalid(error).maybe_hint(suggestion::hint(column, "columns", names)))
}
