//! What a session changes between BEGIN and COMMIT, and what it sees meanwhile.
//!
//! A transaction sees everything as one epoch left it: the last one before its first statement that reads or changes
//! something. Of tables it holds snapshots, which cost nothing until others change what they share. Of views and
//! streams the loop keeps the changes since then, up to a bound, and what is read is taken back by them; what isn't
//! read costs no more. Its own changes are kept here, beside those snapshots, and go to the loop at COMMIT, which takes
//! all of them or none. Of two transactions that change one row, or put rows of one key, the first to commit wins.
//!
//! Deliberately absent: locks, CREATE and DROP inside a transaction, prepared transactions.

mod modify;
mod own;
mod read;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use millstream_delta::Timestamp;
use millstream_sql::{Error, Result, TokenReader, sqlstate};
use millstream_state::RowsSnapshot;

use crate::catalog::Intake;
use crate::event::Event;
use crate::session::{Session, Tag};
use crate::variables::Point;
pub(crate) use own::{Found, Write, altered, conflict};
use own::{Frozen, Own};
pub(crate) use read::Contents;

/// Where a session stands, as PostgreSQL's clients are told after each statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Each statement is a transaction of its own.
    Idle,
    /// Between BEGIN and COMMIT.
    InTransaction,
    /// A statement of the transaction has failed: it can only be ended.
    Failed,
}

/// How a transaction was asked to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) read_only: bool,
}

/// What is between BEGIN and COMMIT.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) modes: Modes,
    failed: bool,
    /// Set by the rows that its statements give, which may fail later than the statement.
    rows_failed: Arc<AtomicBool>,
    /// What it sees and has changed; none before its first statement that asks for it.
    view: Option<View>,
    savepoints: Vec<Savepoint>,
    /// Rises with each savepoint: what is changed after it is of a higher level.
    level: u32,
}

/// What a transaction sees.
#[derive(Debug)]
pub(crate) struct View {
    begun: Begun,
    /// What it has read of views and streams, as of its beginning.
    read: HashMap<Arc<str>, Vec<RecordBatch>>,
    own: BTreeMap<Arc<str>, Own>,
    /// How many bytes its statements have brought.
    own_bytes: usize,
}

/// The state of everything at one moment, as the loop hands it out.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) now: Timestamp,
    pub(crate) tables: BTreeMap<Arc<str>, PinnedTable>,
    /// Tells the loop that it need not keep it any longer.
    pub(crate) guard: Guard,
}

/// A table at one moment.
#[derive(Clone, Debug)]
pub(crate) struct PinnedTable {
    /// As SELECT sees it.
    pub(crate) published: RowsSnapshot,
    /// As INSERT, UPDATE and DELETE see it: under a manual clock there may be changes that no epoch has taken in.
    pub(crate) staged: RowsSnapshot,
    pub(crate) schema: SchemaRef,
    /// What its last columns have, which came after it was made, in rows of one who doesn't know them.
    pub(crate) added: Vec<ScalarValue>,
    /// Empty without a primary key.
    pub(crate) key: Vec<usize>,
    pub(crate) intake: Intake,
    /// The ids of all rows that come later are no smaller.
    pub(crate) next_id: u64,
    /// Rises with every change.
    pub(crate) version: u64,
    /// Whether both snapshots are the same.
    pub(crate) settled: bool,
}

/// Lets go of what the loop keeps for a transaction.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) number: u64,
    pub(crate) events: Sender<Event>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Release { transaction: self.number });
    }
}

/// A place to which a transaction can go back.
#[derive(Debug)]
struct Savepoint {
    name: String,
    level: u32,
    own: BTreeMap<Arc<str>, Frozen>,
    /// The session's settings.
    settings: Option<Point>,
}

/// Statements that have no place between BEGIN and COMMIT, and what to do instead.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["ADVANCE", "SUBSCRIPTION"],
        "COMMIT first: the position of a subscription moves at once, and stays moved.",
    ),
    (&["ADVANCE"], "COMMIT first: a transaction sees one epoch, and this makes others."),
    (&["CHECKPOINT"], "COMMIT first: what the transaction changes is in no checkpoint before."),
    (&["FLUSH"], "COMMIT first: a transaction sees one epoch, whatever is taken in meanwhile."),
    (&["PAUSE"], "COMMIT first: it takes effect at once, and ROLLBACK couldn't take it back."),
    (&["RESUME"], "COMMIT first: it takes effect at once, and ROLLBACK couldn't take it back."),
    (&["STOP"], "COMMIT or ROLLBACK first."),
];

/// Statements that take effect at once, whatever becomes of the transaction, so that they come before its changes.
const AT_ONCE: &[&[&str]] = &[&["CREATE"], &["DROP"], &["ALTER"]];

/// What is said of them.
const SAID_AT_ONCE: &str = "it took effect at once: ROLLBACK would not undo it";

/// The statements that end a transaction, or go back in it.
const ENDINGS: &[&[&str]] = &[&["COMMIT"], &["END"], &["ROLLBACK"], &["ABORT"]];

/// Whether a statement ends a transaction, or goes back in it.
pub(crate) fn ends_transaction(text: &str) -> Result<bool> {
    let reader = TokenReader::new(text)?;
    Ok(ENDINGS.iter().any(|words| reader.is_keyword(words)))
}

