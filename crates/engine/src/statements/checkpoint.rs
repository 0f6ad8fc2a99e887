//! `CHECKPOINT`: waits until a checkpoint includes everything done before.

use millstream_sql::{Result, TokenReader};

use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CHECKPOINT: Statement = Statement {
    words: &[&["CHECKPOINT"]],
    synopsis: "CHECKPOINT;",
    purpose: "write a checkpoint",
    pages: &["checkpoint"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::refused("COMMIT first: what the transaction changes is in no checkpoint before."),
};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Checkpoint { reply }).await?;
    Ok(Tag::new("CHECKPOINT").into())
}
