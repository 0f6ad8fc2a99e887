//! `ALTER TABLE | SOURCE | VIEW | MATERIALIZED VIEW | STREAM | SINK name SWAP WITH other`

use std::sync::Arc;

use millstream_sql::{Error, Result, TokenReader, name_in};

use super::{altered_kind, altered_object, alters};
use crate::catalog::{Catalog, Object};
use crate::ddl;
use crate::event::Change;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::temporary::is_in_temporary;

pub(super) static SWAP: Statement = Statement {
    words: &[
        &["ALTER", "TABLE"],
        &["ALTER", "SOURCE"],
        &["ALTER", "VIEW"],
        &["ALTER", "MATERIALIZED", "VIEW"],
        &["ALTER", "STREAM"],
        &["ALTER", "SINK"],
    ],
    synopsis: "ALTER TABLE | SOURCE | VIEW | MATERIALIZED VIEW | STREAM | SINK name SWAP WITH other_name;",
    purpose: "exchange the names of two objects",
    pages: &["alter-swap"],
    begins: Some(begins),
    run: Run::Alone(|session, reader| Box::pin(async move { ddl::alter(session, &reader, plan).await })),
    rules: Rules::ALTER,
};

fn begins(reader: &TokenReader<'_>) -> bool {
    alters(reader, "SWAP")
}

/// Returns the changes, and the version of the catalog that they are based on.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<(u64, [Change; 3], Tag)> {
    let kind = altered_kind(reader)?;
    if kind == "SEQUENCE" {
        return Err(Error::unsupported("ALTER SEQUENCE … SWAP WITH")
            .at(reader.last_position())
            .hint("ALTER SEQUENCE … RENAME TO, three times, exchanges the names."));
    }
    let catalog = session.catalog();
    let one = read_object(&catalog, &kind, reader)?;
    reader.expect_keyword(&["SWAP", "WITH"])?;
    let other = read_object(&catalog, &kind, reader)?;
    let other_at = reader.last_position();
    reader.expect_end()?;
    if one.name == other.name {
        return Err(Error::invalid(format!("\"{}\" can't exchange its name with itself", one.name))
            .at(other_at)
            .hint("Name two objects."));
    }
    if is_in_temporary(&one.name) != is_in_temporary(&other.name) {
        let (one, other) = (&one.name, &other.name);
        let error =
            format!("exchanging the names \"{one}\" and \"{other}\", of which one is a temporary object's,");
        return Err(Error::unsupported(error).at(other_at));
    }
    let tag = Tag::new(format!("ALTER {kind}"));
    Ok((catalog.version, renames(&catalog, &one.name, &other.name), tag))
}

/// Reads the name of an object of this kind.
fn read_object<'a>(
    catalog: &'a Catalog,
    kind: &str,
    reader: &mut TokenReader<'_>,
) -> Result<&'a Arc<Object>> {
    let name = reader.relation_name()?;
    let hint = "Both objects must be of the kind that the statement names after ALTER.";
    altered_object(catalog, kind, &name, reader.last_position(), |_| Some(hint.into()))
}

/// Returns the renames that exchange two names. The older object gets a free name first, in whichever order the statement
/// has them: so two exchanges of the same objects cancel out in a checkpoint.
fn renames(catalog: &Catalog, one: &Arc<str>, other: &Arc<str>) -> [Change; 3] {
    let (older, newer) = if catalog.oid(one) <= catalog.oid(other) { (one, other) } else { (other, one) };
    let free: Arc<str> = free_name(catalog, older).into();
    let rename = |from: &Arc<str>, to: Arc<str>| Change::Rename { from: from.clone(), to };
    // The loop tells an object from a former one of the same name by its copy of the name, so both get new copies.
    [rename(older, free.clone()), rename(newer, Arc::from(&**older)), rename(&free, Arc::from(&**newer))]
}

/// Returns a name in the schema of an object that no object has.
fn free_name(catalog: &Catalog, of: &str) -> String {
    let (schema, _) = catalog.schemas().place_of(of);
    let mut name = "swapped object".to_string();
    while catalog.find(&name_in(schema, &name)).is_some() {
        name.push('_');
    }
    name_in(schema, &name)
}
