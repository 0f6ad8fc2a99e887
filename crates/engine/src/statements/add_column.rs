//! `ALTER TABLE name ADD [COLUMN] [IF NOT EXISTS] c TYPE [DEFAULT value] [NOT NULL], …`

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::functions::quote_ident;
use millstream_sql::{Error, Result, TokenReader};

use super::{ALTERED, alters};
use crate::catalog::{Definition, Object};
use crate::ddl;
use crate::event::Change;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ADD_COLUMN: Statement = Statement {
    words: &[&["ALTER", "TABLE"]],
    synopsis: "ALTER TABLE name ADD [COLUMN] [IF NOT EXISTS] column type [DEFAULT value] [NOT NULL] [, ADD …];",
    purpose: "add a column to a table",
    pages: &["alter-table-add-column"],
    begins: Some(begins),
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ALTER,
};

/// Returns true if the statement adds columns: `ALTER TABLE t ADD COLUMN c INT`.
pub(crate) fn begins(reader: &TokenReader<'_>) -> bool {
    alters(reader, "ADD")
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    ddl::alter(session, reader, plan).await
}

/// Returns the change, if any, and the version of the catalog that it is based on.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<(u64, Option<Change>, Tag)> {
    reader.expect_keyword(&["ALTER"])?;
    let kind = reader.one_of(ALTERED).and_then(|kind| ALTERED.get(kind));
    let kind = kind.ok_or_else(|| reader.expected("what is to get a column"))?.join(" ").to_lowercase();
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let catalog = session.shared.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let found = object.definition.kind();
    if found != kind {
        return Err(Error::invalid(format!("\"{name}\" is a {found}, not a {kind}")).at(at));
    }
    let Definition::Table { schema, key, intake, watermark } = &object.definition else {
        return Err(refused(&name, &object.definition).at(reader.position()));
    };
    let read = columns(session, reader, &name, schema)?;
    let tag = Tag { text: "ALTER TABLE".into(), notices: read.notices };
    if read.fields.is_empty() {
        return Ok((catalog.version, None, tag));
    }
    let added = session.shared.planner.default_values(read.fields.iter())?;
    let fields: Vec<FieldRef> =
        schema.fields().iter().cloned().chain(read.fields.into_iter().map(Arc::new)).collect();
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    // The object's DDL includes the ALTER, so that it still recreates the object.
    let made = object.ddl.trim_end().trim_end_matches(';');
    let ddl = format!("{made}; ALTER TABLE {} {}", quote_ident(&object.name), read.texts.join(", "));
    let definition = Definition::Table { schema, key: key.clone(), intake: *intake, watermark: *watermark };
    let object = Object { name: object.name.clone(), ddl, reads: object.reads.clone(), definition };
    Ok((catalog.version, Some(Change::AddColumns { object: Arc::new(object), added }), tag))
}

/// Columns that don't exist yet.
#[derive(Default)]
struct Read {
    fields: Vec<Field>,
    /// The clause that adds each of them.
    texts: Vec<String>,
    notices: Vec<String>,
}

/// Reads `ADD [COLUMN] [IF NOT EXISTS] c TYPE …, ADD …`.
fn columns(session: &Session, reader: &mut TokenReader<'_>, table: &str, schema: &Schema) -> Result<Read> {
    let mut read = Read::default();
    loop {
        reader.expect_keyword(&["ADD"])?;
        let has_word = reader.keyword(&["COLUMN"]);
        if !has_word {
            refuse_constraint(reader)?;
        }
        let lenient = reader.keyword(&["IF", "NOT", "EXISTS"]);
        let start = reader.position();
        let field = session.shared.planner.column_to_add(reader)?;
        let name = field.name();
        let is_new = read.fields.iter().any(|other| other.name() == name);
        if is_new || schema.index_of(name).is_ok() {
            if !lenient {
                let error = format!("column \"{name}\" of table \"{table}\" already exists");
                return Err(Error::invalid(error)
                    .at(start)
                    .hint("Choose another name, or use ADD COLUMN IF NOT EXISTS."));
            }
            read.notices.push(format!(
                "column \"{name}\" of table \"{table}\" already exists, nothing was done for it"
            ));
        } else {
            let text = &reader.text()[start.start..reader.last_position().end];
            read.texts.push(format!("ADD COLUMN {text}"));
            read.fields.push(field);
        }
        if !reader.symbol(Token::Comma) {
            reader.expect_end()?;
            return Ok(read);
        }
    }
}

/// Refuses `ADD PRIMARY KEY` and `ADD CONSTRAINT`, which don't add a column.
fn refuse_constraint(reader: &TokenReader<'_>) -> Result<()> {
    let words: &[&[&str]] =
        &[&["CONSTRAINT"], &["PRIMARY", "KEY"], &["UNIQUE"], &["CHECK"], &["FOREIGN", "KEY"], &["EXCLUDE"]];
    let is_column = !matches!(reader.peek_at(1), Token::LParen);
    let found = words.iter().find(|words| reader.is_keyword(words));
    match found.filter(|words| words.len() > 1 || words[0] == "CONSTRAINT" || !is_column) {
        None if reader.is_keyword(&["WATERMARK", "FOR"]) => {
            Err(Error::invalid("a watermark is set, not added").at(reader.position()).hint(
                "ALTER TABLE … SET WATERMARK FOR ts AS ts - INTERVAL '5 seconds'; ADD COLUMN adds its column first.",
            ))
        }
        None => Ok(()),
        Some(words) => {
            Err(Error::unsupported(format!("ALTER TABLE … ADD {}", words.join(" "))).at(reader.position()).hint(
                "ADD COLUMN adds a column. For a key, CREATE another table that has it, and INSERT … SELECT into it.",
            ))
        }
    }
}

/// Returns the error for an object whose columns come from elsewhere.
fn refused(name: &str, definition: &Definition) -> Error {
    let kind = definition.kind();
    let error = Error::invalid(format!("columns can be added only to a table, not to {kind} \"{name}\""));
    let upper = kind.to_uppercase();
    match definition {
        Definition::View { .. } | Definition::MaterializedView { .. } | Definition::Stream { .. } => error
            .hint(format!(
                "Its columns are those of its query: change it with ALTER {upper} {name} AS SELECT …."
            )),
        _ => error.hint(format!("DROP {upper} {name} and CREATE it again with the column.")),
    }
}
