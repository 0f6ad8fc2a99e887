//! What the loop is in the middle of, noted so that an epoch in which processes die costs the query it is in, and no other.
//!
//! Only deaths count that a process has died of what it did, as the notes know: a SIGKILL from outside is no evidence.
//! A start that does entries again notes each query before it steps it. Where the next start finds that the last one died
//! there, it knows the query; that the process which ran before had died in the same epoch it knows since that never came to
//! say that it had nothing to do. Then the query is suspended in that epoch. Where one of this isn't known, the epoch is
//! done once more: a process that is killed while it starts is nobody's fault.

use std::time::{Duration, Instant};

use millstream_delta::Epoch;
use millstream_durable::{Death, Notes, Sequence};
use millstream_sql::Error;

use super::Loop;

/// How many processes must have died in a query, where nothing else speaks against it.
const DEATHS_MAX: u64 = 2;

/// After a crash, how many epochs wait until they are in the journal before they are stepped, if no checkpoint is taken
/// before: what kills a process in an epoch that nobody knows of would kill the next one in the same way.
const CAREFUL_EPOCHS: u32 = 1000;

/// How long one of them waits at most: a disk may be full.
const CAREFUL_TIME: Duration = Duration::from_secs(1);

/// What is noted.
#[derive(Debug, Default)]
pub(super) struct Doing {
    notes: Option<Notes>,
    /// The entry that is done again.
    entry: Option<Sequence>,
    /// Queries that are not stepped in it.
    condemned: Vec<String>,
    /// Whether queries are stepped one after the other in it, so that each can be told from the others.
    alone: bool,
    /// The entries up to which all was noted to be stepped, and to be durable.
    noted: (Sequence, Sequence),
    /// How many epochs still wait for the journal.
    careful: u32,
}

impl Doing {
    /// Begins to do entries again.
    pub(super) fn begin(&mut self, notes: Notes) {
        self.notes = Some(notes);
    }

    /// An entry is done again; `last`: there is none after it.
    pub(super) fn begin_entry(&mut self, entry: Sequence, last: bool) {
        let Some(notes) = &mut self.notes else { return };
        let before = notes.before();
        let death = before.death.clone().filter(|death| death.entry == entry);
        self.alone = last || death.is_some();
        // One that ran afterwards had survived it.
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

    /// All is done again: this is the newest entry.
    pub(super) fn go_live(&mut self, last: Sequence) {
        self.entry = None;
        self.condemned.clear();
        if let Some(notes) = &mut self.notes {
            self.careful = if notes.before().ended { 0 } else { CAREFUL_EPOCHS };
            notes.stepped(last, last);
            self.noted = (last, last);
        }
    }

    /// Why a query must not be stepped; else it is noted that it is stepped next.
    fn step(&mut self, query: &str) -> Option<Error> {
        let entry = self.entry?;
        if self.condemned.iter().any(|condemned| condemned == query) {
            return Some(
                Error::invalid(
                    "the process died in the middle of it, by an abort, a panic or for lack of memory, each time that this \
                     epoch was tried",
                )
                .hint(
                    "Was there too little memory for it? Mend the query or its input, then RESUME it: that makes it anew from \
                     its inputs.",
                ),
            );
        }
        if let Some(notes) = &mut self.notes {
            notes.stepping(entry, Some(query));
        }
        None
    }

    /// The entry that is done again.
    pub(super) fn entry(&self) -> Option<Sequence> {
        self.entry
    }

    /// Notes that a thread takes in some of the past of a query that this entry made.
    pub(super) fn note_piece(&mut self, entry: Sequence, query: &str) {
        if let Some(notes) = &mut self.notes {
            notes.stepping(entry, Some(query));
        }
    }

    /// Whether queries that are stepped together couldn't be told apart, but should be.
    pub(super) fn is_alone(&self) -> bool {
        self.entry.is_some() && self.alone
    }

    /// Waits no longer for the journal.
    pub(super) fn trust(&mut self) {
        self.careful = 0;
    }
}

impl Drop for Doing {
    /// A loop that panics is evidence of what the process died of.
    fn drop(&mut self) {
        if let (true, Some(notes)) = (std::thread::panicking(), &mut self.notes) {
            notes.died();
        }
    }
}

impl Loop {
    /// Notes that a query is stepped next, while entries are done again. False: processes died in it, and it is suspended.
    pub(super) fn may_step(&mut self, place: usize, epoch: Epoch) -> bool {
        let Some(reason) = self.doing.step(&self.queries[place].name) else { return true };
        self.queries[place].suspend(reason, epoch);
        false
    }

    /// Notes that all is stepped that was decided so far: there is nothing to do.
    pub(super) fn note_stepped(&mut self) {
        let Some(last) = self.durability.last() else { return };
        let noted = (last, self.durability.written());
        if noted == self.doing.noted {
            return;
        }
        // What is stepped on another thread is not.
        if self.queries.iter().all(|query| query.behind().is_none() && !query.is_noted())
            && let Some(notes) = &mut self.doing.notes
        {
            self.doing.noted = noted;
            notes.stepped(noted.0, noted.1);
        }
    }

    /// Notes that the process ends by itself.
    pub(super) fn note_end(&mut self) {
        let last = self.durability.last();
        if let Some(notes) = &mut self.doing.notes {
            let last = last.unwrap_or(notes.before().stepped);
            notes.end(last);
        }
    }

    /// After a crash, lets the journal have an epoch before it is stepped.
    pub(super) fn step_carefully(&mut self) {
        if self.doing.careful == 0 {
            return;
        }
        self.doing.careful -= 1;
        let begun = Instant::now();
        while self.durability.is_writing() && begun.elapsed() < CAREFUL_TIME {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_durable::DataDirectory;
    use millstream_durable::simulated::SimulatedDisk;

    use super::*;

    /// A start that comes to entry 5, after one that ran had stepped all up to `stepped` when it last had nothing to do,
    /// and so many starts that died in it while "m" was stepped.
    /// Whether they died of what they did is `evident`.
    fn start_after(stepped: u64, deaths: usize, last: bool, evident: bool) -> Doing {
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
        let mut doing = Doing::default();
        doing.begin(open());
        doing.begin_entry(Sequence(4), false);
        assert!(doing.step("m").is_none());
        doing.begin_entry(Sequence(5), last);
        assert!(doing.step("another").is_none());
        doing
    }

    fn start(stepped: u64, deaths: usize, last: bool) -> Doing {
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
        // The one that ran died in this epoch, too.
        assert!(is_suspended(4, 1, true));
        // It had stepped it, so the start that died there may have been killed by anyone.
        assert!(!is_suspended(5, 1, true));
        assert!(is_suspended(5, 2, true));
        // It went on to the next one.
        assert!(!is_suspended(4, 1, false));
        assert!(is_suspended(4, 2, false));
    }

    #[test]
    fn where_someone_died_queries_are_stepped_one_by_one() {
        assert!(start(9, 1, false).is_alone());
        assert!(start(9, 0, true).is_alone());
        assert!(!start(9, 0, false).is_alone());
        let mut doing = start(4, 0, true);
        doing.go_live(Sequence(5));
        assert!(!doing.is_alone() && doing.careful > 0);
    }
}
