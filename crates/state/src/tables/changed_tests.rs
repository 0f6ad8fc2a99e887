//! Merged runs equal the complete state, after any changes and any number of failed checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream_delta::{Chunk, Delta};

use super::*;
use crate::{Arranged, Conflict, KeyIndex, Keyed, Moved, Ordered, Placed, Rows, Run, SlotMarks};
use millstream_seeds::{Random, first_seeds};

mod later;

/// A table's content in one checkpoint, with the number of the checkpoint.
type Told = (u64, Vec<RecordBatch>);

/// A table: its run, its name there, and its content in each checkpoint.
type File = (Run, String, Vec<Told>);

/// The files of checkpoints, as the crate `durable` keeps them: the content of each table by checkpoint.
#[derive(Default)]
struct Kept {
    number: u64,
    tables: BTreeMap<String, File>,
    whole: Tables,
    /// The number of rows that the last checkpoint wrote.
    written: usize,
}

impl Kept {
    /// Takes a checkpoint, which may fail.
    fn take(&mut self, saved: &Tables, random: &mut Random) -> bool {
        if random.below(4) == 0 {
            return false;
        }
        self.number += 1;
        let runs = saved.parts().filter_map(|(.., of)| of).map(|(_, run)| (run.lineage(), run.clone()));
        let runs: BTreeMap<usize, Run> = runs.collect();
        // A table without changes in a run stays.
        self.tables.retain(|_, (run, ..)| runs.get(&run.lineage()).is_some_and(|run| !run.is_whole()));
        (self.whole, self.written) = (saved.clone(), 0);
        for (name, batches, of) in saved.parts() {
            let batches = batches.get().unwrap();
            self.written += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            let Some((own, run)) = of else { continue };
            self.whole.take(name).unwrap();
            if !batches.is_empty() {
                let new = || (run.clone(), own.to_string(), Vec::new());
                let (.., told) = self.tables.entry(name.to_string()).or_insert_with(new);
                told.push((self.number, batches.to_vec()));
            }
        }
        for lineage in runs.keys() {
            if random.below(4) == 0 {
                self.put_together(*lineage, random);
            }
        }
        let anew = random.below(8) == 0;
        runs.values().for_each(|run| run.publish(anew));
        true
    }

    /// Merges the last runs of a lineage into one, but never the first, which holds the complete state.
    fn put_together(&mut self, lineage: usize, random: &mut Random) {
        let of = |(run, ..): &&mut File| run.lineage() == lineage;
        let numbers = self.tables.values_mut().filter(of).flat_map(|(.., told)| told.iter().map(|(n, _)| *n));
        let numbers: BTreeSet<u64> = numbers.collect();
        let Some(from) = numbers.iter().nth(1 + random.below(3) as usize).copied() else { return };
        let mut runs = Runs::default();
        let mut prefix = String::new();
        for (name, (run, own, told)) in &mut self.tables {
            if run.lineage() == lineage {
                prefix = name.strip_suffix(own.as_str()).unwrap().to_string();
                let newer = told.extract_if(.., |(n, _)| *n >= from);
                newer.for_each(|(n, batches)| runs.put(own, n, batches));
            }
        }
        let number = self.number;
        for (own, batches) in runs.into_one().unwrap() {
            let (.., told) = self.tables.get_mut(&format!("{prefix}{own}")).unwrap();
            let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
            told.push((number, vec![batch]));
        }
    }

    /// Returns the state that a start would load.
    fn load(&self) -> Tables {
        let (mut runs, mut tables) = (Runs::default(), self.whole.clone());
        for (name, (.., told)) in &self.tables {
            // The runs may arrive in any order.
            told.iter().rev().for_each(|(of, batches)| runs.put(name, *of, batches.clone()));
        }
        runs.merge_into(&mut tables).unwrap();
        tables
    }
}

fn shown(tables: &Tables) -> Vec<String> {
    let one = |batches: &[RecordBatch]| concat_batches(&batches[0].schema(), batches).unwrap();
    let show = |(name, batches): (&str, &Batches)| {
        let batch = one(&batches.get().unwrap());
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        format!("{name} {names:?} {:?}", batch.columns())
    };
    tables.tables().map(show).collect()
}

