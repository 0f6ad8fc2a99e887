//! `COPY t [(columns)] FROM STDIN [WITH] (…)`, `COPY t | (query) TO STDOUT [WITH] (…)`

mod options;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{default_of, generated_of};
use millstream_sql::{
    Checks, ColumnDefault, Error, GeneratedColumns, Result, TokenReader, is_hidden, qualified_ident,
    sqlstate, suggestion,
};

use super::{select, subscribe};
use crate::catalog::Definition;
use crate::copy::{CopyIn, CopyOut, null_in};
use crate::session::{Response, Session};
use crate::statement::{Rules, Run, Statement};
use crate::variables::reader_of;
use crate::zoned_rows;

pub(super) static COPY: Statement = Statement {
    words: &[&["COPY"]],
    synopsis: concat!(
        "COPY table [(column, …)] FROM STDIN [WITH] (option, …)\n",
        "COPY relation [(column, …)] TO STDOUT [WITH] (option, …)\n",
        "COPY (SELECT … | SUBSCRIBE …) TO STDOUT [WITH] (option, …)",
    ),
    purpose: "transfer many rows over a connection",
    pages: &["copy"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules { runs_once: true, ..Rules::DEFAULT },
};

/// The source or target of the rows.
enum Subject {
    /// A relation, with column names if given.
    Relation { name: String, at: Range<usize>, columns: Vec<(String, Range<usize>)> },
    /// A query, as a range of the text.
    Query(Range<usize>),
}

/// Runs COPY.
pub(crate) async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let binary = reader.is_keyword(&["BINARY"]) && !matches!(reader.peek_at(1), Token::EOF);
    if binary {
        reader.next();
    }
    let subject = subject(reader)?;
    let at = reader.position();
    match reader.one_of(&[&["FROM"], &["TO"]]) {
        Some(0) => {
            channel(
                reader,
                "STDIN",
                "CREATE SOURCE … WITH (connector = 'file', …) reads files of the engine's machine",
            )?;
            match subject {
                Subject::Relation { name, at, columns } => {
                    let copied = Copied { name, at, columns, binary };
                    copied.into_table(session, reader).await.map(|copy| Response::CopyIn(Box::new(copy)))
                }
                Subject::Query(_) => {
                    Err(Error::invalid("COPY … FROM needs a table: a query takes no rows").at(at))
                }
            }
        }
        Some(_) => {
            channel(
                reader,
                "STDOUT",
                "CREATE SINK … WITH (connector = 'file', …) writes files on the engine's machine",
            )?;
            out(session, reader, subject, binary).await
        }
        None => Err(reader.expected("FROM STDIN or TO STDOUT")),
    }
}

fn subject(reader: &mut TokenReader<'_>) -> Result<Subject> {
    if *reader.peek() == Token::LParen {
        return reader.group().map(Subject::Query);
    }
    let at = reader.position();
    let name = reader.relation_name()?;
    let at = at.start..reader.last_position().end;
    let mut columns = Vec::new();
    if reader.symbol(Token::LParen) {
        loop {
            columns.push((reader.identifier()?, reader.last_position()));
            if reader.symbol(Token::RParen) {
                break;
            }
            reader.expect_symbol(Token::Comma)?;
        }
    }
    Ok(Subject::Relation { name, at, columns })
}

/// Reads `STDIN` or `STDOUT`; refuses a file.
fn channel(reader: &mut TokenReader<'_>, word: &str, instead: &str) -> Result<()> {
    let at = reader.position();
    if reader.keyword(&[word]) {
        return Ok(());
    }
    if reader.keyword(&["PROGRAM"]) || reader.string().is_ok() {
        return Err(Error::unsupported("COPY with a file or a program of the engine's machine")
            .hint(format!("{instead}; psql's \\copy copies files of your own."))
            .at(at));
    }
    Err(reader.expected(word))
}

/// A COPY of a relation.
struct Copied {
    name: String,
    at: Range<usize>,
    columns: Vec<(String, Range<usize>)>,
    binary: bool,
}

