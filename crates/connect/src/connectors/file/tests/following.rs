//! Tests of which files are read, when, and in which order.

use std::time::SystemTime;

use arrow::util::pretty::pretty_format_batches;

use super::*;

#[tokio::test]
async fn text_files_are_read_in_order_and_the_source_ends() {
    let dir = Dir::new();
    dir.write("b.txt", "three\nfour");
    dir.write("a.txt", "one\r\n\ntwo\n");
    dir.write("c.txt", "");
    dir.write(".hidden", "no");
    dir.write("_temporary", "no");
    dir.write("sub/d.txt", "no");
    let mut source = dir.open(None, &[("bounded", "true")]);
    let (taken, more) = take(source.as_mut(), WIDE).await;
    assert_eq!(more, More::Never);
    assert!(source.properties().bounded && source.properties().replayable);
    assert_eq!(
        taken.lines(&dir),
        ["one@a.txt:0", "@a.txt:5", "two@a.txt:6", "three@b.txt:0", "four@b.txt:6"]
    );
    let schema = source.schema();
    let hidden = |at: usize| schema.field(at).metadata().get(crate::HIDDEN).map(String::as_str);
    assert_eq!((hidden(0), hidden(1), hidden(2)), (None, Some("true"), Some("true")));
    assert_eq!(
        schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(),
        ["line", "_file", "_offset"]
    );
    let spans: Vec<_> =
        taken.spans.iter().map(|span| (dir.short(&span.split), span.from, span.to, span.done)).collect();
    assert_eq!(
        spans,
        [("a.txt".to_string(), 0, 10, true), ("b.txt".into(), 0, 10, true), ("c.txt".into(), 0, 0, true)]
    );
}

#[tokio::test]
async fn new_files_come_while_it_runs_each_once() {
    let dir = Dir::new();
    let mut source = dir.open(None, &[("poll_interval", "5 ms")]);
    let (taken, more) = take(source.as_mut(), WIDE).await;
    assert_eq!((taken.rows.len(), more), (0, More::Later));
    dir.write("b", "1\n");
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["1@b:0"]);
    // Neither a name that sorts earlier nor an old time makes a difference.
    dir.write(".a", "2\n");
    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    fs::File::options().write(true).open(dir.path().join(".a")).unwrap().set_modified(old).unwrap();
    fs::rename(dir.path().join(".a"), dir.path().join("a")).unwrap();
    let second = follow(source.as_mut(), 1).await;
    assert_eq!(second.lines(&dir), ["2@a:0"]);
    for _ in 0..5 {
        source.ready().await.unwrap();
        assert!(source.next(WIDE).await.unwrap().spans.is_empty());
    }
}

#[tokio::test]
async fn a_position_continues_where_reading_stopped() {
    let dir = Dir::new();
    dir.write("a", "1\n2\n3\n");
    dir.write("b", "4\n");
    let mut source = dir.open(None, &[]);
    let mut taken = Taken::default();
    taken.add(source.next(Limit { rows: 2, bytes: 1000 }).await.unwrap());
    let mut source = dir.open(None, &[]);
    source.seek(&taken.position()).await.unwrap();
    let (rest, _) = take(source.as_mut(), WIDE).await;
    assert_eq!(rest.lines(&dir), ["3@a:4", "4@b:0"]);
    let checkpoint = taken.position();
    taken.spans.extend(rest.spans);
    let mut source = dir.open(None, &[("bounded", "true")]);
    // A start seeks the checkpoint's position, replays later spans, and seeks the position after them.
    source.seek(&checkpoint).await.unwrap();
    source.seek(&taken.position()).await.unwrap();
    let (rest, more) = take(source.as_mut(), WIDE).await;
    assert_eq!((rest.spans.len(), more), (0, More::Never));
}

#[tokio::test]
async fn order_by_time_and_only_new_files() {
    let dir = Dir::new();
    let now = SystemTime::now();
    for (name, age) in [("a", 10), ("b", 30), ("c", 20)] {
        dir.write(name, name);
        let file = fs::File::options().write(true).open(dir.path().join(name)).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    }
    let (taken, _) = take(dir.open(None, &[("order", "mtime"), ("bounded", "true")]).as_mut(), WIDE).await;
    assert_eq!(taken.lines(&dir), ["b@b:0", "c@c:0", "a@a:0"]);

    let options = [("start", "new"), ("poll_interval", "5 ms")];
    let mut source = dir.open(None, &options);
    let (mut taken, more) = take(source.as_mut(), WIDE).await;
    assert_eq!((taken.rows.len(), more), (0, More::Later));
    drop(source);
    // A file that appears while no reader exists is new all the same.
    dir.write("d", "new");
    let mut source = dir.open(None, &options);
    source.seek(&taken.position()).await.unwrap();
    let fresh = follow(source.as_mut(), 1).await;
    assert_eq!(fresh.lines(&dir), ["new@d:0"]);
    taken.spans.extend(fresh.spans);
    for span in taken.position().spans() {
        let again = source.replay(&span, WIDE).await.unwrap();
        assert_eq!(again.rows.len(), usize::from(span.split.ends_with('d')), "{span:?}");
    }
}

