//! `CREATE TABLE [IF NOT EXISTS] name (columns, PRIMARY KEY (…))`

use std::collections::HashSet;

use arrow::datatypes::{FieldRef, SchemaRef};
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

/// Fails where no table can have these columns and this key.
pub(crate) fn check(name: &str, schema: &SchemaRef, primary_key: &[usize]) -> Result<()> {
    let fields = schema.fields();
    if fields.is_empty() {
        return Err(Error::invalid(format!(
            "table \"{name}\" has no columns, but at least one was expected"
        )));
    }
    let mut names = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !names.insert(field.name())) {
        return Err(Error::invalid(format!(
            "column \"{}\" of table \"{name}\" is there twice",
            field.name()
        )));
    }
    for place in primary_key {
        match fields.get(*place) {
            None => {
                let count = fields.len();
                return Err(Error::invalid(format!(
                    "the primary key of table \"{name}\" names column {place}, but there are {count}, from 0 on"
                )));
            }
            Some(field) if field.is_nullable() => {
                return Err(Error::invalid(format!(
                    "column \"{}\" is in the primary key of table \"{name}\", but may be NULL",
                    field.name()
                ))
                .hint("Declare the field as not nullable."));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A table that was not made by a statement.
pub(crate) fn object(name: &str, schema: SchemaRef, primary_key: &[usize]) -> Object {
    let column = |field: &FieldRef| format!("\"{}\" {}", field.name(), field.data_type());
    let columns: Vec<String> = schema.fields().iter().map(column).collect();
    let ddl = format!("CREATE TABLE \"{name}\" ({})", columns.join(", "));
    let definition = Definition::Table { schema, key: primary_key.to_vec() };
    Object { name: name.into(), ddl, reads: Vec::new(), definition }
}
