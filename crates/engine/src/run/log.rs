//! The log of a relation: its deltas by epoch, kept back to the oldest position of a reader.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use arrow::error::ArrowError;
use millstream_delta::{Cut, Delta};
use millstream_sql::{Error, Result};

use super::history::History;
use super::query::RunningQuery;
use crate::run::outputs::Outputs;

/// Most bytes that may wait for a reader before no more rows are taken of sources.
pub(super) const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Most bytes that may wait for a query that lags or backfills before no more changes are taken of statements that feed it.
pub(super) const STATEMENTS_BYTES_MAX: usize = 4 * BACKLOG_BYTES_MAX;

/// Most epochs that may wait for a reader before no more rows are taken of sources.
const BACKLOG_EPOCHS_MAX: usize = 1024;

/// The approximate size in bytes of an epoch in a log besides its rows.
const ENTRY_BYTES: usize = 1024;

/// A place in a log: the number of entries before it since the relation was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

impl Place {
    /// Returns the place `count` entries later.
    pub(crate) fn after(self, count: usize) -> Place {
        Place(self.0 + count as u64)
    }
}

/// The deltas of one relation.
#[derive(Debug, Default)]
pub(crate) struct Log {
    first: u64,
    entries: VecDeque<(Cut, Delta)>,
    /// For each entry, the bytes of all entries ever added, up to it.
    through: VecDeque<usize>,
    /// The bytes of removed entries.
    forgotten: usize,
}

/// The part of a log that is still to be read from some place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) epochs: usize,
    pub(crate) bytes: usize,
}

impl Waiting {
    /// Returns true if sources should bring no more rows for a reader with so much to read.
    pub(crate) fn is_much(self) -> bool {
        self.bytes > BACKLOG_BYTES_MAX || self.epochs > BACKLOG_EPOCHS_MAX
    }

    /// Returns true if it is more than half of that.
    pub(crate) fn is_half_of_much(self) -> bool {
        Waiting { epochs: self.epochs * 2, bytes: self.bytes * 2 }.is_much()
    }

    /// Returns its approximate size in memory.
    pub(crate) fn memory_bytes(self) -> usize {
        self.bytes + self.epochs * ENTRY_BYTES
    }

    /// Returns the error for rows that a subscription refuses, for which this waits.
    pub(super) fn refusal(self, subscription: &str) -> Error {
        Error::external(format!(
            "subscription \"{subscription}\" is full: {} epochs of {} bytes wait for its reader, and when_full = 'wait' \
             accepts no more rows for it",
            self.epochs, self.bytes
        ))
        .hint(format!("Read it and run ADVANCE SUBSCRIPTION {subscription}, or DROP SUBSCRIPTION {subscription}."))
    }
}

impl Log {
    pub(crate) fn push(&mut self, cut: Cut, delta: Delta) {
        let before = self.through.back().copied().unwrap_or(self.forgotten);
        self.through.push_back(before + delta.memory_bytes());
        self.entries.push_back((cut, delta));
    }

    /// Returns a log of the same epochs with other rows.
    pub(super) fn mapped(&self, rows: impl Fn(&Delta) -> Result<Delta>) -> Result<Log> {
        let mut log = Log { first: self.first, forgotten: self.forgotten, ..Log::default() };
        for (cut, delta) in &self.entries {
            log.push(cut.clone(), rows(delta)?);
        }
        Ok(log)
    }

    /// Returns the cuts of its epochs.
    pub(super) fn cuts_mut(&mut self) -> impl Iterator<Item = &mut Cut> {
        self.entries.iter_mut().map(|(cut, _)| cut)
    }

    /// Returns the place of the next epoch.
    pub(crate) fn end(&self) -> Place {
        Place(self.first).after(self.entries.len())
    }

    /// Returns the epochs from a reader's place on.
    pub(crate) fn from(&self, place: Place) -> impl Iterator<Item = &(Cut, Delta)> {
        self.entries.iter().skip(self.index(place))
    }

    fn index(&self, place: Place) -> usize {
        place.0.saturating_sub(self.first) as usize
    }

