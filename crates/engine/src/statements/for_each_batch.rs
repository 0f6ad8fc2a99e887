//! `SELECT … FOR EACH BATCH [LIMIT n]`: the rows of each batch when it ends, from the next one on, until the
//! reader goes away.

use std::ops::Range;

use millstream_sql::{Emit, Result, TokenReader};

use super::create_view::check_batches;
use super::emit_changes::limit;
use super::within;
use crate::changes::{self, Following, Opened, Shape};
use crate::ddl::{PLANS_MAX, busy};
use crate::event::{Event, Followed, Request};
use crate::session::{Response, Session};

/// Runs a query that ends with the clause at `clause`.
pub(crate) async fn run(
    session: &Session,
    mut reader: TokenReader<'_>,
    clause: Range<usize>,
) -> Result<Response> {
    let limit = limit(&reader, &clause, Emit::EachBatch)?;
    reader.cut(clause.start);
    let (text, offset) = within(&reader);
    let opened = open(session, text, offset, Following::default()).await?;
    Ok(changes::response(opened, Shape::Emit, limit))
}

/// Starts a query without its clause; `offset` is its position in the statement.
pub(super) async fn open(
    session: &Session,
    text: &str,
    offset: usize,
    following: Following,
) -> Result<Opened> {
    for _ in 0..PLANS_MAX {
        let catalog = session.catalog();
        let query = session.parametrised().batch_query(text, catalog.as_ref());
        let query = query.map_err(|error| error.shift(offset))?;
        check_batches(&query, &catalog)?;
        let request = Request { followed: Followed::Batches(Box::new(query)), following };
        let base = catalog.version;
        let opened = session.shared.ask(|reply| Event::Subscribe { base, request, reply }).await?;
        if let Some(opened) = opened {
            return Ok(opened);
        }
    }
    Err(busy())
}
