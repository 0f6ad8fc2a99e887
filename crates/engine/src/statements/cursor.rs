//! `DECLARE c CURSOR FOR …`, `DECLARE c SUBSCRIPTION CURSOR FOR name`, `FETCH n FROM c`, `MOVE`, `CLOSE`

use std::ops::Range;
use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::Token;
use futures::TryStreamExt;
use millstream_connect::{OptionDoc, Options};
use millstream_sql::{Error, Result, TokenReader, sqlstate};

use super::{select, subscribe};
use crate::cursor::{Cursor, Portion};
use crate::error;
use crate::session::{Response, Session, Tag};
use crate::settings::interval;
use crate::statement::{RowsTag, Rules, Run, Statement};
use crate::variables::reader_of;

pub(super) static DECLARE: Statement = Statement {
    words: &[&["DECLARE"]],
    synopsis: concat!(
        "DECLARE name [BINARY] [NO SCROLL] CURSOR [WITH HOLD] FOR SELECT … | SUBSCRIBE … | SELECT … EMIT CHANGES\n",
        "DECLARE name SUBSCRIPTION CURSOR FOR subscription [WITH (PROGRESS = true)]",
    ),
    purpose: "read a result in portions, through a cursor",
    pages: &["declare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { declare(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(super) static FETCH: Statement = Statement {
    words: &[&["FETCH"]],
    synopsis: "FETCH [NEXT | n | ALL | FORWARD n] [FROM | IN] name [WITH (timeout = '1 second')]",
    purpose: "return the next rows of a cursor",
    pages: &["declare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { fetch(session, &mut reader) })),
    rules: Rules { rows: Some(RowsTag { word: "FETCH", has_count: true }), ..Rules::DEFAULT },
};

pub(super) static MOVE: Statement = Statement {
    words: &[&["MOVE"]],
    synopsis: "MOVE  [NEXT | n | ALL | FORWARD n] [FROM | IN] name",
    purpose: "skip the next rows of a cursor",
    pages: &["declare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { skip(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(super) static CLOSE: Statement = Statement {
    words: &[&["CLOSE"]],
    synopsis: "CLOSE name | ALL",
    purpose: "close a cursor",
    pages: &["declare"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { close(session, &mut reader) })),
    rules: Rules::DEFAULT,
};

/// The options of FETCH.
const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "timeout",
    default: None,
    doc: "how long FETCH waits for the first row of a query without an end; by default without a limit",
}];

/// The options of a cursor before FOR.
#[derive(Default)]
struct Said {
    binary: bool,
    hold: bool,
}

/// Runs DECLARE.
pub(crate) async fn declare(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (name, at) = (reader.identifier()?, reader.last_position());
    if reader.keyword(&["SUBSCRIPTION"]) {
        return declare_subscription(session, reader, name, at).await;
    }
    let said = said(reader)?;
    check_new(session, &name).map_err(|error| error.at(at))?;
    let rest = reader.rest_text();
    let inner = reader_of(session, &reader.text()[rest.clone()])?;
    let response = query(session, inner).await.map_err(|error| error.shift(rest.start))?;
    let (notices, endless) = (response.notices(), response.is_endless());
    let Response::Rows(rows) = response else { return Err(Error::bug("a query gives rows")) };
    if !endless && !said.hold && session.transaction.is_none() {
        return Err(Error::invalid(format!(
            "cursor \"{name}\" would end with this statement: there is no open transaction"
        ))
        .hint("Use BEGIN first, or DECLARE … CURSOR WITH HOLD FOR ….")
        .code(sqlstate::NO_ACTIVE_SQL_TRANSACTION));
    }
    let mut cursor = Cursor::new(rows, endless, said.binary, said.hold);
    cursor.level = session.transaction.as_ref().map(|transaction| transaction.level());
    session.cursors.insert(name, cursor);
    Ok(Tag { text: "DECLARE CURSOR".into(), notices }.into())
}

/// Runs `SUBSCRIPTION CURSOR FOR name`, which is `CURSOR FOR SUBSCRIBE name` of a durable subscription.
async fn declare_subscription(
    session: &mut Session,
    reader: &mut TokenReader<'_>,
    name: String,
    at: Range<usize>,
) -> Result<Response> {
    reader.expect_keyword(&["CURSOR", "FOR"])?;
    check_new(session, &name).map_err(|error| error.at(at))?;
    let response = subscribe::run_durable(session, reader).await?;
    let Response::Rows(rows) = response else { return Err(Error::bug("a subscription gives rows")) };
    let mut cursor = Cursor::new(rows, true, false, true);
    cursor.level = session.transaction.as_ref().map(|transaction| transaction.level());
    session.cursors.insert(name, cursor);
    Ok(Tag::new("DECLARE CURSOR").into())
}

