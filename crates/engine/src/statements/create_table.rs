//! `CREATE TABLE [IF NOT EXISTS] name (columns, PRIMARY KEY (…))`

use millstream_sql::{Error, Result, TokenReader};

use super::{existed, new_name};
use crate::catalog::{Definition, Object};
use crate::plan::Working;
use crate::session::{Session, Tag};

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("TABLE", &name));
    }
    if reader.is_keyword(&["AS"]) {
        return Err(Error::unsupported("CREATE TABLE … AS")
            .hint("Use CREATE MATERIALIZED VIEW … AS, or CREATE TABLE and INSERT … SELECT.")
            .at(reader.position()));
    }
    let columns = session.shared.planner.columns(&mut reader)?;
    for (words, what) in [
        (&["APPEND", "ONLY"][..], "APPEND ONLY"),
        (&["ON", "CONFLICT"][..], "ON CONFLICT of a table"),
        (&["WITH"][..], "a table with a connector"),
    ] {
        if reader.is_keyword(words) {
            return Err(Error::unsupported(what).at(reader.position()));
        }
    }
    reader.expect_end()?;
    let definition = Definition::Table { schema: columns.schema, key: columns.primary_key };
    working.create(Object { name, ddl: reader.text().to_string(), reads: Vec::new(), definition }, None)?;
    Ok(Tag::new("CREATE TABLE"))
}
