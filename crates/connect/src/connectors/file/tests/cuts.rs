//! Pulls and replays return the same rows, wherever they are cut.

use std::task::{Context, Poll, Waker};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Checks that replaying the spans, cut anywhere, returns the same rows and bad rows.
pub(super) async fn check_replay(dir: &Dir, columns: Option<&[(&str, DataType)]>, taken: &Taken) {
    let (lines, bad) = (taken.lines(dir), taken.bad(dir));
    for (seed, whole) in [(1, false), (2, true), (3, false)] {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut source = dir.open(columns, &[]);
        let mut again = Taken::default();
        let spans = if whole { taken.position().spans().collect() } else { taken.spans.clone() };
        for mut span in spans {
            loop {
                let limit =
                    Limit { rows: random.random_range(1..5000), bytes: random.random_range(1..200_000) };
                let arrival = source.replay(&span, limit).await.unwrap();
                let [part] = &arrival.spans[..] else { panic!("one span a replay") };
                assert_eq!((&part.split, part.from), (&span.split, span.from));
                let (to, more) = (part.to, arrival.more);
                again.add(arrival);
                if more != More::Now {
                    assert_eq!(to, span.to);
                    break;
                }
                span.from = to;
            }
        }
        assert_eq!(again.lines(dir), lines, "seed {seed}");
        assert_eq!(again.bad(dir), bad, "seed {seed}");
    }
}

/// Generates good and bad records of all kinds for one format.
fn messy(random: &mut SmallRng, records: usize, kinds: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..records {
        match random.random_range(0..30) {
            0 => bytes.extend(std::iter::repeat_n(b'z', random.random_range(900..3000))),
            1 => bytes.extend_from_slice(b"\xC3\x28"),
            2 => bytes.extend_from_slice("grüße, 漢字".as_bytes()),
            _ => bytes.extend_from_slice(kinds[random.random_range(0..kinds.len())]),
        }
        bytes.extend_from_slice(if n % 7 == 0 { b"\r\n" } else { b"\n" });
    }
    bytes
}

#[tokio::test]
async fn however_a_stream_is_cut_its_rows_are_the_same() {
    let csv: &[&[u8]] =
        &[b"1,a", b"2,\"b\nb\"", b"x,c", b"4", b"5,\"e\"\"e\"", b"", b"6,\"open", b"7,a\rb", b"8,\"q\"x"];
    let json: &[&[u8]] =
        &[b"{\"n\":1,\"w\":\"a\"}", b"{\"n\":\"q\"}", b"{\"n\":", b"}", b"{} {}", b"", b"{\"w\":null}"];
    let columns: &[(&str, DataType)] = &[("n", DataType::Int64), ("w", DataType::Utf8View)];
    for (name, kinds, columns) in
        [("a.txt", csv, None), ("a.csv", csv, Some(columns)), ("a.json", json, Some(columns))]
    {
        for seed in 0..4 {
            let mut random = SmallRng::seed_from_u64(seed);
            let dir = Dir::new();
            let head: &[u8] = if name == "a.csv" { b"n,w\n" } else { b"" };
            dir.write(name, [head, &messy(&mut random, 400, kinds)].concat());
            let (whole, _) = take(dir.open(columns, &[("bounded", "true")]).as_mut(), WIDE).await;
            assert!(!whole.bad.is_empty() && !whole.rows.is_empty(), "{name}");
            let limit = Limit { rows: random.random_range(1..40), bytes: random.random_range(1..4000) };
            let (cut, _) = take(dir.open(columns, &[("bounded", "true")]).as_mut(), limit).await;
            assert_eq!(cut.lines(&dir), whole.lines(&dir), "{name} {seed} {limit:?}");
            assert_eq!(cut.bad(&dir), whole.bad(&dir), "{name} {seed} {limit:?}");
            check_replay(&dir, columns, &cut).await;
        }
    }
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_loses_nothing() {
    let dir = Dir::new();
    dir.write("a", (0..1000).map(|n| format!("{n}\n")).collect::<String>());
    let mut source = dir.open(None, &[("bounded", "true")]);
    let limit = Limit { rows: 100, bytes: 1 << 20 };
    let mut rows = 0;
    let mut count =
        |batches: &[RecordBatch]| rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    {
        let mut pull = std::pin::pin!(source.next(limit));
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(arrival) = pull.as_mut().poll(&mut context) {
            count(&arrival.unwrap().rows);
        }
    }
    let (taken, _) = take(source.as_mut(), limit).await;
    count(&taken.rows);
    assert_eq!(rows, 1000);
}
