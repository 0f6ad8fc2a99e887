//! Tests that incremental checkpoints, merged, equal the full state, whatever changes and whichever
//! checkpoint fails.

use std::collections::BTreeMap;
use std::process::Command;

use arrow::compute::concat_batches;
use millstream_delta::{Chunk, Delta};
use millstream_seeds::first_seeds;
use millstream_state::{Batches, Tables};

use super::*;
use crate::fixture::{Files, Random};

/// Returns all saved state for comparison. The rows of a table are sorted, since their order may depend on
/// the loads.
fn shown(tables: &Tables) -> Vec<String> {
    let rows = |(name, batches): (&str, &Batches)| {
        let batches = batches.get().unwrap();
        let batch = concat_batches(&batches[0].schema(), batches.iter()).unwrap();
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut rows: Vec<String> =
            (0..batch.num_rows()).map(|row| format!("{:?}", batch.slice(row, 1).columns())).collect();
        rows.sort_unstable();
        format!("{name} {names:?} {rows:?}")
    };
    let numbers = tables.numbers().map(|(name, number)| format!("{name} {number}"));
    tables.tables().map(rows).chain(numbers).chain(tables.texts().map(|text| format!("{text:?}"))).collect()
}

/// The relations of a flow: each row is made from a number.
#[derive(Default)]
struct Feed {
    there: BTreeMap<Arc<str>, Vec<i64>>,
    next: i64,
}

impl Feed {
    /// Returns the change of a relation in an epoch: `e` and windows are append-only.
    fn change(&mut self, name: &Arc<str>, random: &mut Random) -> Delta {
        let there = self.there.entry(name.clone()).or_default();
        let only_come = matches!(name.as_ref(), "e" | "w");
        let mut delta = Delta::default();
        let mut put = |n: i64, weight: i64| {
            let weights = (!only_come).then(|| Int64Array::from(vec![weight]));
            delta.push(Chunk { rows: super::rows(n).slice(0, 1), weights });
        };
        for _ in 0..random.below(4) {
            if !only_come && !there.is_empty() && random.below(2) == 0 {
                put(there.swap_remove(random.below(there.len() as u64) as usize), -1);
                continue;
            }
            // Some rows have two copies.
            let again = there.last().copied().filter(|_| random.below(3) == 0);
            let n = again.unwrap_or(self.next);
            self.next += 1;
            there.push(n);
            put(n, 1);
        }
        delta
    }
}

/// Runs a series of flows, each of which loads the files of the one before. Some epochs come between a save and the
/// build of its tables.
fn check(world: &World, (under, sql): (Under, &str), seed: u64) {
    let mut random = Random(seed);
    let (mut flow, mut files, mut feed) = (world.compile(sql, under), Files::default(), Feed::default());
    let mut pending = None;
    for epoch in 1..40 {
        let relations = flow.relations().to_vec();
        let deltas: Vec<Delta> = relations.iter().map(|name| feed.change(name, &mut random)).collect();
        let mut cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch * 50));
        if under != Nothing && under != Ttl {
            cut.watermarks = vec![("e".into(), (feed.next - 8).max(0) * 1_000_000)];
        }
        flow.step(&cut, &deltas.iter().collect::<Vec<_>>()).unwrap();
        if random.below(2) == 0 {
            continue;
        }
        let is_new = pending.is_none();
        let (saved, expected) = match pending.take() {
            Some(pending) => pending,
            None => (flow.save_changed(&[]).unwrap(), shown(&flow.save().unwrap())),
        };
        match random.below(4) {
            // This checkpoint fails.
            0 => continue,
            1 => {
                pending = Some((saved, expected));
                continue;
            }
            _ => files.take(&saved, random.below(8) == 0),
        }
        let mut new = world.compile(sql, under);
        new.load(files.load(), &[]).unwrap();
        assert_eq!(shown(&new.save().unwrap()), expected, "{sql}, seed {seed}, epoch {epoch}");
        if is_new && random.below(6) == 0 {
            (flow, files) = (new, Files::default());
        }
    }
}

#[test]
fn what_has_changed_of_operators_is_all_of_it() {
    let world = World::new();
    for (under, _, sql) in QUERIES {
        // Queries whose functions are only planned here are stepped in tests of their own, or not at all.
        if ["keeps", "looked_up", "epoch_time", "hop_starts"].iter().any(|call| sql.contains(call)) {
            continue;
        }
        first_seeds(2, 0..6).for_each(|seed| check(&world, (*under, sql), seed));
    }
}

/// The same with pages of a few entries, many of which are shared by a save and later changes.
#[test]
fn what_has_changed_in_small_pages_is_all_of_it() {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.env("MILLSTREAM_PAGES", "3").arg("what_has_changed_of_operators");
    let output = tests.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Queries that write little if little changes.
const FEW: &[(Under, &str)] = &[
    (Nothing, "SELECT k, v, ts FROM t ORDER BY v, ts LIMIT 4"),
    (Nothing, "SELECT ts, lag(v) OVER (ORDER BY ts) FROM t"),
    (Nothing, "SELECT k, count(*), max(v) FROM t GROUP BY k"),
];

/// Few of many rows change, so few are written.
#[test]
fn few_changes_write_few_rows() {
    let world = World::new();
    for (under, sql) in FEW {
        let (mut flow, mut files) = (world.compile(sql, *under), Files::default());
        let mut all = Delta::default();
        (0..2000).for_each(|n| all.push(Chunk::insert(super::rows(6 * n))));
        let mut written = Vec::new();
        for epoch in 1..4 {
            let given: Vec<&Delta> = flow.relations().iter().map(|_| &all).collect();
            flow.step(&Cut::new(Epoch(epoch), Timestamp(epoch as i64 * 50)), &given).unwrap();
            files.take(&flow.save_changed(&[]).unwrap(), false);
            written.push(files.written());
            let mut new = world.compile(sql, *under);
            new.load(files.load(), &[]).unwrap();
            assert_eq!(shown(&new.save().unwrap()), shown(&flow.save().unwrap()), "{sql}");
            // One row in a hundred is deleted, and as many are inserted.
            all = Delta::default();
            for n in 0..20 {
                let of = 6 * (n * 100 + epoch as i64);
                all.push(Chunk::delete(super::rows(of)));
                all.push(Chunk::insert(super::rows(of + 12_000)));
            }
        }
        assert!(written[1..].iter().all(|few| few * 20 < written[0].max(12_000)), "{sql}: {written:?}");
    }
}
