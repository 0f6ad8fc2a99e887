//! Crash notes: the query that the loop is stepping, so that an epoch that kills processes costs one query, and no
//! other.
//!
//! Only a death by the process's own doing counts, as the notes record it: a SIGKILL from outside is no evidence. A
//! start notes each query before it steps it in a replayed entry. So the next start knows in which query the last one
//! died. The process before these died in the same entry if it never noted later that it was idle. Given both, the
//! query is suspended in that entry. Otherwise the start repeats the entry: a process may be killed while it starts.

use std::time::{Duration, Instant};

use millstream_delta::Epoch;
use millstream_durable::{Death, Notes, Sequence};
use millstream_sql::Error;

use super::durable::Durability;
use super::queries::Queries;
use super::query::RunningQuery;

/// The number of deaths in a query that suffice to suspend it.
const DEATHS_MAX: u64 = 2;

/// After a crash, the number of epochs that wait for the journal before they are stepped, unless a checkpoint comes
/// first. An epoch that kills a process, but is not in the journal, would kill the next one too.
const CAREFUL_EPOCHS: u32 = 1000;

/// Most time that one of these epochs waits: the disk may be full.
const CAREFUL_TIME: Duration = Duration::from_secs(1);

/// The state of the crash notes.
#[derive(Debug, Default)]
pub(super) struct CrashNotes {
    notes: Option<Notes>,
    /// The entry that is being replayed.
    entry: Option<Sequence>,
    /// The queries that are not stepped in it.
    condemned: Vec<String>,
    /// True if queries are stepped one after the other in it, so that a death has one cause.
    alone: bool,
    /// The entries up to which everything was noted as stepped, and as durable.
    noted: (Sequence, Sequence),
    /// The number of epochs that still wait for the journal.
    careful: u32,
}

impl CrashNotes {
    /// Begins the replay of entries.
    pub(super) fn begin(&mut self, notes: Notes) {
        self.notes = Some(notes);
    }

    /// Begins the replay of an entry, the newest one if `last`.
    pub(super) fn begin_entry(&mut self, entry: Sequence, last: bool) {
        let Some(notes) = &mut self.notes else { return };
        let before = notes.before();
        let death = before.death.clone().filter(|death| death.entry == entry);
        self.alone = last || death.is_some();
        // If there are later entries, the process that ran had survived this one.
        let twice = last && before.stepped < entry && before.crashed;
        if let Some(Death { query: Some(query), times, .. }) = death
            && (times >= DEATHS_MAX || twice)
        {
            notes.suspend(entry, &query);
        }
        let suspended = notes.before().suspended.iter().filter(|(at, _)| *at == entry);
        self.condemned = suspended.map(|(_, query)| query.clone()).collect();
        self.entry = Some(entry);
        notes.stepping(entry, None);
    }

    /// Ends the replay; `last` is the newest entry.
    pub(super) fn go_live(&mut self, last: Sequence) {
        self.entry = None;
        self.condemned.clear();
        if let Some(notes) = &mut self.notes {
            self.careful = if notes.before().ended { 0 } else { CAREFUL_EPOCHS };
            notes.stepped(last, last);
            self.noted = (last, last);
        }
    }

    /// Returns the reason why a query must not be stepped. Otherwise notes that it is stepped next.
    fn step(&mut self, query: &str) -> Option<Error> {
        let entry = self.entry?;
        if self.condemned.iter().any(|condemned| condemned == query) {
            return Some(
                Error::invalid(
                    "the process crashed in this query (abort, panic or out of memory) each time that it ran this \
                     epoch",
                )
                .hint(
                    "Check whether the process ran out of memory. Fix the query or its input, then RESUME it: RESUME rebuilds \
                     it from its inputs.",
                ),
            );
        }
        if let Some(notes) = &mut self.notes {
            notes.stepping(entry, Some(query));
        }
        None
    }

    /// True if a process died of its own actions: the query that it died in may kill the next one, too.
    pub(super) fn suspect_queries(&self) -> bool {
        self.notes.as_ref().is_some_and(|notes| notes.before().crashed || notes.before().death.is_some())
    }

    pub(super) fn entry(&self) -> Option<Sequence> {
        self.entry
    }

    /// Notes that a thread reads earlier rows for a query that this entry created.
    pub(super) fn note_piece(&mut self, entry: Sequence, query: &str) {
        if let Some(notes) = &mut self.notes {
            notes.stepping(entry, Some(query));
        }
    }

    /// Returns true if queries must be stepped one by one, so that a death has one cause.
    pub(super) fn is_alone(&self) -> bool {
        self.entry.is_some() && self.alone
    }

    /// Stops waiting for the journal.
    pub(super) fn trust(&mut self) {
        self.careful = 0;
    }
}