    /// Returns the part that is to be read from a place on.
    pub(crate) fn waiting(&self, place: Place) -> Waiting {
        let at = self.index(place);
        let end = self.through.back().copied().unwrap_or(self.forgotten);
        let before = match at.checked_sub(1) {
            None => self.forgotten,
            Some(last) => self.through.get(last).copied().unwrap_or(end),
        };
        Waiting { epochs: self.entries.len().saturating_sub(at), bytes: end - before }
    }

    /// Returns the number of bytes from one place to another.
    pub(crate) fn bytes_between(&self, from: Place, to: Place) -> usize {
        self.waiting(from).bytes.saturating_sub(self.waiting(to.min(self.end())).bytes)
    }

    /// Returns the number of entries from one place to another.
    pub(crate) fn between(&self, from: Place, to: Place) -> usize {
        self.index(to).saturating_sub(self.index(from))
    }

    /// Removes the entries before a place.
    fn trim(&mut self, place: Place) {
        while self.first < place.0 && self.entries.pop_front().is_some() {
            self.first += 1;
            self.forgotten = self.through.pop_front().unwrap_or(self.forgotten);
        }
    }
}

/// The logs of all relations with readers, and the histories, by name.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(super) all: BTreeMap<Arc<str>, Log>,
    /// The extent of each relation's history.
    pub(super) histories: BTreeMap<Arc<str>, History>,
}

impl Deref for Logs {
    type Target = BTreeMap<Arc<str>, Log>;

    fn deref(&self) -> &BTreeMap<Arc<str>, Log> {
        &self.all
    }
}

impl DerefMut for Logs {
    fn deref_mut(&mut self) -> &mut BTreeMap<Arc<str>, Log> {
        &mut self.all
    }
}

impl Logs {
    /// Returns the end of a relation's log, or the first place if it has none.
    pub(crate) fn end(&self, name: &str) -> Place {
        self.get(name).map_or(Place::default(), Log::end)
    }

    /// Takes the next epoch out of the logs of some relations, by relation, and moves the places.
    pub(super) fn next_epoch(&self, names: &[Arc<str>], places: &mut [Place]) -> Option<(Cut, Vec<Delta>)> {
        let next = |name: &Arc<str>, place: Place| self.get(name)?.from(place).next();
        let waiting = names.iter().zip(places.iter()).filter_map(|(name, place)| next(name, *place));
        let cut = waiting.map(|(cut, _)| cut).min_by_key(|cut| cut.epoch)?.clone();
        let mut inputs = Vec::with_capacity(names.len());
        for (name, place) in names.iter().zip(places) {
            let delta = next(name, *place).filter(|(of, _)| of.epoch == cut.epoch);
            let delta = delta.map(|(_, delta)| delta.clone());
            *place = place.after(usize::from(delta.is_some()));
            inputs.push(delta.unwrap_or_default());
        }
        Some((cut, inputs))
    }
}

/// Cuts the rows of epochs to their first columns, for a reader that knows no more.
pub(super) fn cut_to_first(
    epochs: &mut [(Cut, Delta)],
    columns: usize,
) -> std::result::Result<(), ArrowError> {
    for (_, delta) in epochs {
        if let Cow::Owned(cut) = delta.first_columns(columns)? {
            *delta = cut;
        }
    }
    Ok(())
}

impl Outputs {
    /// Adds a batch without rows to the log of a relation, if a sink wants such batches.
    pub(super) fn log_empty_batch(&mut self, name: &Arc<str>, cut: &Cut) {
        if self.sinks.values().any(|sink| sink.wants_empty_batches_of(name)) {
            self.logs.entry(name.clone()).or_default().push(cut.clone(), Delta::default());
        }
    }

