//! `CREATE SINK [IF NOT EXISTS] name INTO table [(columns)] FROM relation | AS SELECT …`

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::functions::quoted_ident;
use millstream_sql::{Error, Result, TokenReader, is_hidden, qualified_ident};

use super::create_view::{lasting_planner, make_continuous, no_options};
use super::{relations_of, within};
use crate::catalog::{Catalog, Definition, Object, reads_of};
use crate::plan::Working;
use crate::session::{Session, Tag};

/// Plans CREATE SINK … INTO.
pub(super) fn plan(
    session: &Session,
    working: &mut Working,
    name: Arc<str>,
    reader: &mut TokenReader<'_>,
) -> Result<Tag> {
    let ddl = reader.text().to_string();
    let table: Arc<str> = reader.relation_name()?.into();
    let at = reader.last_position();
    let object = working.catalog.get(&table).map_err(|error| error.at(at.clone()))?;
    if !matches!(object.definition, Definition::Table { .. }) {
        return Err(match object.definition.is_source() {
            true => Error::invalid(format!("the rows of \"{table}\" come from its connector alone"))
                .hint("Create a table without a connector, and deliver INTO that."),
            false => {
                let kind = object.definition.kind();
                Error::invalid(format!("\"{table}\" is a {kind}: a sink goes INTO a table"))
            }
        }
        .at(at));
    }
    let columns = if *reader.peek() == Token::LParen {
        format!("({})", &reader.text()[reader.group()?])
    } else {
        String::new()
    };
    no_options(&reader.cut_options()?, "a sink into a table")?;
    if let Some(planned) = working.planned(session, &name)? {
        let reads = reads_of(&planned.query.reads);
        let definition = Definition::SinkInto { table, query: planned.query.plan };
        working.create(Object { name, ddl, reads, definition }, None)?;
        return Ok(Tag::new("CREATE SINK"));
    }
    let (query, offset) = query_text(working, reader)?;
    let prefix = format!("INSERT INTO {} {columns} ", qualified_ident(&table));
    let planned = lasting_planner(session).dml(&format!("{prefix}{query}"), working.catalog.as_ref());
    let mut dml =
        planned.map_err(|error| match offset.and_then(|offset| offset.checked_sub(prefix.len())) {
            Some(shift) => error.shift(shift),
            None => Error { span: None, ..error },
        })?;
    make_continuous(session, &mut dml.query)?;
    let scanned = relations_of(&dml.query.plan)?;
    let mut reads: Vec<Arc<str>> = reads_of(&dml.query.reads);
    reads.retain(|read| *read != table || scanned.contains(&table));
    if let Some(through) = reads.iter().find(|read| stems_from(&working.catalog, read, &table)) {
        return Err(Error::invalid(format!(
            "sink \"{name}\" would feed itself: \"{through}\", which it reads, is \"{table}\" or depends on it"
        ))
        .hint("Deliver it into another table."));
    }
    reads.push(table.clone());
    let definition = Definition::SinkInto { table, query: dml.query.plan };
    working.create(Object { name, ddl, reads, definition }, None)?;
    Ok(Tag::new("CREATE SINK"))
}

/// Returns the query of the rows, and its position if it is part of the statement.
fn query_text(working: &Working, reader: &mut TokenReader<'_>) -> Result<(String, Option<usize>)> {
    if reader.keyword(&["AS"]) {
        let (text, offset) = within(reader);
        return Ok((text.to_string(), Some(offset)));
    }
    reader.expect_keyword(&["FROM"])?;
    let relation = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    let object = working.catalog.get(&relation).map_err(|error| error.at(at.clone()))?;
    let Some(schema) = object.definition.schema() else {
        return Err(Error::invalid(format!("\"{relation}\" is a sink: it has no rows to deliver")).at(at));
    };
    let visible = schema.fields().iter().filter(|field| !is_hidden(field));
    let columns: Vec<String> = visible.map(|field| quoted_ident(field.name())).collect();
    Ok((format!("SELECT {} FROM {}", columns.join(", "), qualified_ident(&relation)), None))
}

/// Returns true if a relation is `table` or depends on it, through its query or through sinks into a table.
pub(super) fn stems_from(catalog: &Catalog, relation: &str, table: &str) -> bool {
    let mut seen: Vec<Arc<str>> = Vec::new();
    let mut rest: Vec<Arc<str>> = vec![relation.into()];
    while let Some(name) = rest.pop() {
        if name.as_ref() == table {
            return true;
        }
        if seen.contains(&name) {
            continue;
        }
        for object in catalog.objects() {
            match &object.definition {
                Definition::SinkInto { table, .. } if *table == name => {
                    rest.extend(object.reads.iter().filter(|read| *read != table).cloned());
                }
                _ if object.name == name => rest.extend(object.reads.iter().cloned()),
                _ => {}
            }
        }
        seen.push(name);
    }
    false
}
