//! `FLUSH`: waits until every query has taken in everything written before.

use millstream_sql::{Result, TokenReader};

use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static FLUSH: Statement = Statement {
    words: &[&["FLUSH"]],
    synopsis: "FLUSH;",
    purpose: "wait until all earlier input is processed",
    pages: &["flush"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::refused("COMMIT first: a transaction sees one epoch, whatever input is read meanwhile."),
};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Flush { reply }).await?;
    Ok(Tag::new("FLUSH").into())
}
