//! Crash notes: they record the work in progress, so that the next start learns at which point this process
//! died.
//!
//! A start notes the entry and the query before each step that it replays. A running engine notes, whenever
//! it is idle, that everything is stepped. Notes are not synced: they survive the process but not the
//! machine, and no query brings a machine down. Only the conclusions that a start draws from them are synced.
//!
//! A death alone says nothing about a query: anyone can kill the process. A death counts only with evidence:
//!
//! - the process panicked and noted that,
//! - the process aborted and left a byte in the file `abort`, or
//! - the system has killed a process for lack of memory since this one began.
//!
//! Each start begins a file. Its lines are a CRC-32 and JSON; the last whole line counts. If notes cannot be
//! written or read, the engine runs without them and only loses this knowledge. So it does with a data
//! directory on an object store, which is too slow for a line per step.

use std::fmt;
use std::io;

use serde_json::{Value, json};

use crate::cuts::list;
use crate::disk::Growing;
use crate::frame::Sequence;
use crate::{DataDirectory, Error, OomKills, Result};

/// The suffix of the files' names, after a number.
const ENDING: &str = ".notes";

/// The file to which a program adds a byte when it aborts, and its name once another process has seen that.
const ABORT: &str = "abort";
const ABORTED: &str = "aborted";

/// The size from which the superseded lines of a file are cut off.
const LENGTH_MAX: u64 = 64 << 10;

/// The point at which a process died during recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The entry.
    pub entry: Sequence,
    /// The query being stepped; `None` if the process died between two.
    pub query: Option<String>,
    /// The number of processes that died there of their own actions, with none in between that came further.
    pub times: u64,
}

/// The notes of earlier processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Last entry fully applied when the previous running process went idle.
    pub stepped: Sequence,
    /// The point at which the last start died, if it did.
    pub death: Option<Death>,
    /// True if the last running process died of its own actions after that entry. A start is not a running
    /// process.
    pub crashed: bool,
    /// Last durable entry when the previous process went idle.
    pub durable: Sequence,
    /// Queries suspended from an entry on, since processes died in them.
    pub suspended: Vec<(Sequence, String)>,
    /// The count of processes killed for lack of memory when the previous process began, if known.
    oom_kills: Option<OomKills>,
    /// True if the last process ended normally, or there was none.
    pub ended: bool,
}

/// The notes of this process.
pub struct Notes {
    before: Before,
    /// `None` once it cannot be written.
    file: Option<Box<dyn Growing>>,
    /// The length of the file's head, which stays.
    head: u64,
    length: u64,
}

impl Notes {
    /// Reads the previous process's notes, and begins those of this process, which starts from a checkpoint
    /// of the entry `from`. The checkpoint contains the suspensions up to there.
    ///
    /// `oom_kills` is the present count of processes killed for lack of memory.
    pub fn open(directory: &DataDirectory, from: Sequence, oom_kills: Option<OomKills>) -> Result<Notes> {
        let Some(disk) = directory.notes() else {
            let before = Before { ended: true, ..Before::default() };
            return Ok(Notes { before, file: None, head: 0, length: 0 });
        };
        let failed = |error| Error::disk("opening", "notes", error);
        let names = disk.list().map_err(failed)?;
        let number = |name: &String| name.strip_suffix(ENDING)?.parse::<u64>().ok();
        let mut before = Before { ended: true, ..Before::default() };
        // A crash may have left the newest file without a head.
        let mut aborts = names.iter().filter(|name| [ABORT, ABORTED].contains(&name.as_str()));
        // The file of this process is empty.
        let aborts = aborts.try_fold(Vec::new(), |mut aborts, name| {
            let is_empty = disk.read(name).map_err(failed)?.is_empty();
            aborts.extend((!is_empty).then_some(name));
            Ok::<_, Error>(aborts)
        })?;
        let aborted = !aborts.is_empty();
        for name in names.iter().rev().filter(|name| number(name).is_some()) {
            let died = |then: Option<&OomKills>| aborted || OomKills::rose(then, oom_kills.as_ref());
            if let Some(found) = read(&disk.read(name).map_err(failed)?, died) {
                before = found;
                break;
            }
        }
        before.oom_kills = oom_kills;
        before.suspended.retain(|(entry, _)| *entry > from);
        let next = names.iter().filter_map(number).max().map_or(1, |newest| newest + 1);
        let mut file = disk.create(&format!("{next:020}{ENDING}")).map_err(failed)?;
        let head = head_of(&before);
        file.append(&head).and_then(|()| file.sync()).map_err(failed)?;
        for name in names.iter().filter(|name| number(name).is_some()) {
            disk.remove(name).map_err(failed)?;
        }
        for name in aborts {
            disk.remove(name).map_err(failed)?;
        }
        let head = head.len() as u64;
        Ok(Notes { before, file: Some(file), head, length: head })
    }

