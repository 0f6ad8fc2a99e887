//! Damaged journals and checkpoints: a start never reads another entry or another state than was written.
//!
//! `BOLERO_RANDOM_TEST_TIME_MS=3600000 BOLERO_RANDOM_ITERATIONS=1000000000000 cargo test -p millstream-durable -- fuzz` runs each for an hour.

use super::checkpoints::{checkpoint, newest_of, shown};
use super::*;
use crate::{Checkpoints, frame};

/// An error in a file: its kind, which file, its position, and a byte or a length.
type Damage = (u8, u8, u16, u8);

/// Makes up to four errors in the files of a disk that `is_meant` selects.
fn damage(disk: &SimulatedDisk, errors: &[Damage], is_meant: fn(&str) -> bool) {
    for &(kind, file, at, byte) in errors.iter().take(4) {
        let names: Vec<String> = disk.list().unwrap().into_iter().filter(|name| is_meant(name)).collect();
        let Some(name) = names.get(usize::from(file) % names.len().max(1)) else { return };
        let mut bytes = disk.read(name).unwrap();
        let at = usize::from(at) % (bytes.len() + 1);
        let end = (at + usize::from(byte)).min(bytes.len());
        match kind % 6 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
            1 if at < bytes.len() => bytes[at] = byte,
            2 => bytes.insert(at, byte),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
        disk.remove(name).unwrap();
        disk.create(name).unwrap().append(&bytes).unwrap();
    }
}

#[test]
fn a_fuzzed_journal_has_no_other_entries() {
    let disk = SimulatedDisk::default();
    let (mut journal, reports) = start(&disk, Sequence::default());
    for number in 1..=3 {
        journal.append(epoch(number));
    }
    durable(&reports, Sequence(3));
    drop(journal);
    let whole: Vec<String> = read(&disk).unwrap().0.iter().map(text).collect();
    bolero::check!().with_iterations(500).with_type::<Vec<Damage>>().for_each(|errors| {
        let copy = disk.copy();
        damage(&copy, errors, |_| true);
        // What is read is what was written, as far as it goes; or the damage is named.
        if let Ok((found, _)) = read(&copy) {
            let found: Vec<String> = found.iter().map(text).collect();
            assert_eq!(found, whole[..found.len()]);
        }
    });
}

#[test]
fn a_fuzzed_checkpoint_is_passed_over() {
    let disk = SimulatedDisk::default();
    let checkpoints = Checkpoints::of(&DataDirectory::on(Arc::new(disk.clone())));
    for number in 1..=2 {
        let draft = checkpoints.draft(&checkpoint(number)).unwrap();
        checkpoints.publish(draft).unwrap();
    }
    bolero::check!().with_iterations(300).with_type::<Vec<Damage>>().for_each(|errors| {
        let copy = disk.copy();
        damage(&copy, errors, |name| name.starts_with("00000000000000000002"));
        let found = newest_of(&copy).expect("the first one is whole");
        let number = found.through.0;
        assert_eq!(shown(&found), shown(&checkpoint(number)));
    });
}

#[test]
fn fuzzed_bytes_are_no_journal() {
    bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
        let _ = frame::read_head(bytes, Sequence(1));
        let _ = frame::has_frames(bytes, Sequence(1));
        // A checksum keeps such bytes away from this decoder; it must hold nevertheless.
        let _ = Entry::decode(bytes);
    });
}
