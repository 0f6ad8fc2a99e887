//! Spilled pages of mutable data equal those in memory, whatever fails.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::DataType;
use millstream_delta::{Chunk, Delta};

use super::rooms::Rooms;
use super::tests::{all_out, content, place, round, rows, schema};
use super::*;
use crate::{KeyIndex, Paged, Rows, Sequence};
use millstream_seeds::Random;

/// Returns keys of many shapes: one word, several, text of any length, several columns of any kind.
fn shapes() -> Vec<Vec<DataType>> {
    use DataType::{Decimal128, Int16, Int32, Int64, Utf8};
    vec![
        vec![Int64],
        vec![Int64, Int32],
        vec![Decimal128(20, 2), Int64, Int32],
        vec![Decimal128(20, 2), Int64, Int32, Int64],
        vec![Utf8],
        vec![Int16, Utf8],
    ]
}

fn columns(types: &[DataType], numbers: &[u64]) -> Vec<ArrayRef> {
    let column = |data_type: &DataType| -> ArrayRef {
        match data_type {
            DataType::Utf8 => Arc::new(StringArray::from_iter(numbers.iter().map(|n| match n % 11 {
                0 => None,
                1..6 => Some(format!("{n}")),
                _ => Some(format!("a text that lies somewhere else: {n}")),
            }))),
            data_type => {
                let numbers =
                    Int64Array::from_iter(numbers.iter().map(|n| (n % 13 != 0).then_some(*n as i64)));
                arrow::compute::cast(&numbers, data_type).unwrap()
            }
        }
    };
    types.iter().map(column).collect()
}

#[test]
fn keys_are_the_same_in_files() {
    for (seed, types) in (1..).zip(shapes()) {
        let (_directory, place) = place(9);
        let mut draw = Random(seed);
        let index = || KeyIndex::new(types.clone()).unwrap();
        let (mut plain, mut spilled) = (index(), index());
        let (mut failed, mut in_files) = (0, 0);
        for step in 0..120 {
            let numbers: Vec<u64> = (0..draw.below(600)).map(|_| draw.below(20_000)).collect();
            let keys = columns(&types, &numbers);
            let [mut expected, mut found] = [Vec::new(), Vec::new()];
            if draw.below(3) == 0 {
                plain.find(&keys, &mut expected).unwrap();
                spilled.find(&keys, &mut found).unwrap();
            } else {
                let new = plain.slots(&keys, &mut expected).unwrap();
                assert_eq!(spilled.slots(&keys, &mut found).unwrap(), new);
            }
            assert_eq!(expected, found, "step {step} of {types:?}");
            let live = plain.live();
            for _ in 0..draw.below(200).min(live.len() as u64 / 2) {
                let slot = live[draw.below(live.len() as u64) as usize];
                if plain.live_among(vec![slot]).1.is_empty() {
                    plain.free(slot);
                    spilled.free(slot);
                }
            }
            failed += usize::from(round(&mut draw, &mut spilled, &place));
            in_files = in_files.max(spilled.spilled_bytes());
        }
        assert!(failed > 3 && in_files > 50_000, "{failed} {in_files} {types:?}");
        let live = plain.live();
        assert_eq!(spilled.live(), live);
        assert_eq!(spilled.keys(&live).unwrap(), plain.keys(&live).unwrap());
        assert!(all_out(&mut spilled, &place) > 50_000);
        let mut copy = spilled.try_clone().unwrap();
        assert_eq!((copy.spilled_bytes(), copy.live()), (0, live.clone()));
        assert_eq!(copy.keys(&live).unwrap(), plain.keys(&live).unwrap());
        live.iter().for_each(|slot| copy.free(*slot));
        assert!(all_out(&mut copy, &place) > 0);
        assert!(spilled.memory_bytes() < plain.memory_bytes() / 2, "{types:?}");
        assert_eq!(spilled.keys(&live).unwrap(), plain.keys(&live).unwrap());
    }
}

#[test]
fn keys_of_panes_are_the_same_in_files() {
    let (_directory, place) = place(9);
    let mut draw = Random(4);
    let index = || {
        let mut index = KeyIndex::new(vec![DataType::Int64, DataType::Int64]).unwrap();
        index.tell_apart(&[1]);
        index
    };
    let (mut plain, mut spilled) = (index(), index());
    for pane in 0..60i64 {
        let some = Int64Array::from_iter_values((0..2000).map(|_| draw.below(8000) as i64));
        let keys: [ArrayRef; 2] = [Arc::new(some), Arc::new(Int64Array::from(vec![pane / 3; 2000]))];
        let [mut expected, mut found] = [Vec::new(), Vec::new()];
        plain.slots(&keys, &mut expected).unwrap();
        spilled.slots(&keys, &mut found).unwrap();
        assert_eq!(expected, found);
        if pane > 30 {
            for slot in plain.live().into_iter().take(1500) {
                plain.free(slot);
                spilled.free(slot);
            }
        }
        round(&mut draw, &mut spilled, &place);
    }
    assert!(all_out(&mut spilled, &place) > 100_000);
    let live = plain.live();
    assert_eq!(spilled.keys(&live).unwrap(), plain.keys(&live).unwrap());
}