#[tokio::test]
async fn a_file_that_changed_a_moment_ago_waits() {
    let dir = Dir::new();
    dir.write("old", "1\n");
    let file = fs::File::options().write(true).open(dir.path().join("old")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
    dir.write("young", "2\n");
    let options = [("settle_time", "50 seconds"), ("poll_interval", "5 ms")];
    let mut source = dir.open(None, &options);
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["1@old:0"]);
    let file = fs::File::options().write(true).open(dir.path().join("young")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["2@young:0"]);
    dir.write("younger", "3\n");
    let (taken, _) =
        take(dir.open(None, &[("settle_time", "50 s"), ("bounded", "true")]).as_mut(), WIDE).await;
    assert_eq!(taken.rows.len(), 3);
}

#[tokio::test]
async fn a_file_that_changes_later_is_ignored_told_or_read_again() {
    let dir = Dir::new();
    for mode in ["ignore", "error", "reread"] {
        dir.write("a", "1\n");
        let mut source = dir.open(None, &[("on_change", mode), ("poll_interval", "2 ms")]);
        let first = follow(source.as_mut(), 1).await;
        dir.write("a", "22\n");
        match mode {
            "ignore" => {
                for _ in 0..5 {
                    source.ready().await.unwrap();
                    assert!(source.next(WIDE).await.unwrap().spans.is_empty());
                }
            }
            "error" => {
                let error = loop {
                    source.ready().await.unwrap();
                    if let Err(error) = source.next(WIDE).await {
                        break error;
                    }
                };
                let text = error.to_string();
                assert!(
                    matches!(error, Error::External(_)) && text.contains("/a' of source 's' changed"),
                    "{text}"
                );
            }
            _ => {
                let second = follow(source.as_mut(), 1).await;
                assert_eq!(second.lines(&dir), ["22@a:0"]);
                assert_eq!(dir.short(&second.spans[0].split), "a#2");
                assert!(source.replay(&first.spans[0], WIDE).await.is_err());
                assert_eq!(source.replay(&second.spans[0], WIDE).await.unwrap().rows.len(), 1);
                let mut position = first.position();
                second.spans.iter().for_each(|span| position.advance(span));
                let mut source = dir.open(None, &[("on_change", mode), ("bounded", "true")]);
                source.seek(&position).await.unwrap();
                assert!(take(source.as_mut(), WIDE).await.0.spans.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn tail_follows_what_is_appended() {
    let dir = Dir::new();
    dir.write("log.csv", "n,t");
    let options = [("tail", "true"), ("poll_interval", "5 ms")];
    let columns: &[(&str, DataType)] = &[("t", DataType::Utf8View), ("n", DataType::Int64)];
    let mut source = dir.open(Some(columns), &options);
    // The split is open from the listing on, although it has no rows yet.
    let listed = take(source.as_mut(), WIDE).await.0;
    let spans: Vec<_> = listed.spans.iter().map(|span| (span.from, span.to, span.done)).collect();
    assert_eq!((spans, listed.rows.len()), (vec![(0, 0, false)], 0));
    dir.append("log.csv", "\n1,one\n2,t");
    let first = follow(source.as_mut(), 1).await;
    assert_eq!(first.lines(&dir), ["one|1@log.csv:4"]);
    dir.append("log.csv", "wo\n3,three\n");
    let second = follow(source.as_mut(), 2).await;
    assert_eq!(second.lines(&dir), ["two|2@log.csv:10", "three|3@log.csv:16"]);
    assert!(!second.spans.iter().any(|span| span.done));
    let again = source.replay(&second.spans[0], WIDE).await.unwrap();
    assert_eq!(
        pretty_format_batches(&again.rows).unwrap().to_string(),
        pretty_format_batches(&second.rows).unwrap().to_string()
    );
    let mut source = dir.open(Some(columns), &options);
    source.seek(&first.position()).await.unwrap();
    assert_eq!(follow(source.as_mut(), 2).await.lines(&dir), second.lines(&dir));
    let both = dir.open_as("", None, &[("tail", "true"), ("bounded", "true")]).err().unwrap().to_string();
    assert!(both.contains("leave one of them out"), "{both}");
}

#[tokio::test]
async fn a_hundred_thousand_files_are_listed() {
    // In memory if possible: creating so many files on a disk takes long.
    let dir = Dir(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap());
    for n in 0..100_000 {
        fs::File::create(dir.path().join(format!("{n:06}"))).unwrap();
    }
    let mut source = dir.open(None, &[("bounded", "true")]);
    let (taken, more) = take(source.as_mut(), WIDE).await;
    assert_eq!((taken.spans.len(), more), (100_000, More::Never));
    assert!(taken.spans.is_sorted_by_key(|span| span.split.clone()));
}

#[test]
fn wrong_options_are_named() {
    let dir = Dir::new();
    dir.write("lines.txt", "x");
    let fails =
        |path: &str, options: &[(&str, &str)]| dir.open_as(path, None, options).err().unwrap().to_string();
    assert!(fails("line.txt", &[]).contains("lines.txt'?"));
    assert!(fails("*.csv", &[("bounded", "true")]).contains("no file matches"));
    assert!(fails("", &[("formt", "csv")]).contains("Did you mean 'format'?"));
    assert!(fails("", &[("format", "xml")]).contains("text, csv, json or parquet"));
    assert!(fails("", &[("order", "size")]).contains("name, mtime"));
    assert!(fails("", &[("header", "false")]).contains("for format 'csv' only"));
    dir.open_as("*.csv", None, &[("format", "text")]).unwrap();
}
