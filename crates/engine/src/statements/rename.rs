//! `ALTER TABLE | SOURCE | VIEW | MATERIALIZED VIEW | STREAM | SINK name RENAME TO new`

use std::sync::Arc;

use millstream_sql::{Error, PUBLIC, Result, TokenReader, name_in};

use super::{altered_kind, altered_object, alters, refuse_system_name};
use crate::catalog::Catalog;
use crate::ddl;
use crate::event::Change;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::temporary::is_in_temporary;

pub(super) static RENAME: Statement = Statement {
    words: &[
        &["ALTER", "TABLE"],
        &["ALTER", "SOURCE"],
        &["ALTER", "VIEW"],
        &["ALTER", "MATERIALIZED", "VIEW"],
        &["ALTER", "STREAM"],
        &["ALTER", "SINK"],
        &["ALTER", "SEQUENCE"],
    ],
    synopsis: concat!(
        "ALTER TABLE | SOURCE | VIEW | MATERIALIZED VIEW | STREAM | SINK | SEQUENCE name RENAME TO new_name;\n",
        "ALTER TABLE | SOURCE | VIEW | MATERIALIZED VIEW | STREAM | SINK | SEQUENCE name SET SCHEMA schema;",
    ),
    purpose: "rename an object, or move it to another schema",
    pages: &["alter-rename"],
    begins: Some(begins),
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ALTER,
};

/// Returns true if the statement renames an object: `ALTER TABLE t RENAME TO u`.
pub(super) fn begins(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    while !ahead.is_end() && !ahead.is_keyword(&["RENAME", "TO"]) && !ahead.is_keyword(&["SET", "SCHEMA"]) {
        ahead.next();
    }
    let moves = alters(reader, "SET") && ahead.is_keyword(&["SET", "SCHEMA"]);
    moves || alters(reader, "RENAME") && ahead.is_keyword(&["RENAME", "TO"])
}

/// Returns the kind of object that such a statement renames: TABLE, MATERIALIZED VIEW.
pub(crate) fn kind_of(statement: &str) -> Option<String> {
    let mut reader = TokenReader::new(statement).ok()?;
    altered_kind(&mut reader).ok()
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    ddl::alter(session, reader, plan).await
}

/// Returns the change, and the version of the catalog that it is based on.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<(u64, Option<Change>, Tag)> {
    let kind = altered_kind(reader)?;
    let from = reader.relation_name()?;
    let from_at = reader.last_position();
    let catalog = session.catalog();
    let (to, is_qualified) = new_name(&catalog, &from, reader)?;
    let to: Arc<str> = to.into();
    let to_at = reader.last_position();
    refuse_system_name(&to, "be a name").map_err(|error| error.at(to_at.clone()))?;
    if is_in_temporary(&from) != is_in_temporary(&to) {
        let error = format!("moving \"{from}\" into or out of a schema of temporary objects");
        return Err(Error::unsupported(error).at(to_at));
    }
    if !session.is_recovering {
        catalog.schemas().check(&to, is_qualified).map_err(|error| error.at(to_at.clone()))?;
    }
    reader.expect_end()?;
    let hint = |found: &str| Some(format!("Use ALTER {} {from} RENAME TO {to}.", found.to_uppercase()));
    let object = altered_object(&catalog, &kind, &from, from_at, hint)?;
    if let Some(taken) = catalog.find(&to) {
        let error = match taken.name == object.name {
            true => Error::invalid(format!("\"{from}\" already has that name")).hint("Choose another name."),
            false => Error::invalid(format!("{} \"{to}\" already exists", taken.definition.kind()))
                .hint("Drop it first, or choose another name."),
        };
        return Err(error.at(to_at));
    }
    let change = Change::Rename { from: object.name.clone(), to };
    Ok((catalog.version, Some(change), Tag::new(format!("ALTER {kind}"))))
}

/// Reads `RENAME TO name`, or `SET SCHEMA name`. Returns the new name, and true if it has a schema. Without one, it is one of
/// the object's own schema.
fn new_name(catalog: &Catalog, from: &str, reader: &mut TokenReader<'_>) -> Result<(String, bool)> {
    let (schema, name) = catalog.schemas().place_of(from);
    if reader.keyword(&["SET", "SCHEMA"]) {
        let schema = reader.identifier()?;
        let is_qualified = schema != PUBLIC;
        return Ok((name_in(&schema, name), is_qualified));
    }
    reader.expect_keyword(&["RENAME", "TO"])?;
    match reader.is_qualified() {
        true => Ok((reader.relation_name()?, true)),
        false => Ok((name_in(schema, &reader.identifier()?), schema != PUBLIC)),
    }
}
