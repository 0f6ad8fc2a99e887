//! Time travel: past contents of relations. The logs go back to the oldest moment that `history_retention` covers, and
//! a past content is the present one minus the changes since. Lagging queries are stepped over each epoch, and a read
//! of a past moment waits for them.
//!
//! Deliberately absent: append-only streams. Their own retention drops rows, so their past content isn't the present
//! one minus the changes since.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_sql::{Error, Result};
use millstream_state::Tables;

use super::contents::Results;
use super::lagging::Lag;
use super::log::{Log, Logs, Place};
use super::outputs::Outputs;
use super::queries::{Queries, content_epoch};
use super::query::RunningQuery;
use super::saving::{number, part, put_place, take_place};
use super::system::{Cell, Lines};
use crate::catalog::{Catalog, Moment};
use crate::content::without;
use crate::run::clock::Clock;
use crate::run::read_view::ReadView;
use crate::run::tables::BaseTables;
use crate::settings::{Settings, interval_text};

/// The approximate size in bytes of an epoch in a log besides its rows.
const EPOCH_BYTES: usize = 1024;

/// The extent of the history of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// The place in the log from which on changes can be undone.
    place: Place,
    /// The oldest epoch as of which the relation can be read.
    since: Epoch,
    /// The batch time of that epoch.
    since_time: Timestamp,
}

impl History {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Drops the part that is older than the retention, or that exceeds the buffer.
    fn trim(&mut self, log: &Log, now: Timestamp, retention: Duration, bytes_max: usize) {
        let length = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
        let through = now.0.saturating_sub(length);
        let waiting = log.waiting(self.place);
        let mut over = (waiting.bytes + waiting.epochs * EPOCH_BYTES).saturating_sub(bytes_max);
        for (cut, delta) in log.from(self.place) {
            if cut.now.0 > through && over == 0 {
                break;
            }
            over = over.saturating_sub(delta.memory_bytes() + EPOCH_BYTES);
            self.place = self.place.after(1);
            (self.since, self.since_time) = (cut.epoch, cut.now);
        }
    }

    fn save(&self, log: Option<(&Log, Place)>) -> Tables {
        let mut all = Tables::default();
        put_place(&mut all, "place", log, self.place);
        all.put_number("since", self.since.0 as i64);
        all.put_number("since_time", self.since_time.0);
        all
    }

    fn load(all: &mut Tables) -> Result<History> {
        Ok(History {
            place: take_place(all, "place")?,
            since: Epoch(number(all, "since")? as u64),
            since_time: Timestamp(number(all, "since_time")?),
        })
    }
}

/// Begins the history of relations that have none yet, or ends all histories if none is configured. It runs before
/// an epoch is stepped, so that a replay does the same. A new history goes back to the moment before the epoch.
pub(super) fn keep_histories(
    outputs: &mut Outputs,
    queries: &mut Queries,
    tables: &BaseTables,
    catalog: &Catalog,
    clock: &Clock,
    settings: &Settings,
    cut: &Cut,
) {
    queries.keep_every_epoch = settings.keeps_history();
    if !queries.keep_every_epoch {
        return outputs.logs.histories.clear();
    }
    // A step over several epochs would be one of them in the history.
    let has_each = |name: &Arc<str>| {
        queries.query(name).and_then(|query| query.status.lag()).is_none_or(Lag::is_in_order)
    };
    outputs.logs.histories.retain(|name, _| has_each(name));
    let with_history = queries.iter().filter(|query| {
        let keeps =
            query.result.is_readable() && query.result.newest().is_none() && !query.role.is_temporary();
        // A step under way, or over several epochs, tells less than the history needs.
        let tells = |lag: &Lag| lag.is_in_order() && !Results(queries).is_away(&query.name);
        keeps && query.status.lag().is_none_or(tells) && catalog.find(&query.name).is_some()
    });
    let names = tables.keys().chain(with_history.map(|query| &query.name));
    let (before, since_time) = (cut.epoch.previous(), clock.stepped);
    let new = names.filter(|name| !outputs.logs.histories.contains_key(*name));
    let new: Vec<(Arc<str>, Epoch)> =
        new.map(|name| (name.clone(), content_epoch(queries, clock.epoch, name).min(before))).collect();
    for (name, since) in new {
        let place = outputs.logs.end(&name);
        outputs.logs.histories.insert(name, History { place, since, since_time });
    }
}

