//! Tests which keys are forgotten and when, the results of returning keys, and that no weight is negative.

use std::collections::BTreeMap;
use std::ops::Deref;

use millstream_delta::{Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_seeds::first_seeds;
use millstream_state::Tables;

use crate::fixture::{Fixture, NAMES, Random, again, delta, sorted};
use crate::{Change, Flow, Limits};

const TTL_US: i64 = 80;

/// A flow that is replaced by another one now and then, as after a restart.
struct Query<'a> {
    fixture: &'a Fixture,
    sql: String,
    flow: Flow,
}

impl Deref for Query<'_> {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        &self.flow
    }
}

fn limits() -> Limits {
    Limits { whole_rows_max: 1, state_ttl_us: Some(TTL_US), ..Limits::default() }
}

fn compile<'a>(fixture: &'a Fixture, sql: &str) -> Query<'a> {
    Query { fixture, sql: sql.into(), flow: fixture.compile_within(sql, limits()) }
}

/// Steps at a time, after a restart; `t` and `u` change.
fn step(query: &mut Query<'_>, now: i64, t: Delta, u: Delta) -> Change {
    again(&mut query.flow, query.fixture.compile_within(&query.sql, limits()));
    step_flow(&mut query.flow, now, t, u)
}

fn step_flow(flow: &mut Flow, now: i64, t: Delta, u: Delta) -> Change {
    let changes = [t, u];
    let of = |name: &str| &changes[NAMES.iter().position(|known| *known == name).unwrap()];
    let names: Vec<String> = flow.relations().iter().map(|name| name.to_string()).collect();
    let inputs: Vec<&Delta> = names.iter().map(|name| of(name)).collect();
    flow.step(&Cut::new(Epoch(now as u64), Timestamp(now)), &inputs).unwrap().with_texts().unwrap()
}

fn rows(flow: &mut Query<'_>, now: i64, t: Delta) -> Vec<String> {
    sorted(&step(flow, now, t, Delta::default()).rows)
}

fn none() -> Delta {
    Delta::default()
}

fn forgotten(flow: &Flow) -> Vec<(u64, u64)> {
    let counted = flow.operators().into_iter().filter_map(|operator| operator.state.forgotten);
    counted.map(|counted| (counted.keys, counted.deletes)).collect()
}

#[test]
fn a_group_that_returns_replaces_its_old_row() {
    let fixture = Fixture::new();
    for call in ["sum(v)", "max(v)", "median(v)", "corr(v, v) IS NULL, max(v)"] {
        let mut flow = compile(&fixture, &format!("SELECT k, {call} FROM t GROUP BY k"));
        let text = flow.explain().join("\n");
        assert!(text.contains("state_ttl 80 microseconds: not equal to batch"), "{text}");
        let came = rows(&mut flow, 0, delta(&[(1, 5), (2, 7)], 1));
        assert_eq!(came.len(), 2, "{call}");
        assert_eq!(flow.wake_at(), Some(Timestamp(90)));
        rows(&mut flow, 50, delta(&[(2, 8)], 1));
        // Key 1 is forgotten, and its row stays.
        assert_eq!(rows(&mut flow, 100, none()), Vec::<String>::new());
        assert_eq!(forgotten(&flow), [(1, 0)], "{call}");
        let back = rows(&mut flow, 101, delta(&[(1, 4)], 1));
        let gone: Vec<&String> = back.iter().filter(|row| row.starts_with("-1")).collect();
        let expected = came.iter().find(|row| row.starts_with("+1 (1,")).unwrap().replacen("+1", "-1", 1);
        assert_eq!(gone, [&expected], "{call}");
        assert!(back.iter().any(|row| row.starts_with("+1") && row.contains('4')), "{call}: {back:?}");
        // A forgotten row can't be deleted, and its delete doesn't count as a touch.
        assert_eq!(rows(&mut flow, 102, delta(&[(1, 5)], -1)), Vec::<String>::new());
        assert_eq!(forgotten(&flow), [(1, 1)], "{call}");
        // Rows inserted since then can be deleted.
        assert_eq!(rows(&mut flow, 103, delta(&[(1, 4)], -1)).len(), 1, "{call}");
        rows(&mut flow, 1000, none());
        assert_eq!(forgotten(&flow), [(2, 1)], "{call}");
        assert_eq!(flow.wake_at(), None);
    }
}

#[test]
fn a_row_that_is_the_same_as_before_changes_nothing() {
    let fixture = Fixture::new();
    let mut flow = compile(&fixture, "SELECT k, max(v) FROM t GROUP BY k");
    rows(&mut flow, 0, delta(&[(1, 5)], 1));
    assert_eq!(rows(&mut flow, 200, delta(&[(1, 5)], 1)), Vec::<String>::new());
    assert_eq!(forgotten(&flow), [(1, 0)]);
    // An update of a forgotten row is its delete, which is dropped, and an insert.
    rows(&mut flow, 400, none());
    let mut update = delta(&[(1, 5)], -1);
    update.append(delta(&[(1, 6)], 1));
    assert_eq!(rows(&mut flow, 401, update).len(), 2);
    assert_eq!(forgotten(&flow), [(2, 1)]);
    let content: usize = flow.content().unwrap().unwrap().iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(content, 1);
}