#[test]
fn a_table_that_is_in_files_grows_there() {
    let (_directory, place) = place(usize::MAX);
    let mut index = KeyIndex::new(vec![DataType::Int64]).unwrap();
    let keys = |from: i64| -> [ArrayRef; 1] { [Arc::new(Int64Array::from_iter_values(from..from + 50_000))] };
    let mut slots = Vec::new();
    index.slots(&keys(0), &mut slots).unwrap();
    let before = all_out(&mut index, &place);
    let asked = *place.asked.lock().unwrap();
    // Twice the keys take a table of twice the size, which stays in its file; the keys themselves are new.
    index.slots(&keys(50_000), &mut slots).unwrap();
    assert!(index.spilled_bytes() > before + 400_000, "{before} and {}", index.spilled_bytes());
    assert!(index.memory_bytes() < 550_000, "{}", index.memory_bytes());
    assert_eq!(*place.asked.lock().unwrap(), asked);
    assert!(slots.into_iter().eq(0..100_000));
}

#[test]
fn columns_are_the_same_in_files() {
    let (_directory, place) = place(7);
    let mut draw = Random(8);
    let (mut plain, mut spilled) = (Vec::new(), Paged::default());
    for _ in 0..300 {
        let end = plain.len().max(draw.below(40_000) as usize);
        plain.resize(end, 3i128);
        spilled.resize(end, 3);
        for _ in 0..100.min(end) {
            let slot = draw.below(end as u64) as usize;
            plain[slot] += slot as i128;
            spilled[slot] += slot as i128;
        }
        round(&mut draw, &mut spilled, &place);
    }
    assert!(all_out(&mut spilled, &place) > 16 * 30_000);
    assert!(spilled.memory_bytes() < 1000, "{}", spilled.memory_bytes());
    assert!((0..plain.len()).all(|slot| plain[slot] == spilled[slot]));
}

#[test]
fn rows_are_found_by_their_content_in_files() {
    let (_directory, place) = place(7);
    let mut draw = Random(77);
    let (mut plain, mut spilled) = (Rows::new(schema()), Rows::new(schema()));
    for step in 0..40 {
        let some: Vec<(i64, u64)> = (0..2_000).map(|_| (draw.below(30_000) as i64, draw.below(2))).collect();
        let (inserts, deletes) = (rows(&some), rows(&some[..if step % 10 < 6 { 300 } else { 1_900 }]));
        for change in [Delta::insert(inserts), Delta::of(Chunk::delete(deletes))] {
            plain.apply(&change).unwrap();
            spilled.apply(&change).unwrap();
        }
        // An absent row is recognized by its content alone.
        let gone = Delta::of(Chunk::delete(rows(&[(40_000, step)])));
        assert!(plain.apply(&gone).is_err() && spilled.apply(&gone).is_err());
        round(&mut draw, &mut spilled, &place);
        assert_eq!(content(&plain.snapshot()), content(&spilled.snapshot()), "step {step}");
    }
    all_out(&mut spilled, &place);
    let count = spilled.num_rows();
    let (before, after) = (plain.memory_bytes(), spilled.memory_bytes());
    assert!(
        count > 20_000 && 3 * after < before && spilled.spilled_bytes() > 20 * count,
        "{after} of {before}"
    );
}

/// Returns keys of one length or of any length, and now and then a very long one.
fn ordered_key(draw: &mut Random, shape: u64) -> Vec<u8> {
    let number = draw.below(9_000);
    let mut key = number.to_be_bytes().to_vec();
    if shape > 0 {
        key.extend(std::iter::repeat_n(7, (number % 90) as usize));
    }
    if shape > 1 && number.is_multiple_of(100) {
        key.resize(40_000 + 10 * number as usize, 9);
    }
    key
}

