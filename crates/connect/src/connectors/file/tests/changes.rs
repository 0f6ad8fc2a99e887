//! Tests of files that change, and of the rows read from them before.

use std::time::SystemTime;

use super::*;
use crate::Jump;

const OFTEN: (&str, &str) = ("poll_interval", "2 ms");

#[tokio::test]
async fn what_changed_is_not_read_again() {
    for (before, after, refused) in [
        ("1\n2\n", "3\n", true),
        ("1\n2\n", "3\n4\n", true),
        ("1\n2\n", "1\n2\n3\n", false),
        ("1\n2\n", "1\n2\n", false),
    ] {
        for noticed in [false, true] {
            let dir = Dir::new();
            dir.write("a", before);
            let old = SystemTime::now() - Duration::from_secs(1000);
            let file = || fs::File::options().write(true).open(dir.path().join("a")).unwrap();
            file().set_modified(old).unwrap();
            let mut source = dir.open(None, &[OFTEN]);
            let taken = follow(source.as_mut(), 2).await;
            dir.write("a", after);
            if after == before {
                file().set_modified(old).unwrap();
            }
            for _ in 0..if noticed { 3 } else { 0 } {
                source.ready().await.unwrap();
                assert!(source.next(WIDE).await.unwrap().spans.is_empty());
            }
            let again = source.replay(&taken.spans[0], WIDE).await;
            match again {
                Ok(arrival) => {
                    assert!(!refused, "{after:?} {noticed}");
                    assert_eq!(arrival.rows, taken.rows);
                }
                Err(error) => {
                    assert!(refused && matches!(error, Error::External(_)), "{after:?} {noticed}: {error}");
                    assert!(error.to_string().contains("can't be read again"), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_change_while_a_file_is_read_is_noticed() {
    let dir = Dir::new();
    dir.write("a", "1\n2\n");
    dir.write(".b", "3\n4\n");
    let old = SystemTime::now() - Duration::from_secs(1000);
    fs::File::options().write(true).open(dir.path().join("a")).unwrap().set_modified(old).unwrap();
    let mut source = dir.open(None, &[OFTEN, ("on_change", "reread")]);
    let mut taken = Taken::default();
    taken.add(source.next(Limit { rows: 1, bytes: 1000 }).await.unwrap());
    fs::rename(dir.path().join(".b"), dir.path().join("a")).unwrap();
    taken.add(source.next(Limit { rows: 1, bytes: 1000 }).await.unwrap());
    assert_eq!(taken.lines(&dir), ["1@a:0", "2@a:2"]);
    let second = follow(source.as_mut(), 2).await;
    assert_eq!(second.lines(&dir), ["3@a:0", "4@a:2"]);
    assert_eq!(dir.short(&second.spans[0].split), "a#2");
}

#[tokio::test]
async fn a_file_that_is_gone_before_it_is_read_is_told() {
    let dir = Dir::new();
    dir.write("a", "1\n");
    let mut source = dir.open_as("a", None, &[("bounded", "true"), ("order", "mtime")]).unwrap();
    fs::remove_file(dir.path().join("a")).unwrap();
    let error = source.next(WIDE).await.unwrap_err().to_string();
    assert!(error.contains("could not be read"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn replays_that_take_turns_keep_their_files_open() {
    let dir = Dir::new();
    let names: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    names.iter().for_each(|name| dir.write(name, "1\n2\n3\n"));
    let mut source = dir.open(None, &[("bounded", "true")]);
    let (taken, _) = take(source.as_mut(), WIDE).await;
    let mut spans = taken.spans.clone();
    let mut lines = Vec::new();
    for turn in 0..3 {
        for span in &mut spans {
            let arrival = source.replay(span, Limit { rows: 1, bytes: 1000 }).await.unwrap();
            span.from = arrival.spans[0].to;
            let mut part = Taken::default();
            part.add(arrival);
            lines.extend(part.lines(&dir));
        }
        if turn == 0 {
            // Only the readers that still have the files open can continue.
            names.iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
        }
    }
    lines.sort();
    let mut expected = taken.lines(&dir);
    expected.sort();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn files_are_read_again_when_asked_to() {
    let dir = Dir::new();
    dir.write("a.txt", "1\n2\n");
    dir.write("b.log", "3\n");
    for start in ["all", "new"] {
        let mut source = dir.open(None, &[("bounded", "true"), ("start", start)]);
        let (first, more) = take(source.as_mut(), WIDE).await;
        assert_eq!(more, More::Never);
        assert_eq!(first.lines(&dir).len(), if start == "all" { 3 } else { 0 });
        assert_eq!(source.jump(&Jump::Again("*.txt".into())).await.unwrap(), 1);
        let (again, more) = take(source.as_mut(), WIDE).await;
        assert_eq!((again.lines(&dir), more), (vec!["1@a.txt:0".into(), "2@a.txt:2".into()], More::Never));
        assert_eq!(dir.short(&again.spans[0].split), "a.txt##2");
        // Both readings can be replayed, by another reader too.
        let mut other = dir.open(None, &[("bounded", "true"), ("start", start)]);
        for reader in [&mut source, &mut other] {
            for taken in [&first, &again] {
                for span in taken.spans.iter().filter(|span| span.to > 0) {
                    let rows = reader.replay(span, WIDE).await.unwrap().rows;
                    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>() > 0, span.to > 0);
                }
            }
        }
        let path = format!("{}/*", dir.path().display());
        assert_eq!(source.jump(&Jump::Again(path)).await.unwrap(), 2);
        assert_eq!(take(source.as_mut(), WIDE).await.0.lines(&dir).len(), 3);
        assert!(
            source
                .jump(&Jump::Again("*.csv".into()))
                .await
                .unwrap_err()
                .to_string()
                .contains("none of the files")
        );
    }
}
