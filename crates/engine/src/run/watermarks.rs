//! The watermarks of sources and tables: they move between epochs and are part of the cut.

pub(super) mod ahead;
pub(super) mod column;
pub(super) mod marks;
pub(super) mod silence;
pub(super) mod time_check;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_delta::{Cut, Delta, Timestamp};
use millstream_sql::{Error, Result};

use super::clock::Clock;
use super::source::RunningSource;
use super::sources::Sources;
use crate::catalog::{Definition, watermark_schema};
use crate::error;
use crate::settings::{ClockKind, IdleTimeoutAction, Settings, SourceSettings, interval_text};
use ahead::merge;
use column::TimeColumn;
use marks::{Brought, Marks, Partition, Seen};
use silence::Silence;

/// The name of the only partition of a relation that isn't read in several splits at a time.
const WHOLE: &str = "";

/// A relation with a watermark.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) column: TimeColumn,
    pub(crate) marks: Marks,
    /// The option `source_idle_timeout`; `None` means the setting.
    timeout: Option<Duration>,
    /// The option `source_idle_timeout_action`; `None` means the setting. Tables always hold.
    action: Option<IdleTimeoutAction>,
    /// The time since when its source has been read without a break; `None` while it isn't. Not saved: no row arrives while
    /// no process runs, so under the system clock each start begins the timeout again.
    reading_since: Option<Timestamp>,
    /// The newest time of rows that queries have put into the table: the next epoch moves the watermark by it.
    pub(crate) brought: Option<i64>,
    /// The time at which it moves if no rows arrive.
    moves_at: Option<Timestamp>,
}

/// The watermark of each relation that has one, by name.
#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    all: BTreeMap<Arc<str>, Watched>,
}

impl Deref for Watermarks {
    type Target = BTreeMap<Arc<str>, Watched>;

    fn deref(&self) -> &BTreeMap<Arc<str>, Watched> {
        &self.all
    }
}

impl DerefMut for Watermarks {
    fn deref_mut(&mut self) -> &mut BTreeMap<Arc<str>, Watched> {
        &mut self.all
    }
}

impl Watched {
    /// Returns the watermark of a new relation, if it has one.
    pub(crate) fn of(definition: &Definition) -> Option<Watched> {
        let column = TimeColumn::of(definition)?;
        let (timeout, action) = match definition {
            Definition::Source { idle_timeout, idle_action, .. } => (*idle_timeout, *idle_action),
            _ => (None, Some(IdleTimeoutAction::Hold)),
        };
        Some(Watched {
            column,
            marks: Marks::default(),
            timeout,
            action,
            reading_since: None,
            brought: None,
            moves_at: None,
        })
    }

    /// Returns the partition of a split, while it may have rows.
    pub(crate) fn partition(&self, split: &str) -> Option<&Partition> {
        let partitions = self.marks.partitions();
        partitions.get(split).or_else(|| partitions.get(WHOLE))
    }

    /// Returns the time after which a partition without rows is idle.
    pub(crate) fn timeout(&self, setting: Duration) -> Duration {
        self.timeout.unwrap_or(setting)
    }

    /// Returns the behaviour once all partitions are idle.
    pub(crate) fn action(&self, setting: IdleTimeoutAction) -> IdleTimeoutAction {
        self.action.unwrap_or(setting)
    }

    /// Returns how the watermark moves without rows, if it does.
    pub(crate) fn silence(&self, settings: &SourceSettings) -> Option<Silence<'_>> {
        if self.action(settings.idle_action) == IdleTimeoutAction::Hold {
            return None;
        }
        let (last, reading_since) = self.marks.last_rows().zip(self.reading_since)?;
        Some(Silence::after(last, reading_since, self.timeout(settings.idle_timeout), &self.column))
    }
}

impl Watermarks {
    /// Returns the watermarks after the last epoch.
    pub(super) fn current(&self) -> Vec<(Arc<str>, i64)> {
        let at = |(name, watched): (&Arc<str>, &Watched)| Some((name.clone(), watched.marks.at()?));
        self.iter().filter_map(at).collect()
    }

    /// Returns the watermarks as times, of those relations that have one by now.
    pub(super) fn instants(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let instant = |watched: &Watched| watched.column.instant(watched.marks.at()?);
        self.iter().filter_map(move |(name, watched)| Some((name.as_ref(), instant(watched)?)))
    }

    /// Returns the row of `watermark('relation')`.
    pub(super) fn row(&self, name: &str) -> Result<RecordBatch> {
        let watched = self.get(name);
        let watched =
            watched.ok_or_else(|| Error::invalid(format!("\"{name}\" no longer has a watermark")))?;
        let at = watched.column.time(watched.marks.at())?;
        RecordBatch::try_new(watermark_schema(watched.column.data_type()), vec![at]).map_err(error::arrow)
    }

