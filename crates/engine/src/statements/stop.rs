//! `STOP [GRACEFULLY]`: ends the engine.

use millstream_sql::{Result, TokenReader};

use crate::event::Event;
use crate::session::{Response, Session, Tag};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let gracefully = reader.keyword(&["GRACEFULLY"]);
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Stop { reply: Some(reply), gracefully }).await?;
    Ok(Tag::new("STOP").into())
}
