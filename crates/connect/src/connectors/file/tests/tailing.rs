//! Tests of files that grow while they are followed.

use super::*;

const TAIL: (&str, &str) = ("tail", "true");
const OFTEN: (&str, &str) = ("poll_interval", "2 ms");

/// Checks that a few listings return nothing.
async fn is_quiet(source: &mut dyn Source) {
    for _ in 0..5 {
        source.ready().await.unwrap();
        let arrival = source.next(WIDE).await.unwrap();
        assert!(arrival.spans.is_empty() && arrival.rows.is_empty() && arrival.bad_rows.is_empty());
    }
}

#[tokio::test]
async fn what_start_new_leaves_out_stays_out_however_it_grows() {
    for on_change in ["ignore", "error", "reread"] {
        let dir = Dir::new();
        dir.write("old", "1\n2\n");
        let options = [TAIL, OFTEN, ("start", "new"), ("on_change", on_change)];
        let mut source = dir.open(None, &options);
        let (mut taken, _) = take(source.as_mut(), WIDE).await;
        is_quiet(source.as_mut()).await;
        dir.append("old", "3\n");
        is_quiet(source.as_mut()).await;
        dir.write("new", "a\n");
        let fresh = follow(source.as_mut(), 1).await;
        assert_eq!(fresh.lines(&dir), ["a@new:0"]);
        taken.spans.extend(fresh.spans);
        let mut source = dir.open(None, &options);
        source.seek(&taken.position()).await.unwrap();
        dir.append("old", "4\n");
        dir.append("new", "b\n");
        assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["b@new:2"]);
        is_quiet(source.as_mut()).await;
        if on_change == "reread" {
            // A new file at this path isn't the one that was left out.
            dir.write("old", "z\n");
            assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["z@old:0"]);
        }
    }
}

#[tokio::test]
async fn a_header_that_is_refused_is_told_once() {
    let dir = Dir::new();
    dir.write("log.csv", "x,y\n1,2\n");
    let columns: &[(&str, DataType)] = &[("n", DataType::Int64)];
    let mut source = dir.open(Some(columns), &[TAIL, OFTEN, ("format", "csv")]);
    let first = follow(source.as_mut(), 1).await;
    assert!(first.bad(&dir)[0].contains("another schema"), "{:?}", first.bad(&dir));
    for _ in 0..3 {
        dir.append("log.csv", "3,4\n");
        is_quiet(source.as_mut()).await;
    }
}

#[tokio::test]
async fn a_long_line_waits_for_its_end() {
    let dir = Dir::new();
    let long = "x".repeat(3000);
    dir.write("log", format!("ab\n{long}"));
    let mut source = dir.open(None, &[TAIL, OFTEN]);
    let first = follow(source.as_mut(), 1).await;
    assert_eq!(first.lines(&dir), ["ab@log:0"]);
    is_quiet(source.as_mut()).await;
    dir.append("log", &long);
    is_quiet(source.as_mut()).await;
    dir.append("log", "y\ncd\n");
    let second = follow(source.as_mut(), 2).await;
    assert_eq!(second.lines(&dir), ["cd@log:6005"]);
    assert_eq!((second.bad.len(), second.bad[0].offset, second.bad[0].bytes.len()), (1, 3, 6001));
    assert!(second.bad[0].bytes.ends_with(b"xy"));
    let mut again = Taken::default();
    for span in first.spans.iter().chain(&second.spans) {
        again.add(source.replay(span, WIDE).await.unwrap());
    }
    assert_eq!(again.lines(&dir), ["ab@log:0", "cd@log:6005"]);
    assert_eq!(again.bad, second.bad);
}

#[tokio::test]
async fn a_line_whose_quote_stays_open_is_read_again_the_same() {
    let dir = Dir::new();
    dir.write("log.csv", format!("n,t\n1,a\n2,\"open\n{}", "3,c\n".repeat(400)));
    let columns: &[(&str, DataType)] = &[("n", DataType::Int64), ("t", DataType::Utf8View)];
    let mut source = dir.open(Some(columns), &[TAIL, OFTEN, ("format", "csv")]);
    let mut taken = Taken::default();
    for _ in 0..5 {
        taken.add(source.next(Limit { rows: 1, bytes: 1 << 20 }).await.unwrap());
    }
    assert_eq!((taken.bad.len(), taken.lines(&dir).len()), (1, 4));
    let mut again = Taken::default();
    for span in &taken.spans {
        again.add(source.replay(span, WIDE).await.unwrap());
    }
    assert_eq!((again.lines(&dir), again.bad), (taken.lines(&dir), taken.bad));
}

#[tokio::test]
async fn a_file_that_is_rotated_away_holds_nothing_up() {
    let dir = Dir::new();
    dir.write("log", "one\ntwo\n");
    let options = [TAIL, OFTEN, ("on_change", "reread")];
    let mut source = dir.open(None, &options);
    let taken = follow(source.as_mut(), 2).await;
    for comes_back in ["later", "before"] {
        fs::remove_file(dir.path().join("log")).unwrap();
        if comes_back == "before" {
            dir.write("log", "x\n");
        }
        dir.write("other", "1\n");
        let mut source = dir.open(None, &options);
        source.seek(&taken.position()).await.unwrap();
        if comes_back == "later" {
            assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["1@other:0"]);
            dir.write("log", "x\n");
            let new = follow(source.as_mut(), 1).await;
            assert_eq!(
                (new.lines(&dir), dir.short(&new.spans[0].split)),
                (vec!["x@log:0".into()], "log#2".into())
            );
            continue;
        }
        let mut lines = follow(source.as_mut(), 2).await.lines(&dir);
        lines.sort();
        assert_eq!(lines, ["1@other:0", "x@log:0"]);
    }
}
