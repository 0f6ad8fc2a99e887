//! `SELECT … EMIT CHANGES [LIMIT n]`: the query's current answer, then its changes until the reader goes
//! away. `SELECT … EMIT ON WINDOW CLOSE [LIMIT n]`: the rows of its windows, as they close.

use std::ops::Range;

use millstream_sql::{Emit, Result, TokenReader, dialect};

use super::for_each_batch;
use super::subscribe::follow;
use super::within;
use crate::changes::{self, Following, Opened, Shape};
use crate::session::{Response, Session};

/// Runs a query that ends with a clause.
pub(crate) async fn run(
    session: &Session,
    mut reader: TokenReader<'_>,
    emit: Emit,
    clause: Range<usize>,
) -> Result<Response> {
    let limit = limit(&reader, &clause, emit)?;
    reader.cut(clause.start);
    let (text, offset) = within(&reader);
    let on_close = emit == Emit::OnWindowClose;
    let opened = follow(session, text, offset, Following::default(), on_close).await?;
    Ok(changes::response(opened, Shape::Emit, limit))
}

/// Subscribes to a query, with or without an EMIT or FOR EACH BATCH clause.
pub(crate) async fn follow_query(
    session: &Session,
    mut reader: TokenReader<'_>,
    following: Following,
) -> Result<Opened> {
    let emit = dialect::trailing_emit(&reader);
    if let Some((emit, clause)) = emit.clone() {
        if limit(&reader, &clause, emit)?.is_some() {
            return Err(reader
                .expected("no LIMIT of changes: the reader stops when it has enough")
                .at(clause));
        }
        reader.cut(clause.start);
    }
    let (text, offset) = within(&reader);
    match emit.map(|(emit, _)| emit) {
        Some(Emit::EachBatch) => for_each_batch::open(session, text, offset, following).await,
        emit => follow(session, text, offset, following, emit == Some(Emit::OnWindowClose)).await,
    }
}

/// Reads the number in `EMIT CHANGES LIMIT n` and similar clauses.
pub(super) fn limit(reader: &TokenReader<'_>, clause: &Range<usize>, emit: Emit) -> Result<Option<usize>> {
    let number = |text: &str| {
        let mut reader = TokenReader::new(text)?;
        if reader.one_of(emit.spellings()).is_none() {
            return Err(reader.expected(emit.clause()));
        }
        let limit = if reader.keyword(&["LIMIT"]) { Some(reader.number()? as usize) } else { None };
        reader.expect_end()?;
        Ok(limit)
    };
    number(&reader.text()[clause.clone()]).map_err(|error: millstream_sql::Error| error.shift(clause.start))
}
