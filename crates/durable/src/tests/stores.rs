//! The journal and checkpoints on an object store. Calls fail, answers are lost, processes end, and others
//! take the prefix over at any call. Entries reported durable are always there for the next process, and only
//! the owner writes.

use std::sync::Mutex;

use super::checkpoints::{checkpoint, shown};
use super::*;
use crate::simulated_store::{Fault, SimulatedStore};
use crate::{Checkpoints, StorePrefix};

/// Every kind of fault.
const FAULTS: [Fault; 4] = [Fault::Fails, Fault::AnswerLost, Fault::Stops, Fault::StopsAfter];

/// The entries reported durable.
type Promised = Arc<Mutex<Vec<(Sequence, String)>>>;

fn prefix(store: &SimulatedStore) -> StorePrefix {
    let pause = Duration::from_micros(100);
    StorePrefix::new(Arc::new(store.clone()), "a/prefix", "memory").tries_again_after(pause)
}

/// The end of a process.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It completed its work.
    Done,
    /// It could not continue.
    Failed(String),
    /// Another process has taken over.
    Lost(String),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        match error {
            Error::Lost { .. } => End::Lost(error.to_string()),
            other => End::Failed(other.to_string()),
        }
    }
}

/// The state that a process reads when it starts.
struct Start {
    checkpoints: Checkpoints,
    /// The entry of its checkpoint.
    through: Sequence,
    entries: Vec<(Sequence, Entry)>,
    /// The last entry.
    after: Sequence,
}

fn start_reading(directory: &DataDirectory) -> Result<Start, Error> {
    let checkpoints = Checkpoints::of(directory);
    checkpoints.clear()?;
    let found = checkpoints.newest()?.checkpoint;
    if let Some(found) = &found {
        assert_eq!(shown(found), shown(&checkpoint(found.through.0)));
    }
    let through = found.map_or(Sequence::default(), |found| found.through);
    let mut entries = Entries::open(directory, through)?;
    let read = entries.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok(Start { checkpoints, through, entries: read, after: entries.through() })
}

impl Start {
    /// Checks that all entries promised before this process claimed the prefix exist.
    fn check(&self, promised: &Promised) {
        let (through, claim) = (self.through, self.after);
        for (sequence, expected) in promised.lock().unwrap().iter() {
            if *sequence > through && *sequence < claim {
                let found = self.entries.iter().find(|(found, _)| found == sequence);
                let found = found.map(|(_, entry)| text(entry));
                assert_eq!(found.as_ref(), Some(expected), "entry {sequence} behind checkpoint {through}");
            }
        }
    }
}

/// Opens the prefix, checks its content, and writes rounds of entries, with a checkpoint after each.
fn live(store: &SimulatedStore, rounds: u64, promised: &Promised) -> End {
    try_to_live(store, rounds, promised).unwrap_or_else(|end| end)
}

fn try_to_live(store: &SimulatedStore, rounds: u64, promised: &Promised) -> Result<End, End> {
    let directory = prefix(store).open()?;
    let start = start_reading(&directory).map_err(|error| directory.explain(error))?;
    let (sender, reports) = channel();
    let mut journal = Journal::start(directory, start.after, move |report| drop(sender.send(report)))?;
    start.check(promised);
    let checkpoints = start.checkpoints;
    journal.set_interval(Some(Duration::ZERO));
    for _ in 0..rounds {
        for _ in 0..2 {
            let entry = epoch(journal.last().0 + 1);
            let sequence = journal.append(entry.clone());
            wait(&reports, sequence)?;
            promised.lock().unwrap().push((sequence, text(&entry)));
        }
        let covered = checkpoints.draft(&checkpoint(journal.last().0)).and_then(|draft| {
            checkpoints.publish(draft)?;
            checkpoints.retain(2)
        });
        // The process continues without a checkpoint: the journal has everything.
        if let Ok(Some(covered)) = covered {
            journal.forget(covered);
        }
    }
    Ok(End::Done)
}

