//! `DISCARD ALL | PLANS | SEQUENCES | TEMP`: resets a session.

use millstream_sql::{Error, Result, TokenReader, sqlstate};

use crate::ddl;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::transaction::Modes;

pub(super) static DISCARD: Statement = Statement {
    words: &[&["DISCARD"]],
    synopsis: "DISCARD ALL | PLANS | SEQUENCES | TEMP;",
    purpose: "reset the session",
    pages: &["set"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(super) static UNLISTEN: Statement = Statement {
    words: &[&["UNLISTEN"]],
    synopsis: "UNLISTEN *;",
    purpose: "do nothing: connection pools send it, but there is no LISTEN",
    pages: &["set"],
    begins: None,
    run: Run::Alone(|_, _| Box::pin(async { Ok(Tag::new("UNLISTEN").into()) })),
    rules: Rules::DEFAULT,
};

pub(crate) async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let kinds: &[&[&str]] = &[&["ALL"], &["PLANS"], &["SEQUENCES"], &["TEMP"], &["TEMPORARY"]];
    let Some(kind) = reader.one_of(kinds) else {
        return Err(reader.expected("ALL, PLANS, SEQUENCES or TEMP"));
    };
    reader.expect_end()?;
    if matches!(kind, 0 | 2) {
        session.variables.sequences.clear();
    }
    if kind == 0 {
        if session.transaction.is_some() {
            return Err(Error::invalid("DISCARD ALL can't be run inside a transaction")
                .hint("COMMIT or ROLLBACK first.")
                .code(sqlstate::ACTIVE_SQL_TRANSACTION));
        }
        session.variables.reset_all(session.transaction.as_ref());
        session.cursors.clear();
        session.prepared.clear();
        session.variables.modes = Modes::default();
        if let Some(locks) = session.variables.locks.get() {
            locks.release_all(false);
        }
    }
    if matches!(kind, 0 | 3 | 4) {
        ddl::discard_temporary(session).await?;
    }
    Ok(Tag::new(format!("DISCARD {}", kinds[kind].join(" "))).into())
}
