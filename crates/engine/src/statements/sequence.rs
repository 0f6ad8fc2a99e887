//! `CREATE SEQUENCE [IF NOT EXISTS] name [option …]`, `ALTER SEQUENCE [IF EXISTS] name option …`

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{
    Error, Result, SequenceChange, SequenceOptions, TokenReader, is_hidden, relation_ident, sqlstate,
};

use super::{existed, new_name};
use crate::catalog::{Catalog, Definition, Object};
use crate::ddl;
use crate::event::{Change, Event};
use crate::plan::Working;
use crate::sequences::owner_of;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_SEQUENCE: Statement = Statement {
    words: &[&["CREATE", "SEQUENCE"]],
    synopsis: concat!(
        "CREATE SEQUENCE [IF NOT EXISTS] name [AS SMALLINT | INTEGER | BIGINT]\n",
        "  [INCREMENT [BY] n] [MINVALUE n | NO MINVALUE] [MAXVALUE n | NO MAXVALUE]\n",
        "  [START [WITH] n] [CACHE n] [CYCLE | NO CYCLE] [OWNED BY table.column | NONE];",
    ),
    purpose: "define a sequence of numbers",
    pages: &["create-sequence"],
    begins: None,
    run: Run::Plan(|_, working, reader| Box::pin(async move { plan(working, reader) })),
    rules: Rules::CATALOG,
};

pub(super) static ALTER_SEQUENCE: Statement = Statement {
    words: &[&["ALTER", "SEQUENCE"]],
    synopsis: concat!(
        "ALTER SEQUENCE [IF EXISTS] name [RESTART [[WITH] n]] [AS SMALLINT | INTEGER | BIGINT]\n",
        "  [INCREMENT [BY] n] [MINVALUE n | NO MINVALUE] [MAXVALUE n | NO MAXVALUE]\n",
        "  [START [WITH] n] [CACHE n] [CYCLE | NO CYCLE] [OWNED BY table.column | NONE];",
    ),
    purpose: "set a sequence, or change its options",
    pages: &["alter-sequence"],
    begins: Some(begins),
    run: Run::Alone(|session, reader| Box::pin(async move { alter(session, &reader).await })),
    rules: Rules::ALTER,
};

fn plan(working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let at = reader.position().start;
    let (name, exists) = new_name(working, &mut reader)?;
    let at = at..reader.last_position().end;
    if exists {
        return Ok(existed("SEQUENCE", &name));
    }
    let options = SequenceOptions::read(&mut reader, None)?.options;
    if !working.is_replay {
        let checked = check_owner(&working.catalog, &name, &options);
        checked.map_err(|error| error.at(reader.last_position()))?;
    }
    if let Some(table) = owner_of(&working.catalog, &name) {
        let error = format!("sequence \"{name}\" already exists: an identity column of \"{table}\" has it");
        return Err(Error::invalid(error).hint("Choose another name.").at(at));
    }
    let (ddl, reads) = (reader.text().to_string(), Vec::new());
    working.create(Object { name, ddl, reads, definition: Definition::Sequence(options) }, None)?;
    Ok(Tag::new("CREATE SEQUENCE"))
}

/// Fails if the column that owns a sequence is not there.
fn check_owner(catalog: &Catalog, name: &str, options: &SequenceOptions) -> Result<()> {
    let Some((table, column)) = &options.owned_by else { return Ok(()) };
    let object = catalog.get(table)?;
    if catalog.schemas().place_of(name).0 != catalog.schemas().place_of(table).0 {
        let error =
            format!("sequence \"{name}\" must be in the schema of the table that owns it, \"{table}\"");
        return Err(Error::invalid(error).code(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE));
    }
    let Definition::Table { schema, .. } = &object.definition else {
        let kind = object.definition.kind();
        return Err(Error::invalid(format!("\"{table}\" is a {kind}: only a table can own a sequence")));
    };
    match schema.field_with_name(column) {
        Ok(field) if !is_hidden(field) => Ok(()),
        _ => Err(Error::invalid(format!("column \"{column}\" of table \"{table}\" does not exist"))),
    }
}