    /// Returns the notes of earlier processes.
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// Notes that recovery steps this query next, for this entry; `None` is for no query.
    pub fn stepping(&mut self, entry: Sequence, query: Option<&str>) {
        self.add(&json!({"at": entry.0, "query": query}));
    }

    /// Notes that everything up to `through` is stepped, and everything up to `durable` is durable.
    pub fn stepped(&mut self, through: Sequence, durable: Sequence) {
        self.add(&json!({"stepped": through.0, "durable": durable.0}));
    }

    /// Notes that the process dies of a panic.
    pub fn died(&mut self) {
        self.add(&json!({"died": true}));
    }

    /// Notes that the process ends normally.
    pub fn end(&mut self, through: Sequence) {
        self.add(&json!({"stepped": through.0, "durable": through.0, "ended": true}));
    }

    /// Notes durably that a query is suspended from an entry on.
    pub fn suspend(&mut self, entry: Sequence, query: &str) {
        self.before.suspended.push((entry, query.to_string()));
        let head = head_of(&self.before);
        self.head = head.len() as u64;
        self.write(|file| {
            file.shorten(0)?;
            file.append(&head)?;
            file.sync()
        });
        self.length = self.head;
    }

    fn add(&mut self, json: &Value) {
        let line = line(json);
        if self.length + line.len() as u64 > LENGTH_MAX {
            let head = self.head;
            self.write(|file| file.shorten(head));
            self.length = self.head;
        }
        self.length += line.len() as u64;
        self.write(|file| file.append(&line));
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Growing) -> io::Result<()>) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = write(file.as_mut()) {
            tracing::warn!(%error, "the current activity can't be recorded: it will be unknown after a crash");
            self.file = None;
        }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").field("before", &self.before).finish_non_exhaustive()
    }
}

