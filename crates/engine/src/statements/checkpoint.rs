//! `CHECKPOINT`: waits until a checkpoint includes everything done before.

use millstream_sql::{Result, TokenReader};

use crate::event::Event;
use crate::session::{Response, Session, Tag};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Checkpoint { reply }).await?;
    Ok(Tag::new("CHECKPOINT").into())
}