#[test]
fn distinct_values_are_forgotten_with_their_group() {
    let fixture = Fixture::new();
    // With another aggregate beside it: alone it would be split into two aggregates.
    let mut flow = compile(&fixture, "SELECT k, count(DISTINCT v), median(v) FROM t GROUP BY k");
    rows(&mut flow, 0, delta(&[(1, 5), (1, 6), (1, 6), (2, 6)], 1));
    rows(&mut flow, 90, delta(&[(2, 6), (2, 7), (2, 7)], 1));
    assert_eq!(rows(&mut flow, 100, delta(&[(1, 6)], 1)), ["+1 (1, 1, 6.0)", "-1 (1, 2, 6.0)"]);
    // One of its two rows with a 6 is forgotten.
    assert_eq!(rows(&mut flow, 101, delta(&[(2, 6)], -1)), ["+1 (2, 1, 7.0)", "-1 (2, 2, 7.0)"]);
    assert_eq!(rows(&mut flow, 102, delta(&[(2, 6)], -1)), Vec::<String>::new());
}

#[test]
fn a_join_forgets_both_sides_and_keeps_its_pairs() {
    let fixture = Fixture::new();
    for (join, alone) in [("JOIN", 0), ("LEFT JOIN", 1)] {
        let sql = format!("SELECT t.k, t.v, u.v FROM t {join} u ON t.k = u.k");
        let mut flow = compile(&fixture, &sql);
        step(&mut flow, 0, delta(&[(1, 5), (2, 6)], 1), delta(&[(1, 7)], 1));
        let before = flow.state_bytes();
        assert_eq!(flow.state_rows(), 3);
        assert!(step(&mut flow, 500, none(), none()).rows.is_empty());
        assert_eq!((flow.state_rows(), forgotten(&flow)), (0, vec![(2, 0)]));
        assert!(flow.state_bytes() < before + 4096);
        // No row is left that this could match.
        assert!(step(&mut flow, 501, none(), delta(&[(1, 8)], 1)).rows.is_empty());
        assert!(step(&mut flow, 502, delta(&[(2, 6)], -1), none()).rows.is_empty());
        assert_eq!(forgotten(&flow), [(2, 1)]);
        let again = sorted(&step(&mut flow, 503, delta(&[(1, 5), (3, 1)], 1), none()).rows);
        assert_eq!(again.len(), 1 + alone, "{again:?}");
    }
}

#[test]
fn partitions_begin_anew() {
    let fixture = Fixture::new();
    let sql = "SELECT k, v, sum(v) OVER (PARTITION BY k) FROM t";
    let mut flow = compile(&fixture, sql);
    rows(&mut flow, 0, delta(&[(1, 5), (1, 6)], 1));
    assert_eq!(rows(&mut flow, 500, delta(&[(1, 7)], 1)), ["+1 (1, 7, 7)"]);
    let text = flow.explain().join("\n");
    assert_eq!(text.contains("not equal to batch"), forgotten(&flow) == [(1, 0)], "{text}");
}

#[test]
fn the_first_rows_of_a_partition_are_replaced_by_those_that_come_back() {
    let fixture = Fixture::new();
    let sql = "SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM t) AS r WHERE n <= 2";
    let mut flow = compile(&fixture, sql);
    assert_eq!(rows(&mut flow, 0, delta(&[(1, 5), (1, 6), (1, 7), (2, 1)], 1)).len(), 3);
    assert_eq!(rows(&mut flow, 500, none()), Vec::<String>::new());
    assert_eq!((flow.state_rows(), forgotten(&flow)), (3, vec![(2, 0)]));
    assert_eq!(rows(&mut flow, 501, delta(&[(1, 6), (1, 9)], 1)), ["+1 (1, 9)", "-1 (1, 5)"]);
    assert_eq!(rows(&mut flow, 502, delta(&[(2, 1)], -1)), Vec::<String>::new());
}

