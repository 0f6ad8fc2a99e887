//! `SELECT … EMIT CHANGES [LIMIT n]`: what the query answers now, then its changes until the reader goes.

use std::ops::Range;

use millstream_sql::{Result, TokenReader};

use super::subscribe::{Following, follow};
use super::within;
use crate::changes::{self, Shape};
use crate::session::{Response, Session};

/// Runs a query that ends with the clause at `clause`.
pub(crate) async fn run(
    session: &Session,
    mut reader: TokenReader<'_>,
    clause: Range<usize>,
) -> Result<Response> {
    let limit = limit(&reader.text()[clause.clone()]).map_err(|error| error.shift(clause.start))?;
    reader.cut(clause.start);
    let (text, offset) = within(&reader);
    let following = Following { text, offset, snapshot: true, progress: false };
    let opened = follow(session, following).await?;
    Ok(changes::response(opened, Shape::Emit, limit))
}

/// The number in `EMIT CHANGES LIMIT n`.
fn limit(clause: &str) -> Result<Option<usize>> {
    let mut reader = TokenReader::new(clause)?;
    reader.expect_keyword(&["EMIT", "CHANGES"])?;
    let limit = if reader.keyword(&["LIMIT"]) { Some(reader.number()? as usize) } else { None };
    reader.expect_end()?;
    Ok(limit)
}