/// Waits until an entry is durable. Fails if the store fails so often that the process would wait forever.
fn wait(reports: &Receiver<Report>, through: Sequence) -> Result<(), End> {
    let mut waited = 0;
    loop {
        match reports.recv_timeout(PATIENCE).expect("it says how it goes") {
            Report::Durable(sequence) if sequence >= through => return Ok(()),
            Report::Durable(_) => {}
            Report::Waits(reason) => {
                waited += 1;
                if waited > 5 {
                    return Err(End::Failed(reason));
                }
            }
            Report::Failed(reason) => return Err(End::Failed(reason)),
            Report::Lost(reason) => return Err(End::Lost(reason)),
        }
    }
}

/// Returns the number of calls that a process makes in some rounds.
fn calls(rounds: u64) -> u64 {
    let store = SimulatedStore::default();
    assert_eq!(live(&store, rounds, &Promised::default()), End::Done);
    store.calls()
}

#[test]
fn each_process_goes_on_where_the_one_before_was() {
    let (mut store, promised) = (SimulatedStore::default(), Promised::default());
    for _ in 0..5 {
        assert_eq!(live(&store, 3, &promised), End::Done);
        store = store.crash();
    }
    assert_eq!(promised.lock().unwrap().len(), 30);
    let found = crate::inspect_store(&prefix(&store)).unwrap();
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.checkpoints.len(), 2);
    // Five claims stay, and the segments after the older checkpoint.
    let kept = Store::segments(&store);
    assert!(kept.len() <= 5 + 2 + 1, "{kept:?}");
}

struct Store;

impl Store {
    fn segments(store: &SimulatedStore) -> Vec<String> {
        prefix(store).look().unwrap().journal().list().unwrap()
    }
}

/// Any call may fail, lose its answer, or be the last one of a process. No promised entry is lost, even if
/// the next process meets the same fault.
#[test]
fn every_call_may_fail_and_every_answer_may_be_lost() {
    let count = calls(3);
    assert!(count > 30, "{count} calls");
    for fault in FAULTS {
        for n in 1..=count + 1 {
            let (store, promised) = (SimulatedStore::default(), Promised::default());
            store.at(n, fault);
            let end = live(&store, 3, &promised);
            // The process continues without a checkpoint that it cannot write.
            let passes = matches!(fault, Fault::Fails | Fault::AnswerLost) || n > count;
            assert!(!passes || end == End::Done, "{fault:?} at call {n}: {end:?}");
            let next = store.crash();
            next.at(n, fault);
            live(&next, 2, &promised);
            assert_eq!(live(&next.crash(), 1, &promised), End::Done, "{fault:?} at call {n}");
        }
    }
}

/// A process on a thread of its own, which can be blocked.
struct Process {
    store: SimulatedStore,
    promised: Promised,
    thread: std::thread::JoinHandle<End>,
}

impl Process {
    /// Starts a process that blocks before its n-th call, and waits until it blocks or ends.
    fn start(objects: &SimulatedStore, n: u64, rounds: u64, promised: &Promised) -> Process {
        let (store, promised) = (objects.another(), promised.clone());
        store.stand_at(n);
        let (of, told) = (store.clone(), promised.clone());
        let thread = std::thread::spawn(move || {
            let end = live(&of, rounds, &told);
            of.end();
            end
        });
        store.wait();
        Process { store, promised, thread }
    }

    /// Unblocks the process and waits for its end.
    fn end(self) -> End {
        self.store.go_on();
        self.thread
            .join()
            .unwrap_or_else(|_| panic!("it fails, of {:?}", self.promised.lock().unwrap().len()))
    }
}

