//! `RESET name | ALL | TIME ZONE | SESSION AUTHORIZATION | ROLE`

use millstream_sql::{Result, TokenReader};

use super::set;
use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::settings::{Settings, foreign};
use crate::statement::{Rules, Run, Statement};
use crate::variables::Lasts;

pub(super) static RESET: Statement = Statement {
    words: &[&["RESET"]],
    synopsis: "RESET name | ALL;",
    purpose: "reset a setting, or all of the session",
    pages: &["set"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(crate) async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if reader.keyword(&["ALL"]) {
        reader.expect_end()?;
        // All sessions share the engine's settings, so these are only reset by name.
        session.variables.reset_all(session.transaction.as_ref());
        return Ok(Tag::new("RESET").into());
    }
    if reader.keyword(&["SESSION", "AUTHORIZATION"]) || reader.keyword(&["ROLE"]) {
        reader.expect_end()?;
        return Ok(Tag::new("RESET").into());
    }
    let at = reader.position();
    let name = set::name(reader)?;
    reader.expect_end()?;
    let tag = one(session, &name, Lasts::Session).await.map_err(|error| error.at(at))?;
    Ok(Tag { text: "RESET".into(), ..tag }.into())
}

/// Resets one setting to its default.
pub(super) async fn one(session: &mut Session, name: &str, lasts: Lasts) -> Result<Tag> {
    let tag = Tag::new("SET");
    if Settings::knows(name) {
        let (name, value) = (name.to_string(), Settings::default().show(name)?);
        session.shared.ask(|reply| Event::Set { name, value, reply }).await?;
        return Ok(tag);
    }
    let known = session.variables.reset(name, lasts, session.transaction.as_ref());
    match known || name.contains('.') || foreign::find(name).is_some() {
        true => Ok(tag),
        false => Err(Settings::unknown(name)),
    }
}
