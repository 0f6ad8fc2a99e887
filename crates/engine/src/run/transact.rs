//! The loop's part of transactions: it keeps the rows that they see, and applies their changes at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Delta, Epoch};
use millstream_sql::{Error, Result, sqlstate};

use super::Loop;
use super::log::{Logs, Place, Waiting};
use super::outputs::Outputs;
use super::queries::Queries;
use super::table::{Change, TableWrite, Undo};
use super::tables::BaseTables;
use super::transactions::Transactions;
use crate::catalog::move_key;
use crate::event::{Asked, Reply};
use crate::run::read_view::ReadView;
use crate::run::{Pins, Writes};
use crate::settings::Settings;
use crate::stamp::{Batch, stamp};
use crate::transaction::{Begun, Found, Guard, altered};

/// Maximum of epochs kept for one transaction, however small they are.
const KEPT_EPOCHS_MAX: usize = 100_000;

/// An open transaction.
#[derive(Debug, Default)]
pub(crate) struct OpenTransaction {
    /// The ends of the logs of readable relations at its beginning; `None` once the changes since exceed a bound.
    places: Option<BTreeMap<Arc<str>, Place>>,
    /// The last epoch that it sees.
    pub(super) epoch: Epoch,
}

impl OpenTransaction {
    /// Keeps the logs of relations from these positions on, as of an epoch.
    pub(super) fn keeping(places: BTreeMap<Arc<str>, Place>, epoch: Epoch) -> OpenTransaction {
        OpenTransaction { places: Some(places), epoch }
    }

    /// True unless the changes since its beginning have exceeded the bound.
    pub(super) fn is_kept(&self) -> bool {
        self.places.is_some()
    }

    /// Returns its position in the log of a relation.
    pub(super) fn place_in(&self, name: &str) -> Option<Place> {
        self.places.as_ref()?.get(name).copied()
    }

    /// Renames a relation.
    pub(super) fn rename(&mut self, from: &str, to: &Arc<str>) {
        if let Some(places) = &mut self.places {
            move_key(places, from, to);
        }
    }

    /// Returns the changes of a relation that it does not see, if there are some.
    fn since(&self, name: &Arc<str>, logs: &Logs, stamped: Option<&SchemaRef>) -> Result<Option<Delta>> {
        let Some(places) = &self.places else { return Err(too_old(name)) };
        // A relation created after its beginning is read as it is now.
        let Some((place, log)) = places.get(name).zip(logs.get(name)) else { return Ok(None) };
        let mut since = Delta::default();
        // A query that lagged at its beginning may emit epochs later that the transaction sees: these stay.
        for (cut, delta) in log.from(*place).filter(|(cut, _)| cut.epoch > self.epoch) {
            let mut delta = delta.clone();
            if let Some(schema) = stamped {
                for chunk in &mut delta.chunks {
                    chunk.rows = stamp(&chunk.rows, Batch::from(cut), schema)?;
                }
            }
            since.append(delta);
        }
        Ok(Some(since).filter(|since| !since.is_empty()))
    }

    /// Returns the last epoch that it sees of a query that existed at its beginning.
    pub(super) fn begun_with(&self, name: &str) -> Option<Epoch> {
        self.place_in(name).map(|_| self.epoch)
    }
}

impl Pins<'_> {
    /// Begins a transaction and returns the tables that it sees. Rows are shared, not copied.
    pub(super) fn begin(&mut self) -> Begun {
        self.outputs.transactions.last += 1;
        let number = self.outputs.transactions.last;
        let kept =
            // What reads a part stops where the part does.
            self.queries.iter().filter(|query| {
                query.role.is_part() || (query.result.is_readable() && !query.role.is_temporary())
            });
        let retained = self.sources.iter().filter(|(_, source)| source.retained.is_some());
        let names = kept.map(|query| &query.name).chain(retained.map(|(name, _)| name));
        let places = names.map(|name| (name.clone(), self.outputs.logs.end(name))).collect();
        self.outputs
            .transactions
            .insert(number, OpenTransaction { places: Some(places), epoch: self.clock.epoch });
        Begun {
            now: self.clock.now(&self.setup.settings),
            tables: self.tables.iter().map(|(name, table)| (name.clone(), table.pinned())).collect(),
            guard: Guard { number, events: self.tasks.events.clone() },
        }
    }
}

impl Loop {
    /// Applies all changes of a transaction, or none.
    pub(super) fn commit(
        &mut self,
        writes: Vec<TableWrite>,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
    ) {
        // A COMMIT that was given up before its turn is not executed.
        if reply.is_closed() {
            return;
        }
        if let Err(error) = self.durability.check_journal() {
            return reply.send(Err(error));
        }
        self.measures.rows_wait_since(Instant::now());
        let Some(first) = writes.first().map(|write| write.table.clone()) else {
            return reply.send(Ok(0));
        };
        let changes = match self.read_view().changes_of(writes) {
            Ok(changes) => changes,
            Err(error) => return reply.send(Err(error)),
        };
        self.writes().commit_all(first, changes, idempotency_key, reply);
    }
}
impl Writes<'_> {
    /// Applies all changes of a transaction, or begins to. The epoch that takes the first table's change answers.
    fn commit_all(
        &mut self,
        first: Arc<str>,
        changes: Vec<(Arc<str>, Change)>,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
    ) {
        if self.tables.are_large(&changes) {
            return self.tables.begin_pieces(changes, true, idempotency_key, reply, self.queries);
        }
        let done = self.tables.commit_at_once(changes);
        self.tables.answer_change(
            self.durability,
            &self.setup.settings,
            &first,
            idempotency_key,
            reply,
            done.map(|()| 0),
        );
    }
}

