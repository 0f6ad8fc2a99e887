//! Tests that a flow which takes over state has the same answer as one that ran from the beginning.

use arrow::array::Int64Array;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_seeds::first_seeds;

use super::*;
use crate::fixture::{Fixture, NAMES, Random, cut, step};

/// Checks the sorted names of the operators that keep their state if these relations hold their full content;
/// `None` if succession is impossible.
fn check(old: &str, new: &str, held: &[&str], expected: Option<&[&str]>) {
    for seed in first_seeds(2, 0..6) {
        let (mut random, mut fixture) = (Random(seed), Fixture::new());
        let mut flow = fixture.compile(old);
        for epoch in 1..6 {
            let changes = fixture.change(&mut random);
            step(&mut flow, epoch, &changes);
        }
        let mut next = fixture.compile(new);
        let names = next.relations().to_vec();
        let content = |relation: usize| {
            let table = NAMES.iter().position(|name| *name == names[relation].as_ref()).unwrap();
            Delta::insert(fixture.all(table))
        };
        let has = |relation: usize| held.contains(&names[relation].as_ref());
        let Some(succession) = Succession::of(&next, &flow, &has) else {
            assert_eq!(None, expected, "{new}");
            return;
        };
        let mut kept: Vec<&str> =
            stateful_at(&next).filter(|(place, _)| succession.keeps(*place)).map(|(_, name)| name).collect();
        kept.sort_unstable();
        assert_eq!(Some(&kept[..]), expected, "{new}");
        let contents: Vec<Delta> = (0..names.len())
            .map(|relation| if succession.needs(relation) { content(relation) } else { Delta::default() })
            .collect();
        let is_same = succession.is_same();
        let copy = StateCopy::of(&flow, &succession).unwrap();
        let contents: Vec<&Delta> = contents.iter().collect();
        let change = next.succeed(&succession, copy, &cut(6), &contents).unwrap();
        let mut sum = change.rows;
        if is_same {
            sum = Delta::from_iter(flow.content().unwrap().unwrap());
        }
        for epoch in 7..14 {
            let schema = next.schema().unwrap().clone();
            let answer = fixture.at_once(new, &schema);
            let less = Int64Array::from(vec![-1; answer.num_rows()]);
            let mut difference = sum.clone();
            difference.push(Chunk { rows: answer, weights: Some(less) });
            let difference = consolidate(difference, &schema).unwrap();
            assert!(difference.is_empty(), "{new}, seed {seed}, epoch {epoch}: {difference:?}");
            let changes = fixture.change(&mut random);
            sum.append(step(&mut next, epoch, &changes).rows);
        }
    }
}

fn stateful_at(flow: &Flow) -> impl Iterator<Item = (usize, &'static str)> {
    let name = |(place, node): (usize, &Node)| match node {
        Node::Operator { operator, .. }
            if operator.state_rows() > 0 || !operator.describe().state.is_empty() =>
        {
            Some((place, operator.describe().name))
        }
        _ => None,
    };
    flow.dag.nodes.iter().enumerate().filter_map(name)
}

const BOTH: &[&str] = &["t", "u"];

#[test]
fn what_is_above_groups_is_made_anew_of_them() {
    let old = "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k";
    check(
        old,
        "SELECT s + 1 AS s FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS g WHERE n > 1",
        &[],
        Some(&["Aggregate"]),
    );
    check(old, old, &[], Some(&["Aggregate"]));
    // Other groups are recomputed from the rows.
    check(old, "SELECT k, count(*) AS n FROM t GROUP BY k", BOTH, Some(&[]));
    check(old, "SELECT k, count(*) AS n FROM t GROUP BY k", &[], None);
    check(old, "SELECT k, count(*) AS n, sum(v) AS s FROM t WHERE v > 2 GROUP BY k", BOTH, Some(&[]));
    check(old, "SELECT k, count(*) AS n, sum(v) AS s FROM u GROUP BY k", BOTH, Some(&[]));
}

#[test]
fn what_is_new_beside_what_is_kept_is_made_of_what_relations_hold() {
    let old = "SELECT k, sum(v) AS s FROM t GROUP BY k";
    let union = "SELECT k, sum(v) AS s FROM t GROUP BY k UNION ALL SELECT k, v FROM u";
    check(old, union, &["u"], Some(&["Aggregate"]));
    check(old, union, &["t"], None);
    let joined =
        "SELECT g.k, g.s, u.f FROM (SELECT k, sum(v) AS s FROM t GROUP BY k) AS g JOIN u ON g.k = u.k";
    check(old, joined, &["u"], Some(&["Aggregate"]));
    check(joined, old, &[], Some(&["Aggregate"]));
}

#[test]
fn joins_are_kept_below_what_is_kept() {
    let old = "SELECT t.k, count(*) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.k";
    let more = "SELECT k, n * 2 AS n FROM (SELECT t.k, count(*) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.k) AS g ORDER BY n, k LIMIT 3";
    check(old, more, &[], Some(&["Aggregate", "Join"]));
    // The output of a join is not kept.
    check(
        "SELECT t.v, u.f FROM t JOIN u ON t.k = u.k",
        "SELECT t.v + 1 AS w, u.f FROM t JOIN u ON t.k = u.k WHERE t.v > 0",
        BOTH,
        Some(&[]),
    );
    let old = "SELECT a.k, count(*) AS n FROM t AS a JOIN t AS b ON a.k = b.k GROUP BY a.k";
    let more = "SELECT n, count(*) AS m FROM (SELECT a.k, count(*) AS n FROM t AS a JOIN t AS b ON a.k = b.k GROUP BY a.k) AS g GROUP BY n";
    check(old, more, &[], Some(&["Aggregate", "Join"]));
}

#[test]
fn other_operators_are_kept_too() {
    let top = "SELECT id, v FROM t ORDER BY v, id LIMIT 4";
    check(
        top,
        "SELECT v, count(*) AS n FROM (SELECT id, v FROM t ORDER BY v, id LIMIT 4) AS x GROUP BY v",
        BOTH,
        Some(&["TopN"]),
    );
    let two = "SELECT s, n FROM (SELECT s, count(DISTINCT v) AS n FROM t GROUP BY s) AS x WHERE n > 1";
    check(
        two,
        "SELECT s, n FROM (SELECT s, count(DISTINCT v) AS n FROM t GROUP BY s) AS x WHERE n > 0",
        &[],
        Some(&["Aggregate", "Aggregate"]),
    );
}
