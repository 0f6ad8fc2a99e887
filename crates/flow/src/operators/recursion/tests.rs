//! Tests recursive queries over rows with inserts and deletes, including cycles.

use millstream_seeds::first_seeds;

use crate::fixture::{Fixture, Random, again, check, delta, sorted, step};
use millstream_delta::Delta;

const REACHED: &str = "WITH RECURSIVE reached(x) AS (SELECT k FROM u UNION SELECT t.v FROM t JOIN reached ON t.k = x) \
                       SELECT x FROM reached";

#[test]
fn rows_of_a_cycle_do_not_hold_each_other_up() {
    let fixture = Fixture::new();
    let mut flow = fixture.compile(REACHED);
    let text = flow.explain().join("\n");
    assert!(text.contains("Recursion") && text.contains("derivation counts"), "{text}");
    let mut epoch = 0;
    let mut change = |t: Delta, u: Delta| {
        epoch += 1;
        again(&mut flow, fixture.compile(REACHED));
        sorted(&step(&mut flow, epoch, &[t, u]).rows)
    };
    let edges = [(1, 2), (2, 3), (3, 1), (3, 4), (5, 3)];
    assert_eq!(change(delta(&edges, 1), delta(&[(1, 0), (5, 0)], 1)).len(), 5);
    // 1, 2 and 3 are a cycle that is entered from 5 too.
    assert_eq!(change(Delta::default(), delta(&[(1, 0)], -1)), Vec::<String>::new());
    assert_eq!(change(delta(&[(5, 3)], -1), Delta::default()), ["-1 (1)", "-1 (2)", "-1 (3)", "-1 (4)"]);
    assert_eq!(
        change(Delta::default(), delta(&[(4, 0), (2, 0)], 1)),
        ["+1 (1)", "+1 (2)", "+1 (3)", "+1 (4)"]
    );
    // One derivation is lost while another one is gained, which leads in a cycle.
    let mut turned = delta(&[(2, 3)], -1);
    turned.append(delta(&[(1, 3)], 1));
    assert_eq!(change(turned, Delta::default()), ["-1 (1)", "-1 (3)"]);
}

#[test]
fn unions_follow_inserts_and_deletes() {
    let queries = [
        REACHED,
        "WITH RECURSIVE path(a, b) AS (SELECT k, v FROM t UNION SELECT a, t.v FROM path JOIN t ON path.b = t.k) \
         SELECT a, b FROM path",
        "WITH RECURSIVE r(a, s) AS (SELECT v, s FROM u UNION SELECT t.k, t.s FROM t, r WHERE t.v = r.a AND t.f > 1) \
         SELECT a, s FROM r",
        "WITH RECURSIVE r(a) AS (SELECT v FROM u UNION SELECT a - 1 FROM r WHERE a > 0) SELECT a FROM r",
    ];
    check("Recursion", &queries, 0..12);
}

/// Few nodes and many edges, so that there are cycles of all kinds.
#[test]
fn dense_graphs_follow_inserts_and_deletes() {
    for seed in first_seeds(5, 0..20) {
        let mut random = Random(seed);
        let fixture = Fixture::new();
        let mut flow = fixture.compile(REACHED);
        let (mut edges, mut starts, mut sum) = (Vec::new(), Vec::new(), Delta::default());
        for epoch in 1..25 {
            let mut changes = [Delta::default(), Delta::default()];
            for (there, change) in [&mut edges, &mut starts].into_iter().zip(&mut changes) {
                for _ in 0..random.below(4) {
                    if random.below(2) == 0 || there.is_empty() {
                        let row = (random.below(7) as i64, random.below(7) as i64);
                        there.push(row);
                        change.append(delta(&[row], 1));
                    } else {
                        let row = there.swap_remove(random.below(there.len() as u64) as usize);
                        change.append(delta(&[row], -1));
                    }
                }
            }
            if random.below(3) == 0 {
                again(&mut flow, fixture.compile(REACHED));
            }
            sum.append(step(&mut flow, epoch, &changes).rows);
            let mut reached: Vec<i64> = starts.iter().map(|(k, _)| *k).collect();
            let mut at = 0;
            while at < reached.len() {
                let node = reached[at];
                reached.extend(edges.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to));
                at += 1;
                let mut seen = std::collections::HashSet::new();
                reached.retain(|node| seen.insert(*node));
            }
            let mut expected: Vec<String> = reached.iter().map(|node| format!("+1 ({node})")).collect();
            expected.sort();
            let schema = flow.schema().unwrap().clone();
            sum = millstream_delta::consolidate(sum, &schema).unwrap();
            assert_eq!(sorted(&sum), expected, "seed {seed}, epoch {epoch}");
        }
    }
}
