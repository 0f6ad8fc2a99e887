//! EXPLAIN WHY: the reasons for which a query's output is held back, in words.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_delta::{Epoch, Timestamp};
use millstream_flow::Explained;
use millstream_sql::{Result, length_text};

use super::late_rows::LateRows;
use super::observe::query_behind;
use super::queries::Queries;
use super::query::{RunningQuery, Status};
use super::query_names::shown_name;
use super::source::RunningSource;
use super::sources::Sources;
use super::table::Table;
use super::tables::BaseTables;
use super::watermarks::marks::{Partition, idle_at, later};
use super::watermarks::{Watched, Watermarks};
use crate::run::outputs::Outputs;
use crate::run::read_view::ReadView;
use crate::settings::{ClockKind, IdleTimeoutAction, Settings, interval_text};

/// A line: its subject, and the reason.
pub(crate) type Reason = (String, String);

/// The reasons found so far.
#[derive(Default)]
struct Found {
    reasons: Vec<Reason>,
    seen: BTreeSet<Arc<str>>,
}

impl Found {
    fn say(&mut self, about: &str, why: impl Into<String>) {
        self.reasons.push((about.trim_start_matches('\0').to_string(), why.into()));
    }
}

/// A search for reasons, from a query to the relations that it reads.
struct Search<'a> {
    queries: &'a Queries,
    tables: &'a BaseTables,
    sources: &'a Sources,
    watermarks: &'a Watermarks,
    settings: &'a Settings,
    epoch: Epoch,
    /// The time of the last epoch.
    last: Timestamp,
    now: Timestamp,
}

impl Search<'_> {
    fn query(&self, query: &RunningQuery, found: &mut Found) {
        if !found.seen.insert(query.name.clone()) {
            return;
        }
        let name = shown_name(self.queries, query).to_string();
        why_status(self.epoch, &name, query, found);
        for input in query.reads() {
            match self.queries.query(input) {
                Some(below) => self.query(below, found),
                None => self.relation(input, found),
            }
        }
        for operator in query.operators().iter().rev().filter(|operator| !operator.place.repeated) {
            why_operator(&name, operator, found);
        }
        why_late(&name, query, found);
        if let Some(first) = query.result.errors.first() {
            found.say(&name, format!("it fails for some rows: {}", first.text()));
        }
    }

    fn relation(&self, name: &Arc<str>, found: &mut Found) {
        if !found.seen.insert(name.clone()) {
            return;
        }
        if let Some(source) = self.sources.get(name) {
            self.source(name, source, found);
        }
        let is_manual = self.settings.clock == ClockKind::Manual;
        if is_manual && wait_for_batch(self.sources.get(name), self.tables.get(name)) {
            found.say(
                name,
                "changes wait for the next batch: the clock is manual, so ADVANCE BATCH starts it",
            );
        }
        if let Some(watched) = self.watermarks.get(name) {
            why_watermark(self.settings, name, watched, found);
            self.silence(name, watched).into_iter().for_each(|why| found.say(name, why));
        }
        // The queries of sinks into this table.
        let feeding: Vec<&RunningQuery> = self
            .queries
            .iter()
            .filter(|query| query.into.as_ref().is_some_and(|into| into.table == *name))
            .collect();
        feeding.into_iter().for_each(|query| self.query(query, found));
    }

    /// Returns what moves the watermark of a source without rows, and when.
    fn silence(&self, name: &str, watched: &Watched) -> Option<String> {
        let settings = &self.settings.sources;
        let source = self.sources.get(name).filter(|source| source.is_read() && !source.has_ended())?;
        let action = watched.action(settings.idle_action);
        let Some(last) = watched.marks.last_rows() else {
            let waits = action == IdleTimeoutAction::Advance && source.counts.rows() > 0;
            return waits.then(|| {
                "no row of it has had a time: source_idle_timeout_action = 'advance' moves a watermark only after the \
                 first such row"
                    .into()
            });
        };
        let (since, ago) = (last.arrived, length(self.now.0.saturating_sub(last.arrived.0)));
        let timeout = watched.timeout(settings.idle_timeout);
        let after = interval_text(timeout);
        match watched.silence(settings).zip(watched.marks.at()) {
            Some((silence, at)) if silence.begins() <= self.now => {
                let next = silence.next_step(self.last, at);
                Some(format!(
                    "its last row arrived at {since}, {ago} ago: its watermark moves with the clock, in an epoch from {next} on, by \
                     source_idle_timeout_action = 'advance'; newer rows move it, too"
                ))
            }
            Some((silence, _)) => Some(format!(
                "its last row arrived at {since}, {ago} ago: without rows its watermark moves with the clock from {} on, by \
                 source_idle_timeout = '{after}' and source_idle_timeout_action = 'advance'",
                silence.begins()
            )),
            None if action == IdleTimeoutAction::Hold && later(since, timeout) <= self.now => Some(format!(
                "its last row arrived at {since}, {ago} ago: newer rows move its watermark; after source_idle_timeout, \
                 {after}, the clock moves it as well with source_idle_timeout_action = 'advance', a setting and an option \
                 of the source"
            )),
            None => None,
        }
    }

    fn source(&self, name: &str, source: &RunningSource, found: &mut Found) {
        if let Some(trouble) = source.health.trouble() {
            let verb = if source.has_failed() { "it has failed" } else { "it is restarting" };
            found.say(name, format!("{verb}: {trouble}"));
        } else if source.paused {
            found.say(name, format!("it is paused: RESUME {name} continues it"));
        } else if source.has_ended() {
            found.say(name, format!("it has ended, after {}", counted(source.counts.rows(), "row", "rows")));
        } else if source.counts.rows() == 0 {
            found.say(name, "no row of it has arrived yet");
        }
        if let Some(wait) = source.due_in(self.settings, self.now).filter(|wait| !wait.is_zero()) {
            let rows = counted(source.waiting_size().0 as u64, "row waits", "rows wait");
            let ms = wait.as_millis().max(1);
            found.say(name, format!("{rows} for its source_rate_limit: the next are read in {ms} ms"));
        }
        if source.bad.count() > 0 {
            let bad = counted(source.bad.count(), "bad row was", "bad rows were");
            found.say(name, format!("{bad} kept aside: SELECT * FROM bad_rows('{name}')"));
        }
    }
}

