//! `SELECT … EMIT CHANGES [LIMIT n]`: what the query answers now, then its changes until the reader goes.

use std::ops::Range;

use millstream_sql::{Emit, Result, TokenReader, dialect};

use super::for_each_batch;
use super::subscribe::follow;
use super::within;
use crate::changes::{self, Following, Opened, Shape};
use crate::session::{Response, Session};

/// Runs a query that ends with the clause at `clause`.
pub(crate) async fn run(
    session: &Session,
    mut reader: TokenReader<'_>,
    clause: Range<usize>,
) -> Result<Response> {
    let limit = limit(&reader, &clause, Emit::Changes)?;
    reader.cut(clause.start);
    let (text, offset) = within(&reader);
    let opened = follow(session, text, offset, Following::default()).await?;
    Ok(changes::response(opened, Shape::Emit, limit))
}

/// Follows a query that says how its results are delivered, or doesn't.
pub(crate) async fn follow_query(
    session: &Session,
    mut reader: TokenReader<'_>,
    following: Following,
) -> Result<Opened> {
    let mut per_batch = false;
    if let Some((emit @ (Emit::Changes | Emit::EachBatch), clause)) = dialect::trailing_emit(&reader) {
        if limit(&reader, &clause, emit)?.is_some() {
            return Err(reader
                .expected("no LIMIT of changes: the reader stops when it has enough")
                .at(clause));
        }
        per_batch = emit == Emit::EachBatch;
        reader.cut(clause.start);
    }
    let (text, offset) = within(&reader);
    match per_batch {
        true => for_each_batch::open(session, text, offset, following).await,
        false => follow(session, text, offset, following).await,
    }
}

/// The number in `EMIT CHANGES LIMIT n`, and the like.
pub(super) fn limit(reader: &TokenReader<'_>, clause: &Range<usize>, emit: Emit) -> Result<Option<usize>> {
    let number = |text: &str| {
        let mut reader = TokenReader::new(text)?;
        let words: Vec<&str> = emit.clause().split(' ').collect();
        reader.expect_keyword(&words)?;
        let limit = if reader.keyword(&["LIMIT"]) { Some(reader.number()? as usize) } else { None };
        reader.expect_end()?;
        Ok(limit)
    };
    number(&reader.text()[clause.clone()]).map_err(|error: millstream_sql::Error| error.shift(clause.start))
}