impl Drop for CrashNotes {
    /// A panic of the loop is evidence that the process caused its own death.
    fn drop(&mut self) {
        if let (true, Some(notes)) = (std::thread::panicking(), &mut self.notes) {
            notes.died();
        }
    }
}

impl Durability {
    /// Notes a regular end of the process.
    pub(super) fn note_end(&mut self) {
        let last = self.last();
        if let Some(notes) = &mut self.crash_notes.notes {
            let last = last.unwrap_or(notes.before().stepped);
            notes.end(last);
        }
    }

    /// After a crash, waits until an epoch is in the journal before it is stepped.
    pub(super) fn step_carefully(&mut self) {
        if self.crash_notes.careful == 0 {
            return;
        }
        self.crash_notes.careful -= 1;
        let begun = Instant::now();
        while self.is_writing() && begun.elapsed() < CAREFUL_TIME {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Notes during a replay that a query is stepped next. If processes died in it, suspends it and returns false.
pub(super) fn may_step(
    queries: &mut Queries,
    durability: &mut Durability,
    place: usize,
    epoch: Epoch,
) -> bool {
    let Some(reason) = durability.crash_notes.step(&queries[place].name) else { return true };
    queries[place].suspend(reason, epoch);
    false
}

/// Notes that everything decided so far is stepped, and the loop is idle.
pub(super) fn note_stepped(durability: &mut Durability, queries: &[RunningQuery]) {
    let Some(last) = durability.last() else { return };
    let noted = (last, durability.written());
    if noted == durability.crash_notes.noted {
        return;
    }
    // Steps on other threads may not have ended.
    if queries.iter().all(|query| query.status.lag().is_none() && !query.status.is_noted())
        && let Some(notes) = &mut durability.crash_notes.notes
    {
        durability.crash_notes.noted = noted;
        notes.stepped(noted.0, noted.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_durable::DataDirectory;
    use millstream_durable::simulated::SimulatedDisk;

    use super::*;

    /// Returns a start at entry 5. A process had noted all entries up to `stepped` as stepped, then `deaths` starts
    /// died in that entry while they stepped "m". They died of what they did if `evident`.
    fn start_after(stepped: u64, deaths: usize, last: bool, evident: bool) -> CrashNotes {
        let disk = Arc::new(SimulatedDisk::default());
        let open = || {
            let directory = DataDirectory::on(disk.clone()).with_notes(disk.clone());
            Notes::open(&directory, Sequence(1), None).unwrap()
        };
        let end = |mut notes: Notes| {
            if evident {
                notes.died()
            }
        };
        let mut notes = open();
        notes.stepped(Sequence(stepped), Sequence(stepped));
        end(notes);
        for _ in 0..deaths {
            let mut notes = open();
            notes.stepping(Sequence(5), None);
            notes.stepping(Sequence(5), Some("m"));
            end(notes);
        }
        let mut notes = CrashNotes::default();
        notes.begin(open());
        notes.begin_entry(Sequence(4), false);
        assert!(notes.step("m").is_none());
        notes.begin_entry(Sequence(5), last);
        assert!(notes.step("another").is_none());
        notes
    }

    fn start(stepped: u64, deaths: usize, last: bool) -> CrashNotes {
        start_after(stepped, deaths, last, true)
    }

    #[test]
    fn processes_that_are_killed_suspend_nothing() {
        for (stepped, deaths) in [(4, 1), (4, 2), (5, 2), (4, 9)] {
            assert!(start_after(stepped, deaths, true, false).step("m").is_none(), "{stepped} {deaths}");
        }
    }

    fn is_suspended(stepped: u64, deaths: usize, last: bool) -> bool {
        start(stepped, deaths, last).step("m").is_some()
    }

    #[test]
    fn a_query_is_suspended_where_two_processes_died() {
        assert!(!is_suspended(4, 0, true));
        // The process that ran died in this epoch, too.
        assert!(is_suspended(4, 1, true));
        // The process had stepped the epoch, so the start that died there may have been killed from outside.
        assert!(!is_suspended(5, 1, true));
        assert!(is_suspended(5, 2, true));
        // The process went on to the next epoch.
        assert!(!is_suspended(4, 1, false));
        assert!(is_suspended(4, 2, false));
    }

    #[test]
    fn where_someone_died_queries_are_stepped_one_by_one() {
        assert!(start(9, 1, false).is_alone());
        assert!(start(9, 0, true).is_alone());
        assert!(!start(9, 0, false).is_alone());
        let mut notes = start(4, 0, true);
        notes.go_live(Sequence(5));
        assert!(!notes.is_alone() && notes.careful > 0);
    }
}
