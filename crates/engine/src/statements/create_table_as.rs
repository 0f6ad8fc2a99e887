//! `CREATE TABLE name [(columns)] AS query`, `SELECT … INTO name FROM …`: creates a table with the rows of a query.
//!
//! The table is filled under a name that no statement can create, and gets its own name last. So nobody sees a table with
//! a part of the rows, whatever fails or crashes meanwhile. A start drops tables that were left unfinished.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{declared_type, exact_sql_type_of};
use millstream_sql::functions::quoted_ident;
use millstream_sql::{Error, Lexeme, Operation, Result, TokenReader, as_shown, qualified_ident};

use super::{create_view, existed, modify, new_name, rename, select};
use crate::ddl;
use crate::engine::Shared;
use crate::pg::OneShot;
use crate::plan::Working;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::transaction::say_at_once;

pub(super) static CREATE_TABLE_AS: Statement = Statement {
    words: &[&["CREATE", "TABLE"]],
    synopsis: concat!(
        "CREATE TABLE [IF NOT EXISTS] name [(column, …)] AS query [WITH [NO] DATA];\n",
        "SELECT … INTO [TEMP | TEMPORARY] [TABLE] name FROM …;",
    ),
    purpose: "create a table with the rows of a query",
    pages: &["create-table-as"],
    begins: Some(begins),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules { runs_once: true, ..Rules::CATALOG },
};

/// The end of the name of a table while it is filled.
const UNFINISHED: &str = " (being filled)";

/// Returns true if a table of this name is being filled. No statement can use such a name.
fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// Fails if a statement names a table that is being filled.
pub(crate) fn refuse_unfinished(reader: &TokenReader<'_>) -> Result<()> {
    let names = |lexeme: &&Lexeme| matches!(&lexeme.token.token, Token::Word(word) if word.quote_style.is_some() && is_unfinished(&word.value));
    match reader.rest().iter().find(names) {
        None => Ok(()),
        Some(lexeme) => Err(Error::invalid(format!(
            "{} is the name of a table that isn't finished: a CREATE TABLE … AS fills it, and gives it its own name then",
            lexeme.token.token
        ))
        .at(lexeme.range.clone())),
    }
}

/// Returns true if the statement creates a table with the rows of a query.
pub(crate) fn begins(reader: &TokenReader<'_>) -> bool {
    begins_with_create(reader) || into_clause(reader).is_some()
}

/// Returns true if the statement creates a temporary table with the rows of a query: `SELECT … INTO TEMP name`.
pub(crate) fn is_temporary(reader: &TokenReader<'_>) -> bool {
    into_clause(reader).is_some_and(|clause| clause.is_temporary)
}

/// Returns true if `CREATE TABLE name [(column, …)] AS` begins here.
fn begins_with_create(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    if !ahead.keyword(&["CREATE", "TABLE"]) {
        return false;
    }
    ahead.keyword(&["IF", "NOT", "EXISTS"]);
    if ahead.relation_name().is_err() {
        return false;
    }
    if *ahead.peek() == Token::LParen && create_view::column_names(&mut ahead).is_err() {
        return false;
    }
    ahead.is_keyword(&["AS"])
}

/// The clause `INTO [TEMP] [TABLE] name` of a query.
struct IntoClause {
    at: Range<usize>,
    named: Range<usize>,
    is_temporary: bool,
}