impl ReadView<'_> {
    /// Returns what holds back the output of a query: its own state, that of its inputs, operators without output.
    pub(super) fn explain_why(&self, name: &str) -> Result<Vec<Reason>> {
        let query = query_behind(self.queries, &self.setup.catalog, name)?;
        let mut found = Found::default();
        self.outputs.why_sink(name, &mut found);
        let search = Search {
            queries: self.queries,
            tables: self.tables,
            sources: self.sources,
            watermarks: self.watermarks,
            settings: &self.setup.settings,
            epoch: self.clock.epoch,
            last: self.clock.last(),
            now: self.clock.now(&self.setup.settings),
        };
        search.query(query, &mut found);
        for text in self.slow_or_large(query) {
            found.say(name, text);
        }
        if found.reasons.is_empty() {
            found.say(name, format!("nothing holds it back: it is current as of epoch {}", self.clock.epoch));
        }
        Ok(found.reasons)
    }
}

impl Outputs {
    fn why_sink(&self, name: &str, found: &mut Found) {
        let Some(sink) = self.sinks.get(name) else { return };
        if let Some(reason) = sink.failure.reason() {
            let attempts = sink.failure.attempts();
            let verb = if sink.failure.is_final() { "it has failed" } else { "it is being retried" };
            found.say(name, format!("{verb} (attempt {attempts}): {reason}"));
        }
        if let Some(waiting) = self.waiting_for(name).filter(|waiting| waiting.epochs > 0) {
            let epochs = counted(waiting.epochs as u64, "epoch waits", "epochs wait");
            found.say(name, format!("{epochs} to be delivered"));
        }
    }
}

