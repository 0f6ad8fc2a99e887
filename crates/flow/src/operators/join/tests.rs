//! Tests joins of every kind against DataFusion's batch answer.

use std::sync::Arc;

use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};

use crate::arrangement::Arrangement;
use crate::fixture::{Fixture, NAMES, Random, again, check, delta, sorted, step};
use crate::{Error, Flow, Interrupt, needs_content, share_rows};

#[test]
fn joins_follow_inserts_and_deletes() {
    let kinds = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
    let conditions = ["t.k = u.k", "t.k = u.k AND t.s = u.s", "t.k = u.k AND t.v < u.v", "t.k + 1 = u.v"];
    let mut all: Vec<String> = Vec::new();
    for kind in kinds {
        for condition in conditions {
            all.push(format!("SELECT t.id, t.k, u.id, u.v FROM t {kind} u ON {condition}"));
        }
    }
    for kind in ["LEFT SEMI", "LEFT ANTI", "RIGHT SEMI", "RIGHT ANTI"] {
        for condition in conditions {
            let side = if kind.starts_with("LEFT") { "t" } else { "u" };
            all.push(format!("SELECT {side}.id, {side}.v FROM t {kind} JOIN u ON {condition}"));
        }
    }
    for kind in kinds {
        all.push(format!("SELECT t.id, u.id FROM t {kind} u ON t.v < u.v AND t.v + 4 > u.v"));
    }
    for kind in ["LEFT SEMI", "LEFT ANTI"] {
        all.push(format!("SELECT t.id, t.k FROM t {kind} JOIN u ON t.v > u.v"));
        all.push(format!("SELECT t.id, t.k FROM t {kind} JOIN u ON t.k IS NOT DISTINCT FROM u.k"));
        all.push(format!("SELECT t.k, t.s FROM t {kind} JOIN u ON t.k = u.k AND (t.s IS NULL OR t.s = u.s)"));
    }
    all.push("SELECT a.id, b.v FROM t AS a JOIN t AS b ON a.k = b.k AND a.v > b.v".into());
    all.push("SELECT t.id, u.v FROM t JOIN u ON (t.k IS NOT DISTINCT FROM u.k)".into());
    check("Join", &all.iter().map(String::as_str).collect::<Vec<_>>(), 10..16);
}

#[test]
fn what_becomes_a_join_follows_inserts_and_deletes() {
    check(
        "Join",
        &[
            "SELECT t.id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v > t.v) OR t.s = 't2'",
            "SELECT k FROM t INTERSECT SELECT k FROM u",
            "SELECT k, s FROM t EXCEPT SELECT k, s FROM u",
            "SELECT t.id, u.id, b.v FROM t JOIN u ON t.k = u.k JOIN t AS b ON b.k = u.k AND b.s = u.s",
            "SELECT t.id, u.id, b.v FROM t JOIN u ON t.k = u.k LEFT JOIN t AS b ON b.v = u.v",
            "SELECT t.id, u.v FROM t FULL JOIN u ON t.k = u.k AND 100 / (t.v + u.v + 1) > 9",
            "SELECT t.id FROM t WHERE t.v > (SELECT min(u.v) FROM u WHERE u.k = t.k)",
            "SELECT t.id FROM t WHERE t.k IN (SELECT max(u.k) FROM u GROUP BY u.s)",
            "SELECT a.id, x.m FROM t AS a JOIN (SELECT k, max(v) AS m FROM u GROUP BY k) AS x ON a.k = x.k",
            "SELECT t.id FROM t WHERE t.v IN (SELECT u.v FROM u) OR t.k = 3",
            "SELECT t.id FROM t WHERE t.v IN (SELECT u.v FROM u WHERE u.s <> t.s)",
            "SELECT t.k, count(*) AS c FROM t LEFT JOIN u ON t.k = u.k AND t.v = u.v GROUP BY t.k",
        ],
        40..46,
    );
}

#[test]
fn whether_a_key_fails_does_not_depend_on_others() {
    let fixture = Fixture::new();
    // DataFusion evaluates the right side of AND for all rows, unless few of them pass the left side.
    let sql = "SELECT t.k, u.v FROM t LEFT JOIN u ON t.k = u.k AND t.v <> 0 AND 10 / t.v > u.v";
    let mut flow = fixture.compile(sql);
    let mut rows = vec![(2, 0); 20];
    rows.extend([(1, 0), (1, 5)]);
    let change = step(&mut flow, 1, &[delta(&rows, 1), delta(&[(1, 1), (2, 1)], 1)]);
    assert_eq!(change.errors.num_rows(), 0);
    assert_eq!(sorted(&change.rows), ["+1 (1, 1)", "+1 (1, NULL)", "+20 (2, NULL)"]);
    let change = step(&mut flow, 2, &[delta(&[(1, 10)], 1), Delta::default()]);
    assert_eq!((sorted(&change.rows), change.errors.num_rows()), (vec!["+1 (1, NULL)".to_string()], 0));
}

