//! Incremental checkpoints: after any failure, lost write or flipped bit, a start finds the state that was
//! saved, or finds nothing and reports the reason.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use millstream_state::{KeyIndex, Rows, RunSlots, SlotMarks, Tables};

use super::*;
use crate::{Checkpoint, Checkpoints, Size};

/// The number of rows: few, so that the changes soon outweigh them, or many. `OTHERS` rows change at each
/// number.
const FEW: i64 = 400;
const MANY: i64 = 6000;
const LARGE: i64 = 60_000;
const OTHERS: i64 = 9;

/// The state of a process. The number alone determines it.
struct Process {
    checkpoints: Checkpoints,
    rows: Rows,
    groups: KeyIndex,
    marks: SlotMarks,
    count: i64,
    number: u64,
}

/// Returns the rows that exist at a number.
fn kept(count: i64, number: u64) -> BTreeSet<i64> {
    let n = number as i64;
    // The rows of this number and of the previous one differ; one row disappears and reappears.
    let other = |row: i64| (row + n) % (count / OTHERS) == 0;
    let there = (0..count).filter(|row| *row != n % 7);
    there.map(|row| if other(row) { row + 10_000 * n } else { row }).collect()
}

impl Process {
    /// Starts a process from the newest checkpoint; returns the process, the number, and the damage found.
    fn start(disk: &SimulatedDisk, count: i64) -> (Process, u64, Vec<String>) {
        let checkpoints = Checkpoints::of(&DataDirectory::on(Arc::new(disk.clone())));
        checkpoints.clear().unwrap();
        let found = checkpoints.newest().unwrap();
        let number = found.checkpoint.as_ref().map_or(0, |found| found.through.0);
        if let Some(found) = found.checkpoint {
            check(found, count);
        }
        let schema = super::rows(0, 0).schema();
        let groups = KeyIndex::new(vec![arrow::datatypes::DataType::Int64]).unwrap();
        let (rows, marks) = (Rows::new(schema), SlotMarks::default());
        let mut process = Process { checkpoints, rows, groups, marks, count, number: 0 };
        process.go_on(number);
        (process, number, found.damaged)
    }

    fn go_on(&mut self, number: u64) {
        let content = |number: u64| if number == 0 { BTreeSet::new() } else { kept(self.count, number) };
        let (before, after) = (content(self.number), content(number));
        let gone: Vec<i64> = before.difference(&after).copied().collect();
        let new: Vec<i64> = after.difference(&before).copied().collect();
        let mut delta = Delta::default();
        for (some, weight) in [(&gone, -1), (&new, 1)] {
            let weights = Some(Int64Array::from(vec![weight; some.len()]));
            delta.push(Chunk { rows: super::rows_of(some), weights });
        }
        self.rows.apply(&delta).unwrap();
        let keys = |some: &[i64]| vec![Arc::new(Int64Array::from(some.to_vec())) as ArrayRef];
        let mut slots = Vec::new();
        self.groups.find(&keys(&gone), &mut slots).unwrap();
        slots.iter().for_each(|slot| self.groups.free(*slot));
        self.groups.slots(&keys(&new), &mut slots).unwrap();
        self.marks.touch_all(slots);
        self.number = number;
    }

    fn save(&self) -> Checkpoint {
        let mut state = Tables::default();
        self.rows.save_changed("table0.t.rows", &mut state).unwrap();
        let run = self.marks.run();
        let changed = self.groups.changed_slots(&self.marks, &run);
        let mut groups = Tables::default();
        self.groups.save_some(&changed.0, "keys", &["k"], &mut groups).unwrap();
        groups.put_slots(&run, RunSlots::from(changed), &["keys"]);
        // Its index among the queries changes as others are created and dropped.
        state.put_part(&format!("query{}.m.flow.1-Aggregate", self.number % 3), groups);
        state.put_number("clock.last", self.number as i64);
        Checkpoint { state, ..super::checkpoints::checkpoint(self.number) }
    }

    fn take(&mut self, number: u64) -> Result<Size, Error> {
        self.go_on(number);
        let size = self.checkpoints.publish(self.checkpoints.draft(&self.save())?)?;
        self.checkpoints.retain(2)?;
        Ok(size)
    }
}