    /// Recomputes when watermarks move without rows.
    pub(super) fn plan_moves(&mut self, settings: &Settings) {
        let setting = settings.sources.idle_timeout;
        for watched in self.values_mut() {
            let timeout = watched.timeout(setting);
            let column = &watched.column;
            watched.moves_at = watched.marks.moves_at(timeout, |newest| column.watermark(newest));
        }
    }

    /// Returns the latest event time that rows may have at a time, if there is a bound.
    pub(super) fn event_time_max(&self, settings: &Settings, now: Timestamp) -> Option<Timestamp> {
        if settings.clock == ClockKind::Manual || self.is_empty() {
            return None;
        }
        let ahead = i64::try_from(settings.sources.event_time_ahead_max?.as_micros()).unwrap_or(i64::MAX);
        Some(Timestamp(now.0.saturating_add(ahead)))
    }

    /// Returns the earliest time at which a watermark moves although no rows arrive.
    pub(super) fn next_move(&self, clock: &Clock) -> Option<Timestamp> {
        let at = |watched: &Watched| match watched.brought {
            Some(_) => Some(clock.last()),
            None => watched.moves_at,
        };
        self.values().filter_map(at).min()
    }

    /// Records since when each source has been read without a break.
    pub(super) fn note_reading(&mut self, sources: &Sources, settings: &Settings, now: Timestamp) {
        for (name, watched) in self.iter_mut() {
            let is_read = sources.get(name).is_some_and(may_bring_rows);
            watched.reading_since = match settings.clock {
                _ if !is_read => None,
                // It stands while no process runs, so a start is no break: the results are those of an engine without one.
                ClockKind::Manual => Some(Timestamp::default()),
                ClockKind::System => watched.reading_since.or(Some(now)),
            };
        }
    }

    /// Returns the times at which the watermarks of silent sources may move next, one for each source, and the lengths of
    /// their further steps in microseconds.
    pub(super) fn next_steps(
        &self,
        sources: &Sources,
        settings: &Settings,
        clock: &Clock,
    ) -> impl Iterator<Item = (Timestamp, i64)> {
        self.iter().filter_map(move |(name, watched)| {
            let silence = watched.silence(&settings.sources).filter(|_| has_no_rows(sources, name))?;
            let next = silence.next_step(clock.last(), watched.marks.at()?);
            // Event times of other partitions may be further ahead than any clock will be.
            (next.0 < i64::MAX / 2).then_some((next, silence.step_us()))
        })
    }

    /// Returns the watermarks of an epoch at a later time, if no rows arrive before.
    pub(super) fn without_rows(
        &self,
        sources: &Sources,
        settings: &Settings,
        at: Timestamp,
    ) -> Vec<(Arc<str>, i64)> {
        let moved = |(name, watched): (&Arc<str>, &Watched)| {
            let silence = watched.silence(&settings.sources).filter(|_| has_no_rows(sources, name));
            let moved = silence.and_then(|silence| silence.watermark(at));
            Some((name.clone(), watched.marks.at()?.max(moved.unwrap_or(i64::MIN))))
        };
        self.iter().filter_map(moved).collect()
    }

    /// Fails if a statement's row is later than the clock allows.
    pub(super) fn check_event_time(
        &self,
        settings: &Settings,
        now: Timestamp,
        relation: &str,
        rows: &[RecordBatch],
    ) -> Result<()> {
        let Some(latest) = self.event_time_max(settings, now) else { return Ok(()) };
        let Some(Watched { column, .. }) = self.get(relation) else { return Ok(()) };
        for batch in rows {
            let Some(ahead) = column.ahead(batch, latest)? else { continue };
            let Some(row) = (0..ahead.len()).find(|row| ahead.value(*row)) else { continue };
            let (name, text) = (column.name(), column.text(batch, row));
            let bound = settings.sources.event_time_ahead_max.map_or_else(String::new, interval_text);
            return Err(Error::invalid(format!(
                "\"{relation}\" has a row whose event time {name} = {text} is ahead of the clock, {now}, by more than \
                 event_time_ahead_max, {bound}"
            ))
            .hint(format!(
                "It would move the watermark of \"{relation}\" past all other rows. Fix it, or SET event_time_ahead_max; \
                 NULL turns the bound off."
            )));
        }
        Ok(())
    }

    /// Applies the watermarks of a decided epoch; those of a replayed one were decided before.
    pub(super) fn apply(&mut self, settings: &Settings, cut: &Cut) {
        for (name, marks) in &cut.marks {
            if let Some(watched) = self.get_mut(name) {
                watched.marks.apply(marks, cut.now);
            }
        }
        for (name, at) in &cut.watermarks {
            if let Some(watched) = self.get_mut(name) {
                watched.marks.set(*at);
            }
        }
        for (name, marks) in &cut.marks {
            if let Some(watched) = self.get_mut(name) {
                watched.marks.note_rows(marks, cut.now);
            }
        }
        self.plan_moves(settings);
    }

