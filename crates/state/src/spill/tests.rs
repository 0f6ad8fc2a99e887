//! Spilled state equals that in memory, whatever fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use arrow::array::*;
use arrow::datatypes::*;
use millstream_delta::{Chunk, Delta};

use super::*;
use crate::{
    Arranged, Conflict, KeyIndex, Keyed, Moved, Ordered, Placed, Rows, RowsSnapshot, Slotted, Tables,
};
use millstream_seeds::Random;

/// A place in which every n-th file cannot be written.
#[derive(Debug)]
pub(super) struct Failing {
    files: Files,
    every: usize,
    pub(super) asked: Mutex<usize>,
}

impl Place for Failing {
    fn put(&self, bytes: &[u8]) -> io::Result<Bytes> {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        if asked.is_multiple_of(self.every) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
        }
        self.files.put(bytes)
    }

    fn room(&self, bytes: usize) -> io::Result<Room> {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        if asked.is_multiple_of(self.every) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
        }
        self.files.room(bytes)
    }
}

/// Returns a place of its own in which every n-th file fails.
pub(super) fn place(every: usize) -> (tempfile::TempDir, Failing) {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::below(directory.path().join("spill"));
    (directory, Failing { files, every, asked: Mutex::default() })
}

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("t", DataType::Utf8View, true),
        Field::new("x", DataType::Float64, true),
    ]))
}

pub(super) fn rows(keys: &[(i64, u64)]) -> RecordBatch {
    let texts: StringViewArray =
        keys.iter().map(|(key, n)| (n % 5 != 0).then(|| format!("the text of {key}: {n}"))).collect();
    let x: Float64Array =
        keys.iter().map(|(_, n)| (n % 7 != 0).then(|| f64::from(*n as u32) / 3.0)).collect();
    let keys = Int64Array::from_iter_values(keys.iter().map(|(key, _)| *key));
    RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(texts), Arc::new(x)]).unwrap()
}

fn drawn(draw: &mut Random, count: u64, keys: u64) -> Vec<(i64, u64)> {
    (0..draw.below(count)).map(|_| (draw.below(keys) as i64, draw.below(4))).collect()
}

pub(super) fn content(snapshot: &RowsSnapshot) -> Vec<RecordBatch> {
    snapshot.batches().unwrap()
}

/// Spills what it can, most of the time.
pub(super) fn round(draw: &mut Random, store: &mut dyn Spillable, place: &dyn Place) -> bool {
    if draw.below(3) == 0 {
        return false;
    }
    let mut spilling = Spilling::new(place, draw.below(100_000) as usize);
    store.spill(&mut spilling);
    store.spill(&mut spilling);
    spilling.take_pages();
    store.spill(&mut spilling);
    spilling.end().is_some()
}

/// Spills everything, and returns the number of spilled bytes.
pub(super) fn all_out(store: &mut dyn Spillable, place: &Failing) -> usize {
    let mut spilling = Spilling::new(&place.files, usize::MAX);
    spilling.take_pages();
    store.spill(&mut spilling);
    store.spill(&mut spilling);
    assert!(spilling.end().is_none());
    let mut again = Spilling::new(&place.files, usize::MAX);
    again.take_pages();
    store.spill(&mut again);
    assert_eq!(again.freed(), 0);
    store.spilled_bytes()
}

#[test]
fn a_multiset_of_rows_is_the_same_in_files() {
    let (_directory, place) = place(5);
    let mut draw = Random(11);
    let (mut plain, mut spilled) = (Rows::new(schema()), Rows::new(schema()));
    let mut failed = 0;
    for step in 0..400 {
        let some = drawn(&mut draw, 300, 200);
        let weights: Int64Array = some.iter().map(|_| draw.below(5) as i64 - 2).collect();
        let delta = Delta::of(Chunk { rows: rows(&some), weights: Some(weights) });
        let before = spilled.snapshot();
        let kept = content(&before);
        assert_eq!(plain.apply(&delta).is_ok(), spilled.apply(&delta).is_ok());
        if draw.below(2) == 0 {
            let all = Delta::insert(rows(&some));
            plain.apply(&all).unwrap();
            spilled.apply(&all).unwrap();
        }
        failed += usize::from(round(&mut draw, &mut spilled, &place));
        assert_eq!(plain.num_rows(), spilled.num_rows());
        if step % 20 == 0 {
            assert_eq!(content(&plain.snapshot()), content(&spilled.snapshot()), "step {step}");
        }
        assert_eq!(content(&before), kept, "a reader sees what was there");
    }
    let bytes = all_out(&mut spilled, &place);
    assert!(failed > 10 && bytes > 10_000, "{failed} {bytes}");
    assert_eq!(content(&plain.snapshot()), content(&spilled.snapshot()));
}

