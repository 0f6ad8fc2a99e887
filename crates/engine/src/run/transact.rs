//! The loop's part of transactions: what they see is kept for them, and what they commit is taken at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch};
use millstream_delta::{Delta, Epoch, consolidate};
use millstream_sql::{Error, Result, sqlstate};

use super::Loop;
use super::log::{self, Place, Waiting};
use super::table::{Change, Undo, negated};
use crate::catalog::move_key;
use crate::error;
use crate::event::{Asked, Content, Reply, Snapshot};
use crate::stamp::{Batch, stamp};
use crate::transaction::{Begun, Found, Guard, Write, altered};

/// Epochs that are kept for one transaction, however small they are.
const KEPT_EPOCHS_MAX: usize = 100_000;

/// A transaction that is open.
#[derive(Debug, Default)]
pub(crate) struct OpenTransaction {
    /// Where the logs of what has rows ended when it began; none once too much has come since.
    places: Option<BTreeMap<Arc<str>, Place>>,
    /// The last epoch that it sees.
    pub(super) epoch: Epoch,
}

impl OpenTransaction {
    /// Keeps the logs of relations from some places on, as of an epoch.
    pub(super) fn keeping(places: BTreeMap<Arc<str>, Place>, epoch: Epoch) -> OpenTransaction {
        OpenTransaction { places: Some(places), epoch }
    }

    /// True unless too much has come since.
    pub(super) fn is_kept(&self) -> bool {
        self.places.is_some()
    }

    /// Its place in the log of a relation.
    pub(super) fn place_in(&self, name: &str) -> Option<Place> {
        self.places.as_ref()?.get(name).copied()
    }

    /// A relation is called otherwise from now on.
    pub(super) fn rename(&mut self, from: &str, to: &Arc<str>) {
        if let Some(places) = &mut self.places {
            move_key(places, from, to);
        }
    }

    /// The last epoch that it sees of a query that was there when it began.
    pub(super) fn begun_with(&self, name: &str) -> Option<Epoch> {
        self.place_in(name).map(|_| self.epoch)
    }
}

impl Loop {
    /// Hands out what a transaction sees. Rows are shared, not copied.
    pub(super) fn begin(&mut self) -> Begun {
        self.transacted += 1;
        let number = self.transacted;
        let kept = self.queries.iter().filter(|query| query.is_readable() && !query.temporary);
        let retained = self.sources.iter().filter(|(_, source)| source.retained.is_some());
        let names = kept.map(|query| &query.name).chain(retained.map(|(name, _)| name));
        let places = names.map(|name| (name.clone(), log::end(&self.logs, name))).collect();
        self.transactions.insert(number, OpenTransaction { places: Some(places), epoch: self.epoch });
        Begun {
            now: self.now(),
            tables: self.tables.iter().map(|(name, table)| (name.clone(), table.pinned())).collect(),
            guard: Guard { number, events: self.events.clone() },
        }
    }

    /// The rows of a table that have some keys now.
    pub(super) fn look_up(&self, table: &Arc<str>, keys: &[Vec<ArrayRef>]) -> Result<Vec<Found>> {
        self.check_sinks_of(table)?;
        let found = self.tables.get(table).ok_or_else(|| altered(table))?;
        keys.iter().map(|keys| found.look_up(keys)).collect()
    }

    /// Rows of views and streams as a transaction sees them.
    pub(super) fn read_at(&self, number: u64, asked: &[Asked], stamped: bool) -> Result<Snapshot> {
        let transaction = self.transactions.get(&number);
        let transaction = transaction.ok_or_else(|| Error::bug("a transaction that has ended reads"))?;
        let relations = asked.iter().map(|asked| {
            let name = &asked.name;
            let stamped = self.stamped(name).filter(|_| stamped);
            // What has come since is taken back of rows that are wanted as of all: others may be there too.
            let rows = self.content_wanted(asked, stamped.as_ref())?;
            if self.query(name).is_none()
                && self.sources.get(name).is_none_or(|source| source.retained.is_none())
            {
                return Ok(rows);
            }
            let Some(places) = &transaction.places else { return Err(too_old(name)) };
            // What was made after its beginning is there as it is now.
            let Some(place) = places.get(name) else { return Ok(rows) };
            let Some(log) = self.logs.get(name) else { return Ok(rows) };
            let mut since = Delta::default();
            // What a query brings later that was behind then may be from before.
            for (cut, delta) in log.from(*place).filter(|(cut, _)| cut.epoch > transaction.epoch) {
                let mut delta = delta.clone();
                if let Some(schema) = &stamped {
                    for chunk in &mut delta.chunks {
                        chunk.rows = stamp(&chunk.rows, Batch::from(cut), schema)?;
                    }
                }
                since.append(delta);
            }
            without(rows, since)
        });
        let relations = relations.map(|rows: Result<_>| rows.map(Content::Batches));
        Ok(Snapshot { relations: relations.collect::<Result<_>>()? })
    }