    /// Records rows that a query has put into a table within an epoch: the next one moves the watermark.
    pub(super) fn note_brought(&mut self, settings: &Settings, clock: &Clock, table: &str, change: &Delta) {
        let latest = self.event_time_max(settings, clock.last());
        let Some(watched) = self.get_mut(table) else { return };
        match watched.column.newest_of(change, latest) {
            Ok(newest) => watched.brought = newest.max(watched.brought),
            Err(reason) => {
                tracing::warn!(relation = %table, reason = %reason, "its watermark can't be moved");
            }
        }
    }

    /// Moves the watermarks by the rows that an epoch takes of sources and by its changes of tables. Puts them into its
    /// cut.
    pub(super) fn advance(
        &mut self,
        sources: &Sources,
        settings: &Settings,
        cut: &mut Cut,
        mut seen: BTreeMap<Arc<str>, Seen>,
        changes: &[(Arc<str>, Delta)],
    ) {
        let (setting, now) = (settings.sources.idle_timeout, cut.now);
        for (name, watched) in self.iter_mut() {
            let timeout = watched.timeout(setting);
            // Rows that still wait have arrived, and would be late after a move.
            let silence = watched.silence(&settings.sources).filter(|_| has_no_rows(sources, name));
            let silent = silence.and_then(|silence| silence.watermark(now));
            let brought = match sources.get(name) {
                Some(source) => {
                    let mut seen = seen.remove(name).unwrap_or_default();
                    // A table with a connector held these when its watermark was set.
                    let held = watched.brought.take();
                    held.into_iter().for_each(|newest| merge(&mut seen, WHOLE.into(), Some(newest)));
                    source.brought(seen, cut, name, &watched.marks)
                }
                None => {
                    let change = changes.iter().find(|(table, _)| table == name).map(|(_, delta)| delta);
                    let newest = change.map(|delta| watched.column.newest_of(delta, cut.event_time_max));
                    let newest = newest.unwrap_or(Ok(None)).unwrap_or_else(|reason| {
                        tracing::warn!(relation = %name, reason = %reason, "its watermark can't be moved");
                        None
                    });
                    let newest = newest.max(watched.brought.take());
                    Brought {
                        seen: newest.map(|_| (WHOLE.into(), newest)).into_iter().collect(),
                        ..Brought::default()
                    }
                }
            };
            let marks = watched.marks.changes(brought, now, timeout);
            watched.marks.apply(&marks, now);
            let column = &watched.column;
            let after = watched.marks.after(&marks, |newest| column.watermark(newest));
            if let Some(at) = after.max(silent) {
                watched.marks.set(at);
            }
            if !marks.is_empty() {
                cut.marks.push((name.clone(), marks));
            }
        }
        cut.watermarks = self.current();
    }
}

/// Returns true if no rows of a source wait for an epoch.
fn has_no_rows(sources: &Sources, name: &Arc<str>) -> bool {
    sources.get(name).is_some_and(|source| !source.has_rows())
}

/// Returns true if the rows of a source would arrive if there were any: it is read, has not ended, and doesn't fail.
fn may_bring_rows(source: &RunningSource) -> bool {
    source.is_read() && !source.has_ended() && source.health.trouble().is_none()
}

impl RunningSource {
    /// Returns the event times of an epoch by partition; `seen` has them by split.
    fn brought(&self, seen: Seen, cut: &Cut, name: &Arc<str>, before: &Marks) -> Brought {
        let mut brought = Brought::default();
        match self.side_by_side() {
            None => {
                let newest = seen.values().max().copied();
                newest.into_iter().for_each(|newest| merge(&mut brought.seen, WHOLE.into(), newest));
            }
            Some(splits) => {
                brought.seen = seen;
                let ended =
                    |split: &Arc<str>| self.position.taken().splits.get(split).is_some_and(|at| at.done);
                let open = splits.iter().filter(|split| self.is_read() && !ended(split));
                brought.known.extend(open.cloned());
                let spans = cut.positions.iter().find(|(source, _)| source == name);
                for span in spans.iter().flat_map(|(_, spans)| spans) {
                    match span.done {
                        true => brought.ended.push(span.split.clone()),
                        false => brought.known.push(span.split.clone()),
                    }
                }
            }
        }
        if self.is_at_end() {
            brought.known.clear();
            brought.ended.extend(before.partitions().keys().chain(brought.seen.keys()).cloned());
        }
        brought
    }
}