/// Returns this clause of a query, if it has it.
fn into_clause(reader: &TokenReader<'_>) -> Option<IntoClause> {
    if !(reader.is_keyword(&["SELECT"]) || reader.is_keyword(&["WITH"])) || Operation::of(reader).is_some() {
        return None;
    }
    let mut ahead = reader.clone();
    let mut depth = 0;
    while !ahead.is_end() {
        if depth == 0 && ahead.is_keyword(&["FROM"]) {
            return None;
        }
        let start = ahead.position().start;
        if depth == 0 && ahead.keyword(&["INTO"]) {
            // A table may be called `temp` or `table`.
            let mut optional = |word: &str| {
                let is_name =
                    !matches!(ahead.peek_at(1), Token::Word(_)) || ahead.is_keyword(&[word, "FROM"]);
                !is_name && ahead.keyword(&[word])
            };
            let is_temporary = optional("TEMP") || optional("TEMPORARY");
            optional("TABLE");
            let named_from = ahead.position().start;
            ahead.relation_name().ok()?;
            let end = ahead.last_position().end;
            return Some(IntoClause { at: start..end, named: named_from..end, is_temporary });
        }
        match ahead.next() {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A table to create, and the query that fills it.
struct Wanted {
    name: Arc<str>,
    /// True if the table is there already, which IF NOT EXISTS allows.
    exists: bool,
    /// The names of its first columns, in quotes.
    columns: Vec<String>,
    query: String,
    /// The offset of the query in the statement.
    offset: usize,
    has_rows: bool,
}

/// Reads a statement. `temporary` is the schema of its table, if that is temporary.
fn wanted(session: &Session, mut reader: TokenReader<'_>, temporary: Option<&str>) -> Result<Wanted> {
    let mut working = Working::new(session.catalog());
    if let Some(IntoClause { at: clause, named, .. }) = into_clause(&reader) {
        let text = reader.text();
        let schema = temporary.map_or_else(String::new, |schema| format!("{schema}."));
        let name = format!("{schema}{}", &text[named.clone()]);
        let mut into = TokenReader::new(&name)?.on_path(working.catalog.search_path());
        let (name, _) =
            new_name(&mut working, &mut into).map_err(|error| Error { hint: None, ..error }.at(named))?;
        // Blanks in place of the clause leave the positions as they are.
        let query = format!("{}{}{}", &text[..clause.start], " ".repeat(clause.len()), &text[clause.end..]);
        return Ok(Wanted { name, exists: false, columns: Vec::new(), query, offset: 0, has_rows: true });
    }
    reader.expect_keyword(&["CREATE", "TABLE"])?;
    let (name, exists) = new_name(&mut working, &mut reader)?;
    let columns = match reader.peek() {
        Token::LParen => create_view::column_names(&mut reader)?,
        _ => Vec::new(),
    };
    reader.expect_keyword(&["AS"])?;
    if !select::begins(&reader) {
        return Err(reader.expected("a query"));
    }
    let has_rows = !cut_with_data(&mut reader);
    let (query, offset) = super::within(&reader);
    Ok(Wanted { name, exists, columns, query: query.to_string(), offset, has_rows })
}

/// Removes `WITH [NO] DATA` from the end of a statement. Returns true if NO is there.
pub(super) fn cut_with_data(reader: &mut TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    while !ahead.is_end() {
        let from = ahead.position().start;
        let is_empty = ahead.keyword(&["WITH", "NO", "DATA"]);
        if (is_empty || ahead.keyword(&["WITH", "DATA"])) && ahead.is_end() {
            reader.cut(from);
            return is_empty;
        }
        ahead.next();
    }
    false
}

async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let temporary = match into_clause(&reader).is_some_and(|clause| clause.is_temporary) {
        true => Some(ddl::temporary_schema(session).await?),
        false => None,
    };
    let wanted = wanted(session, reader, temporary.as_deref())?;
    if wanted.exists {
        return Ok(existed("TABLE AS", &wanted.name).into());
    }
    let schema = columns(session, &wanted).await?;
    // The statement takes effect at once, also in a transaction, so another session creates the table.
    let mut apart = Session {
        variables: session.variables.clone(),
        deadline: session.deadline.clone(),
        is_apart: true,
        ..Session::new(session.shared.clone())
    };
    let filled = fill(&mut apart, &wanted, schema, session.idempotency.take()).await;
    let mut tags = [Tag::new(match wanted.has_rows {
        true => format!("SELECT {}", filled?),
        false => filled.map(|_| "CREATE TABLE AS".to_string())?,
    })];
    if let Some(transaction) = &mut session.transaction {
        transaction.drop_snapshot();
    }
    say_at_once(session.transaction.as_ref(), &mut tags);
    let [tag] = tags;
    Ok(tag.into())
}

/// Returns the columns of the table: those of the query, with their types in the form that CREATE TABLE gives them.
async fn columns(session: &mut Session, wanted: &Wanted) -> Result<SchemaRef> {
    let catalog = session.catalog();
    let (settings, now) = session.settings().await?;
    let relations = OneShot::of(session, catalog, settings);
    let query = session.planner(now).query(&wanted.query, &relations);
    let query = query.map_err(|error| error.shift(wanted.offset))?;
    let shown = as_shown(&query.output_schema(&query.schema));
    let found = shown.fields();
    if wanted.columns.len() > found.len() {
        let (names, columns) = (wanted.columns.len(), found.len());
        let error = format!("{names} column names are given, but the query has {columns}");
        return Err(Error::invalid(error));
    }
    let named = |(place, field): (usize, &FieldRef)| {
        wanted.columns.get(place).cloned().unwrap_or_else(|| quoted_ident(field.name()))
    };
    let names: Vec<String> = found.iter().enumerate().map(named).collect();
    let is_nameless = |(place, name): &(usize, &String)| names[..*place].contains(name);
    if let Some((_, name)) = names.iter().enumerate().find(is_nameless) {
        return Err(Error::invalid(format!(
            "column {name} of table \"{}\" would be there twice",
            wanted.name
        ))
        .hint("Name one of them with AS."));
    }
    let column = |name: &str, field: &FieldRef| -> Result<FieldRef> {
        let kind = match field.data_type() {
            // A column of NULLs is text, as in PostgreSQL.
            DataType::Null => "TEXT".to_string(),
            _ => exact_sql_type_of(field),
        };
        let text = format!("({name} {kind})");
        let declared = TokenReader::new(&text)
            .and_then(|mut reader| session.shared.planner.columns(&mut reader))
            .map(|columns| columns.schema.field(0).clone());
        match declared {
            Ok(declared) => Ok(declared.into()),
            // SQL has no name for the type: the column keeps it.
            Err(_) if declared_type(field).is_none() => {
                let name = TokenReader::new(name)?.identifier()?;
                Ok(Field::new(name, field.data_type().clone(), true).into())
            }
            Err(error) => Err(error),
        }
    };
    let fields = names.iter().zip(found).map(|(name, field)| column(name, field));
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// Creates the table and fills it. Returns the number of rows.
async fn fill(
    session: &mut Session,
    wanted: &Wanted,
    schema: SchemaRef,
    idempotency_key: Option<String>,
) -> Result<u64> {
    let name = format!("{}{UNFINISHED}", wanted.name);
    if session.catalog().find(&name).is_some() {
        let error = format!("another statement is creating table \"{}\"", wanted.name);
        return Err(
            Error::external(error).hint("Wait until it has ended, or cancel it: see millstream.jobs.")
        );
    }
    session.create_table(&name, schema, &[]).await?;
    let mut unfinished = Unfinished { shared: session.shared.clone(), name: Some(name.clone()) };
    let filled = filled(session, wanted, &name, idempotency_key).await;
    unfinished.name = None;
    if filled.is_err() {
        drop_table(&session.shared, &name).await;
    }
    filled
}

async fn filled(
    session: &mut Session,
    wanted: &Wanted,
    name: &str,
    idempotency_key: Option<String>,
) -> Result<u64> {
    let quoted = qualified_ident(name);
    let mut count = 0;
    if wanted.has_rows {
        let insert = format!("INSERT INTO {quoted} {}", wanted.query);
        let changed = modify::change(session, &insert).await;
        // Positions are those of the INSERT.
        count = changed.map_err(|error| Error { span: None, ..error })?.2.count;
    }
    session.idempotency.give_back(idempotency_key);
    let named = format!("ALTER TABLE {quoted} RENAME TO {}", qualified_ident(&wanted.name));
    let renamed = rename::run(session, &mut TokenReader::new(&named)?).await;
    renamed.map_err(|error| Error { span: None, ..error })?;
    Ok(count)
}

/// Drops a table that isn't finished when its statement is cancelled.
struct Unfinished {
    shared: Arc<Shared>,
    name: Option<String>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let shared = self.shared.clone();
            self.shared.handle.spawn(async move { drop_table(&shared, &name).await });
        }
    }
}

async fn drop_table(shared: &Arc<Shared>, name: &str) {
    let drops = format!("DROP TABLE {}", qualified_ident(name));
    if let Err((_, reason)) = ddl::change(&Session::new(shared.clone()), &[&drops]).await {
        tracing::warn!(table = name, %reason, "a table that was not finished can't be dropped");
    }
}

/// Drops the tables that a crash left unfinished.
pub(crate) async fn drop_unfinished(shared: &Arc<Shared>) {
    let unfinished: Vec<Arc<str>> = shared
        .catalog()
        .objects()
        .map(|object| object.name.clone())
        .filter(|name| is_unfinished(name))
        .collect();
    for name in unfinished {
        drop_table(shared, &name).await;
    }
}
