//! Checkpoints on disks that fail, forget and flip bits: a start finds the newest whole one and nothing else.

use millstream_state::Tables;

use super::*;
use crate::{Checkpoint, Checkpoints};

/// Returns the state of an engine after an entry. The number determines it.
pub(super) fn checkpoint(number: u64) -> Checkpoint {
    let n = number as i64;
    let mut state = Tables::default();
    state.put("query0.m.flow.1-Aggregate.groups", vec![rows(n, 40)]);
    state.put("table0.t.rows", vec![rows(n, 3), rows(n + 9, 2)]);
    state.put_number("clock.last", n);
    state.put_text_if("query0.m.reason", Some("an \"error\""));
    let made = Entry::Set { name: "recursion_max".into(), value: number.to_string() };
    Checkpoint {
        through: Sequence(number),
        version: Some("0.9".into()),
        cut: Cut::new(Epoch(number), Timestamp(n)),
        catalog: vec![made],
        logs: vec![epoch(number)],
        done: vec![format!("{number}: INSERT")],
        state,
    }
}

pub(super) fn shown(checkpoint: &Checkpoint) -> String {
    // The cut of rows into batches does not matter.
    let one =
        |batches: &[RecordBatch]| arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap();
    let tables: Vec<_> = checkpoint
        .state
        .tables()
        .map(|(name, batches)| (name.to_string(), one(&batches.get().unwrap())))
        .collect();
    let (numbers, texts): (Vec<_>, Vec<_>) =
        (checkpoint.state.numbers().collect(), checkpoint.state.texts().collect());
    let Checkpoint { through, version, cut, catalog, logs, done, .. } = checkpoint;
    format!("{through:?} {version:?} {cut:?} {catalog:?} {logs:?} {done:?} {tables:?} {numbers:?} {texts:?}")
}

fn all(disk: &SimulatedDisk) -> Checkpoints {
    Checkpoints::of(&DataDirectory::on(Arc::new(disk.clone())))
}

fn take(checkpoints: &Checkpoints, number: u64) -> Result<(), Error> {
    let draft = checkpoints.draft(&checkpoint(number))?;
    checkpoints.publish(draft)?;
    checkpoints.retain(2).map(drop)
}

/// Returns the newest whole checkpoint of a disk.
pub(super) fn newest_of(disk: &SimulatedDisk) -> Option<Checkpoint> {
    all(disk).newest().unwrap().checkpoint
}

/// Returns the newest checkpoint, which must equal the one written.
fn newest(checkpoints: &Checkpoints) -> (u64, Vec<String>) {
    let found = checkpoints.newest().unwrap();
    let number = found.checkpoint.as_ref().map_or(0, |found| found.through.0);
    if let Some(found) = &found.checkpoint {
        assert_eq!(shown(found), shown(&checkpoint(number)));
    }
    (number, found.damaged)
}

#[test]
fn the_newest_is_read_as_it_was_written() {
    let disk = SimulatedDisk::default();
    let checkpoints = all(&disk);
    assert_eq!(newest(&checkpoints), (0, Vec::new()));
    for number in [3, 8, 21] {
        take(&checkpoints, number).unwrap();
        assert_eq!(newest(&checkpoints), (number, Vec::new()));
    }
    assert_eq!(checkpoints.numbers().unwrap(), [Sequence(8), Sequence(21)]);
    assert_eq!(checkpoints.retain(2).unwrap(), Some(Sequence(8)));
    assert_eq!(checkpoints.retain(3).unwrap(), None, "there aren't so many");
}

/// Whichever call fails: published checkpoints survive a crash, and nothing else than what was written is
/// found.
#[test]
fn every_step_may_fail() {
    let mut whole = 0;
    for n in 1.. {
        let disk = SimulatedDisk::default();
        let checkpoints = all(&disk);
        take(&checkpoints, 1).unwrap();
        disk.fail_at(n);
        let taken = (2..5).take_while(|number| take(&checkpoints, *number).is_ok()).last().unwrap_or(1);
        let mut random = Random(n);
        let checkpoints = all(&disk.crash(|bound| random.index(bound)));
        checkpoints.clear().unwrap();
        let (number, damaged) = newest(&checkpoints);
        assert!(number >= taken && damaged.len() <= 1, "call {n}: {number} of {taken}, {damaged:?}");
        // The remains don't hinder the next checkpoint.
        take(&checkpoints, 9).unwrap();
        assert_eq!(newest(&checkpoints).0, 9);
        whole += u64::from(taken == 4);
        if whole > 3 {
            assert!(n > 30, "there were more steps");
            break;
        }
    }
}