impl Copied {
    async fn into_table(self, session: &mut Session, reader: &mut TokenReader<'_>) -> Result<CopyIn> {
        let catalog = session.catalog();
        let object = catalog.get(&self.name).map_err(|error| error.at(self.at.clone()))?;
        let Definition::Table { schema, .. } = &object.definition else {
            let kind = object.definition.base_kind();
            return Err(Error::invalid(format!(
                "\"{}\" is a {kind}, but COPY … FROM needs a table",
                self.name
            ))
            .code(sqlstate::WRONG_OBJECT_TYPE)
            .at(self.at));
        };
        let chosen = chosen(&self.name, schema, &self.columns)?;
        if let Some(place) = chosen.iter().find(|place| generated_of(schema.field(**place)).is_some()) {
            let column = schema.field(*place).name();
            return Err(Error::invalid(format!(
                "column \"{column}\" of \"{}\" is generated, so COPY can't give it a value",
                self.name
            ))
            .hint("Leave it out of the list of columns."));
        }
        let mut places = vec![None; schema.fields().len()];
        chosen.iter().enumerate().for_each(|(place, column)| places[*column] = Some(place));
        let left_out = |(field, place): &(&Arc<Field>, &Option<usize>)| {
            let is_given = default_of(field).is_some() || generated_of(field).is_some();
            !field.is_nullable() && place.is_none() && !is_given
        };
        if let Some((field, _)) = schema.fields().iter().zip(&places).find(left_out) {
            return Err(null_in(field.name(), &self.name).hint(format!("Name \"{}\" too.", field.name())));
        }
        let columns: SchemaRef = Arc::new(schema.project(&chosen).map_err(crate::error::arrow)?);
        let columns = zoned_rows::schema_in(&columns, session.variables.time_zone().as_deref());
        let options = options::read(reader, &names(&columns), self.binary, true)?;
        if session.transaction.as_ref().is_some_and(|open| open.modes.read_only) {
            return Err(Error::invalid("COPY … FROM can't be run in a transaction that is READ ONLY")
                .code(sqlstate::READ_ONLY_SQL_TRANSACTION));
        }
        let (_, now) = session.settings().await?;
        let planner = session.planner(now);
        let defaults = schema.fields().iter().map(|field| ColumnDefault::of(&planner, field));
        Ok(CopyIn {
            table: object.name.clone(),
            schema: schema.clone(),
            columns,
            places,
            defaults: defaults.collect::<Result<_>>()?,
            generated: GeneratedColumns::of(&session.shared.planner, schema)?,
            checks: Checks::of(&session.shared.planner, schema, &object.name)?,
            options,
            batches: Vec::new(),
            bytes: 0,
            failed: session.transaction.as_ref().map(|open| open.rows_failed()),
            deadline: session.deadline.clone(),
        })
    }
}

/// Returns the positions of the named columns, or of all columns that aren't hidden.
fn chosen(name: &str, schema: &Schema, columns: &[(String, Range<usize>)]) -> Result<Vec<usize>> {
    if columns.is_empty() {
        // As in PostgreSQL, COPY without a list omits generated columns.
        let visible = schema.fields().iter().enumerate();
        let visible = visible.filter(|(_, field)| !is_hidden(field) && generated_of(field).is_none());
        return Ok(visible.map(|(place, _)| place).collect());
    }
    let mut chosen: Vec<usize> = Vec::with_capacity(columns.len());
    for (column, at) in columns {
        let Ok(place) = schema.index_of(column) else {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::invalid(format!("column \"{column}\" not found in \"{name}\""))
                .maybe_hint(suggestion::hint(column, "columns", names))
                .at(at.clone()));
        };
        if chosen.contains(&place) {
            return Err(Error::invalid(format!("column \"{column}\" is named twice")).at(at.clone()));
        }
        chosen.push(place);
    }
    Ok(chosen)
}

fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

async fn out(
    session: &mut Session,
    reader: &mut TokenReader<'_>,
    subject: Subject,
    binary: bool,
) -> Result<Response> {
    let (text, start) = match subject {
        Subject::Query(range) => (reader.text()[range.clone()].to_string(), Some(range.start)),
        Subject::Relation { name, at, columns } => {
            let catalog = session.catalog();
            let mut columns = columns;
            if let Some(schema) = catalog.find(&name).and_then(|object| object.definition.schema()) {
                let chosen = chosen(&name, schema, &columns)?;
                if columns.is_empty() && schema.fields().iter().any(|field| generated_of(field).is_some()) {
                    let name = |place: &usize| (schema.field(*place).name().clone(), at.clone());
                    columns = chosen.iter().map(name).collect();
                }
            } else if !name.contains('.') {
                catalog.get(&name).map_err(|error| error.at(at))?;
            }
            (select_of(&name, &columns), None)
        }
    };
    let mut inner = reader_of(session, &text)?;
    let response = match inner.keyword(&["SUBSCRIBE"]) {
        true => subscribe::run(session, &mut inner).await,
        false if select::begins(&inner) => select::run(session, inner).await,
        false => Err(inner.expected("SELECT or SUBSCRIBE")),
    };
    let response = response.map_err(|error| match start {
        Some(start) => error.shift(start),
        None => Error { span: None, ..error },
    })?;
    let is_endless = response.is_endless();
    let Response::Rows(rows) = response else { return Err(Error::bug("a query gives rows")) };
    let options = options::read(reader, &names(&rows.schema()), binary, false)?;
    let rows = session.watched(rows);
    Ok(Response::CopyOut(Box::new(CopyOut { options, rows, is_endless })))
}

/// Returns a query for columns of a relation.
fn select_of(name: &str, columns: &[(String, Range<usize>)]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = columns.iter().map(|(column, _)| quoted(column)).collect();
    let columns = if columns.is_empty() { "*".to_string() } else { columns.join(", ") };
    let name = qualified_ident(name);
    format!("SELECT {columns} FROM {name}")
}