#[test]
fn rows_by_key_are_the_same_in_files() {
    let (_directory, place) = place(7);
    let mut draw = Random(5);
    let keyed = || Keyed::new(schema(), vec![0]).unwrap();
    let (mut plain, mut spilled) = (keyed(), keyed());
    for _ in 0..400 {
        let some = rows(&drawn(&mut draw, 200, 3000));
        let changes = match draw.below(3) {
            0 => [plain.delete(&some).unwrap(), spilled.delete(&some).unwrap()],
            _ => {
                let conflict = [Conflict::Replace, Conflict::Keep][draw.below(2) as usize];
                [plain.upsert(&some, conflict).unwrap(), spilled.upsert(&some, conflict).unwrap()]
            }
        };
        let [expected, found] = changes.map(|delta| delta.into_one(&schema()).unwrap());
        assert_eq!(expected.map(|chunk| chunk.rows), found.map(|chunk| chunk.rows));
        round(&mut draw, &mut spilled, &place);
    }
    assert_eq!(content(&plain.snapshot()), content(&spilled.snapshot()));
    let bytes = all_out(&mut spilled, &place);
    assert!(bytes > 10_000, "{bytes}");
    assert_eq!(content(&plain.snapshot()), content(&spilled.snapshot()));
}

#[test]
fn rows_of_slots_are_the_same_in_files() {
    let (_directory, place) = place(6);
    let mut draw = Random(3);
    let mut index = KeyIndex::new(vec![DataType::Int64]).unwrap();
    let arranged = || Arranged::new(schema());
    let (mut plain, mut spilled) = (arranged(), arranged());
    let slotted = || Slotted::new(schema());
    let (mut plain_slots, mut spilled_slots) = (slotted(), slotted());
    for step in 0..300 {
        let some = drawn(&mut draw, 200, 300);
        let rows = rows(&some);
        let mut slots = Vec::new();
        index.slots(&[rows.column(0).clone()], &mut slots).unwrap();
        let weights: Int64Array = some.iter().map(|_| [1, 1, 2, -1][draw.below(4) as usize]).collect();
        let tallies = (step % 2 == 0).then(|| some.iter().map(|(key, n)| key + *n as i64).collect());
        let placed = || Placed {
            chunk: Chunk { rows: rows.clone(), weights: Some(weights.clone()) },
            slots: slots.clone(),
            tallies: None,
        };
        assert_eq!(plain.apply(vec![placed()]).is_ok(), spilled.apply(vec![placed()]).is_ok());
        let insert = Placed { chunk: Chunk::insert(rows.clone()), slots: slots.clone(), tallies };
        plain.apply(vec![insert.clone()]).unwrap();
        spilled.apply(vec![insert]).unwrap();
        let mut once: BTreeMap<u32, u32> = BTreeMap::new();
        once.extend(slots.iter().zip(0..).map(|(slot, row)| (*slot, row)));
        let (of, at): (Vec<u32>, Vec<u32>) = once.into_iter().unzip();
        let put = arrow::compute::take_record_batch(&rows, &UInt32Array::from(at)).unwrap();
        plain_slots.put(&of, &put).unwrap();
        spilled_slots.put(&of, &put).unwrap();
        round(&mut draw, &mut spilled, &place);
        round(&mut draw, &mut spilled_slots, &place);
        let asked: Vec<u32> = (0..20).map(|_| draw.below(350) as u32).collect();
        assert_eq!(plain.gather(&asked).unwrap(), spilled.gather(&asked).unwrap(), "step {step}");
        assert_eq!(plain_slots.get(&asked).unwrap(), spilled_slots.get(&asked).unwrap());
    }
    assert!(all_out(&mut spilled, &place) > 10_000);
    assert!(all_out(&mut spilled_slots, &place) > 1000);
    let all: Vec<u32> = (0..300).collect();
    assert_eq!(plain_slots.get(&all).unwrap(), spilled_slots.get(&all).unwrap());
    let [mut expected, mut found] = [Tables::default(), Tables::default()];
    plain.save(&all, "rows", &mut expected).unwrap();
    spilled.save(&all, "rows", &mut found).unwrap();
    assert_eq!(expected.take("rows").unwrap(), found.take("rows").unwrap(), "a checkpoint is the same");
    assert!(spilled.memory_bytes() < plain.memory_bytes());
}