    /// Returns the oldest place that survives a restart, of a reader or of the relation's history.
    pub(super) fn oldest_kept(&self, queries: &[RunningQuery], name: &str) -> Option<Place> {
        let durable = self.subscriptions.durable.values().filter_map(|durable| durable.place_in(name));
        let history = self.logs.histories.get(name).map(History::place);
        let sinks = self.sinks.values().filter_map(|sink| sink.place_in(name));
        // Queries in backfill, and paused ones.
        let queries = queries.iter().filter_map(|query| query.place_in(name));
        sinks.chain(queries).chain(durable).chain(history).min()
    }

    /// Returns the oldest place of a reader in a relation's log.
    pub(super) fn oldest_reader(&self, queries: &[RunningQuery], name: &str) -> Option<Place> {
        let subscriptions =
            self.subscriptions.values().filter_map(|subscription| subscription.place_in(name));
        let transactions = self.transactions.values().filter_map(|open| open.place_in(name));
        let successors = self.successors.iter().filter_map(|successor| successor.place_in(name));
        self.oldest_kept(queries, name)
            .into_iter()
            .chain(subscriptions)
            .chain(transactions)
            .chain(successors)
            .min()
    }

    /// Returns true if the log of a relation has a reader.
    pub(super) fn is_read(&self, queries: &[RunningQuery], name: &str) -> bool {
        self.oldest_reader(queries, name).is_some()
    }

    /// Adds an epoch of a relation to its log, if the log has a reader.
    pub(super) fn log(&mut self, queries: &[RunningQuery], name: &Arc<str>, cut: &Cut, delta: &Delta) {
        if !delta.is_empty() && self.oldest_reader(queries, name).is_some() {
            self.logs.entry(name.clone()).or_default().push(cut.clone(), delta.clone());
        }
    }

    /// Removes the entries that no reader needs.
    pub(super) fn trim_logs(&mut self, queries: &[RunningQuery]) {
        let places: Vec<(Arc<str>, Place)> = self
            .logs
            .iter()
            .filter(|(_, log)| !log.entries.is_empty())
            .map(|(name, log)| (name.clone(), self.oldest_reader(queries, name).unwrap_or(log.end())))
            .collect();
        for (name, place) in places {
            if let Some(log) = self.logs.get_mut(&name) {
                log.trim(place);
            }
        }
    }
}

impl Logs {
    /// Returns the logs of a query's inputs, each with the query's place in it.
    pub(super) fn inputs_of(&self, query: &RunningQuery) -> impl Iterator<Item = (&Log, Place)> {
        query.reads().filter_map(|name| Some((self.get(name)?, query.place_in(name)?)))
    }

    /// Returns the number of rows in the logs that a query has not taken in, and true if a log is half full.
    pub(super) fn rows_for(&self, query: &RunningQuery) -> (usize, bool) {
        self.inputs_of(query).fold((0, false), |(rows, much), (log, at)| {
            let of_log: usize = log.from(at).map(|(_, delta)| delta.num_rows()).sum();
            (rows + of_log, much || log.waiting(at).is_half_of_much())
        })
    }

    /// Returns the number of bytes in the logs that a query has not taken in.
    pub(super) fn logged_for(&self, query: &RunningQuery) -> usize {
        self.inputs_of(query).map(|(log, place)| log.waiting(place).bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use millstream_delta::{Epoch, Timestamp};

    use super::*;

    #[test]
    fn a_reader_finds_its_place_after_others_were_trimmed() {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
        let mut log = Log::default();
        for epoch in 1..=5 {
            let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![epoch]))]);
            let cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch));
            log.push(cut, Delta::insert(rows.unwrap()));
        }
        let place = Place::default().after(3);
        let all = log.waiting(Place::default()).bytes;
        log.trim(place);
        assert_eq!(log.waiting(place), Waiting { epochs: 2, bytes: all / 5 * 2 });
        assert_eq!(log.waiting(place.after(2)), Waiting { epochs: 0, bytes: 0 });
        let epochs: Vec<u64> = log.from(place).map(|(cut, _)| cut.epoch.0).collect();
        assert_eq!(epochs, [4, 5]);
        assert_eq!(log.from(log.end()).count(), 0);
        log.trim(log.end());
        assert_eq!(log.end(), Place::default().after(5));
    }
}
