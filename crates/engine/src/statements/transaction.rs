//! `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`, `SET TRANSACTION` and their synonyms

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader, sqlstate};

use crate::ddl;
use crate::event::Event;
use crate::run::TableWrite;
use crate::session::{Session, Tag};
use crate::statement::{InTransaction, Rules, Run, Statement};
use crate::transaction::{Modes, Transaction};
use crate::variables::Lasts;

/// The rules for COMMIT and ROLLBACK.
const ENDS: Rules = Rules { transaction: InTransaction::Ends, ..Rules::DEFAULT };

pub(super) static BEGIN: Statement = Statement {
    words: &[&["BEGIN"], &["START", "TRANSACTION"]],
    synopsis: concat!(
        "BEGIN [WORK | TRANSACTION] [mode, …]              -- or START TRANSACTION\n",
        "BEGIN STATEMENT SET                               -- as in Flink",
    ),
    purpose: "begin a transaction",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { Ok(begin(session, &mut reader)?.into()) })),
    rules: Rules::DEFAULT,
};

pub(super) static COMMIT: Statement = Statement {
    words: &[&["COMMIT"], &["END"]],
    synopsis: "COMMIT [WORK | TRANSACTION] [AND [NO] CHAIN]      -- or END",
    purpose: "apply the changes of a transaction",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| {
        Box::pin(async move { Ok(commit(session, &mut reader).await?.into()) })
    }),
    rules: Rules { runs_once: true, ..ENDS },
};

pub(super) static ROLLBACK: Statement = Statement {
    words: &[&["ROLLBACK"], &["ABORT"]],
    synopsis: concat!(
        "ROLLBACK [WORK | TRANSACTION] [AND [NO] CHAIN]    -- or ABORT\n",
        "ROLLBACK TO [SAVEPOINT] name",
    ),
    purpose: "undo the changes of a transaction, or those after a savepoint",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| {
        Box::pin(async move { Ok(roll_back(session, &mut reader).await?.into()) })
    }),
    rules: ENDS,
};

pub(super) static SAVEPOINT: Statement = Statement {
    words: &[&["SAVEPOINT"]],
    synopsis: "SAVEPOINT name",
    purpose: "set a savepoint in a transaction",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { Ok(save(session, &mut reader)?.into()) })),
    rules: Rules::DEFAULT,
};

pub(super) static RELEASE: Statement = Statement {
    words: &[&["RELEASE"]],
    synopsis: "RELEASE [SAVEPOINT] name",
    purpose: "remove a savepoint and keep the changes after it",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { Ok(release(session, &mut reader)?.into()) })),
    rules: Rules::DEFAULT,
};

pub(super) static SET_TRANSACTION: Statement = Statement {
    words: &[&["SET", "TRANSACTION"], &["SET", "LOCAL", "TRANSACTION"]],
    synopsis: "SET TRANSACTION mode, …",
    purpose: "set the modes of the transaction",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { Ok(set(session, &mut reader)?.into()) })),
    rules: Rules::DEFAULT,
};