/// Returns true unless the statement renames the sequence.
fn begins(reader: &TokenReader<'_>) -> bool {
    reader.is_keyword(&["ALTER", "SEQUENCE"]) && !super::rename::begins(reader)
}

/// Runs ALTER SEQUENCE. RESTART alone is no change of the catalog.
async fn alter(session: &Session, reader: &TokenReader<'_>) -> Result<Response> {
    let mut ahead = reader.clone();
    let Some((object, change)) = altered(session, &mut ahead)? else {
        let notices = vec!["the sequence does not exist, nothing was done".to_string()];
        return Ok(Tag { notices, ..Tag::new("ALTER SEQUENCE") }.into());
    };
    let mut response = Tag::new("ALTER SEQUENCE").into();
    if change.changes_options {
        response = ddl::alter(session, reader, planned).await?;
    }
    if let Some(number) = change.restart.filter(|_| !session.is_recovering) {
        session.shared.statements.sequences.restart(&object.name, number)?;
        session.shared.ask(|reply| Event::SaveSequences { reply }).await?;
    }
    Ok(response)
}

/// Returns the change, and the version of the catalog that it is based on.
fn planned(session: &Session, reader: &mut TokenReader<'_>) -> Result<(u64, Option<Change>, Tag)> {
    let version = session.catalog().version;
    let statement = reader.text();
    let Some((object, SequenceChange { options, restart, .. })) = altered(session, reader)? else {
        return Ok((version, None, Tag::new("ALTER SEQUENCE")));
    };
    let position = session.shared.statements.sequences.position(&object.name);
    if let Some(last) = position.filter(|_| restart.is_none()) {
        let (word, bound) =
            if last > options.max { ("MAXVALUE", options.max) } else { ("MINVALUE", options.min) };
        if !(options.min..=options.max).contains(&last) && !session.is_recovering {
            let error =
                format!("the last number of sequence \"{}\" is {last}, beyond {word} {bound}", object.name);
            return Err(Error::invalid(error).hint("Add RESTART WITH a number within the limits."));
        }
    }
    let clauses = TokenReader::new(statement).map(|mut reader| {
        reader.keyword(&["ALTER", "SEQUENCE"]);
        let _ = (reader.keyword(&["IF", "EXISTS"]), reader.relation_name());
        statement[reader.rest_text()].trim().trim_end_matches(';').to_string()
    })?;
    let made = object.ddl.trim_end().trim_end_matches(';');
    let altered = Object {
        name: object.name.clone(),
        ddl: format!("{made}; ALTER SEQUENCE {} {clauses}", relation_ident(&object.name)),
        reads: object.reads.clone(),
        definition: Definition::Sequence(options),
    };
    let change = Change::Alter { object: Arc::new(altered) };
    Ok((version, Some(change), Tag::new("ALTER SEQUENCE")))
}

/// Returns the sequence that a statement alters, and what it changes; none if it isn't there, with IF EXISTS.
fn altered(session: &Session, reader: &mut TokenReader<'_>) -> Result<Option<(Arc<Object>, SequenceChange)>> {
    reader.expect_keyword(&["ALTER", "SEQUENCE"])?;
    let lenient = reader.keyword(&["IF", "EXISTS"]);
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let catalog = session.catalog();
    if lenient && catalog.find(&name).is_none() {
        return Ok(None);
    }
    if let Some(table) = owner_of(&catalog, &name) {
        return Err(Error::unsupported("ALTER SEQUENCE of an identity column's sequence")
            .at(at)
            .hint(format!("SELECT setval('{name}', n) sets it; it is dropped with table \"{table}\".")));
    }
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let Definition::Sequence(before) = &object.definition else {
        let kind = object.definition.kind();
        return Err(Error::invalid(format!("\"{name}\" is a {kind}, not a sequence")).at(at));
    };
    if reader.is_end() || *reader.peek() == Token::SemiColon {
        return Err(reader.expected("an option of a sequence, such as RESTART WITH 1"));
    }
    let change = SequenceOptions::read(reader, Some(before))?;
    if !session.is_recovering && change.options.owned_by != before.owned_by {
        let checked = check_owner(&catalog, &name, &change.options);
        checked.map_err(|error| error.at(reader.last_position()))?;
    }
    Ok(Some((object.clone(), change)))
}