    /// Takes all that a transaction has changed, or nothing.
    pub(super) fn commit(&mut self, writes: Vec<Write>, once: Option<String>, reply: Reply<u64>) {
        // One that was given up before its turn came isn't done.
        if reply.is_closed() {
            return;
        }
        if let Err(error) = self.check_journal() {
            return reply.send(Err(error));
        }
        self.measures.rows_wait_since(Instant::now());
        let Some(first) = writes.first().map(|write| write.table().clone()) else {
            return reply.send(Ok(0));
        };
        let changes = match self.changes_of(writes) {
            Ok(changes) => changes,
            Err(error) => return reply.send(Err(error)),
        };
        if self.are_large(&changes) {
            return self.begin_pieces(changes, true, once, reply);
        }
        let done = self.commit_at_once(changes);
        self.answer_change(&first, once, reply, done.map(|()| 0));
    }

    /// Returns the changes of a transaction by table.
    fn changes_of(&self, writes: Vec<Write>) -> Result<Vec<(Arc<str>, Change)>> {
        for write in &writes {
            self.check_sinks_of(write.table())?;
            // A table of that name may be another one by now.
            let same = |(name, _): &(&Arc<str>, _)| Arc::ptr_eq(name, write.table());
            self.tables.get_key_value(write.table()).filter(same).ok_or_else(|| altered(write.table()))?;
            self.check_event_time(write.table(), &write.coming()?)?;
        }
        // Rows without a key are looked for when they are changed, so they come first.
        let (bags, keyed): (Vec<Write>, Vec<Write>) =
            writes.into_iter().partition(|write| matches!(write, Write::Bag { .. }));
        let change = |write: Write| Ok((Arc::clone(write.table()), Change::transaction(write)?));
        bags.into_iter().chain(keyed).map(change).collect()
    }

    fn commit_at_once(&mut self, changes: Vec<(Arc<str>, Change)>) -> Result<()> {
        for (name, change) in &changes {
            self.tables.get(name).map_or(Ok(()), |table| table.check(change))?;
        }
        let mut done: Vec<(Arc<str>, Undo)> = Vec::new();
        for (name, change) in changes {
            let Some(table) = self.tables.get_mut(&name) else { continue };
            done.push((name, table.undo_point()));
            if let Err(error) = table.change(change) {
                for (name, undo) in done.into_iter().rev() {
                    if let Some(table) = self.tables.get_mut(&name) {
                        table.undo(undo);
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets go of what is kept for a transaction.
    pub(super) fn release(&mut self, number: u64) {
        self.transactions.remove(&number);
    }

    /// Keeps no more than a bound for each open transaction: one that stays open for long can then read no more of
    /// what it hasn't read.
    pub(super) fn expire_transactions(&mut self) {
        if std::mem::replace(&mut self.expired, self.epoch) == self.epoch {
            return;
        }
        let bytes_max = self.settings.subscription_buffer_max;
        let logs = &self.logs;
        let is_full = |places: &BTreeMap<Arc<str>, Place>| {
            let waiting = places.iter().filter_map(|(name, place)| Some(logs.get(name)?.waiting(*place)));
            let all = waiting.fold(Waiting { epochs: 0, bytes: 0 }, |all, one| Waiting {
                epochs: all.epochs + one.epochs,
                bytes: all.bytes + one.bytes,
            });
            all.bytes > bytes_max || all.epochs > KEPT_EPOCHS_MAX
        };
        for transaction in self.transactions.values_mut() {
            if transaction.places.as_ref().is_some_and(is_full) {
                transaction.places = None;
            }
        }
    }
}

/// Rows without what has come since, and with what has gone.
pub(super) fn without(rows: Vec<RecordBatch>, since: Delta) -> Result<Vec<RecordBatch>> {
    let Some(first) = since.chunks.first() else { return Ok(rows) };
    let schema = rows.first().map_or_else(|| first.rows.schema(), RecordBatch::schema);
    let mut all = Delta::from_iter(rows);
    all.append(negated(since).with_schema(&schema).map_err(error::arrow)?);
    let all = consolidate(all, &schema).map_err(error::arrow)?;
    all.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow)).collect()
}

fn too_old(name: &str) -> Error {
    Error::external(format!(
        "\"{name}\" can't be read as of the beginning of the transaction: too much has changed since"
    ))
    .hint("Say ROLLBACK and begin again; keep transactions short, or raise subscription_buffer_max.")
    .code(sqlstate::SNAPSHOT_TOO_OLD)
}