impl ReadView<'_> {
    /// Returns the content of a relation at the end of an epoch.
    pub(super) fn content_as_of(&self, name: &str, moment: Moment) -> Result<Vec<RecordBatch>> {
        self.check_moment(name, moment)?;
        let rows = self.content(name)?;
        let (Some(history), Some(log)) = (self.outputs.logs.histories.get(name), self.outputs.logs.get(name))
        else {
            return Ok(rows);
        };
        let is_later = |(cut, _): &&(Cut, Delta)| match moment {
            Moment::Epoch(epoch) => cut.epoch > epoch,
            Moment::Time(time) => cut.now > time,
        };
        let mut since = Delta::default();
        for (_, delta) in log.from(history.place).filter(is_later) {
            since.append(delta.clone());
        }
        without(rows, since)
    }

    /// Returns an error if a relation can't be read as of a moment.
    fn check_moment(&self, name: &str, moment: Moment) -> Result<()> {
        let (last, now) = (self.clock.last(), self.clock.now(&self.setup.settings));
        let text = match moment {
            Moment::Epoch(epoch) => format!("epoch {epoch}"),
            Moment::Time(time) => time.to_string(),
        };
        let cant = format!("\"{name}\" can't be read as of {text}");
        let is_to_come = match moment {
            Moment::Epoch(epoch) => epoch > self.clock.epoch,
            Moment::Time(time) => time > now,
        };
        if is_to_come {
            return Err(Error::invalid(format!(
                "{cant}: the newest epoch is {}, of {last}",
                self.clock.epoch
            )));
        }
        if self.queries.query(name).and_then(|query| query.result.newest()).is_some() {
            return Err(Error::invalid(format!(
                "{cant}: it is a stream that keeps its newest rows, and no history of them"
            ))
            .hint("CREATE MATERIALIZED VIEW v AS SELECT * FROM the stream, and read that."));
        }
        let (since, since_time) = match self.outputs.logs.histories.get(name) {
            Some(history) => (history.since, history.since_time),
            // The history begins with the next epoch.
            None => (self.clock.epoch, last),
        };
        let is_kept = match moment {
            Moment::Epoch(epoch) => epoch >= since,
            Moment::Time(time) => time >= since_time,
        };
        if is_kept && has_reached(self.queries, self.clock.epoch, name, moment) {
            return Ok(());
        }
        let (kept, hint) = match self.setup.settings.readers.history_retention {
            None => (
                "no history is kept".to_string(),
                "SET history_retention = '1 hour' keeps it from then on.".to_string(),
            ),
            Some(retention) => (
                format!("its history is kept since epoch {since}, of {since_time}"),
                format!(
                    "history_retention is '{}', history_buffer_max {} bytes.",
                    interval_text(retention),
                    self.setup.settings.readers.history_buffer_max
                ),
            ),
        };
        Err(Error::invalid(format!("{cant}: {kept}")).hint(hint))
    }
}

impl Outputs {
    /// Drops the part of the histories beyond their retention, after an epoch.
    pub(super) fn trim_histories(&mut self, settings: &Settings, cut: &Cut) {
        let Some(retention) = settings.readers.history_retention else { return };
        for (name, history) in &mut self.logs.histories {
            if let Some(log) = self.logs.all.get(name) {
                history.trim(log, cut.now, retention, settings.readers.history_buffer_max);
            }
        }
    }

    /// Restores the saved histories of relations.
    pub(super) fn load_histories(&mut self, catalog: &Catalog, state: &mut Tables) -> Result<()> {
        self.logs.histories.clear();
        let mut at = 0;
        while let Some(name) = state.take_text_if(&format!("history{at}")) {
            let history = History::load(&mut state.take_part(&part("history", at, &name)))?;
            // Each object has its own copy of its name, which the map must use if the object exists.
            let known = catalog.find(&name).map(|object| object.name.clone());
            self.logs.histories.insert(known.unwrap_or_else(|| name.into()), history);
            at += 1;
        }
        Ok(())
    }

    /// Saves the histories of relations.
    pub(super) fn save_histories(&self, queries: &[RunningQuery], state: &mut Tables) {
        for (at, (name, history)) in self.logs.histories.iter().enumerate() {
            let log = self.logs.get(name).zip(self.oldest_kept(queries, name));
            state.put_text_if(&format!("history{at}"), Some(name));
            state.put_part(&part("history", at, name), history.save(log));
        }
    }
}

impl Logs {
    /// The rows of `millstream.history`.
    pub(super) fn history_lines(&self) -> Lines {
        let line = |(name, history): (&Arc<str>, &History)| {
            let waiting = self.get(name).map(|log| log.waiting(history.place));
            vec![
                name.as_ref().into(),
                history.since.0.into(),
                history.since_time.into(),
                Cell::from(waiting.map_or(0, |waiting| waiting.epochs)),
                Cell::from(waiting.map_or(0, |waiting| waiting.bytes)),
            ]
        };
        self.histories.iter().map(line).collect()
    }
}

impl Settings {
    /// Returns true if each epoch is part of a history.
    pub(super) fn keeps_history(&self) -> bool {
        self.readers.history_retention.is_some()
    }
}

/// True if the content of a relation has all changes up to a moment. A lagging query may have more to come.
fn has_reached(queries: &Queries, epoch: Epoch, name: &str, moment: Moment) -> bool {
    let through = content_epoch(queries, epoch, name);
    let lag = || queries.query(name)?.status.lag().filter(|_| !Results(queries).is_away(name));
    match moment {
        _ if through == epoch => true,
        Moment::Epoch(epoch) => epoch <= through,
        // The epochs up to the newest one that do not wait change nothing.
        Moment::Time(time) => lag().is_some_and(|lag| lag.next_time().is_none_or(|next| time < next)),
    }
}
