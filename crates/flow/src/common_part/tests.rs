//! Tests that divided flows have the same answers as whole ones.

use millstream_delta::Delta;
use millstream_seeds::first_seeds;

use super::*;
use crate::RowStages;
use crate::fixture::{Fixture, Random, cut, sorted, step};

/// Steps two flows, divides them at their smallest common part, and compares their answers with those of whole flows. Returns
/// the names of the operators of the part; none if they have no part in common.
fn check(one: &str, other: &str, holds_result: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    for seed in first_seeds(2, 0..6) {
        let (mut random, mut fixture) = (Random(seed), Fixture::new());
        let mut whole = [fixture.compile(one), fixture.compile(other)];
        let mut flows = [fixture.compile(one), fixture.compile(other)];
        for epoch in 1..5 {
            let changes = fixture.change(&mut random);
            whole.iter_mut().chain(&mut flows).for_each(|flow| drop(step(flow, epoch, &changes)));
        }
        let sharer = |flow| Sharer { flow, holds_result, is_part: false };
        let Some(found) = CommonPart::of(sharer(&flows[0]), sharer(&flows[1])) else { return Vec::new() };
        let [first, second] = flows;
        let Divided { mut part, rest: first } = Divided::of(first, found.one, "part".into()).unwrap();
        let Divided { part: same, rest: second } = Divided::of(second, found.other, "part".into()).unwrap();
        assert!(part.is_made_like(&same), "{one}; {other}");
        names = part.dag.operators().map(|operator| operator.describe().name).collect();
        let mut rests = [first, second];
        for epoch in 5..12 {
            let changes = fixture.change(&mut random);
            let output = part.step(&cut(epoch), &inputs_of(&part, &changes, &Delta::default())).unwrap();
            for (whole, rest) in whole.iter_mut().zip(&mut rests) {
                let expected = step(whole, epoch, &changes).rows;
                let given = inputs_of(rest, &changes, &output.rows);
                let found = rest.step(&cut(epoch), &given).unwrap().rows;
                assert_eq!(sorted(&found), sorted(&expected), "{one}; {other}, seed {seed}, epoch {epoch}");
            }
            for (whole, rest) in whole.iter().zip(&rests).filter(|_| part.result().is_kept_by_root()) {
                let Some(stages) = RowStages::of(rest) else { continue };
                let expected = Delta::from_iter(whole.content().unwrap().unwrap());
                let found = Delta::from_iter(stages.content(part.content().unwrap().unwrap()).unwrap());
                assert_eq!(sorted(&found), sorted(&expected), "the content of {one}; {other}, seed {seed}");
                if let (true, Some(rows)) = (stages.hands_on(), part.result().rows()) {
                    assert_eq!(found.num_rows(), rows, "the rows of {one}; {other}, seed {seed}");
                }
            }
            // What was divided is saved and loaded like any other flow.
            if epoch == 8 {
                let saved = part.save().unwrap();
                let mut again = Divided::of(fixture.compile(other), found.other, "part".into()).unwrap().part;
                again.load(saved, &[]).unwrap();
                part = again;
            }
        }
    }
    names
}

/// Returns the deltas of a flow's relations; `part` is that of the part.
fn inputs_of<'a>(flow: &Flow, changes: &'a [Delta; 2], part: &'a Delta) -> Vec<&'a Delta> {
    let of = |name: &Arc<str>| match name.as_ref() {
        "t" => &changes[0],
        "u" => &changes[1],
        _ => part,
    };
    flow.relations().iter().map(of).collect()
}

const SUMS: &str = "SELECT k, sum(v) AS s FROM t GROUP BY k";

#[test]
fn the_smallest_part_is_taken_out() {
    let max = format!("SELECT max(s) AS m FROM ({SUMS}) AS g");
    let count = format!("SELECT s, count(*) AS n FROM ({SUMS}) AS g GROUP BY s");
    for (one, other, holds_result) in [(&*max, &*count, true), (SUMS, &max, false), (SUMS, SUMS, false)] {
        assert!(check(one, other, holds_result).contains(&"Aggregate"), "{one}; {other}");
    }
    let joined = "SELECT t.k, count(*) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.k";
    let more = "SELECT n, count(*) AS m FROM (SELECT t.k, count(*) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.k) AS g GROUP BY n";
    let names = check(joined, more, false);
    assert!(names.contains(&"Join") && !names.contains(&"Aggregate"), "{names:?}");
}

#[test]
fn readers_get_a_result_through_the_stages_above_the_part() {
    let max = format!("SELECT max(s) AS m FROM ({SUMS}) AS g");
    let some = "SELECT s + 1 AS more, k FROM (SELECT k, sum(v) AS s FROM t GROUP BY k) AS g WHERE s > 2";
    for (one, other) in [(SUMS, SUMS), (SUMS, &*max), (&*max, SUMS), (SUMS, some), (some, &*max)] {
        assert_eq!(check(one, other, true).last(), Some(&"Aggregate"), "{one}; {other}");
        let stages = |sql: &str| RowStages::of(&Fixture::new().compile(sql));
        assert!(stages(one).is_none() && stages("SELECT k + 1 AS k FROM t WHERE v > 1").is_some());
    }
}

#[test]
fn a_result_that_is_no_row_of_the_part_each_stays_with_its_flow() {
    // The result of a union is that of both inputs.
    let union = format!("{SUMS} UNION ALL SELECT k, v FROM u");
    assert_eq!(check(SUMS, &union, true), Vec::<&str>::new());
    let joined = "SELECT t.k, count(*) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.k";
    let other = "SELECT t.k, sum(t.v) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.k";
    let names = check(joined, joined, true);
    assert!(names.contains(&"Join") && !names.contains(&"Aggregate"), "{names:?}");
    // They need other columns, so their joins differ.
    assert_eq!(check(joined, other, true), Vec::<&str>::new());
}

#[test]
fn flows_that_differ_have_no_part_in_common() {
    assert_eq!(check(SUMS, "SELECT k, sum(v) AS s FROM u GROUP BY k", false), Vec::<&str>::new());
    assert_eq!(check(SUMS, "SELECT k, sum(v) AS s FROM t WHERE v > 1 GROUP BY k", false), Vec::<&str>::new());
    // Operators without state aren't worth it.
    assert_eq!(check("SELECT k + 1 AS k FROM t", "SELECT k + 1 AS k FROM t", false), Vec::<&str>::new());
}

#[test]
fn rows_that_both_look_up_stay_whole() {
    // The second join looks up t by the same key as the first one.
    let twice = "SELECT a.k, count(*) AS n FROM (SELECT t.k, u.v FROM t JOIN u ON t.id = u.id) AS a JOIN t AS b ON a.k = b.k GROUP BY a.k";
    let once = "SELECT k, count(*) AS n FROM (SELECT t.k, u.v FROM t JOIN u ON t.id = u.id) AS a GROUP BY k";
    check(twice, once, false);
    check(twice, twice, false);
    let selves = "SELECT a.k, count(*) AS n FROM t AS a JOIN t AS b ON a.k = b.k GROUP BY a.k";
    assert!(check(selves, selves, false).contains(&"Join"));
}

#[test]
fn equal_parts_have_equal_hashes() {
    let fixture = Fixture::new();
    let of = |sql: &str| part_hashes(&fixture.compile(sql));
    let max = of(&format!("SELECT max(s) AS m FROM ({SUMS}) AS g"));
    assert!(of(SUMS).iter().any(|hash| max.contains(hash)));
    assert!(!of("SELECT k, sum(v) AS s FROM u GROUP BY k").iter().any(|hash| max.contains(hash)));
}
