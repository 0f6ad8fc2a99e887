//! `PREPARE name [(type, …)] AS …`, `EXECUTE name [(value, …)]`, `DEALLOCATE name | ALL`

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader, ZoneOffsets, in_utc, sqlstate};

use super::not_yet::PLANS;
use super::select;
use super::table::STATEMENTS;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::transaction::Contents;

pub(super) static PREPARE: Statement = Statement {
    words: &[&["PREPARE"]],
    synopsis: "PREPARE name [(type, …)] AS SELECT … | VALUES … | INSERT … | UPDATE … | DELETE …",
    purpose: "store a statement with parameters",
    pages: &["prepare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { prepare(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(super) static EXECUTE: Statement = Statement {
    words: &[&["EXECUTE"]],
    synopsis: "EXECUTE name [(value, …)]",
    purpose: "run a stored statement",
    pages: &["prepare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { execute(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(super) static DEALLOCATE: Statement = Statement {
    words: &[&["DEALLOCATE"]],
    synopsis: "DEALLOCATE [PREPARE] name | ALL",
    purpose: "drop a stored statement",
    pages: &["prepare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { deallocate(session, &mut reader) })),
    rules: Rules::DEFAULT,
};

/// Runs PREPARE.
pub(crate) async fn prepare(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (name, at) = (reader.identifier()?, reader.last_position());
    let types = types(session, reader)?;
    reader.expect_keyword(&["AS"])?;
    if !STATEMENTS.find(reader).is_ok_and(|found| found.statement.rules.can_be_prepared) {
        return Err(reader.expected(&STATEMENTS.prepared()));
    }
    if session.prepared.contains_key(&name) {
        return Err(Error::invalid(format!("prepared statement \"{name}\" already exists"))
            .hint(format!("DEALLOCATE {name} first, or choose another name."))
            .code(sqlstate::DUPLICATE_PREPARED_STATEMENT)
            .at(at));
    }
    let rest = reader.take_rest();
    let text = reader.text()[rest.clone()].to_string();
    let prepared = session.prepare(&text, &types).await.map_err(|error| error.shift(rest.start))?;
    let prepared = prepared.ok_or_else(|| Error::bug("a statement was there"))?;
    session.prepared.insert(name, prepared);
    Ok(Tag::new("PREPARE").into())
}

/// Reads `(int, text)`.
fn types(session: &Session, reader: &mut TokenReader<'_>) -> Result<Vec<Option<DataType>>> {
    let mut types = Vec::new();
    if !reader.symbol(Token::LParen) {
        return Ok(types);
    }
    loop {
        let unknown = reader.keyword(&["UNKNOWN"]);
        let data_type = match unknown {
            true => None,
            false => Some(session.shared.planner.type_until(reader, &[])?.data_type().clone()),
        };
        types.push(data_type);
        if reader.symbol(Token::RParen) {
            return Ok(types);
        }
        if !reader.symbol(Token::Comma) {
            return Err(reader.expected("\",\" or \")\""));
        }
    }
}

/// Runs EXECUTE.
pub(crate) async fn execute(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (name, at) = (reader.identifier()?, reader.last_position());
    if name == "plan" && matches!(reader.peek(), Token::SingleQuotedString(_)) {
        return Err(Error::unsupported("EXECUTE PLAN").hint(PLANS).at(at));
    }
    let group = (*reader.peek() == Token::LParen).then(|| reader.group()).transpose()?;
    reader.expect_end()?;
    let prepared = session.prepared.get(&name).cloned().ok_or_else(|| unknown(&name).at(at.clone()))?;
    let values = match group {
        Some(range) if !range.is_empty() => {
            let text = format!("VALUES ({})", &reader.text()[range.clone()]);
            let moved = |error: Error| {
                let span = error.span.clone().map(|span| {
                    let place = |at: usize| (at + range.start).saturating_sub("VALUES (".len());
                    place(span.start)..place(span.end)
                });
                Error { span, ..error }
            };
            values(session, &text).await.map_err(moved)?
        }
        _ => Vec::new(),
    };
    let (given, wanted) = (values.len(), prepared.parameters().len());
    if given != wanted {
        return Err(Error::invalid(format!(
            "\"{name}\" has {wanted} parameters, but {given} values are given"
        ))
        .code(sqlstate::SYNTAX_ERROR)
        .at(at));
    }
    let zone = session.variables.time_zone().map(|zone| ZoneOffsets::new(&zone)).transpose()?;
    let zone = zone.unwrap_or_default();
    let typed = prepared.parameters().iter().map(Field::data_type);
    let values: Vec<ArrayRef> =
        values.into_iter().zip(typed).map(|(value, wanted)| read_in_zone(value, wanted, &zone)).collect();
    // From here on the prepared statement runs as a statement of its own.
    session.leave(Result::<()>::Ok(()))?;
    let parameters = session.parameters.take();
    let response = Box::pin(session.execute_prepared(&prepared, &values)).await;
    session.parameters = parameters;
    // The error's position refers to another text.
    response.map_err(|error| Error { span: None, ..error })
}

/// Reads the texts of a TIMESTAMPTZ as times of the session's zone. Other values stay.
fn read_in_zone(value: ArrayRef, wanted: &DataType, zone: &ZoneOffsets) -> ArrayRef {
    if !matches!(wanted, DataType::Timestamp(_, Some(_))) || !value.data_type().is_string() {
        return value;
    }
    let Ok(texts) = cast(&value, &DataType::Utf8) else { return value };
    let texts = texts.as_string::<i32>().iter().map(|text| text.map(|text| in_utc(text, zone)));
    Arc::new(texts.collect::<StringArray>())
}

/// Returns the values of a row, as one array each.
async fn values(session: &mut Session, text: &str) -> Result<Vec<ArrayRef>> {
    let (settings, now) = session.settings().await?;
    let planner = session.planner(now);
    let query = planner.query(text, session.catalog().as_ref())?;
    let batches = select::collect(&session.shared, &planner, query.plan, Contents::new(), &settings).await?;
    let row = batches.into_iter().find(|batch| batch.num_rows() == 1);
    Ok(row.ok_or_else(|| Error::bug("VALUES gives a row"))?.columns().to_vec())
}

/// Runs DEALLOCATE.
pub(crate) fn deallocate(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if reader.is_keyword(&["PREPARE"]) && *reader.peek_at(1) != Token::EOF {
        reader.next();
    }
    if reader.keyword(&["ALL"]) {
        reader.expect_end()?;
        session.prepared.clear();
        return Ok(Tag::new("DEALLOCATE ALL").into());
    }
    let (name, at) = (reader.identifier()?, reader.last_position());
    reader.expect_end()?;
    match session.prepared.remove(&name) {
        Some(_) => Ok(Tag::new("DEALLOCATE").into()),
        None => Err(unknown(&name).at(at)),
    }
}

fn unknown(name: &str) -> Error {
    Error::invalid(format!("there is no prepared statement \"{name}\""))
        .hint("PREPARE it first.")
        .code(sqlstate::INVALID_SQL_STATEMENT_NAME)
}