fn check_new(session: &Session, name: &str) -> Result<()> {
    match session.cursors.contains_key(name) {
        false => Ok(()),
        true => Err(Error::invalid(format!("cursor \"{name}\" already exists"))
            .hint(format!("CLOSE {name} first, or choose another name."))
            .code(sqlstate::DUPLICATE_CURSOR)),
    }
}

/// Reads the options between the name and the query.
fn said(reader: &mut TokenReader<'_>) -> Result<Said> {
    let mut said = Said::default();
    let forms: &[&[&str]] = &[&["BINARY"], &["INSENSITIVE"], &["ASENSITIVE"], &["NO", "SCROLL"], &["SCROLL"]];
    loop {
        let at = reader.position();
        match reader.one_of(forms) {
            Some(0) => said.binary = true,
            Some(1..=3) => {}
            Some(_) => return Err(Error::unsupported("a cursor that goes back (SCROLL)").at(at)),
            None => break,
        }
    }
    reader.expect_keyword(&["CURSOR"])?;
    if reader.one_of(&[&["WITH", "HOLD"], &["WITHOUT", "HOLD"]]) == Some(0) {
        said.hold = true;
    }
    reader.expect_keyword(&["FOR"])?;
    Ok(said)
}

async fn query(session: &mut Session, mut inner: TokenReader<'_>) -> Result<Response> {
    if inner.keyword(&["SUBSCRIBE"]) {
        return subscribe::run(session, &mut inner).await;
    }
    match select::begins(&inner) {
        true => select::run(session, inner).await,
        false => Err(inner.expected("SELECT or SUBSCRIBE")),
    }
}

/// Runs FETCH.
pub(crate) fn fetch(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (cursor, portion) = taken(session, reader)?;
    Ok(Response::Rows(cursor.fetch(portion)))
}

/// Runs MOVE.
pub(crate) async fn skip(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (cursor, portion) = taken(session, reader)?;
    let mut rows = cursor.fetch(portion);
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        count += batch.num_rows();
    }
    Ok(Tag::new(format!("MOVE {count}")).into())
}

/// Reads `[NEXT | ALL | n | FORWARD [n | ALL]] [FROM | IN] cursor [WITH (timeout = …)]`.
fn taken<'a>(session: &'a Session, reader: &mut TokenReader<'_>) -> Result<(&'a Cursor, Portion)> {
    let rows = direction(reader)?;
    if !reader.keyword(&["FROM"]) {
        reader.keyword(&["IN"]);
    }
    let (name, at) = (reader.identifier()?, reader.last_position());
    let options_at = reader.position();
    let options = Options(reader.options()?.into_iter().collect());
    reader.expect_end()?;
    options.check(OPTIONS).map_err(|failed| error::connect(failed).at(options_at.clone()))?;
    let timeout = options.0.get("timeout").map(|text| timeout(text).map_err(|error| error.at(options_at)));
    let cursor = session.cursors.get(&name).ok_or_else(|| unknown(&name).at(at))?;
    Ok((cursor, Portion { rows, timeout: timeout.transpose()? }))
}

fn direction(reader: &mut TokenReader<'_>) -> Result<Option<usize>> {
    let back: &[&[&str]] = &[&["PRIOR"], &["FIRST"], &["LAST"], &["ABSOLUTE"], &["RELATIVE"], &["BACKWARD"]];
    // The name of a cursor may be one of these words.
    if matches!(reader.peek_at(1), Token::EOF) {
        return Ok(Some(1));
    }
    let at = reader.position();
    if reader.one_of(back).is_some() || *reader.peek() == Token::Minus {
        return Err(Error::unsupported("a cursor that goes back or jumps").at(at));
    }
    if reader.keyword(&["NEXT"]) {
        return Ok(Some(1));
    }
    let forward = reader.keyword(&["FORWARD"]);
    if reader.keyword(&["ALL"]) {
        return Ok(None);
    }
    if !matches!(reader.peek(), Token::Number(..)) {
        return Ok(Some(1));
    }
    let at = reader.position();
    match reader.number()? as usize {
        0 if !forward => Err(Error::unsupported("FETCH 0, the row that was fetched last").at(at)),
        rows => Ok(Some(rows)),
    }
}

fn timeout(text: &str) -> Result<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    match number.parse() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => interval("timeout", text, ""),
    }
}

fn unknown(name: &str) -> Error {
    Error::invalid(format!("there is no cursor \"{name}\""))
        .hint("DECLARE it first; without WITH HOLD it ends with its transaction.")
        .code(sqlstate::INVALID_CURSOR_NAME)
}

/// Runs CLOSE.
pub(crate) fn close(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if reader.keyword(&["ALL"]) {
        reader.expect_end()?;
        session.cursors.clear();
        return Ok(Tag::new("CLOSE CURSOR ALL").into());
    }
    let (name, at) = (reader.identifier()?, reader.last_position());
    reader.expect_end()?;
    match session.cursors.remove(&name) {
        Some(_) => Ok(Tag::new("CLOSE CURSOR").into()),
        None => Err(unknown(&name).at(at)),
    }
}
