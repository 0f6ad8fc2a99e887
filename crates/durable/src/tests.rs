//! Durability: properties of the journal on disks that fail, fill up and forget.

mod checkpoints;
mod fuzz;
mod increments;
mod protocol;
mod stores;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use millstream_connect::{Arrival, BadRow, More};
use millstream_delta::{Chunk, Closes, Cut, Delta, Digest, Epoch, Mark, Span, Standing as Stands, Timestamp};
use millstream_seeds::{Random, all_seeds, first_seeds};

use crate::simulated::SimulatedDisk;
use crate::{
    Brought, DataDirectory, Delivered, Digested, Disk, Entries, Entry, Error, Journal, Plan, Recorded,
    Report, Sequence, SequenceValue, Standing,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn rows(from: i64, count: i64) -> RecordBatch {
    rows_of(&(from..from + count).collect::<Vec<_>>())
}

fn rows_of(numbers: &[i64]) -> RecordBatch {
    let text = |n: &i64| (n % 3 != 0).then(|| format!("the text of row number {n}"));
    let texts: StringViewArray = numbers.iter().map(text).collect();
    let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    RecordBatch::try_from_iter_with_nullable([
        ("n", numbers, false),
        ("t", Arc::new(texts) as ArrayRef, true),
    ])
    .unwrap()
}

fn span(split: &str, from: u64, to: u64) -> Span {
    Span { split: split.into(), from, to, done: from == 7 }
}

fn epoch(number: u64) -> Entry {
    let n = number as i64;
    let weighted = Chunk { rows: rows(n, 3), weights: Some(Int64Array::from(vec![1, -2, 3])) };
    let delta = Delta { chunks: vec![Chunk::insert(rows(n, 2)), Chunk::insert(rows(n + 5, 1)), weighted] };
    let bad = BadRow { split: "s".into(), offset: 9, reason: "no number".into(), bytes: vec![0xff, 0, 7] };
    let arrival = Arrival {
        spans: vec![span("s", number, number + 4)],
        bad_rows: vec![bad],
        splits: vec!["s".into()],
        rows: vec![rows(n, 4)],
        ..Arrival::nothing(More::Later)
    };
    let cut = Cut {
        started: Timestamp(-5),
        closes: Closes::Filled,
        positions: vec![("a".into(), vec![span("x", 0, number), span("y", 7, 9)])],
        watermarks: vec![("a".into(), i64::MIN)],
        marks: vec![(
            "a".into(),
            vec![Mark { partition: "".into(), newest: Some(n), standing: Stands::Idle }],
        )],
        event_time_max: Some(Timestamp(n)),
        ..Cut::new(Epoch(number), Timestamp(n * 1000))
    };
    Entry::Epoch(Box::new(Recorded {
        cut,
        changes: vec![("t".into(), delta), ("u".into(), Delta::default())],
        brought: vec![Brought { source: "s".into(), arrivals: vec![arrival, Arrival::nothing(More::Later)] }],
        done: vec![format!("{number}: INSERT")],
        delivered: vec![delivered(number - 1)],
    }))
}

fn delivered(number: u64) -> Delivered {
    let digest = Digest::of(&Delta::insert(rows(number as i64, 2))).unwrap();
    let digests = vec![Digested { after: Epoch(number / 2), through: Epoch(number), digest }];
    Delivered { sink: "k".into(), through: Epoch(number), digests }
}

/// Returns an entry as text, for comparisons.
fn text(entry: &Entry) -> String {
    format!("{entry:?}")
}

fn start(disk: &SimulatedDisk, after: Sequence) -> (Journal, Receiver<Report>) {
    let (sender, reports) = channel();
    let directory = DataDirectory::on(Arc::new(disk.clone()));
    let journal = Journal::start(directory, after, move |report| drop(sender.send(report))).unwrap();
    (journal, reports)
}

fn read(disk: &SimulatedDisk) -> Result<(Vec<Entry>, Entries), Error> {
    let mut entries = Entries::open(&DataDirectory::on(Arc::new(disk.clone())), Sequence::default())?;
    let all = entries.by_ref().map(|entry| entry.map(|(_, entry)| entry)).collect::<Result<Vec<_>, _>>()?;
    Ok((all, entries))
}

/// Waits until an entry is durable.
fn durable(reports: &Receiver<Report>, through: Sequence) {
    loop {
        match reports.recv_timeout(PATIENCE).expect("it says how it goes") {
            Report::Durable(sequence) if sequence >= through => return,
            Report::Durable(_) | Report::Waits(_) => {}
            Report::Failed(reason) | Report::Lost(reason) => panic!("{reason}"),
        }
    }
}

#[test]
fn every_kind_of_entry_is_read_as_it_was_written() {
    let standing = Standing { epoch: Epoch(4), now: Timestamp(12), begins_apart: true };
    let entries = vec![
        Entry::Opened { version: "0.1.0".into(), at: Timestamp(1) },
        Entry::Claimed { by: "process 7 on a machine".into() },
        Entry::Changed {
            statements: vec!["CREATE TABLE \"t'\" (x INT)".into(), "CREATE VIEW v AS SELECT 'ä\n'".into()],
            variables: vec![("search_path".into(), "public".into())],
            done: vec!["1: DROP TABLE x".into()],
            plans: vec![
                Plan { object: "v".into(), version: "1".into(), plan: Ok(b"a plan".to_vec()) },
                Plan { object: "w".into(), version: "2".into(), plan: Err("the node x".into()) },
                Plan { object: "x".into(), version: "3".into(), plan: Ok(Vec::new()) },
            ],
            standing,
        },
        Entry::TableMade { name: "t".into(), schema: rows(0, 0).schema(), key: vec![1, 0], standing },
        Entry::Set { name: "batch_interval".into(), value: "1 second".into() },
        Entry::Paused { name: None, pause: true, stages: false, standing },
        Entry::Paused { name: Some("x".into()), pause: false, stages: true, standing },
        epoch(1),
        Entry::Arrived { query: "mv".into(), standing },
        Entry::Advanced { subscription: "n".into(), through: Epoch(3) },
        Entry::Sequence(SequenceValue { sequence: "s".into(), last: -4, is_called: true }),
        Entry::Skipped { to: Timestamp(13) },
        Entry::Closed { delivered: vec![delivered(3)] },
    ];
    let disk = SimulatedDisk::default();
    let (mut journal, reports) = start(&disk, Sequence::default());
    for entry in &entries {
        journal.append(entry.clone());
    }
    durable(&reports, journal.last());
    assert_eq!(journal.waiting_bytes(), 0);
    drop(journal);
    let (found, read) = read(&disk).unwrap();
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), entries.iter().map(text).collect::<Vec<_>>());
    assert_eq!((read.through(), read.torn().len()), (Sequence(entries.len() as u64), 0));
}