#[test]
fn a_step_over_many_pairs_ends_when_nobody_needs_it() {
    let fixture = Fixture::new();
    let mut flow = fixture.compile("SELECT t.id, u.id FROM t JOIN u ON t.v < u.v");
    let rows: Vec<(i64, i64)> = (0..500).map(|row| (row, row)).collect();
    let interrupt = Interrupt::default();
    interrupt.raise();
    let mut step = || {
        let inputs = [delta(&rows, 1), delta(&rows, 1)];
        flow.step(&Cut::new(Epoch(1), Timestamp(1)), &inputs.each_ref())
    };
    assert!(matches!(interrupt.run(&mut step), Err(Error::Interrupted)));
}

/// Lets all queries that look up the same rows by the same key share one arrangement.
fn share(queries: &mut [Flow], epoch: u64, content: &[Delta; 2]) {
    let key = |flow: &Flow, place: usize| {
        let all = flow.shareable();
        let found = all.iter().find(|found| found.place == place).unwrap();
        (flow.relations()[found.relation].clone(), found.by.clone())
    };
    let places = |flow: &Flow| -> Vec<usize> { flow.shareable().iter().map(|found| found.place).collect() };
    let mut done = Vec::new();
    for at in 0..queries.len() {
        for place in places(&queries[at]) {
            let wanted = key(&queries[at], place);
            if done.contains(&wanted) {
                continue;
            }
            let of = |flow: &Flow| places(flow).into_iter().find(|place| key(flow, *place) == wanted);
            let readers: Vec<_> = queries.iter().filter_map(|flow| Some((flow, of(flow)?))).collect();
            let needs = needs_content(&readers);
            let relation = NAMES.iter().position(|name| **name == *wanted.0).unwrap();
            let mut readers: Vec<_> = queries
                .iter_mut()
                .filter_map(|flow| {
                    let place = of(flow)?;
                    Some((flow, place))
                })
                .collect();
            let count = readers.len();
            let shared = share_rows(&mut readers, epoch, needs.then(|| &content[relation])).unwrap().unwrap();
            assert!(Arc::strong_count(&shared) > count, "each reader holds it");
            done.push(wanted);
        }
    }
}

fn unshare(flow: &mut Flow, before: bool) {
    let shared: Vec<usize> = flow.shareable().iter().map(|found| found.place).collect();
    shared.into_iter().for_each(|found| flow.sharing().unshare(found, before).unwrap());
}

/// Names the readers of all shared arrangements, so that the last one takes an arrangement over when it leaves.
fn name_readers(flows: &[Flow]) {
    let shared = |flow: &Flow| -> Vec<Arc<Arrangement>> {
        flow.shareable().into_iter().filter_map(|found| found.shared.cloned()).collect()
    };
    for arrangement in flows.iter().flat_map(shared) {
        let reads = |flow: &&Flow| shared(flow).iter().any(|read| Arc::ptr_eq(read, &arrangement));
        let readers = flows.iter().enumerate().filter(|(_, flow)| reads(flow));
        arrangement.set_readers(readers.map(|(place, _)| place.to_string().into()).collect());
    }
}

/// Gives all flows but one, which have been stepped over an epoch, copies of the arrangements that they share with it,
/// and settles the copies.
fn leave_to_others(flows: &mut [Flow], late: usize, epoch: u64) {
    let shared: Vec<_> =
        flows[late].shareable().into_iter().filter_map(|found| found.shared.cloned()).collect();
    for before in shared {
        let copy = Arc::new(before.fork_whole().unwrap());
        for (_, flow) in flows.iter_mut().enumerate().filter(|(place, _)| *place != late) {
            flow.sharing().read_instead(&before, &copy).unwrap();
        }
        copy.settle(epoch).unwrap();
    }
}

/// Steps all flows over an epoch. One may be stepped after all others are done with the epoch, in one of two ways;
/// returns its place.
fn step_all(
    flows: &mut [Flow],
    sums: &mut [Delta],
    epoch: u64,
    changes: &[Delta; 2],
    random: &mut Random,
) -> Option<usize> {
    let late = (!flows.is_empty() && random.below(2) == 0).then(|| random.below(flows.len() as u64) as usize);
    for (place, (flow, sum)) in flows.iter_mut().zip(&mut *sums).enumerate() {
        if Some(place) != late {
            sum.append(step(flow, epoch, changes).rows);
        }
    }
    let late = late?;
    match random.below(2) {
        0 => leave_to_others(flows, late, epoch),
        _ => unshare(&mut flows[late], true),
    }
    sums[late].append(step(&mut flows[late], epoch, changes).rows);
    flows[late].sharing().own_shared().unwrap();
    Some(late)
}

