//! `STOP [GRACEFULLY]`: ends the engine.

use millstream_sql::{Result, TokenReader};

use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static STOP: Statement = Statement {
    words: &[&["STOP"]],
    synopsis: "STOP [GRACEFULLY];",
    purpose: "stop the engine",
    pages: &["stop"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::refused("COMMIT or ROLLBACK first."),
};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let gracefully = reader.keyword(&["GRACEFULLY"]);
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Stop { reply: Some(reply), gracefully }).await?;
    Ok(Tag::new("STOP").into())
}