/// Entries reported durable survive a crash, in order and without a gap. Later entries continue after them.
#[test]
fn what_is_durable_survives_crashes() {
    for seed in first_seeds(60, 0..300) {
        let mut random = Random(seed);
        let mut disk = SimulatedDisk::default();
        let mut promised = 0;
        for _ in 0..3 {
            let (found, entries) = read(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(entries.through().0 >= promised, "seed {seed}: {} of {promised}", entries.through());
            for (at, entry) in found.iter().enumerate() {
                assert_eq!(text(entry), text(&epoch(at as u64 + 1)), "seed {seed}");
            }
            let (mut journal, reports) = start(&disk, entries.through());
            for _ in 0..random.index(6) {
                let sequence = journal.append(epoch(journal.last().0 + 1));
                if random.index(2) == 0 {
                    durable(&reports, sequence);
                    promised = sequence.0;
                }
            }
            disk = disk.crash(|bound| random.index(bound));
            promised = promised.max(reports.try_iter().fold(0, |newest, report| match report {
                Report::Durable(sequence) => newest.max(sequence.0),
                _ => newest,
            }));
        }
    }
}

/// Whichever disk call fails: entries reported durable before survive, and none are reported afterwards.
#[test]
fn nothing_is_promised_after_a_failure() {
    for n in 1..60 {
        let disk = SimulatedDisk::default();
        let (mut journal, reports) = start(&disk, Sequence::default());
        disk.fail_at(n);
        for number in 1..=20 {
            journal.append(epoch(number));
        }
        drop(journal);
        let reports: Vec<Report> = reports.try_iter().collect();
        let failed = reports.iter().position(|report| matches!(report, Report::Failed(_)));
        let promised = reports.iter().fold(0, |newest, report| match report {
            Report::Durable(sequence) => sequence.0.max(newest),
            _ => newest,
        });
        assert!(failed.is_none_or(|at| at + 1 == reports.len()), "call {n}: {reports:?}");
        assert_eq!(failed.is_none(), promised == 20, "call {n}: {reports:?}");
        let mut random = Random(n);
        let (found, _) = read(&disk.crash(|bound| random.index(bound))).unwrap();
        assert!(found.len() as u64 >= promised, "call {n}: {} of {promised}", found.len());
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = SimulatedDisk::default();
    let (mut journal, reports) = start(&disk, Sequence::default());
    journal.append(epoch(1));
    durable(&reports, Sequence(1));
    let used: usize = disk.list().unwrap().iter().map(|name| disk.read(name).unwrap().len()).sum();
    disk.set_room(Some(used as u64 + 100));
    journal.append(epoch(2));
    let Report::Waits(reason) = reports.recv_timeout(PATIENCE).unwrap() else { panic!("it isn't full") };
    assert!(reason.contains("writing journal"), "{reason}");
    assert_eq!(read(&disk).unwrap().0.len(), 1);
    assert!(journal.waiting_bytes() > 0);
    disk.set_room(None);
    durable(&reports, Sequence(2));
    drop(journal);
    let (found, entries) = read(&disk).unwrap();
    assert_eq!((found.len(), entries.torn().len()), (2, 0));
}

/// A flipped bit is an error that names the place, or the journal ends there if it looks like a torn write.
/// It never produces another entry.
#[test]
fn damage_is_found() {
    let disk = SimulatedDisk::default();
    let (mut journal, reports) = start(&disk, Sequence::default());
    for number in 1..=3 {
        journal.append(epoch(number));
    }
    durable(&reports, Sequence(3));
    drop(journal);
    let name = disk.list().unwrap().remove(0);
    let bytes = disk.read(&name).unwrap();
    let whole: Vec<String> = read(&disk).unwrap().0.iter().map(text).collect();
    let mut random = Random(1);
    let (mut errors, mut ends) = (0, 0);
    for at in 0..bytes.len() {
        let bits = 1 << random.index(8);
        disk.flip(&name, at, bits);
        match read(&disk) {
            Err(Error::Corrupt { name: named, .. }) => {
                assert_eq!(named, name);
                errors += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok((found, entries)) => {
                assert_eq!(found.iter().map(text).collect::<Vec<_>>(), whole[..2], "byte {at}");
                assert_eq!(entries.torn().len(), 1, "byte {at}");
                ends += 1;
            }
        }
        disk.flip(&name, at, bits);
    }
    assert!(errors > ends, "{errors} errors, {ends} ends");
}

#[test]
fn a_missing_segment_is_found() {
    let disk = SimulatedDisk::default();
    for after in 0..3 {
        let (mut journal, reports) = start(&disk, Sequence(after));
        durable(&reports, journal.append(epoch(after + 1)));
    }
    let names = disk.list().unwrap();
    assert_eq!((names.len(), read(&disk).unwrap().0.len()), (3, 3));
    disk.remove(&names[1]).unwrap();
    let error = read(&disk).unwrap_err().to_string();
    assert!(error.contains("begins with entry 3, but 2 was expected"), "{error}");
}
