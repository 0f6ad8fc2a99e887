//! `PAUSE name | ALL`, `RESUME name | ALL`: pause and resume sources, queries and sinks.

use millstream_sql::{Result, TokenReader};

use crate::event::{Event, Question};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

const AT_ONCE: Rules =
    Rules::refused("COMMIT first: it takes effect at once, and ROLLBACK couldn't take it back.");

pub(super) static PAUSE: Statement = Statement {
    words: &[&["PAUSE"]],
    synopsis: "PAUSE  [SOURCE | MATERIALIZED VIEW | STREAM | SINK] name | ALL;",
    purpose: "pause an object",
    pages: &["pause-resume"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader, true).await })),
    rules: AT_ONCE,
};

pub(super) static RESUME: Statement = Statement {
    words: &[&["RESUME"]],
    synopsis: "RESUME [SOURCE | MATERIALIZED VIEW | STREAM | SINK] name | ALL;",
    purpose: "resume a paused or suspended object",
    pages: &["pause-resume"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader, false).await })),
    rules: AT_ONCE,
};

/// Runs PAUSE or RESUME.
pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>, pause: bool) -> Result<Response> {
    // A kind before the name is allowed, as in SHOW CREATE. A relation may be called ALL in double quotes.
    let kinds: &[&[&str]] = &[&["SOURCE"], &["MATERIALIZED", "VIEW"], &["STREAM"], &["SINK"]];
    let mut ahead = reader.clone();
    if ahead.one_of(kinds).is_some() && !ahead.is_end() {
        *reader = ahead;
    }
    let at = reader.position();
    let name = if reader.keyword(&["ALL"]) { None } else { Some(reader.relation_name()?) };
    reader.expect_end()?;
    if name.is_none() && !pause {
        resume_apart(session).await;
    }
    let asked = session.shared.ask(|reply| Event::Pause { name, pause, replayed: None, reply }).await;
    let notices = asked.map_err(|error| error.at(at))?;
    let text = if pause { "PAUSE" } else { "RESUME" };
    Ok(Tag { text: text.into(), notices }.into())
}

/// Resumes paused queries one by one if some have many rows to take in: each waits until those that it reads have.
async fn resume_apart(session: &Session) {
    let paused = session.shared.ask(|reply| Event::Ask(Question::Paused { reply })).await.unwrap_or_default();
    for name in paused {
        let name = Some(name.to_string());
        // Whatever fails here fails again when all others are resumed, and is said there.
        let _ = session.shared.ask(|reply| Event::Pause { name, pause: false, replayed: None, reply }).await;
    }
}