impl Transaction {
    /// Sees everything anew, so that a statement which changes the catalog may come. Not after changes of its own.
    fn begin_again(&mut self, reader: &TokenReader<'_>) -> Result<()> {
        if self.modes.read_only {
            return Err(Error::invalid(
                "the transaction is read only, and this statement changes the catalog",
            )
            .code(sqlstate::READ_ONLY_SQL_TRANSACTION)
            .at(reader.position()));
        }
        if self.view.as_ref().is_some_and(|view| !view.own.is_empty()) {
            return Err(Error::invalid(
                "objects can't be created, dropped or altered after a transaction's changes",
            )
            .hint("COMMIT first: it takes effect at once, and ROLLBACK couldn't undo it.")
            .code(sqlstate::ACTIVE_SQL_TRANSACTION)
            .at(reader.position()));
        }
        self.view = None;
        Ok(())
    }

    pub(crate) fn new(modes: Modes) -> Transaction {
        Transaction {
            modes,
            failed: false,
            rows_failed: Arc::default(),
            view: None,
            savepoints: Vec::new(),
            level: 0,
        }
    }

    /// It can only be ended from now on.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether it can only be ended.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed || self.rows_failed.load(Ordering::Acquire)
    }

    /// Whether it has read or changed something.
    pub(crate) fn has_begun(&self) -> bool {
        self.view.is_some()
    }

    /// What rows that are read later set when they fail.
    pub(crate) fn rows_failed(&self) -> Arc<AtomicBool> {
        self.rows_failed.clone()
    }

    /// It can go on after all.
    fn mend(&mut self) {
        self.failed = false;
        self.rows_failed.store(false, Ordering::Release);
    }

    /// What it has changed, for the loop.
    pub(crate) fn writes(self) -> Result<(Vec<Write>, Option<Begun>)> {
        let Some(view) = self.view else { return Ok((Vec::new(), None)) };
        let mut writes = Vec::new();
        for (table, own) in view.own {
            writes.extend(own.write(table)?);
        }
        Ok((writes, Some(view.begun)))
    }

    /// Remembers how things are under a name.
    pub(crate) fn save(&mut self, name: String, settings: Option<Point>) {
        let own = self.view.iter().flat_map(|view| &view.own);
        let own = own.map(|(table, own)| (table.clone(), own.freeze())).collect();
        self.savepoints.push(Savepoint { name, level: self.level, own, settings });
        self.level += 1;
    }

    /// Forgets a savepoint and those after it; what was changed since stays.
    pub(crate) fn release(&mut self, name: &str) -> Result<()> {
        let place = self.savepoint(name)?;
        self.savepoints.truncate(place);
        Ok(())
    }

    /// Rises with each savepoint.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// Goes back to a savepoint, which stays, and says its level: what is of a higher one is gone. Gives the settings
    /// that the session had there.
    pub(crate) fn roll_back_to(&mut self, name: &str) -> Result<(u32, Option<Point>)> {
        let place = self.savepoint(name)?;
        self.savepoints.truncate(place + 1);
        self.mend();
        let Some(savepoint) = self.savepoints.last() else { return Err(Error::bug("it was found above")) };
        let back = (savepoint.level, savepoint.settings.clone());
        let Some(view) = &mut self.view else { return Ok(back) };
        view.own.retain(|table, _| savepoint.own.contains_key(table));
        for (table, own) in &mut view.own {
            if let Some(frozen) = savepoint.own.get(table) {
                own.restore(frozen, savepoint.level)?;
            }
        }
        self.level += 1;
        Ok(back)
    }

    fn savepoint(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        found.ok_or_else(|| {
            Error::invalid(format!("there is no savepoint \"{name}\"")).code(sqlstate::INVALID_SAVEPOINT)
        })
    }
}

impl Session {
    /// Whether a transaction is open, and whether it has failed.
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            None => TransactionStatus::Idle,
            Some(transaction) if transaction.has_failed() => TransactionStatus::Failed,
            Some(_) => TransactionStatus::InTransaction,
        }
    }

    /// Says that what a statement of the open transaction gave couldn't be handed out, so that the transaction can only
    /// be ended. Outside of a transaction it says nothing.
    pub fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
    }

    /// Whether a statement may run now. Until [`Session::leave`] the transaction counts as failed, so that a statement
    /// that is given up half way has failed.
    pub(crate) fn enter(&mut self, reader: &TokenReader<'_>) -> Result<()> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if ENDINGS.iter().any(|words| reader.is_keyword(words)) {
            return Ok(());
        }
        if transaction.has_failed() {
            return Err(Error::invalid("the transaction has failed, and nothing is done before it ends")
                .hint("Say ROLLBACK, or ROLLBACK TO a savepoint.")
                .code(sqlstate::IN_FAILED_SQL_TRANSACTION));
        }
        transaction.failed = true;
        if AT_ONCE.iter().any(|words| reader.is_keyword(words)) {
            return transaction.begin_again(reader);
        }
        match REFUSED.iter().find(|(words, _)| reader.is_keyword(words)) {
            None => Ok(()),
            Some((words, hint)) => {
                Err(Error::invalid(format!("{} can't be run inside a transaction", words.join(" ")))
                    .hint(*hint)
                    .code(sqlstate::ACTIVE_SQL_TRANSACTION)
                    .at(reader.position()))
            }
        }
    }

    /// Tells the user that a statement of the open transaction, if there is one, took effect at once.
    pub(crate) fn say_at_once(&self, tags: &mut [Tag]) {
        if self.transaction.is_some() {
            tags.iter_mut().for_each(|tag| tag.notices.push(SAID_AT_ONCE.into()));
        }
    }

    /// Hands a statement's result on: its failure is one of the transaction's.
    pub(crate) fn leave<T>(&mut self, result: Result<T>) -> Result<T> {
        self.transaction_done(result.is_ok());
        result
    }

    /// A statement of the open transaction is done, or has failed.
    pub(crate) fn transaction_done(&mut self, well: bool) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = !well;
        }
    }
}