#[test]
fn rows_in_order_are_the_same_in_files() {
    let (_directory, place) = place(6);
    let mut draw = Random(9);
    let (mut plain, mut spilled) = (Ordered::new(schema()), Ordered::new(schema()));
    for _ in 0..300 {
        let mut some = drawn(&mut draw, 100, 2000);
        some.sort_unstable();
        some.dedup_by_key(|row| row.0);
        let some: Vec<_> = some.into_iter().map(|(key, _)| (key, key as u64)).collect();
        let batch = rows(&some);
        let keys: Vec<[u8; 8]> = some.iter().map(|(key, _)| key.to_be_bytes()).collect();
        let mut moved = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let there = plain.copies(key) as i64;
            let weight = [1, 2, -there][draw.below(3) as usize];
            moved.push(Moved { key, row: row as u32, weight });
        }
        moved.retain(|moved| moved.weight != 0);
        plain.apply(&batch, &moved).unwrap();
        spilled.apply(&batch, &moved).unwrap();
        round(&mut draw, &mut spilled, &place);
    }
    assert!(all_out(&mut spilled, &place) > 1000);
    let delta = |ordered: &Ordered| ordered.delta().unwrap().into_one(&schema()).unwrap().unwrap();
    let (expected, found) = (delta(&plain), delta(&spilled));
    assert_eq!((expected.rows, expected.weights), (found.rows, found.weights));
}

/// Returns columns of many types, some of them slices of longer ones.
fn columns() -> Vec<ArrayRef> {
    let texts = ["", "a", "a text that is longer than a view has room for", "ö"];
    let text = |row: usize| (!row.is_multiple_of(3)).then(|| texts[row % 4]);
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in 0..100 {
        (0..row % 4).for_each(|_| lists.values().append_option(text(row + 1)));
        lists.append(row % 5 != 0);
        maps.keys().append_value(format!("key {row}"));
        maps.values().append_option((row % 2 == 0).then_some(row as i32));
        maps.append(row % 7 != 0).unwrap();
    }
    let numbers = || (0..100).map(|row| (row % 6 != 0).then_some(row));
    let structs = StructArray::from(vec![
        (
            Arc::new(Field::new("a", DataType::Int32, true)),
            Arc::new(Int32Array::from_iter(numbers())) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from_iter((0..100).map(text))),
        ),
    ]);
    let dictionary: DictionaryArray<Int16Type> = (0..100).map(text).collect();
    let ends = Int32Array::from(vec![10, 50, 100]);
    let runs = RunArray::try_new(&ends, &Int64Array::from(vec![Some(1), None, Some(3)])).unwrap();
    vec![
        Arc::new(Int32Array::from_iter(numbers())),
        Arc::new(BooleanArray::from_iter(numbers().map(|n| n.map(|n| n % 3 == 0)))),
        Arc::new(Decimal128Array::from_iter(numbers().map(|n| n.map(i128::from)))),
        Arc::new(StringArray::from_iter((0..100).map(text))),
        Arc::new(LargeStringArray::from_iter((0..100).map(text))),
        Arc::new(StringViewArray::from_iter((0..100).map(text))),
        Arc::new(BinaryViewArray::from_iter((0..100).map(|row| text(row).map(str::as_bytes)))),
        Arc::new(FixedSizeBinaryArray::try_from_iter((0..100u8).map(|n| [n; 3])).unwrap()),
        Arc::new(TimestampNanosecondArray::from_iter_values(0..100).with_timezone("+00:00")),
        Arc::new(IntervalMonthDayNanoArray::from_iter_values(
            (0..100).map(|n| IntervalMonthDayNano::new(n, 2, 3)),
        )),
        Arc::new(NullArray::new(100)),
        Arc::new(Float64Array::from_iter_values((0..100).map(|n| [f64::NAN, -0.0, f64::INFINITY][n % 3]))),
        Arc::new(lists.finish()),
        Arc::new(maps.finish()),
        Arc::new(structs),
        Arc::new(dictionary),
        Arc::new(runs),
    ]
}