impl ReadView<'_> {
    /// Returns the changes of relations since a transaction began, for those that logs keep.
    pub(super) fn changes_since(
        &self,
        number: u64,
        asked: &[Asked],
        stamped: bool,
    ) -> Result<Vec<Option<Delta>>> {
        let transaction = self.outputs.transactions.get(&number);
        let transaction = transaction.ok_or_else(|| Error::bug("a transaction that has ended reads"))?;
        let since = asked.iter().map(|asked| {
            let kept = self.queries.query(&asked.name).is_some()
                || self.sources.get(&asked.name).is_some_and(|source| source.retained.is_some());
            let stamped = self.setup.catalog.stamped(&asked.name).filter(|_| stamped);
            if kept { transaction.since(&asked.name, &self.outputs.logs, stamped.as_ref()) } else { Ok(None) }
        });
        since.collect()
    }

    /// Returns the changes of a transaction by table.
    fn changes_of(&self, writes: Vec<TableWrite>) -> Result<Vec<(Arc<str>, Change)>> {
        for TableWrite { table, inserts, .. } in &writes {
            self.outputs.check_sinks_of(self.queries, &self.setup.settings, table)?;
            // The table may have been replaced by another one of that name.
            let same = |(name, _): &(&Arc<str>, _)| Arc::ptr_eq(name, table);
            self.tables.get_key_value(table).filter(same).ok_or_else(|| altered(table))?;
            self.watermarks.check_event_time(
                &self.setup.settings,
                self.clock.now(&self.setup.settings),
                table,
                inserts,
            )?;
        }
        // A table without a key finds out only on a change if its rows exist, so it comes first.
        let (keyed, bags): (Vec<TableWrite>, Vec<TableWrite>) =
            writes.into_iter().partition(|write| write.is_keyed);
        Ok(bags.into_iter().chain(keyed).map(|write| (write.table, write.change)).collect())
    }
}

impl Transactions {
    /// Releases what the loop keeps for a transaction.
    pub(super) fn release(&mut self, number: u64) {
        self.remove(&number);
    }

    /// Limits what the loop keeps for each open transaction: one above the bound can't read any more relations.
    pub(super) fn expire(&mut self, logs: &Logs, settings: &Settings, epoch: Epoch) {
        if std::mem::replace(&mut self.expired, epoch) == epoch {
            return;
        }
        let bytes_max = settings.readers.subscription_buffer_max;
        let is_full = |places: &BTreeMap<Arc<str>, Place>| {
            let waiting = places.iter().filter_map(|(name, place)| Some(logs.get(name)?.waiting(*place)));
            let all = waiting.fold(Waiting { epochs: 0, bytes: 0 }, |all, one| Waiting {
                epochs: all.epochs + one.epochs,
                bytes: all.bytes + one.bytes,
            });
            all.bytes > bytes_max || all.epochs > KEPT_EPOCHS_MAX
        };
        for transaction in self.values_mut() {
            if transaction.places.as_ref().is_some_and(is_full) {
                transaction.places = None;
            }
        }
    }
}

impl BaseTables {
    fn commit_at_once(&mut self, changes: Vec<(Arc<str>, Change)>) -> Result<()> {
        for (name, change) in &changes {
            self.get(name).map_or(Ok(()), |table| table.check(change))?;
        }
        let mut done: Vec<(Arc<str>, Undo)> = Vec::new();
        for (name, change) in changes {
            let Some(table) = self.get_mut(&name) else { continue };
            done.push((name, table.undo_point()));
            if let Err(error) = table.change(change) {
                for (name, undo) in done.into_iter().rev() {
                    if let Some(table) = self.get_mut(&name) {
                        table.undo(undo);
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Returns the present rows of a table that have these keys.
pub(super) fn look_up(
    queries: &Queries,
    tables: &BaseTables,
    outputs: &Outputs,
    settings: &Settings,
    table: &Arc<str>,
    keys: &[ArrayRef],
) -> Result<Found> {
    outputs.check_sinks_of(queries, settings, table)?;
    tables.get(table).ok_or_else(|| altered(table))?.look_up(keys)
}

fn too_old(name: &str) -> Error {
    Error::external(format!(
        "\"{name}\" can't be read as of the beginning of the transaction: too much has changed since"
    ))
    .hint("Use ROLLBACK and start again; keep transactions short, or raise subscription_buffer_max.")
    .code(sqlstate::SNAPSHOT_TOO_OLD)
}