/// Two processes, each blocked before any of its calls while the other continues: the loser stops, reports
/// it, and does no harm. This runs every schedule with this number of switches (Musuvathi and Qadeer,
/// *Iterative Context Bounding for Systematic Testing of Multithreaded Programs*, PLDI 2007), over the
/// engine's own code.
#[test]
fn the_loser_of_two_stops() {
    let count = calls(2);
    assert!(count > 25, "{count} calls");
    let mut lost = 0;
    for first_at in 1..=count {
        // A process that finds a checkpoint makes some more calls.
        for second_at in (1..=count + 8).step_by(if first_at % 3 == 0 && all_seeds() { 1 } else { 4 }) {
            let (objects, promised) = (SimulatedStore::default(), Promised::default());
            let first = Process::start(&objects, first_at, 2, &promised);
            let second = Process::start(&objects, second_at, 2, &promised);
            let ends = [first.end(), second.end()];
            for end in &ends {
                match end {
                    End::Done => {}
                    End::Lost(reason) => {
                        let told = reason.contains("has taken over 'memory'") && reason.contains("process ");
                        assert!(told, "{reason}");
                        lost += 1;
                    }
                    End::Failed(reason) => panic!("{first_at} and {second_at}: {reason}"),
                }
            }
            assert!(ends.contains(&End::Done), "{first_at} and {second_at}: {ends:?}");
            let last = objects.another();
            assert_eq!(live(&last, 1, &promised), End::Done, "{first_at} and {second_at}");
            let found = crate::inspect_store(&prefix(&last)).unwrap();
            assert!(found.damage.is_none(), "{first_at} and {second_at}: {found:?}");
        }
    }
    assert!(lost as u64 > count, "{lost} have lost");
}

/// A process resumes at any of its calls after others have written, taken checkpoints and removed files,
/// several times. It finds out that it lost the prefix, whatever is left of the files it knew.
#[test]
fn who_comes_back_late_has_lost() {
    let count = calls(2);
    for at in 1..=count {
        let (objects, promised) = (SimulatedStore::default(), Promised::default());
        assert_eq!(live(&objects.another(), 1, &promised), End::Done);
        let late = Process::start(&objects, at, 2, &promised);
        for rounds in [4, 0, 3] {
            assert_eq!(live(&objects.another(), rounds, &promised), End::Done, "call {at}");
        }
        let before = promised.lock().unwrap().len();
        let end = late.end();
        assert!(!matches!(end, End::Failed(_)), "call {at}: {end:?}");
        // Either it had not begun, and takes over; or it promises nothing more.
        let told = promised.lock().unwrap().len() - before;
        assert!(told == 0 || told == 4 && end == End::Done, "call {at}: {told} entries, {end:?}");
        assert_eq!(live(&objects.another(), 3, &promised), End::Done, "call {at}");
    }
}

/// Two processes repeatedly open the same prefix at once: every promise is kept, and at most one continues.
#[test]
fn of_processes_that_start_at_once_one_goes_on() {
    for seed in first_seeds(10, 0..40) {
        let (store, promised) = (SimulatedStore::default(), Promised::default());
        assert_eq!(live(&store, 1, &promised), End::Done);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (store, promised) = (store.another(), promised.clone());
                std::thread::spawn(move || live_beside(&store, &promised))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(live(&store.another(), 1, &promised), End::Done, "round {seed}");
    }
}

/// Like [`live`], but without a check of the entries promised to others meanwhile.
fn live_beside(store: &SimulatedStore, promised: &Promised) -> End {
    let own = Promised::default();
    let end = live(store, 4, &own);
    promised.lock().unwrap().append(&mut own.lock().unwrap());
    end
}

/// The journal waits for an unreachable store, reports it, and loses nothing.
#[test]
fn a_store_that_is_away_is_waited_for() {
    let store = SimulatedStore::default();
    let directory = prefix(&store).open().unwrap();
    let after = Entries::open(&directory, Sequence::default()).unwrap().map(|entry| entry.unwrap().0).max();
    let (sender, reports) = channel();
    let mut journal =
        Journal::start(directory, after.unwrap(), move |report| drop(sender.send(report))).unwrap();
    store.set_away(true);
    let sequence = journal.append(epoch(2));
    let Report::Waits(reason) = reports.recv_timeout(PATIENCE).unwrap() else { panic!("it doesn't wait") };
    assert!(reason.contains("writing journal 'memory/journal/"), "{reason}");
    assert!(journal.waiting_bytes() > 0);
    store.set_away(false);
    durable(&reports, sequence);
    // A journal that is closing does not wait for a store forever.
    store.set_away(true);
    journal.append(epoch(3));
    drop(journal);
    assert!(reports.try_iter().any(|report| matches!(report, Report::Failed(_))));
}

