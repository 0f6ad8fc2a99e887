//! Transactions: the changes between BEGIN and COMMIT, and their snapshot.
//!
//! A transaction sees everything as of one epoch: the last one before its first statement that reads or
//! changes rows. It holds snapshots of tables; these cost nothing until others change shared rows. For views
//! and streams, the loop keeps the changes since then, up to a bound, and reverts them for each read.
//! Relations that aren't read cost nothing more. The transaction keeps its own changes beside the snapshots.
//! COMMIT sends them to the loop, which applies all or none. If two transactions change the same row, or
//! insert the same key, the first to commit wins.
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
use crate::sequences::TableSequences;
use crate::session::{Session, Tag};
use crate::statement::InTransaction;
use crate::statements::STATEMENTS;
use crate::variables::Point;
pub(crate) use own::{Found, Write, altered, conflict};
use own::{Frozen, Own};
pub(crate) use read::Contents;

/// The transaction status of a session, as reported to PostgreSQL's clients after each statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Each statement is its own transaction.
    Idle,
    /// Between BEGIN and COMMIT.
    InTransaction,
    /// A statement of the transaction failed: it can only be rolled back.
    Failed,
}

/// The modes of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) read_only: bool,
}

/// The state between BEGIN and COMMIT.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) modes: Modes,
    failed: bool,
    /// True if the rows of one of its statements failed. They may fail later than the statement.
    rows_failed: Arc<AtomicBool>,
    /// Its snapshot and changes; `None` before the first statement that needs them.
    view: Option<View>,
    savepoints: Vec<Savepoint>,
    /// The savepoint level, which rises with each savepoint. Later changes have a higher level.
    level: u32,
}

/// The snapshot of a transaction, and its own changes.
#[derive(Debug)]
pub(crate) struct View {
    begun: Begun,
    /// The content of views and streams that it has read, as of the snapshot.
    read: HashMap<Arc<str>, Vec<RecordBatch>>,
    own: BTreeMap<Arc<str>, Own>,
    /// The size of its changes in bytes.
    own_bytes: usize,
}

/// The snapshot of all relations, as returned by the loop.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) now: Timestamp,
    pub(crate) tables: BTreeMap<Arc<str>, PinnedTable>,
    /// Releases the snapshot in the loop on drop.
    pub(crate) guard: Guard,
}

/// A snapshot of a table.
#[derive(Clone, Debug)]
pub(crate) struct PinnedTable {
    /// The rows that SELECT sees.
    pub(crate) published: RowsSnapshot,
    /// The rows that INSERT, UPDATE and DELETE see. Under a manual clock they include changes that no epoch
    /// has taken in.
    pub(crate) staged: RowsSnapshot,
    pub(crate) schema: SchemaRef,
    /// The values of columns added after the table's creation, for rows that lack these columns.
    pub(crate) added: Vec<ScalarValue>,
    /// The primary key's columns; empty without one.
    pub(crate) key: Vec<usize>,
    pub(crate) intake: Intake,
    /// The lower bound for the ids of later rows.
    pub(crate) next_id: u64,
    /// The version, which rises with every change.
    pub(crate) version: u64,
    /// True if both snapshots are the same.
    pub(crate) settled: bool,
    /// The sequences of its identity columns.
    pub(crate) sequences: TableSequences,
}

/// Releases on drop the state that the loop keeps for a transaction.
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

/// A savepoint.
#[derive(Debug)]
struct Savepoint {
    name: String,
    level: u32,
    own: BTreeMap<Arc<str>, Frozen>,
    /// The session's settings.
    settings: Option<Point>,
}

/// The notice of statements that take effect at once.
const SAID_AT_ONCE: &str = "it took effect at once: ROLLBACK would not undo it";

/// Adds a notice that the statements took effect at once, if a transaction is open.
pub(crate) fn say_at_once(transaction: Option<&Transaction>, tags: &mut [Tag]) {
    if transaction.is_some() {
        tags.iter_mut().for_each(|tag| tag.notices.push(SAID_AT_ONCE.into()));
    }
}