/// Whatever changes, no row of a result has a negative weight, and a group has one row.
#[test]
fn no_weight_is_negative() {
    let queries = [
        "SELECT k, count(*), sum(v), min(v), median(v), array_agg(v ORDER BY v) FROM t GROUP BY k",
        "SELECT k, s, avg(f), count(DISTINCT v) FROM t GROUP BY k, s",
        "SELECT k, sum(n) FROM (SELECT k, s, count(*) AS n FROM t GROUP BY k, s) AS g GROUP BY k",
        "SELECT k, mode FROM (SELECT k, percentile_cont(0.4) WITHIN GROUP (ORDER BY v) AS mode FROM t GROUP BY k) AS g",
        "SELECT t.v, u.v FROM t JOIN u ON t.k = u.k",
        "SELECT t.v, u.v FROM t FULL JOIN u ON t.k = u.k AND t.v < u.v",
        "SELECT v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
        "SELECT v FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v > t.v)",
        "SELECT k, v, lag(v) OVER (PARTITION BY k ORDER BY v, s, f, id) FROM t",
        "SELECT k, v, n FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v, s, f, id) AS n FROM t) AS r \
         WHERE n <= 3",
        "SELECT k, v / (v - 3), count(*) FROM t GROUP BY k, v / (v - 3)",
    ];
    for seed in first_seeds(2, 0..6) {
        let (mut random, mut restarts) = (Random(seed), Random(seed + 1000));
        let mut fixture = Fixture::new();
        let mut flows: Vec<(Flow, Delta)> =
            queries.iter().map(|sql| (compile(&fixture, sql).flow, Delta::default())).collect();
        let mut now = 0;
        for _ in 0..14 {
            now += random.below(90) as i64;
            let [t, u] = fixture.change(&mut random);
            for (sql, (flow, sum)) in queries.iter().zip(&mut flows) {
                let schema = flow.schema().unwrap().clone();
                if restarts.below(3) == 0 {
                    again(flow, fixture.compile_within(sql, limits()));
                }
                sum.append(step_flow(flow, now, t.clone(), u.clone()).rows);
                *sum = consolidate(std::mem::take(sum), &schema).unwrap();
                let mut groups: BTreeMap<String, i64> = BTreeMap::new();
                for chunk in &sum.chunks {
                    for row in 0..chunk.rows.num_rows() {
                        assert!(chunk.weight(row) > 0, "seed {seed}, {sql}: {:?}", sorted(sum));
                        let key = crate::failure::row_text(&chunk.rows.project(&[0]).unwrap(), row).unwrap();
                        *groups.entry(key).or_default() += chunk.weight(row);
                    }
                }
                let single = sql.ends_with("GROUP BY k") || sql.contains("mode");
                assert!(!single || groups.values().all(|count| *count == 1), "seed {seed}, {sql}");
                if let Some(content) = flow.content() {
                    let mut difference = sum.clone();
                    content
                        .unwrap()
                        .into_iter()
                        .for_each(|rows| difference.push(millstream_delta::Chunk::delete(rows)));
                    assert!(consolidate(difference, &schema).unwrap().is_empty(), "seed {seed}, {sql}");
                }
            }
        }
        now += 1000;
        for (sql, (flow, _)) in queries.iter().zip(&mut flows) {
            step_flow(flow, now, Delta::default(), Delta::default());
            let (keys, _) = forgotten(flow)[0];
            assert!(keys > 0, "{sql}");
        }
    }
}

/// A saved state of other keys, or with other hashes, is refused.
#[test]
fn what_does_not_fit_is_refused() {
    let fixture = Fixture::new();
    let sql = "SELECT t.v, u.v FROM t JOIN u ON t.k = u.k";
    let mut flow = compile(&fixture, sql);
    step(&mut flow, 0, delta(&[(1, 5), (2, 6)], 1), delta(&[(1, 7)], 1));
    let kept = flow.save().unwrap();
    let part = kept.numbers().find_map(|(name, _)| name.strip_suffix(".hashes_like").map(str::to_string));
    let part = part.unwrap();
    let refused = |change: &dyn Fn(&mut Tables)| {
        let (mut all, mut new) = (kept.clone(), fixture.compile_within(sql, limits()));
        let mut of_operator = all.take_part(&part);
        change(&mut of_operator);
        all.put_part(&part, of_operator);
        new.load(all, &[]).err().map(|error| error.to_string())
    };
    assert_eq!(refused(&|_| ()), None);
    let error = refused(&|kept| kept.put_number("hashes_like", 0)).unwrap();
    assert!(error.contains("hashed in another way"), "{error}");
    let error = refused(&|kept| drop(kept.take("of_keys").unwrap())).unwrap();
    assert!(error.contains("'of_keys' has 0 rows instead of 2"), "{error}");
    let error = refused(&|kept| {
        let batch = kept.take("keys").unwrap()[0].slice(0, 1);
        kept.put("keys", vec![batch]);
        let batch = kept.take("of_keys").unwrap()[0].slice(0, 1);
        kept.put("of_keys", vec![batch]);
    });
    assert!(error.unwrap().contains("'hashes0' are of keys that aren't there"));
    assert!(refused(&|kept| drop(kept.take_number("stepped"))).is_some());
    assert!(refused(&|kept| kept.put_number("unknown", 1)).is_some());
}