/// Entries that arrive within the interval become one object.
#[test]
fn entries_are_put_together() {
    let store = SimulatedStore::default();
    let directory = prefix(&store).open().unwrap();
    let (sender, reports) = channel();
    let mut journal =
        Journal::start(directory, Sequence(1), move |report| drop(sender.send(report))).unwrap();
    durable(&reports, journal.append(epoch(2)));
    let begun = std::time::Instant::now();
    for number in 3..50 {
        journal.append(epoch(number));
    }
    durable(&reports, journal.last());
    assert!(begun.elapsed() > Duration::from_millis(50), "it waits for others");
    // One claim, the first entry, all others; one more if the machine was slow.
    assert!(Store::segments(&store).len() <= 4, "{:?}", Store::segments(&store));
}

/// Objects are put atomically, so an incomplete one is damage, and never the end of the journal.
#[test]
fn a_truncated_object_is_damage() {
    let (store, promised) = (SimulatedStore::default(), Promised::default());
    assert_eq!(live(&store, 0, &promised), End::Done);
    let name = format!("journal/{}", Store::segments(&store).pop().unwrap());
    let inner =
        crate::store::Store::new(Arc::new(store.clone()), "a/prefix".into(), "memory".into(), Duration::ZERO)
            .unwrap();
    let bytes = inner.read(&name).unwrap();
    for length in 0..bytes.len() {
        inner.remove(&name).unwrap();
        inner.put_new(&name, &bytes.slice(..length)).unwrap();
        let error = prefix(&store).open().unwrap_err().to_string();
        assert!(error.contains("is damaged at byte") && error.contains(&name), "{length} bytes: {error}");
    }
}

#[test]
fn what_is_something_else_is_left_alone() {
    let store = SimulatedStore::default();
    let inner = |prefix: &str| {
        crate::store::Store::new(Arc::new(store.clone()), prefix.into(), "memory".into(), Duration::ZERO)
    };
    inner("a/prefix").unwrap().put_new("photo.jpg", &b"x"[..].into()).unwrap();
    let error = prefix(&store).open().unwrap_err().to_string();
    assert!(error.contains("'memory' is not a data directory") && error.contains("photo.jpg"), "{error}");
    let beside = StorePrefix::new(Arc::new(store.clone()), "a/other", "memory");
    let error = beside.open_existing().unwrap_err().to_string();
    assert!(error.contains("it has no object MILLSTREAM"), "{error}");
    drop(beside.open().unwrap());
    beside.open_existing().unwrap();
    let label = inner("a/third").unwrap();
    label.put_new("MILLSTREAM", &b"millstream data directory, format 7\n"[..].into()).unwrap();
    let third = StorePrefix::new(Arc::new(store.clone()), "a/third", "memory");
    assert!(third.open().unwrap_err().to_string().contains("format 7"));
}

/// A checkpoint's file that exceeds one request is uploaded in parts.
#[test]
fn large_files_are_put_in_parts() {
    let store = SimulatedStore::default();
    let directory = prefix(&store).open().unwrap();
    let disk = directory.checkpoints();
    let bytes: Vec<u8> = (0..20 << 20).map(|at: u32| (at % 251) as u8).collect();
    let mut file = disk.create("large").unwrap();
    for piece in bytes.chunks(3 << 20) {
        file.append(piece).unwrap();
        assert!(disk.read("large").is_err(), "it is there whole or not at all");
    }
    file.sync().unwrap();
    assert!(disk.read("large").unwrap() == bytes);
    let mut other = disk.create("given-up").unwrap();
    other.append(&bytes).unwrap();
    drop(other);
    assert!(disk.read("given-up").is_err());
}
