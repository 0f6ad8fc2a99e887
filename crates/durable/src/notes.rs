//! What an engine is in the middle of, so that the next start knows what this process died of, should it die.
//!
//! A start that does an entry again notes before each step which entry and which query it is; an engine that runs notes,
//! whenever it has nothing to do, that all is stepped. Notes are not synced: they survive the process and not the machine,
//! and a query has nothing to do with the death of a machine. Only what a start has concluded from them is.
//!
//! A file is begun by each start. Its lines are a CRC-32 and JSON, the last whole one counts. Where notes can't be written
//! or read the engine does without: all that is lost is the knowledge of what it was doing. So it is where the data directory
//! lies on an object store, which is no place for a line a step.

use std::fmt;
use std::io;

use serde_json::{Value, json};

use crate::cuts::list;
use crate::disk::Growing;
use crate::frame::Sequence;
use crate::{DataDirectory, Error, Result};

/// What the names of the files end with, after a number.
const ENDING: &str = ".notes";

/// How long a file may become before what is overruled in it is cut off.
const LENGTH_MAX: u64 = 64 << 10;

/// Where a process died that did entries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The entry.
    pub entry: Sequence,
    /// The query that was stepped; none where it was between two.
    pub query: Option<String>,
    /// How many processes in a row have died there.
    pub times: u64,
}

/// What the processes before this one have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The entry up to which the last one that ran had stepped everything when it last had nothing to do.
    pub stepped: Sequence,
    /// Where the last start died, where it did.
    pub death: Option<Death>,
    /// Queries that are not stepped again from an entry on, since processes died in them.
    pub suspended: Vec<(Sequence, String)>,
    /// Whether the last process ended by itself, or there was none.
    pub ended: bool,
}

/// The notes of this process.
pub struct Notes {
    before: Before,
    /// None once it can't be written.
    file: Option<Box<dyn Growing>>,
    /// How long the part of it is that stays.
    head: u64,
    length: u64,
}

impl Notes {
    /// Reads what the process before left, and begins those of this one, which goes on from a checkpoint of the entry
    /// `from`: what was suspended up to there is in the checkpoint.
    pub fn open(directory: &DataDirectory, from: Sequence) -> Result<Notes> {
        let Some(disk) = directory.notes() else {
            let before = Before { ended: true, ..Before::default() };
            return Ok(Notes { before, file: None, head: 0, length: 0 });
        };
        let failed = |error| Error::disk("opening", "notes", error);
        let names = disk.list().map_err(failed)?;
        let number = |name: &String| name.strip_suffix(ENDING)?.parse::<u64>().ok();
        let mut before = Before { ended: true, ..Before::default() };
        // The newest one may be without a head, where a crash came in between.
        for name in names.iter().rev().filter(|name| number(name).is_some()) {
            if let Some(found) = read(&disk.read(name).map_err(failed)?) {
                before = found;
                break;
            }
        }
        before.suspended.retain(|(entry, _)| *entry > from);
        let next = names.iter().filter_map(number).max().map_or(1, |newest| newest + 1);
        let mut file = disk.create(&format!("{next:020}{ENDING}")).map_err(failed)?;
        let head = head_of(&before);
        file.append(&head).and_then(|()| file.sync()).map_err(failed)?;
        for name in names.iter().filter(|name| number(name).is_some()) {
            disk.remove(name).map_err(failed)?;
        }
        let head = head.len() as u64;
        Ok(Notes { before, file: Some(file), head, length: head })
    }

    /// What the processes before this one have left.
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// An entry is done again: this query is stepped next, or none.
    pub fn stepping(&mut self, entry: Sequence, query: Option<&str>) {
        self.add(&json!({"at": entry.0, "query": query}));
    }

    /// All up to an entry is stepped.
    pub fn stepped(&mut self, through: Sequence) {
        self.add(&json!({"stepped": through.0}));
    }

    /// The process ends by itself.
    pub fn end(&mut self, through: Sequence) {
        self.add(&json!({"stepped": through.0, "ended": true}));
    }

    /// A query is not stepped again from an entry on. The next start knows that for sure.
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
            tracing::warn!(%error, "what the engine is doing can't be noted: after a crash nobody knows it");
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

/// What the file begins with: all that the next start has to know whatever comes.
fn head_of(before: &Before) -> Vec<u8> {
    let death = before.death.as_ref().map(|death| json!([death.entry.0, death.query, death.times]));
    let suspended: Vec<Value> =
        before.suspended.iter().map(|(entry, query)| json!([entry.0, query])).collect();
    line(&json!({"format": 1, "stepped": before.stepped.0, "death": death, "suspended": suspended}))
}

/// What a file leaves to the next process; none if it has no head.
fn read(bytes: &[u8]) -> Option<Before> {
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
    };
    let Some(last) = lines.next_back() else { return Some(before) };
    if let Some(through) = last.get("stepped").and_then(entry) {
        let ended = last.get("ended").is_some();
        return Some(Before { stepped: through, death: None, ended, ..before });
    }
    let (at, query) = (last.get("at").and_then(entry)?, last.get("query").and_then(text));
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
        Notes::open(&directory.with_notes(Arc::new(disk.clone())), Sequence(2)).unwrap()
    }

    fn death(entry: u64, query: Option<&str>, times: u64) -> Option<Death> {
        Some(Death { entry: Sequence(entry), query: query.map(str::to_string), times })
    }

    #[test]
    fn deaths_in_one_place_are_counted() {
        let disk = SimulatedDisk::default();
        let mut notes = open(&disk);
        assert_eq!(notes.before(), &Before { ended: true, ..Before::default() });
        notes.stepped(Sequence(7));
        let mut notes = open(&disk);
        assert_eq!(notes.before(), &Before { stepped: Sequence(7), ..Before::default() });
        notes.stepping(Sequence(9), None);
        notes.stepping(Sequence(9), Some("m"));
        for times in 1..3 {
            let mut notes = open(&disk);
            assert_eq!(notes.before().death, death(9, Some("m"), times));
            assert_eq!(notes.before().stepped, Sequence(7));
            notes.stepping(Sequence(8), Some("m"));
            notes.stepping(Sequence(9), Some("m"));
        }
        let mut notes = open(&disk);
        notes.stepping(Sequence(9), Some("n"));
        let mut notes = open(&disk);
        assert_eq!(notes.before().death, death(9, Some("n"), 1));
        notes.end(Sequence(10));
        let found = open(&disk);
        assert_eq!(found.before(), &Before { stepped: Sequence(10), ended: true, ..Before::default() });
        assert_eq!(disk.list().unwrap().len(), 1);
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
        assert_eq!(open(&disk).before().death, None);
    }
}
