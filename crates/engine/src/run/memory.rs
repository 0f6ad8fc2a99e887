//! Memory limit: state beyond `memory_limit` spills to files.
//!
//! Between two epochs, the loop measures the memory of tables and of queries' operators. Above the limit it spills rows
//! that were not accessed lately, then keys, groups and the like. The spilled state is read from the files. Results
//! don't depend on it, and no start needs the files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_state::{Place, Spillable, Spilling};

use super::queries::Queries;
use super::query::RunningQuery;
use super::query_names::shown_name;
use super::system::{Cell, Lines, NULL};
use super::tables::BaseTables;
use crate::settings::Settings;

/// The share of the time that measuring may take: one part in so many.
const LOOKING_SHARE: u32 = 20;

/// Spilling frees one part in so many of the limit beyond what is needed, so that it doesn't start again at once.
const SPARE_SHARE: usize = 16;

/// Smaller chunks stay in memory, also under a large limit.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// The number of chunks of that size that a limit must have room for.
const CHUNKS_MIN: usize = 1024;

/// The number of largest holders that a message names.
const NAMED_MAX: usize = 3;

/// The state of the memory limit.
#[derive(Debug)]
pub(super) struct Memory {
    place: Arc<dyn Place>,
    looked: Option<Instant>,
    took: Duration,
    /// True if files exist.
    spills: bool,
    trouble: Option<String>,
}

impl Memory {
    pub(super) fn new(place: Arc<dyn Place>) -> Memory {
        Memory { place, looked: None, took: Duration::ZERO, spills: false, trouble: None }
    }

    /// Returns the reason why the limit is exceeded, if it is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Measures again at once, because the limit has changed.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    fn is_due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= self.took * LOOKING_SHARE)
    }

    /// Remembers why the limit is exceeded, and logs the first reason.
    fn say(&mut self, trouble: Option<String>) {
        if let (Some(reason), None) = (&trouble, &self.trouble) {
            tracing::warn!(%reason, "memory_limit is exceeded");
        }
        self.trouble = trouble;
    }

    /// Tries to free so many bytes. Returns the number of freed bytes, and an error if spilling failed.
    fn make_room(
        &mut self,
        queries: &mut Queries,
        tables: &mut BaseTables,
        wanted: usize,
        chunk_bytes_min: usize,
    ) -> (usize, Option<String>) {
        let place = self.place.clone();
        let mut spilling = Spilling::new(place.as_ref(), wanted).only_from(chunk_bytes_min);
        // The first round spills rows not accessed since the previous one; the second, any rows. The third also spills
        // state that is changed in place, for which a file costs most.
        for round in 0..3 {
            if round == 2 {
                spilling.take_pages();
            }
            if !spilling.is_over() {
                each_store(queries, tables, &mut |store| store.spill(&mut spilling));
            }
        }
        let freed = spilling.freed();
        let failed = spilling.end().map(|error| error.to_string());
        self.spills |= freed > 0;
        (freed, failed)
    }

    /// Spills state if it exceeds the limit.
    pub(super) fn keep_within(
        &mut self,
        queries: &mut Queries,
        tables: &mut BaseTables,
        settings: &Settings,
    ) {
        if !self.is_due() {
            return;
        }
        let begun = Instant::now();
        let (of_tables, of_queries) = memory_bytes(queries, tables);
        let used = of_tables + of_queries;
        let limit = settings.memory.limit.unwrap_or(usize::MAX);
        let mut worth_it = false;
        if used > limit {
            let wanted = used - limit + limit / SPARE_SHARE;
            let (freed, failed) =
                self.make_room(queries, tables, wanted, CHUNK_BYTES_MIN.min(limit / CHUNKS_MIN));
            worth_it = freed * 2 > wanted;
            let left = used.saturating_sub(freed);
            let trouble = (left > limit).then(|| why_passed(queries, tables, left, limit, failed));
            self.say(trouble);
        } else {
            self.say(None);
            if self.spills {
                // Updates the count of spilled bytes after deletions.
                each_store(queries, tables, &mut |_| {});
            }
        }
        // After room was made, the loop measures again at once.
        self.took = if worth_it { Duration::ZERO } else { begun.elapsed() };
        self.looked = Some(Instant::now());
    }

    /// The row of `millstream.memory`.
    pub(super) fn lines(&self, queries: &[RunningQuery], tables: &BaseTables, settings: &Settings) -> Lines {
        let (in_tables, in_queries) = memory_bytes(queries, tables);
        let of_tables: usize = tables.values().map(Spillable::spilled_bytes).sum();
        let of_queries: usize = queries.iter().map(RunningQuery::spilled_bytes).sum();
        vec![vec![
            settings.memory.limit.map_or(NULL, Cell::from),
            (in_tables + in_queries).into(),
            (of_tables + of_queries).into(),
            self.trouble().map_or(NULL, Cell::from),
        ]]
    }
}

fn why_passed(
    queries: &[RunningQuery],
    tables: &BaseTables,
    used: usize,
    limit: usize,
    failed: Option<String>,
) -> String {
    let mut holders: Vec<(usize, String)> =
        tables.iter().map(|(name, table)| (table.size().1, format!("table \"{name}\""))).collect();
    for query in queries {
        let name = shown_name(queries, query);
        let operators = query.operators().into_iter().filter(|operator| !operator.place.repeated);
        holders.extend(
            operators
                .map(|operator| (operator.state.bytes, format!("{} of \"{name}\"", operator.title.trim()))),
        );
    }
    holders.retain(|(bytes, _)| *bytes > 0);
    holders.sort_by(|a, b| b.cmp(a));
    let most = holders.iter().take(NAMED_MAX).map(|(bytes, what)| format!("{what} takes {bytes}"));
    let most = most.collect::<Vec<_>>().join(", ");
    let why = match failed {
        Some(failed) => format!("state can't be written to files and stays in memory: {failed}"),
        None => {
            "the remaining state can't be kept in files, such as what aggregates keep of each value".into()
        }
    };
    format!(
        "state takes {used} bytes of memory, and memory_limit is {limit}: {why}. Of these bytes {most}; SET memory_limit \
         higher, or let queries keep less (state_ttl, windows that close)"
    )
}

/// Shows all state that may be spilled; nothing of a query that a thread steps.
fn each_store(queries: &mut Queries, tables: &mut BaseTables, show: &mut dyn FnMut(&mut dyn Spillable)) {
    tables.values_mut().for_each(|table| show(table));
    queries.iter_mut().for_each(|query| query.each_store(show));
}

/// Returns the approximate bytes of memory that tables take, and those of queries.
pub(super) fn memory_bytes(queries: &[RunningQuery], tables: &BaseTables) -> (usize, usize) {
    let of_tables = tables.values().map(|table| table.size().1).sum();
    (of_tables, queries.iter().map(RunningQuery::state_bytes).sum())
}