#[test]
fn columns_of_every_kind_come_back() {
    let (_directory, place) = place(usize::MAX);
    for column in columns() {
        for (from, count) in [(0, 100), (0, 0), (13, 64), (99, 1)] {
            let part = column.slice(from, count);
            let field = Field::new("c", part.data_type().clone(), true);
            let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![part]).unwrap();
            let mut back = spilled(&place, &[&batch, &batch]).unwrap();
            let (second, _second) = back.pop().unwrap();
            let (first, _first) = back.pop().unwrap();
            // The test compares the text, in which NaN equals itself.
            let text = |rows: &RecordBatch| format!("{:?}", rows.column(0));
            assert_eq!(text(&first), text(&batch), "{:?}", batch.schema());
            assert_eq!(text(&second), text(&batch));
            assert_eq!(first.schema(), batch.schema());
        }
    }
}

#[test]
fn what_is_looked_at_stays_and_what_fails_does() {
    let (directory, good) = place(usize::MAX);
    let mut store = Store::new(schema());
    for part in 0..4 {
        let keys: Vec<_> = (0..10_000).map(|key| (key + 10_000 * part, 1)).collect();
        store.push(&rows(&keys), None).unwrap();
    }
    let (all, chunk) = (store.memory_bytes(), store.memory_bytes() / 4);
    // New rows count as accessed: the first round only clears their flags.
    let mut spilling = Spilling::new(&good, chunk / 2);
    store.spill(&mut spilling);
    assert_eq!(spilling.freed(), 0);
    store.gather(&[5, 15_000]).unwrap();
    store.spill(&mut spilling);
    assert!(spilling.is_over() && spilling.freed() >= chunk / 2);
    assert!(store.memory_bytes() < all - chunk / 2 && store.spilled_bytes() >= chunk / 2);
    let in_memory: Vec<bool> = (0..4).map(|at| store.chunks_in_memory()[at]).collect();
    assert_eq!(in_memory, [true, true, false, true]);
    // The files have no names, so nothing is left behind in any case.
    assert_eq!(std::fs::read_dir(directory.path().join("spill")).unwrap().count(), 0);

    let failing = Failing { files: good.files.clone(), every: 1, asked: Mutex::default() };
    let mut spilling = Spilling::new(&failing, usize::MAX);
    store.spill(&mut spilling);
    store.spill(&mut spilling);
    assert!(spilling.is_over());
    assert_eq!((spilling.freed(), store.chunks_in_memory()), (0, vec![true, true, false, true]));
    assert!(spilling.end().unwrap().to_string().contains("no space left"));
    let missing = Files::below(directory.path().join("a file/below"));
    std::fs::write(directory.path().join("a file"), "text").unwrap();
    assert!(missing.put(b"bytes").unwrap_err().to_string().contains("a file/below"));
    assert!(store.gather(&[39_999, 0, 25_000]).unwrap() == rows(&[(39_999, 1), (0, 1), (25_000, 1)]));
}

#[test]
fn small_chunks_stay_and_files_that_are_mostly_dead_are_left() {
    let (_directory, place) = place(usize::MAX);
    let mut store = Store::new(schema());
    for part in 0..8 {
        let keys: Vec<_> = (0..10_000).map(|key| (key + 10_000 * part, 1)).collect();
        store.push(&rows(&keys), None).unwrap();
    }
    let mut none = Spilling::new(&place, usize::MAX).only_from(10 << 20);
    store.spill(&mut none);
    store.spill(&mut none);
    assert_eq!((none.freed(), store.spilled_bytes()), (0, 0));
    let mut all = Spilling::new(&place, usize::MAX);
    store.spill(&mut all);
    store.spill(&mut all);
    let (bytes, files) = (store.spilled_bytes(), *place.asked.lock().unwrap());
    assert_eq!((files, store.memory_bytes() < bytes / 10), (1, true));
    // Seven of the eight chunks of a file go. The rest moves to another file at the next round.
    let gone: Vec<(u64, i64)> = (0..70_000).map(|id| (id, 0)).collect();
    store.set_counts(&gone);
    assert!(store.spilled_bytes() < bytes / 7);
    let mut again = Spilling::new(&place, 1);
    store.spill(&mut again);
    store.spill(&mut again);
    assert_eq!((*place.asked.lock().unwrap(), again.freed()), (files + 1, 0));
    assert!(store.gather(&[79_999, 70_000]).unwrap() == rows(&[(79_999, 1), (70_000, 1)]));
    // Without rows, nothing is in files.
    let gone: Vec<(u64, i64)> = (70_000..80_000).map(|id| (id, 0)).collect();
    store.set_counts(&gone);
    assert_eq!(store.spilled_bytes(), 0);
}