/// Fails unless a checkpoint has the rows of its number.
fn check(mut found: Checkpoint, count: i64) {
    let number = found.through.0;
    let expected: Vec<i64> = kept(count, number).into_iter().collect();
    let mut rows: BTreeMap<i64, i64> = BTreeMap::new();
    for chunk in found.state.take_delta("table0.t.rows").unwrap().chunks {
        let numbers = chunk.rows.column(0).as_primitive::<Int64Type>().clone();
        assert_eq!(chunk.rows.columns(), super::rows_of(numbers.values()).columns());
        for row in 0..numbers.len() {
            *rows.entry(numbers.value(row)).or_default() += chunk.weight(row);
        }
    }
    assert!(rows.values().all(|copies| *copies == 1), "{rows:?}");
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), expected);
    let mut part = found.state.take_part(&format!("query{}.m.flow.1-Aggregate", number % 3));
    let keys = part.take_rows("keys", expected.len()).unwrap().numbers::<Int64Type>("k").unwrap();
    let mut keys = keys.values().to_vec();
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!((part.left(), found.state.take_number("clock.last").unwrap()), (None, number as i64));
    assert_eq!(found.state.left(), None);
}

#[test]
fn what_has_changed_is_written_and_files_go_when_nobody_names_them() {
    let disk = SimulatedDisk::default();
    let (mut process, ..) = Process::start(&disk, MANY);
    let mut sizes: Vec<Size> = Vec::new();
    for number in 1..45 {
        sizes.push(process.take(number).unwrap());
        let found = process.checkpoints.newest().unwrap();
        assert_eq!((found.checkpoint.as_ref().unwrap().through.0, &found.damaged), (number, &Vec::new()));
        check(found.checkpoint.unwrap(), MANY);
        let files = disk.list().unwrap().len();
        assert!(files < 180, "{files} files");
    }
    let (written, named): (Vec<u64>, Vec<u64>) = sizes.iter().map(|size| (size.written, size.named)).unzip();
    assert!(written[0] == named[0] && written[1] * 3 < named[1], "{sizes:?}");
    assert!(written.iter().sum::<u64>() * 2 < named.iter().sum::<u64>(), "{sizes:?}");
    assert!(named.iter().all(|named| *named < 3 * written[0]), "{sizes:?}");
    // One of the two kept checkpoints names each file.
    let inspected: Vec<_> = process
        .checkpoints
        .numbers()
        .unwrap()
        .into_iter()
        .map(|n| process.checkpoints.inspect(n).unwrap())
        .collect();
    let bytes: u64 = disk.list().unwrap().iter().map(|name| disk.read(name).unwrap().len() as u64).sum();
    let named: u64 = inspected.iter().flat_map(|one| &one.parts).map(|part| part.bytes).sum();
    assert!(inspected.len() == 2 && bytes < named + 10_000, "{bytes} of {named}");
}

/// If the rows of a table can't be collected while a draft is written, the draft leaves no file, and the next
/// checkpoint holds its changes.
#[test]
fn a_table_that_cannot_be_built_loses_no_changes() {
    let disk = SimulatedDisk::default();
    let (mut process, ..) = Process::start(&disk, MANY);
    for number in 1..20 {
        process.take(2 * number - 1).unwrap();
        process.go_on(2 * number);
        let before = disk.list().unwrap();
        let mut failing = process.save();
        let mut other = Tables::default();
        other.put_numbers("groups", vec![("n", vec![1, 2])]).unwrap();
        let slots = RunSlots::from((vec![4], Vec::new()));
        other.put_slots(&SlotMarks::default().run(), slots, &["groups"]);
        failing.state.put_part("query9.other", other);
        let error = process.checkpoints.draft(&failing).map(drop).unwrap_err();
        assert!(matches!(&error, Error::Unsaved { name, .. } if name == "query9.other.groups"), "{error}");
        assert_eq!(disk.list().unwrap(), before);
        let found = process.checkpoints.newest().unwrap().checkpoint.unwrap();
        assert_eq!(found.through.0, 2 * number - 1);
        check(found, MANY);
    }
}

/// If few of many rows change each time, only changes are merged again and again; the rest is never
/// rewritten.
#[test]
fn small_runs_become_larger_ones() {
    let disk = SimulatedDisk::default();
    let (mut process, ..) = Process::start(&disk, LARGE);
    let sizes: Vec<Size> = (1..41).map(|number| process.take(number).unwrap()).collect();
    let found = process.checkpoints.newest().unwrap();
    assert_eq!(found.damaged, Vec::<String>::new());
    check(found.checkpoint.unwrap(), LARGE);
    let (first, later) = sizes.split_first().unwrap();
    let written: u64 = later.iter().map(|size| size.written).sum();
    assert!(written < first.written, "{sizes:?}");
    let inspected = process.checkpoints.inspect(Sequence(40)).unwrap();
    for name in ["table0.t.rows", "query1.m.flow.1-Aggregate.keys"] {
        let runs: Vec<Option<Sequence>> =
            inspected.parts.iter().filter(|part| part.name == name).map(|part| part.of).collect();
        assert!(runs[0] == Some(Sequence(1)) && runs.len() > 2 && runs.len() < 14, "{name}: {runs:?}");
    }
    assert!(disk.list().unwrap().len() < 110, "{} files", disk.list().unwrap().len());
}