#[test]
fn a_crash_leaves_the_last_one_that_was_there() {
    for seed in first_seeds(150, 0..1000) {
        let mut random = Random(seed);
        let mut disk = SimulatedDisk::default();
        let mut taken = 0;
        for number in 1..5 {
            let checkpoints = all(&disk);
            checkpoints.clear().unwrap();
            let found = newest(&checkpoints).0;
            assert!(found >= taken, "seed {seed}: {found} of {taken}");
            match random.index(3) {
                // The crash interrupts a draft.
                0 => drop(checkpoints.draft(&checkpoint(number)).unwrap()),
                _ => {
                    take(&checkpoints, number).unwrap();
                    taken = number;
                }
            }
            disk = disk.crash(|bound| random.index(bound));
        }
    }
}

/// A flipped bit and a missing byte are found: the previous checkpoint is used, and the damage is reported.
#[test]
fn damage_is_found_and_the_one_before_is_taken() {
    let disk = SimulatedDisk::default();
    let checkpoints = all(&disk);
    take(&checkpoints, 1).unwrap();
    take(&checkpoints, 2).unwrap();
    let mut random = Random(5);
    let files: Vec<String> =
        disk.list().unwrap().into_iter().filter(|name| name.starts_with("00000000000000000002")).collect();
    assert!(files.len() > 4, "{files:?}");
    for name in &files {
        let bytes = disk.read(name).unwrap();
        for at in 0..bytes.len() {
            let bits = 1 << random.index(8);
            disk.flip(name, at, bits);
            let (number, damaged) = newest(&checkpoints);
            assert_eq!((number, damaged.len()), (1, 1), "byte {at} of {name}");
            assert!(
                damaged[0].contains("checkpoint 2 is skipped") && damaged[0].contains(name),
                "{damaged:?}"
            );
            disk.flip(name, at, bits);
        }
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let copy = disk.copy();
            copy.remove(name).unwrap();
            copy.create(name).unwrap().append(&bytes[..length]).unwrap();
            assert_eq!(newest(&all(&copy)).0, 1, "{length} bytes of {name}");
        }
        let copy = disk.copy();
        copy.remove(name).unwrap();
        assert_eq!(newest(&all(&copy)).0, 1, "without {name}");
    }
    assert_eq!(newest(&checkpoints), (2, Vec::new()));
}

/// Segments before the oldest kept checkpoint are removed. A start from any kept checkpoint reads the rest.
#[test]
fn the_journal_is_cut_behind_checkpoints() {
    let disk = SimulatedDisk::default();
    let (mut journal, reports) = start(&disk, Sequence::default());
    let mut segments = Vec::new();
    for round in 0..5u64 {
        for _ in 0..3 {
            let number = journal.last().0 + 1;
            durable(&reports, journal.append(epoch(number)));
        }
        if round > 0 {
            journal.forget(Sequence(3 * round));
        }
        segments.push(disk.list().unwrap().len());
    }
    drop(journal);
    assert!(segments.iter().all(|count| *count <= 3), "{segments:?}");
    for after in [12, 13, 15] {
        let mut entries = Entries::open(&DataDirectory::on(Arc::new(disk.clone())), Sequence(after)).unwrap();
        let found: Vec<String> = entries.by_ref().map(|entry| text(&entry.unwrap().1)).collect();
        let expected: Vec<String> = (after + 1..=15).map(|number| text(&epoch(number))).collect();
        assert_eq!((found, entries.through()), (expected, Sequence(15)));
    }
    let mut entries = Entries::open(&DataDirectory::on(Arc::new(disk.clone())), Sequence(2)).unwrap();
    let error = entries.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("but 3 was expected: a segment is missing"), "{error}");
}