fn why_watermark(settings: &Settings, name: &str, watched: &Watched, found: &mut Found) {
    let column = watched.column.name();
    let text = |count: i64| match watched.column.time(Some(count)) {
        Ok(time) => ArrayFormatter::try_new(&time, &FormatOptions::default())
            .map_or_else(|_| count.to_string(), |text| text.value(0).to_string()),
        Err(_) => count.to_string(),
    };
    match watched.marks.at() {
        Some(at) => found.say(name, format!("its watermark, of {column}, is at {}", text(at))),
        None => found.say(name, format!("it has no watermark yet, of {column}")),
    }
    let partitions = watched.marks.partitions();
    if partitions.keys().all(|partition| partition.is_empty()) {
        return;
    }
    let timeout = watched.timeout(settings.sources.idle_timeout);
    for (partition, holds) in watched.marks.holders().into_iter().take(HOLDERS_MAX) {
        found.say(name, held_by(partition, holds, timeout, &text));
    }
    let idle = partitions.iter().filter(|(_, partition)| partition.idle);
    for (partition, Partition { since, .. }) in idle.take(HOLDERS_MAX) {
        found
            .say(name, format!("partition {partition} is idle and ignored: its last row arrived at {since}"));
    }
}

fn why_status(epoch: Epoch, name: &str, query: &RunningQuery, found: &mut Found) {
    match &query.status {
        Status::Suspended { reason, epoch } => {
            found.say(name, format!("it is suspended since epoch {epoch}: {}", reason.message));
        }
        Status::Paused(_) => found.say(name, format!("it is paused: RESUME {name} continues it")),
        Status::Waiting(_) => found.say(name, "it waits for its inputs to be available"),
        Status::CatchingUp(_) => found.say(name, "it still reads the existing rows of its inputs"),
        Status::Lagging(lag) => {
            let epochs = epoch.0.saturating_sub(lag.through().0);
            if epochs > 0 {
                let epochs = counted(epochs, "epoch", "epochs");
                let why = match lag.is_being_read() {
                    true => "a thread reads its result",
                    false => "its steps take longer than epochs do",
                };
                found.say(name, format!("it is {epochs} behind: {why}"));
            }
        }
        Status::Running => {}
    }
}

fn why_late(name: &str, query: &RunningQuery, found: &mut Found) {
    let put = query.result.late.as_ref().map_or(0, LateRows::count_put);
    let late = query.flow.late().map_or(0, |late| late - put);
    if late > 0 {
        let late = counted(late, "row was late, and doesn't count", "rows were late, and don't count");
        found.say(name, format!("{late}: SELECT * FROM late_rows('{name}')"));
    }
}

fn why_operator(name: &str, operator: &Explained, found: &mut Found) {
    let meter = operator.meter;
    if let Some(waiting) = &operator.waiting {
        found.say(name, waiting.clone());
    } else if operator.cost.is_some() && meter.rows_in > 0 && meter.rows_out == 0 {
        let (title, rows) = (&operator.title, meter.rows_in);
        found.say(name, format!("{title} has let none of {} through", counted(rows, "row", "rows")));
    }
}

/// True if rows of a source or a table come with the next batch.
fn wait_for_batch(source: Option<&RunningSource>, table: Option<&Table>) -> bool {
    let waits = |source: &RunningSource| source.waiting_size().0 > 0 || source.inserts.is_waiting();
    source.is_some_and(|source| !source.paused && waits(source)) || table.is_some_and(Table::is_changed)
}

/// Returns a number with its noun or clause, singular or plural.
fn counted(count: u64, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// Returns a length of time in microseconds in words: whole seconds, or else milliseconds.
fn length(micros: i64) -> String {
    let unit = if micros < 1_000_000 { 1_000 } else { 1_000_000 };
    match micros / unit * unit {
        ..=0 => "less than a millisecond".into(),
        whole => length_text(whole),
    }
}

/// Maximum of partitions named in a list.
const HOLDERS_MAX: usize = 8;

fn held_by(
    partition: &str,
    Partition { newest, since, .. }: &Partition,
    timeout: std::time::Duration,
    text: &dyn Fn(i64) -> String,
) -> String {
    let idle_at: Timestamp = idle_at(&Partition { newest: *newest, since: *since, idle: false }, timeout);
    let why = match newest {
        Some(newest) => format!("its newest row is of {}", text(*newest)),
        None => format!("it had no row since {since}"),
    };
    let timeout = interval_text(timeout);
    format!(
        "partition {partition} holds the watermark back: {why}; without rows it becomes idle at {idle_at}, after {timeout}"
    )
}