#[test]
fn leaves_of_an_order_are_the_same_in_files() {
    let mut failed = 0;
    for shape in 0..3 {
        let (_directory, place) = place(5);
        let mut draw = Random(31 + shape);
        let (mut plain, mut spilled) = (Sequence::default(), Sequence::default());
        let mut in_files = 0;
        for step in 0..150 {
            // The set grows, shrinks to nothing, and grows again in memory.
            let grows = step % 30 < 20;
            while let (0, Some(key)) = (step % 30, plain.key_at(0).map(<[u8]>::to_vec)) {
                plain.set(&key, false);
                spilled.set(&key, false);
            }
            for _ in 0..draw.below(700) {
                let key = ordered_key(&mut draw, shape);
                let there = draw.below(8) < if grows { 6 } else { 1 };
                plain.set(&key, there);
                spilled.set(&key, there);
                assert_eq!(plain.position(&key), spilled.position(&key));
            }
            failed += usize::from(round(&mut draw, &mut spilled, &place));
            in_files = in_files.max(spilled.spilled_bytes());
            let count = plain.positions(&[]).end;
            assert_eq!(spilled.positions(&[]).end, count);
            assert!((0..count).step_by(7).all(|at| plain.key_at(at) == spilled.key_at(at)), "step {step}");
        }
        assert!(in_files > 50_000, "{in_files} of shape {shape}");
        assert!(all_out(&mut spilled, &place) > 50_000);
        assert!(
            spilled.memory_bytes() < plain.memory_bytes() / 2,
            "{} {}",
            spilled.memory_bytes(),
            plain.memory_bytes()
        );
        // Spilled leaves are changed in their files.
        let before = spilled.memory_bytes();
        (0..9_000u64).step_by(3).for_each(|number| spilled.set(&number.to_be_bytes(), true));
        assert!(spilled.memory_bytes() < before + 30_000, "{before} {}", spilled.memory_bytes());
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn leaves_that_a_disk_has_no_room_for_stay() {
    let (_directory, full) = place(1);
    let mut sequence = Sequence::default();
    (0..5_000u64).for_each(|number| sequence.set(&number.to_be_bytes(), true));
    let before = sequence.memory_bytes();
    let mut spilling = Spilling::new(&full, usize::MAX);
    sequence.spill(&mut spilling);
    assert!(!spilling.is_over(), "leaves wait until pages are taken");
    spilling.take_pages();
    sequence.spill(&mut spilling);
    assert!(spilling.is_over() && spilling.end().unwrap().to_string().contains("no space left"));
    assert_eq!((sequence.spilled_bytes(), sequence.memory_bytes()), (0, before));
    assert!((0..5_000u64).all(|number| sequence.key_at(number) == Some(&number.to_be_bytes())));
}

#[test]
fn what_values_own_goes_with_them() {
    let (_directory, place) = place(usize::MAX);
    let owned = Arc::new(());
    let mut paged: Paged<Option<Arc<()>>> = Paged::default();
    paged.resize(3, None);
    for end in [10, 5000, 9000] {
        paged.resize(end, Some(owned.clone()));
        assert!(all_out(&mut paged, &place) >= 8 * end, "the last page comes back to grow, and goes again");
        assert_eq!(Arc::strong_count(&owned), 1 + end - 3);
    }
    paged[4999] = None;
    assert_eq!((paged[3].is_some(), Arc::strong_count(&owned)), (true, 8997));
    drop(paged);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn rooms_are_used_again_and_files_go_with_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let rooms = Arc::new(Rooms::below(directory.path().join("spill")));
    let mut taken: Vec<Room> = (0..3000).map(|n| rooms.room(1 + n % 20_000).unwrap()).collect();
    let starts: Vec<(usize, usize)> =
        taken.iter().map(|room| (room.start() as usize, room.bytes())).collect();
    let mut sorted = starts.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "rooms are apart");
    let alignment = |bytes: usize| if bytes < 4096 { 64 } else { 4096 };
    assert!(starts.iter().all(|(start, bytes)| (start | bytes) % alignment(*bytes) == 0));
    let room = taken.swap_remove(7);
    let (start, bytes) = (room.start(), room.bytes());
    drop(room);
    assert_eq!(rooms.room(bytes).unwrap().start(), start);
    let one_large = rooms.room(40 << 20).unwrap();
    assert_eq!(one_large.bytes(), 40 << 20);
    drop((taken, one_large));
    assert_eq!(rooms.files(), 0);
    assert_eq!(std::fs::read_dir(directory.path().join("spill")).unwrap().count(), 0);
    let missing = Arc::new(Rooms::below(directory.path().join("a file/below")));
    std::fs::write(directory.path().join("a file"), "text").unwrap();
    assert!(missing.room(1).unwrap_err().to_string().contains("a file/below"));
}

#[test]
fn a_large_round_is_brought_to_the_disk() {
    let (_directory, place) = place(usize::MAX);
    let mut paged: Paged<u64> = (0..1_000_000).collect();
    assert!(all_out(&mut paged, &place) == 8_000_000);
    assert!((0..1_000_000).all(|slot| paged[slot] == slot as u64));
    (0..1_000_000).for_each(|slot| paged[slot] += 1);
    assert!((0..1_000_000).all(|slot| paged[slot] == slot as u64 + 1));
}

#[test]
fn pages_that_a_disk_has_no_room_for_stay() {
    let (_directory, full) = place(1);
    let mut paged: Paged<u64> = (0..10_000).collect();
    let before = paged.memory_bytes();
    let mut spilling = Spilling::new(&full, usize::MAX);
    spilling.take_pages();
    paged.spill(&mut spilling);
    assert!(spilling.is_over() && spilling.freed() == 0);
    assert!(spilling.end().unwrap().to_string().contains("no space left"));
    assert_eq!((paged.spilled_bytes(), paged.memory_bytes()), (0, before));
    // With a large minimum, small pages are not spilled; and the round moves no more than wanted.
    let (_directory, good) = place(usize::MAX);
    let mut spilling = Spilling::new(&good, 40_000).only_from(64 << 10);
    spilling.take_pages();
    let mut small: Paged<u64> = (0..500).collect();
    small.spill(&mut spilling);
    paged.spill(&mut spilling);
    assert_eq!((small.spilled_bytes(), paged.spilled_bytes(), spilling.freed()), (0, 65_536, 65_536));
}