fn schema() -> SchemaRef {
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

fn rows(numbers: &[i64]) -> RecordBatch {
    let texts = StringArray::from_iter_values(numbers.iter().map(|number| format!("row {number}")));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(numbers.to_vec())), Arc::new(texts)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Rows of a multiset are inserted and deleted.
#[test]
fn a_multiset_is_what_it_was() {
    for seed in first_seeds(6, 0..20) {
        let mut random = Random(seed);
        let (mut all, mut model, mut kept) =
            (Rows::new(schema()), BTreeMap::<i64, i64>::new(), Kept::default());
        for round in 0..60 {
            let mut delta = Delta::default();
            for _ in 0..random.below(6) {
                let number = random.below(40) as i64;
                let copies = model.entry(number).or_default();
                let weight =
                    if *copies > 0 && random.below(2) == 0 { -1 } else { 1 + random.below(2) as i64 };
                *copies += weight;
                delta.push(Chunk { rows: rows(&[number]), weights: Some(vec![weight].into()) });
            }
            all.apply(&delta).unwrap();
            let mut saved = Tables::default();
            all.save_changed("rows", &mut saved).unwrap();
            if random.below(3) == 0 || !kept.take(&saved, &mut random) {
                continue;
            }
            let mut again: BTreeMap<i64, i64> = BTreeMap::new();
            for chunk in kept.load().take_delta("rows").unwrap().chunks {
                let numbers = chunk.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                numbers
                    .iter()
                    .enumerate()
                    .for_each(|(row, n)| *again.entry(*n).or_default() += chunk.weight(row));
            }
            model.retain(|_, copies| *copies > 0);
            assert_eq!(again, model, "seed {seed}, round {round}");
        }
    }
}

/// Sorted rows are inserted and deleted, some of them by position.
#[test]
fn ordered_rows_are_what_they_were() {
    for seed in first_seeds(8, 0..30) {
        let mut random = Random(seed);
        let (mut all, mut kept) = (Ordered::new(schema()), Kept::default());
        for round in 0..60 {
            let numbers: Vec<i64> = (0..40).filter(|_| random.below(6) == 0).collect();
            let keys: Vec<[u8; 8]> = numbers.iter().map(|number| number.to_be_bytes()).collect();
            let weight = |key: &[u8; 8]| match all.copies(key) as i64 {
                0 => random.below(3) as i64,
                there if random.below(2) == 0 => -there,
                there => random.below(4) as i64 - there.min(2),
            };
            let weights: Vec<i64> = keys.iter().map(weight).collect();
            let moved = |((row, key), weight): ((u32, &'_ [u8; 8]), &i64)| (row, *key, *weight);
            let moved: Vec<_> = (0..).zip(&keys).zip(&weights).map(moved).collect();
            let moved: Vec<Moved<'_>> =
                moved.iter().map(|(row, key, weight)| Moved { key, row: *row, weight: *weight }).collect();
            all.apply(&rows(&numbers), &moved).unwrap();
            let end = all.num_rows() as u64;
            if random.below(3) == 0 && end > 0 {
                let start = random.below(end);
                all.remove(start..end.min(start + random.below(4)));
            }
            let mut saved = Tables::default();
            all.save_changed("rows", &mut saved).unwrap();
            if !kept.take(&saved, &mut random) {
                continue;
            }
            let mut full = Tables::default();
            full.put_delta("rows", &all.delta().unwrap()).unwrap();
            assert_eq!(shown(&kept.load()), shown(&full), "seed {seed}, round {round}");
        }
    }
}

/// If few of many rows change, little is written, and the rows stay in order of arrival.
#[test]
fn few_changes_write_few_rows() {
    let mut keyed = Keyed::new(schema(), vec![0]).unwrap();
    keyed.upsert(&rows(&(0..100_000).collect::<Vec<_>>()), Conflict::Fail).unwrap();
    let (mut kept, mut written, mut random) = (Kept::default(), Vec::new(), Random(2));
    for round in 0..5i64 {
        let mut saved = Tables::default();
        keyed.save_changed("rows", &mut saved).unwrap();
        while !kept.take(&saved, &mut random) {}
        written.push(kept.written);
        let mut full = Tables::default();
        full.put_delta("rows", &keyed.snapshot().delta().unwrap()).unwrap();
        assert_eq!(shown(&kept.load()), shown(&full), "round {round}");
        let some: Vec<i64> = (0..100).map(|n| n * 31 + round).collect();
        keyed.delete(&rows(&some)).unwrap();
        keyed.upsert(&rows(&some[..50]), Conflict::Fail).unwrap();
    }
    assert_eq!(written[0], 100_000);
    assert!(written[1..].iter().any(|rows| *rows <= 150), "{written:?}");
    assert!(written[1..].iter().all(|rows| *rows <= 150 || *rows > 99_000), "{written:?}");
}

/// State by key: by those of a tracked index, and by those of an index whose owner tracks changes.
struct ByKey {
    index: KeyIndex,
    arranged: Arranged,
    /// The number of copies of each row of each slot.
    there: BTreeMap<(u32, i64), i64>,
    groups: KeyIndex,
    marks: SlotMarks,
}

impl ByKey {
    fn new() -> ByKey {
        let index = || KeyIndex::new(vec![DataType::Int64]).unwrap();
        let (arranged, there, marks) = (Arranged::new(schema()), BTreeMap::new(), SlotMarks::default());
        ByKey { index: index().tracked(), arranged, there, groups: index(), marks }
    }

    fn change(&mut self, random: &mut Random, round: i64) {
        let numbers: Vec<i64> = (0..random.below(8)).map(|_| random.below(30) as i64).collect();
        let keys = vec![Arc::new(Int64Array::from(numbers)) as ArrayRef];
        let (mut slots, mut of) = (Vec::new(), Vec::new());
        self.index.slots(&keys, &mut slots).unwrap();
        self.groups.slots(&keys, &mut of).unwrap();
        self.marks.touch_all(of);
        let mut changes = Vec::new();
        for slot in slots {
            let number = random.below(4) as i64;
            let copies = self.there.entry((slot, number)).or_default();
            let weight = if *copies > 0 && random.below(2) == 0 { -*copies } else { 1 };
            *copies += weight;
            // Rows are identified by their content, which includes their key.
            let row = rows(&[i64::from(slot) * 10 + number]);
            let chunk = Chunk { rows: row, weights: Some(vec![weight].into()) };
            changes.push(Placed { chunk, slots: vec![slot], tallies: Some(vec![number % 2]) });
        }
        self.arranged.apply(changes).unwrap();
        for slot in self.index.live() {
            if self.arranged.rows_of(slot) == 0 {
                self.index.free(slot);
            }
        }
        if let (0, Some(slot)) = (random.below(2), self.index.live().first()) {
            let change: Vec<(u64, i64)> = self.arranged.ids(*slot).iter().map(|id| (*id, round)).collect();
            self.arranged.set_tallies(&change);
        }
        if let (0, Some(slot)) = (random.below(2), self.groups.live().get(random.below(9) as usize)) {
            self.groups.free(*slot);
            self.marks.touch(*slot);
        }
    }

    /// Returns the failed key, by its slot or its index.
    fn failed(&self, number: i64) -> Tables {
        let mut failed = Tables::default();
        if !self.index.is_empty() {
            let (key, message) = (Int64Array::from(vec![number]), StringArray::from(vec!["failed"]));
            failed
                .put_columns("failed", vec![("_key", Arc::new(key)), ("message", Arc::new(message))])
                .unwrap();
        }
        failed
    }

    fn saved(&self) -> Tables {
        let mut saved = Tables::default();
        self.index.save_changed("keys", &["k"], &mut saved).unwrap();
        self.arranged.save_changed(|| self.index.live(), "left.rows", &mut saved).unwrap();
        // A table that is written completely may refer to slots, too.
        let mut failed = self.failed(self.index.live().first().copied().unwrap_or_default().into());
        failed.place_by_slots("failed", |slot| Some(slot as u32)).unwrap();
        saved.put_all(failed);
        let run = self.marks.run();
        let changed = self.groups.changed_slots(&self.marks, &run);
        let mut of_groups = values(&self.groups, &changed.0);
        of_groups.put_slots(&run, RunSlots::from(changed), &["keys"]);
        saved.put_part("0-Aggregate", of_groups);
        saved
    }

    /// Returns the complete state.
    fn full(&self) -> Tables {
        let mut full = self.failed(0);
        let slots = self.index.save("keys", &["k"], &mut full).unwrap();
        self.arranged.save(&slots, "left.rows", &mut full).unwrap();
        full.put_part("0-Aggregate", values(&self.groups, &self.groups.live()));
        full
    }
}

/// Keys, rows by key with stored numbers, state by key, and several values per key equal the complete state.
#[test]
fn keys_and_what_is_kept_by_them_are_what_they_were() {
    for seed in first_seeds(8, 0..30) {
        let (mut random, mut by_key, mut kept) = (Random(seed), ByKey::new(), Kept::default());
        for round in 0..50 {
            by_key.change(&mut random, round);
            if !kept.take(&by_key.saved(), &mut random) {
                continue;
            }
            let (mut found, mut expected) = (kept.load(), by_key.full());
            // If all stored numbers are 0, the presence of their column depends on the past.
            let rows =
                [&mut found, &mut expected].map(|tables| told_rows(&tables.take("left.rows").unwrap()));
            assert_eq!(rows[0], rows[1], "seed {seed}, round {round}");
            assert_eq!(shown(&found), shown(&expected), "seed {seed}, round {round}");
        }
    }
}

/// Returns, for each group, its key, a number, and several values: the last digit of its slot is their
/// number.
fn values(groups: &KeyIndex, slots: &[u32]) -> Tables {
    let mut kept = Tables::default();
    groups.save_some(slots, "keys", &["k"], &mut kept).unwrap();
    let numbers = slots.iter().map(|slot| i64::from(*slot) * 7).collect();
    kept.put_numbers("call0.groups", vec![("sum", numbers)]).unwrap();
    let places = (0u32..).zip(slots).flat_map(|(place, slot)| (0..slot % 10).map(move |_| place));
    let of: ArrayRef = Arc::new(UInt32Array::from_iter_values(places));
    let each =
        slots.iter().flat_map(|slot| (0..i64::from(*slot % 10)).map(move |n| n * 100 + i64::from(*slot)));
    let each: ArrayRef = Arc::new(Int64Array::from_iter_values(each));
    kept.put_columns("call1.values", vec![("_group", of), ("value", each)]).unwrap();
    kept
}

/// Returns rows with their key, copies and stored number, in order.
fn told_rows(batches: &[RecordBatch]) -> Vec<(i64, i64, i64, i64)> {
    let mut all = Vec::new();
    for batch in batches {
        let column =
            |name: &str| batch.column_by_name(name).map(|column| column.as_primitive::<Int64Type>().clone());
        let (numbers, keys, weights) =
            (column("n").unwrap(), column("_key").unwrap(), column("_weight").unwrap());
        let tallies = column("_tally");
        for row in 0..batch.num_rows() {
            let tally = tallies.as_ref().map_or(0, |tallies| tallies.value(row));
            all.push((numbers.value(row), keys.value(row), weights.value(row), tally));
        }
    }
    all
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut slots = Tables::default();
    let run = SlotMarks::default().run();
    slots.put_numbers("groups", vec![("n", vec![1, 2])]).unwrap();
    slots.put_slots(&run, RunSlots::from((vec![4], Vec::new())), &["groups"]);
    let error = slots.take("groups").unwrap_err().to_string();
    assert!(error.contains("table 'groups' has 2 rows for 1 slots"), "{error}");
    let mut kept = Tables::default();
    kept.put_numbers("groups", vec![("n", vec![1])]).unwrap();
    kept.put_slots(&run, RunSlots::from((vec![4], Vec::new())), &["groups"]);
    let mut runs = Runs::default();
    runs.put("groups", 1, kept.take("groups").unwrap());
    let error = runs.merge_into(&mut Tables::default()).unwrap_err().to_string();
    assert!(error.contains("nothing tells of the slots of table 'groups'"), "{error}");
}