/// Returns true if a statement ends a transaction or rolls it back to a savepoint.
pub(crate) fn ends_transaction(text: &str) -> Result<bool> {
    Ok(STATEMENTS.ends_transaction(&TokenReader::new(text)?))
}

impl Transaction {
    /// Drops the snapshot, so that a statement may change the catalog. Fails if the transaction has changes.
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
        self.drop_snapshot();
        Ok(())
    }

    /// Drops the snapshot: the next statement sees what one before it has created. There are no changes yet.
    pub(crate) fn drop_snapshot(&mut self) {
        self.view = None;
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

    /// Marks the transaction as failed.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// Returns true if the transaction has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed || self.rows_failed.load(Ordering::Acquire)
    }

    /// Returns true if it has read or changed rows.
    pub(crate) fn has_begun(&self) -> bool {
        self.view.is_some()
    }

    /// Returns the flag that rows set if they fail later.
    pub(crate) fn rows_failed(&self) -> Arc<AtomicBool> {
        self.rows_failed.clone()
    }

    /// Clears the failure.
    fn mend(&mut self) {
        self.failed = false;
        self.rows_failed.store(false, Ordering::Release);
    }

    /// Returns its changes for the loop.
    pub(crate) fn writes(self) -> Result<(Vec<Write>, Option<Begun>)> {
        let Some(view) = self.view else { return Ok((Vec::new(), None)) };
        let mut writes = Vec::new();
        for (table, own) in view.own {
            writes.extend(own.write(table)?);
        }
        Ok((writes, Some(view.begun)))
    }

    /// Creates a savepoint.
    pub(crate) fn save(&mut self, name: String, settings: Option<Point>) {
        let own = self.view.iter().flat_map(|view| &view.own);
        let own = own.map(|(table, own)| (table.clone(), own.freeze())).collect();
        self.savepoints.push(Savepoint { name, level: self.level, own, settings });
        self.level += 1;
    }

    /// Removes a savepoint and later ones; the changes stay.
    pub(crate) fn release(&mut self, name: &str) -> Result<()> {
        let place = self.savepoint(name)?;
        self.savepoints.truncate(place);
        Ok(())
    }

    /// Returns the level, which rises with each savepoint.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// Rolls back to a savepoint, which stays. Returns its level and the session's settings there. Changes of
    /// a higher level are undone.
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
    /// Returns the transaction status.
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            None => TransactionStatus::Idle,
            Some(transaction) if transaction.has_failed() => TransactionStatus::Failed,
            Some(_) => TransactionStatus::InTransaction,
        }
    }

    /// Fails the open transaction, since the result of a statement couldn't be delivered. Has no effect
    /// outside a transaction.
    pub fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
    }

    /// Checks if a statement may run now. Until [`Session::leave`] the transaction counts as failed, so that
    /// an abandoned statement fails it.
    pub(crate) fn enter(&mut self, reader: &TokenReader<'_>) -> Result<()> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if STATEMENTS.ends_transaction(reader) {
            return Ok(());
        }
        if transaction.has_failed() {
            return Err(Error::invalid("the transaction has failed: statements are ignored until it ends")
                .hint("Use ROLLBACK, or ROLLBACK TO a savepoint.")
                .code(sqlstate::IN_FAILED_SQL_TRANSACTION));
        }
        transaction.failed = true;
        // Running a text that is no statement fails.
        let Ok(found) = STATEMENTS.find(reader) else { return Ok(()) };
        match found.statement.rules.transaction {
            InTransaction::Allowed | InTransaction::Ends => Ok(()),
            InTransaction::AtOnce => transaction.begin_again(reader),
            InTransaction::Refused(hint) => {
                Err(Error::invalid(format!("{} can't be run inside a transaction", found.name()))
                    .hint(hint)
                    .code(sqlstate::ACTIVE_SQL_TRANSACTION)
                    .at(reader.position()))
            }
        }
    }

    /// Passes on a statement's result. A failure fails the transaction.
    pub(crate) fn leave<T, E>(&mut self, result: Result<T, E>) -> Result<T, E> {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = result.is_err();
        }
        result
    }
}