pub(super) static SET_CHARACTERISTICS: Statement = Statement {
    words: &[&["SET", "SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]],
    synopsis: "SET SESSION CHARACTERISTICS AS TRANSACTION mode, …",
    purpose: "set the modes of the session's transactions",
    pages: &["begin"],
    begins: None,
    run: Run::Alone(|session, mut reader| {
        Box::pin(async move { Ok(set_characteristics(session, &mut reader)?.into()) })
    }),
    rules: Rules::DEFAULT,
};

/// The modes given for a transaction.
#[derive(Clone, Copy, Default)]
struct Said {
    read_only: Option<bool>,
    isolation: Option<Isolation>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// SERIALIZABLE, which is stronger than the engine's level.
    Serializable,
    /// The engine's level or a weaker one.
    Snapshot,
}

fn save(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    let name = reader.identifier()?;
    reader.expect_end()?;
    let settings = session.variables.save(session.transaction.as_ref());
    within(session, "SAVEPOINT")?.save(name, settings);
    Ok(Tag::new("SAVEPOINT"))
}

fn release(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    reader.keyword(&["SAVEPOINT"]);
    let (name, at) = (reader.identifier()?, reader.last_position());
    reader.expect_end()?;
    within(session, "RELEASE")?.release(&name).map_err(|error| error.at(at))?;
    Ok(Tag::new("RELEASE"))
}

fn set_characteristics(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    let said = modes(reader)?;
    if let Some(read_only) = said.read_only {
        let value = if read_only { "on" } else { "off" };
        session.variables.set(
            "default_transaction_read_only",
            value,
            Lasts::Session,
            session.transaction.as_mut(),
        )?;
    }
    Ok(Tag { text: "SET".into(), notices: notices(said) })
}

fn begin(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    let started = reader.text().trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("start"));
    if !started && reader.keyword(&["STATEMENT", "SET"]) {
        reader.expect_end()?;
    }
    reader.one_of(&[&["WORK"], &["TRANSACTION"]]);
    let said = modes(reader)?;
    let mut tag =
        Tag { text: if started { "START TRANSACTION" } else { "BEGIN" }.into(), notices: notices(said) };
    if session.transaction.is_some() {
        tag.notices.push("there is already a transaction in progress".into());
    } else {
        begin_transaction(session, with(session.variables.modes, said));
    }
    Ok(tag)
}

pub(super) async fn commit(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    reader.one_of(&[&["WORK"], &["TRANSACTION"]]);
    let chain = chain(reader)?;
    let Some(transaction) = session.transaction.take() else { return outside("COMMIT", chain) };
    let modes = transaction.modes;
    let failed = transaction.has_failed();
    let before = session.variables.end(!failed);
    end_cursors(session, !failed);
    let done = if failed {
        let notice = "the transaction had failed and was rolled back".into();
        Ok(Tag { text: "ROLLBACK".into(), notices: vec![notice] })
    } else {
        let done = publish(session, transaction).await;
        if let (Err(_), Some(before)) = (&done, before) {
            session.variables.restore(before);
        }
        done.map(|()| Tag::new("COMMIT"))
    };
    ddl::end_transaction(session).await?;
    let tag = done?;
    if chain {
        begin_transaction(session, modes);
    }
    Ok(tag)
}

/// Sends a transaction's changes to the loop.
async fn publish(session: &mut Session, transaction: Transaction) -> Result<()> {
    let (writes, _begun) = transaction.writes()?;
    if writes.is_empty() {
        return Ok(());
    }
    let writes = writes.into_iter().map(TableWrite::of).collect::<Result<_>>()?;
    let idempotency_key = session.idempotency.take();
    session.shared.ask(|reply| Event::Commit { writes, idempotency_key, reply }).await.map(drop)
}

async fn roll_back(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    reader.one_of(&[&["WORK"], &["TRANSACTION"]]);
    if reader.keyword(&["TO"]) {
        reader.keyword(&["SAVEPOINT"]);
        let (name, at) = (reader.identifier()?, reader.last_position());
        reader.expect_end()?;
        let back = within(session, "ROLLBACK TO")?.roll_back_to(&name);
        let (level, settings) = back.map_err(|error| error.at(at))?;
        session.variables.back_to(settings);
        session.cursors.retain(|_, cursor| cursor.level.is_none_or(|own| own <= level));
        return Ok(Tag::new("ROLLBACK"));
    }
    let chain = chain(reader)?;
    match session.transaction.take() {
        None => outside("ROLLBACK", chain),
        Some(transaction) => {
            end_cursors(session, false);
            session.variables.end(false);
            ddl::end_transaction(session).await?;
            if chain {
                begin_transaction(session, transaction.modes);
            }
            Ok(Tag::new("ROLLBACK"))
        }
    }
}

pub(super) fn begin_transaction(session: &mut Session, modes: Modes) {
    session.variables.begin(session.transaction.as_ref());
    session.transaction = Some(Transaction::new(modes));
}

/// Rolls back the open transaction of a statement, if it has not been committed.
pub(super) fn abandon(session: &mut Session) {
    if session.transaction.take().is_none() {
        return;
    }
    end_cursors(session, false);
    session.variables.end(false);
    if let Some(locks) = session.variables.locks.get() {
        locks.release_all(true);
    }
}

/// Closes the cursors of a transaction, except those WITH HOLD if it was committed.
fn end_cursors(session: &mut Session, committed: bool) {
    session.cursors.retain(|_, cursor| cursor.level.is_none() || (committed && cursor.hold));
    session.cursors.values_mut().for_each(|cursor| cursor.level = None);
}

/// Reads `[AND [NO] CHAIN]`. Returns true if the next transaction begins at once.
fn chain(reader: &mut TokenReader<'_>) -> Result<bool> {
    let mut chain = false;
    if reader.keyword(&["AND"]) {
        chain = !reader.keyword(&["NO"]);
        reader.expect_keyword(&["CHAIN"])?;
    }
    reader.expect_end()?;
    Ok(chain)
}

fn set(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Tag> {
    if reader.is_keyword(&["SNAPSHOT"]) {
        return Err(Error::unsupported("SET TRANSACTION SNAPSHOT").at(reader.position()));
    }
    let said = modes(reader)?;
    let mut tag = Tag { text: "SET".into(), notices: notices(said) };
    let Some(transaction) = &mut session.transaction else {
        tag.notices.push("no transaction is in progress: SET TRANSACTION has no effect".into());
        return Ok(tag);
    };
    let loosens = transaction.modes.read_only && said.read_only == Some(false);
    if transaction.has_begun() && (said.isolation.is_some() || loosens) {
        return Err(Error::invalid("the transaction has read or changed something already")
            .hint("Use it right after BEGIN, or set it in BEGIN itself.")
            .code(sqlstate::ACTIVE_SQL_TRANSACTION));
    }
    transaction.modes = with(transaction.modes, said);
    Ok(tag)
}

/// Reads `ISOLATION LEVEL …`, `READ ONLY`, `READ WRITE`, `[NOT] DEFERRABLE`, separated by optional commas.
fn modes(reader: &mut TokenReader<'_>) -> Result<Said> {
    let forms: &[&[&str]] = &[
        &["ISOLATION", "LEVEL", "SERIALIZABLE"],
        &["ISOLATION", "LEVEL", "REPEATABLE", "READ"],
        &["ISOLATION", "LEVEL", "READ", "COMMITTED"],
        &["ISOLATION", "LEVEL", "READ", "UNCOMMITTED"],
        &["READ", "ONLY"],
        &["READ", "WRITE"],
        &["NOT", "DEFERRABLE"],
        &["DEFERRABLE"],
    ];
    let mut said = Said::default();
    while !reader.is_end() {
        match reader.one_of(forms) {
            Some(0) => said.isolation = Some(Isolation::Serializable),
            Some(1..=3) => said.isolation = Some(Isolation::Snapshot),
            Some(4) => said.read_only = Some(true),
            Some(5) => said.read_only = Some(false),
            Some(_) => {}
            None => return Err(reader.expected("ISOLATION LEVEL, READ ONLY or READ WRITE")),
        }
        reader.symbol(Token::Comma);
    }
    Ok(said)
}

fn with(modes: Modes, said: Said) -> Modes {
    Modes { read_only: said.read_only.unwrap_or(modes.read_only) }
}

fn notices(said: Said) -> Vec<String> {
    match said.isolation {
        Some(Isolation::Serializable) => vec![
            "transactions are isolated as at REPEATABLE READ: each sees one epoch and its own changes, and two that \
             change one row can't both be committed"
                .into(),
        ],
        _ => Vec::new(),
    }
}

/// Returns the open transaction.
fn within<'a>(session: &'a mut Session, statement: &str) -> Result<&'a mut Transaction> {
    session.transaction.as_mut().ok_or_else(|| {
        Error::invalid(format!("{statement} can be used only in a transaction, and none is in progress"))
            .hint("Use BEGIN first.")
            .code(sqlstate::NO_ACTIVE_SQL_TRANSACTION)
    })
}

fn outside(text: &str, chain: bool) -> Result<Tag> {
    if chain {
        return Err(Error::invalid(format!("{text} AND CHAIN has no transaction to end"))
            .code(sqlstate::NO_ACTIVE_SQL_TRANSACTION));
    }
    Ok(Tag { text: text.into(), notices: vec!["no transaction is in progress".into()] })
}
