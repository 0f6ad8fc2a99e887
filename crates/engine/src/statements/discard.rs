//! `DISCARD ALL | PLANS | SEQUENCES | TEMP`: a session as it was when it began.

use millstream_sql::{Result, TokenReader};

use crate::session::{Response, Session, Tag};

pub(crate) fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let kinds: &[&[&str]] = &[&["ALL"], &["PLANS"], &["SEQUENCES"], &["TEMP"], &["TEMPORARY"]];
    let Some(kind) = reader.one_of(kinds) else {
        return Err(reader.expected("ALL, PLANS, SEQUENCES or TEMP"));
    };
    reader.expect_end()?;
    if kind == 0 {
        session.reset_variables();
        session.cursors.clear();
    }
    Ok(Tag::new(format!("DISCARD {}", kinds[kind].join(" "))).into())
}
