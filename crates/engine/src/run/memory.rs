//! State that is larger than memory.
//!
//! Between two epochs it is looked how much memory tables and the operators of queries take. Where that is more than
//! `memory_limit` rows go to files that weren't looked at lately, then keys, groups and the like, and are read from there.
//! Nothing that anyone sees depends on it, and no start needs those files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_state::{Place, Spillable, Spilling};

use super::Loop;
use super::query::RunningQuery;
use super::system::{Cell, Lines, NULL};

/// Looking may take one part in so many of the time.
const LOOKING_SHARE: u32 = 20;

/// Where there is too much, one part in so many of the limit more than that goes, so that it doesn't begin again at once.
const SPARE_SHARE: usize = 16;

/// Smaller chunks stay in memory, also under a large limit.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// How many chunks of that size a limit must have room for.
const CHUNKS_MIN: usize = 1024;

/// How many of those that take most are named.
const NAMED_MAX: usize = 3;

/// How the state of an engine is kept within its limit.
#[derive(Debug)]
pub(super) struct Memory {
    place: Arc<dyn Place>,
    looked: Option<Instant>,
    took: Duration,
    /// Whether there are files.
    spills: bool,
    trouble: Option<String>,
}

impl Memory {
    pub(super) fn new(place: Arc<dyn Place>) -> Memory {
        Memory { place, looked: None, took: Duration::ZERO, spills: false, trouble: None }
    }

    /// Why the limit is passed, where it is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Looks again at once: there is another limit.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    fn is_due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= self.took * LOOKING_SHARE)
    }

    /// Remembers why the limit is passed, and tells it once.
    fn say(&mut self, trouble: Option<String>) {
        if let (Some(reason), None) = (&trouble, &self.trouble) {
            tracing::warn!(%reason, "memory_limit is passed");
        }
        self.trouble = trouble;
    }
}

impl Loop {
    /// Lets state go to files where there is too much for memory.
    pub(super) fn keep_within_memory(&mut self) {
        if !self.memory.is_due() {
            return;
        }
        let begun = Instant::now();
        let used = self.memory_bytes();
        let limit = self.settings.memory_limit.unwrap_or(usize::MAX);
        let mut worth_it = false;
        if used > limit {
            let wanted = used - limit + limit / SPARE_SHARE;
            let (freed, failed) = self.make_room(wanted, CHUNK_BYTES_MIN.min(limit / CHUNKS_MIN));
            worth_it = freed * 2 > wanted;
            let left = used.saturating_sub(freed);
            let trouble = (left > limit).then(|| self.why_passed(left, limit, failed));
            self.memory.say(trouble);
        } else {
            self.memory.say(None);
            if self.memory.spills {
                // What has gone since are in no file any longer.
                self.each_store(&mut |_| {});
            }
        }
        // Where room was made it is looked again at once whether it is enough.
        self.memory.took = if worth_it { Duration::ZERO } else { begun.elapsed() };
        self.memory.looked = Some(Instant::now());
    }

    /// How many bytes of memory tables and queries take, about.
    fn memory_bytes(&self) -> usize {
        let tables: usize = self.tables.values().map(|table| table.size().1).sum();
        tables + self.queries.iter().map(RunningQuery::state_bytes).sum::<usize>()
    }

    /// Frees so many bytes, if that can be, and says how many it did, and why not more where something failed.
    fn make_room(&mut self, wanted: usize, chunk_bytes_min: usize) -> (usize, Option<String>) {
        let place = self.memory.place.clone();
        let mut spilling = Spilling::new(place.as_ref(), wanted).only_from(chunk_bytes_min);
        // The first time around it takes rows that weren't looked at since the last, then any, then also what is changed where
        // it lies, which a file costs most.
        for round in 0..3 {
            if round == 2 {
                spilling.take_pages();
            }
            if !spilling.is_over() {
                self.each_store(&mut |store| store.spill(&mut spilling));
            }
        }
        let freed = spilling.freed();
        let failed = spilling.end().map(|error| error.to_string());
        self.memory.spills |= freed > 0;
        (freed, failed)
    }

    /// Shows all that may lie in files; of a query that a thread steps, nothing.
    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.tables.values_mut().for_each(|table| show(table));
        self.queries.iter_mut().for_each(|query| query.each_store(show));
    }

    fn why_passed(&self, used: usize, limit: usize, failed: Option<String>) -> String {
        let mut holders: Vec<(usize, String)> =
            self.tables.iter().map(|(name, table)| (table.size().1, format!("table \"{name}\""))).collect();
        for query in &self.queries {
            let name = self.shown_name(query);
            let operators = query.operators().into_iter().filter(|operator| !operator.repeated);
            holders.extend(
                operators.map(|operator| {
                    (operator.state_bytes, format!("{} of \"{name}\"", operator.title.trim()))
                }),
            );
        }
        holders.retain(|(bytes, _)| *bytes > 0);
        holders.sort_by(|a, b| b.cmp(a));
        let most = holders.iter().take(NAMED_MAX).map(|(bytes, what)| format!("{what} takes {bytes}"));
        let most = most.collect::<Vec<_>>().join(", ");
        let why = match failed {
            Some(failed) => format!("state can't be written to files and stays in memory: {failed}"),
            None => {
                "what is left can't be read from files, such as what aggregates keep of each value".into()
            }
        };
        format!(
            "state takes {used} bytes of memory, and memory_limit is {limit}: {why}. Of these bytes {most}; SET memory_limit \
             higher, or let queries keep less (state_ttl, windows that close)"
        )
    }

    /// The row of `millstream.memory`.
    pub(super) fn memory_lines(&self) -> Lines {
        let tables: usize = self.tables.values().map(Spillable::spilled_bytes).sum();
        let queries: usize = self.queries.iter().map(RunningQuery::spilled_bytes).sum();
        vec![vec![
            self.settings.memory_limit.map_or(NULL, Cell::from),
            self.memory_bytes().into(),
            (tables + queries).into(),
            self.memory.trouble().map_or(NULL, Cell::from),
        ]]
    }
}