/// If a run to be merged is damaged, the next checkpoint holds the complete state, and so is whole again.
#[test]
fn damage_of_a_run_goes_with_the_next_whole_one() {
    let disk = SimulatedDisk::default();
    let (mut process, ..) = Process::start(&disk, LARGE);
    for number in 1..6 {
        process.take(number).unwrap();
    }
    let own = format!("{:020}", 5);
    let name = disk.list().unwrap().into_iter().find(|name| name.starts_with(&own) && name.contains("rows"));
    disk.flip(&name.unwrap(), 40, 4);
    assert!(process.checkpoints.newest().unwrap().checkpoint.is_some_and(|found| found.through.0 == 4));
    for number in 6..12 {
        process.take(number).unwrap();
    }
    let found = process.checkpoints.newest().unwrap().checkpoint.unwrap();
    assert_eq!(found.through.0, 11);
    check(found, LARGE);
}

/// Whichever call fails, the process continues, and published checkpoints survive a crash.
#[test]
fn every_step_may_fail() {
    for n in 1.. {
        let disk = SimulatedDisk::default();
        let (mut process, ..) = Process::start(&disk, FEW);
        process.take(1).unwrap();
        disk.fail_at(n);
        let (mut taken, mut failed) = (1, 0);
        for number in 2..8 {
            match process.take(number) {
                Ok(_) => taken = number,
                Err(_) => failed += 1,
            }
        }
        let mut random = Random(n);
        let (mut process, number, damaged) = Process::start(&disk.crash(|bound| random.index(bound)), FEW);
        assert!(number >= taken, "call {n}: {number} of {taken}, {damaged:?}");
        for number in 20..23 {
            process.take(number).unwrap();
        }
        check(process.checkpoints.newest().unwrap().checkpoint.unwrap(), FEW);
        if failed == 0 {
            assert!(n > 60, "there were more steps than {n}");
            break;
        }
    }
}

#[test]
fn a_crash_leaves_the_last_one_that_was_there() {
    for seed in first_seeds(20, 0..100) {
        let mut random = Random(seed);
        let mut disk = SimulatedDisk::default();
        let mut taken = 0;
        for round in 0..4 {
            let (mut process, found, _) = Process::start(&disk, FEW);
            assert!(found >= taken, "seed {seed}: {found} of {taken}");
            for number in 10 * round + 1..10 * round + 2 + random.index(4) as u64 {
                process.take(number).unwrap();
                taken = number;
            }
            if random.index(2) == 0 {
                // The crash interrupts a draft.
                process.go_on(taken + 1);
                drop(process.checkpoints.draft(&process.save()).unwrap());
            }
            disk = disk.crash(|bound| random.index(bound));
        }
    }
}

/// A flipped bit is found in any file. If only the newest checkpoint names the file, the previous one is
/// used. If both need it, there is none, and both name the file in their errors.
#[test]
fn damage_is_found_in_files_that_several_checkpoints_name() {
    let disk = SimulatedDisk::default();
    let (mut process, ..) = Process::start(&disk, MANY);
    let last = (1..40).find(|number| {
        let size = process.take(*number).unwrap();
        *number > 2 && size.named > size.written + size.written / 2
    });
    let last = last.expect("some are of what has changed");
    let own = format!("{last:020}");
    let mut random = Random(8);
    let (mut of_both, mut of_newest) = (0, 0);
    for name in disk.list().unwrap() {
        let bytes = disk.read(&name).unwrap().len();
        for at in (0..bytes).step_by(1 + bytes / 40) {
            let bits = 1 << random.index(8);
            disk.flip(&name, at, bits);
            let found = process.checkpoints.newest().unwrap();
            let newest = found.checkpoint.as_ref().map(|found| found.through.0);
            if name.starts_with(&own) {
                assert_eq!((newest, found.damaged.len()), (Some(last - 1), 1), "byte {at} of {name}");
                of_newest += 1;
            } else if newest != Some(last) {
                assert!(newest.is_none() && found.damaged.len() == 2, "byte {at} of {name}: {newest:?}");
                assert!(found.damaged.iter().all(|damage| damage.contains(&name)), "{:?}", found.damaged);
                of_both += 1;
            }
            if let Some(found) = found.checkpoint {
                check(found, MANY);
            }
            disk.flip(&name, at, bits);
        }
    }
    assert!(of_both > 50 && of_newest > 50, "{of_both} and {of_newest}");
    assert_eq!(process.checkpoints.newest().unwrap().damaged, Vec::<String>::new());
}