#[test]
fn flows_that_all_leave_shared_rows_share_them_again_as_they_are() {
    let mut fixture = Fixture::new();
    let mut random = Random(3);
    let queries = [
        "SELECT t.id, u.v FROM t JOIN u ON t.k = u.k",
        "SELECT t.v, u.id, u.s FROM t LEFT JOIN u ON t.k = u.k",
    ];
    let mut flows: Vec<Flow> = queries.iter().map(|sql| fixture.compile(sql)).collect();
    let content = fixture.change(&mut random);
    let mut sums: Vec<Delta> = flows.iter_mut().map(|flow| step(flow, 1, &content).rows).collect();
    share(&mut flows, 1, &content);
    for (epoch, first) in [(2, 0), (3, 1)] {
        for place in [first, 1 - first] {
            name_readers(&flows);
            unshare(&mut flows[place], false);
        }
        let changes = fixture.change(&mut random);
        step_all(&mut flows, &mut sums, epoch, &changes, &mut random);
        for found in flows[0].shareable() {
            let relation = &flows[0].relations()[found.relation];
            let same = flows[1]
                .shareable()
                .into_iter()
                .find(|other| flows[1].relations()[other.relation] == *relation && other.by == found.by);
            let readers = [(&flows[0], found.place), (&flows[1], same.unwrap().place)];
            assert!(!needs_content(&readers), "one of them has all columns of {relation}");
        }
        share(&mut flows, epoch, &[Delta::default(), Delta::default()]);
    }
    let changes = fixture.change(&mut random);
    step_all(&mut flows, &mut sums, 4, &changes, &mut random);
    for ((sql, flow), mut sum) in queries.iter().zip(&flows).zip(sums) {
        let schema = flow.schema().unwrap();
        sum.push(Chunk::delete(fixture.at_once(sql, schema)));
        assert!(consolidate(sum, schema).unwrap().is_empty(), "{sql}");
    }
}

#[test]
fn queries_that_find_rows_by_the_same_key_keep_them_once() {
    let queries = [
        "SELECT t.id, u.v FROM t JOIN u ON t.k = u.k",
        "SELECT t.id, t.s, u.id, u.s FROM t LEFT JOIN u ON t.k = u.k",
        "SELECT t.v, u.id FROM t RIGHT JOIN u ON t.k = u.k",
        "SELECT t.id, u.id FROM t FULL JOIN u ON t.k = u.k",
        "SELECT t.id, u.id FROM t LEFT JOIN u ON t.k = u.k AND t.v < u.v",
        "SELECT t.id, u.id FROM t JOIN u ON t.k = u.k AND t.v < u.v",
        "SELECT t.id, u.id FROM u RIGHT JOIN t ON t.k = u.k AND t.v < u.v",
        "SELECT t.id FROM t LEFT ANTI JOIN u ON t.k = u.k",
        "SELECT t.id FROM t LEFT SEMI JOIN u ON t.k = u.k AND t.v < u.v",
        "SELECT a.id, b.v FROM u AS a JOIN u AS b ON a.k = b.k JOIN u AS c ON c.k = b.k AND c.s = 't2'",
        "SELECT a.id, b.v FROM t AS a LEFT JOIN t AS b ON a.k = b.k",
    ];
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut fixture = Fixture::new();
        let mut flows: Vec<Flow> = Vec::new();
        let mut sums: Vec<Delta> = Vec::new();
        let mut content = [Delta::default(), Delta::default()];
        for epoch in 1..14 {
            let changes = fixture.change(&mut random);
            // Some or all flows are restarted, and share nothing then.
            let share_of = random.below(4);
            for (sql, flow) in queries.iter().zip(&mut flows) {
                if random.below(3) < share_of {
                    again(flow, fixture.compile(sql));
                }
            }
            if let Some(late) = step_all(&mut flows, &mut sums, epoch, &changes, &mut random)
                && random.below(2) == 0
            {
                again(&mut flows[late], fixture.compile(queries[late]));
            }
            for (all, change) in content.iter_mut().zip(changes) {
                all.append(change);
                *all = consolidate(std::mem::take(all), &crate::fixture::schema()).unwrap();
            }
            // A new query reads all rows in its first step, and finds the rows that others keep.
            let begun = flows.len();
            let new = if begun < queries.len() { 1 + random.below(3) as usize } else { 0 };
            flows.extend(queries.iter().skip(begun).take(new).map(|sql| fixture.compile(sql)));
            if random.below(2) == 0 {
                share(&mut flows, epoch, &content);
            }
            for flow in &mut flows[begun..] {
                sums.push(step(flow, epoch, &content).rows);
            }
            // Some or all flows leave their arrangements.
            let leaving = [0, 0, 1, flows.len()][random.below(4) as usize];
            for _ in 0..leaving {
                name_readers(&flows);
                let place = random.below(flows.len() as u64) as usize;
                unshare(&mut flows[place], false);
            }
            for ((sql, flow), sum) in queries.iter().zip(&flows).zip(&sums) {
                let schema = flow.schema().unwrap();
                let mut difference = sum.clone();
                difference.push(Chunk::delete(fixture.at_once(sql, schema)));
                let difference = consolidate(difference, schema).unwrap();
                assert!(difference.is_empty(), "seed {seed}, epoch {epoch}, {sql}: {difference:#?}");
            }
        }
    }
}