fn line(json: &Value) -> Vec<u8> {
    let json = json.to_string();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// Encodes the head of the file: everything that the next start must know in any case.
fn head_of(before: &Before) -> Vec<u8> {
    let death = before.death.as_ref().map(|death| json!([death.entry.0, death.query, death.times]));
    let suspended: Vec<Value> =
        before.suspended.iter().map(|(entry, query)| json!([entry.0, query])).collect();
    let oom_kills = before.oom_kills.as_ref().map(OomKills::to_json);
    line(&json!({
        "format": 1, "stepped": before.stepped.0, "death": death, "suspended": suspended,
        "crashed": before.crashed, "durable": before.durable.0, "oom_kills": oom_kills,
    }))
}

/// Decodes the notes that a file leaves to the next process; `None` if it has no head. `died` returns true if
/// evidence outside the file shows that its process died of its own actions.
fn read(bytes: &[u8], died: impl Fn(Option<&OomKills>) -> bool) -> Option<Before> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split_inclusive('\n').filter_map(|line| {
        let (sum, json) = line.strip_suffix('\n')?.split_once(' ')?;
        let is_whole = u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(json.as_bytes()));
        serde_json::from_str::<Value>(json).ok().filter(|_| is_whole)
    });
    let head = lines.next().filter(|head| head.get("format") == Some(&json!(1)))?;
    let entry = |value: &Value| value.as_u64().map(Sequence);
    let text = |value: &Value| value.as_str().map(str::to_string);
    let death = |value: &Value| {
        Some(Death {
            entry: entry(value.get(0)?)?,
            query: text(value.get(1)?),
            times: value.get(2)?.as_u64()?,
        })
    };
    let mut before = Before {
        stepped: head.get("stepped").and_then(entry)?,
        death: head.get("death").and_then(death),
        suspended: list(head.get("suspended")?, |pair| Some((entry(pair.get(0)?)?, text(pair.get(1)?)?)))?,
        ended: false,
        crashed: head.get("crashed") == Some(&json!(true)),
        durable: head.get("durable").and_then(entry).unwrap_or_default(),
        oom_kills: head.get("oom_kills").and_then(OomKills::of_json),
    };
    let mut last = lines.next_back();
    let panicked = last.as_ref().is_some_and(|last| last.get("died").is_some());
    if panicked {
        last = lines.next_back();
    }
    let Some(last) = last else { return Some(before) };
    let died = panicked || died(before.oom_kills.as_ref());
    if let Some(through) = last.get("stepped").and_then(entry) {
        let ended = last.get("ended").is_some();
        let durable = last.get("durable").and_then(entry).unwrap_or(before.durable);
        let crashed = died && !ended;
        return Some(Before { stepped: through, death: None, ended, crashed, durable, ..before });
    }
    let (at, query) = (last.get("at").and_then(entry)?, last.get("query").and_then(text));
    if !died {
        return Some(before);
    }
    let times = before.death.take_if(|death| death.entry == at && death.query == query);
    before.death = Some(Death { entry: at, query, times: times.map_or(1, |death| death.times + 1) });
    Some(before)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::Disk;
    use crate::simulated::SimulatedDisk;

    fn open(disk: &SimulatedDisk) -> Notes {
        let directory = DataDirectory::on(Arc::new(disk.clone()));
        Notes::open(&directory.with_notes(Arc::new(disk.clone())), Sequence(2), None).unwrap()
    }

    /// Does what an aborting program does.
    fn abort(disk: &SimulatedDisk) {
        disk.create(ABORT).unwrap().append(b"X").unwrap();
    }

    fn death(entry: u64, query: Option<&str>, times: u64) -> Option<Death> {
        Some(Death { entry: Sequence(entry), query: query.map(str::to_string), times })
    }

    #[test]
    fn deaths_in_one_place_are_counted() {
        let disk = SimulatedDisk::default();
        let mut notes = open(&disk);
        assert_eq!(notes.before(), &Before { ended: true, ..Before::default() });
        notes.stepped(Sequence(7), Sequence(6));
        let mut notes = open(&disk);
        let expected = Before { stepped: Sequence(7), durable: Sequence(6), ..Before::default() };
        assert_eq!(notes.before(), &expected);
        notes.stepping(Sequence(9), None);
        notes.stepping(Sequence(9), Some("m"));
        for times in 1..3 {
            abort(&disk);
            let mut notes = open(&disk);
            assert_eq!(notes.before().death, death(9, Some("m"), times));
            assert_eq!(notes.before().stepped, Sequence(7));
            notes.stepping(Sequence(8), Some("m"));
            notes.stepping(Sequence(9), Some("m"));
        }
        // The query did not cause the death of this process.
        let mut notes = open(&disk);
        assert_eq!(notes.before().death, death(9, Some("m"), 2));
        notes.stepping(Sequence(9), Some("n"));
        notes.died();
        let mut notes = open(&disk);
        assert_eq!(notes.before().death, death(9, Some("n"), 1));
        notes.end(Sequence(10));
        abort(&disk);
        let found = open(&disk);
        let (stepped, durable) = (Sequence(10), Sequence(10));
        assert_eq!(found.before(), &Before { stepped, durable, ended: true, ..Before::default() });
        assert_eq!(disk.list().unwrap().len(), 1);
    }

    #[test]
    fn a_process_that_ran_and_died_of_what_it_did_is_known_until_another_runs() {
        let disk = SimulatedDisk::default();
        open(&disk).stepped(Sequence(7), Sequence(7));
        assert!(!open(&disk).before().crashed, "it was killed");
        open(&disk).stepped(Sequence(8), Sequence(8));
        abort(&disk);
        let mut notes = open(&disk);
        assert!(notes.before().crashed);
        notes.stepping(Sequence(9), Some("m"));
        let mut notes = open(&disk);
        assert!(notes.before().crashed && notes.before().death.is_none());
        notes.stepped(Sequence(9), Sequence(9));
        assert!(!open(&disk).before().crashed);
    }

    #[test]
    fn a_kill_for_lack_of_memory_is_evidence() {
        let disk = SimulatedDisk::default();
        let open = |cgroup: &str, of_it, of_all| {
            let kills = OomKills { cgroup: Some((cgroup.into(), of_it)), machine: Some(of_all) };
            let directory = DataDirectory::on(Arc::new(disk.clone())).with_notes(Arc::new(disk.clone()));
            Notes::open(&directory, Sequence(2), Some(kills)).unwrap()
        };
        for (cgroup, of_it, of_all, times) in [
            ("a", 0, 0, None),
            ("a", 0, 0, None),
            // A kill in another group.
            ("a", 0, 1, None),
            ("a", 1, 2, Some(1)),
            // A new container: the only evidence is that some process was killed meanwhile.
            ("b", 0, 3, Some(2)),
            ("b", 0, 3, Some(2)),
        ] {
            let mut notes = open(cgroup, of_it, of_all);
            let found = notes.before().death.as_ref().map(|death| death.times);
            assert_eq!(found, times, "{cgroup} {of_it} {of_all}");
            notes.stepping(Sequence(9), Some("m"));
        }
    }

    #[test]
    fn a_suspension_stays_until_a_checkpoint_has_it() {
        let disk = SimulatedDisk::default();
        let mut notes = open(&disk);
        notes.stepping(Sequence(2), Some("x"));
        notes.suspend(Sequence(2), "x");
        notes.suspend(Sequence(5), "m");
        notes.stepping(Sequence(6), Some("y"));
        let disk = disk.crash(|_| 0);
        let notes = open(&disk);
        assert_eq!(notes.before().suspended, [(Sequence(5), "m".to_string())]);
        assert_eq!(notes.before().death, None);
    }

    #[test]
    fn many_notes_take_little_room_and_torn_ones_are_passed_over() {
        let disk = SimulatedDisk::default();
        let mut notes = open(&disk);
        (0..5000).for_each(|n| notes.stepping(Sequence(n), Some("a query")));
        let name = disk.list().unwrap().pop().unwrap();
        let bytes = disk.read(&name).unwrap().len();
        assert!(bytes as u64 <= LENGTH_MAX, "{bytes}");
        disk.flip(&name, bytes - 3, 1);
        abort(&disk);
        assert_eq!(open(&disk).before().death, death(4998, Some("a query"), 1));
        let empty = disk.create("00000000000000000099.notes").unwrap();
        drop(empty);
        assert!(open(&disk).before().death.is_some());
    }

    #[test]
    fn a_disk_that_fails_is_done_without() {
        let disk = SimulatedDisk::default();
        let mut notes = open(&disk);
        disk.fail_at(1);
        notes.stepping(Sequence(3), Some("m"));
        notes.stepping(Sequence(4), Some("m"));
        abort(&disk);
        assert_eq!(open(&disk).before().death, None);
    }
}
