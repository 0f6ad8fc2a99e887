//! Tests of the files that sinks write.

use arrow::array::{Int64Array, StringViewArray};
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

fn rows(words: &[&str]) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(0..words.len() as i64);
    let words = StringViewArray::from_iter_values(words.iter().copied());
    RecordBatch::try_from_iter([("w", Arc::new(words) as _), ("n", Arc::new(numbers) as _)]).unwrap()
}

fn sink_to(path: &Path, append_only: bool, more: &[(&str, &str)]) -> Result<Box<dyn Sink>> {
    sink_at(false, path, append_only, more)
}

fn sink_at(auto_pace: bool, path: &Path, append_only: bool, more: &[(&str, &str)]) -> Result<Box<dyn Sink>> {
    let mut options = Options::default();
    options.0.insert("path".into(), path.to_str().unwrap().to_string());
    options.0.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    options.check(Files.sink_options())?;
    let (name, columns, key) = ("k".into(), rows(&[]).schema(), None);
    Files.sink(&SinkSpec { name, columns, append_only, key, auto_pace, options })
}

fn cut(epoch: u64) -> Cut {
    Cut::new(Epoch(epoch), Timestamp(epoch as i64 * 1_000_000))
}

fn listing(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_epoch_is_a_file_that_appears_at_its_commit() {
    let dir = Dir::new();
    let out = dir.path().join("out");
    let mut sink = sink_to(&out, true, &[("format", "csv")]).unwrap();
    assert_eq!(sink.recover().await.unwrap(), Epoch(0));
    sink.write(&cut(1), &Delta::insert(rows(&["a", "b,c"]))).await.unwrap();
    sink.write(&cut(2), &Delta::of(Chunk { rows: rows(&["d"]), weights: Some(vec![2].into()) }))
        .await
        .unwrap();
    assert_eq!(listing(&out), [".part-1000-1.csv.tmp", ".part-2000-2.csv.tmp"]);
    sink.commit(Epoch(1)).await.unwrap();
    assert_eq!(listing(&out), [".part-2000-2.csv.tmp", "part-1000-1.csv"]);
    sink.commit(Epoch(2)).await.unwrap();
    sink.commit(Epoch(2)).await.unwrap();
    assert_eq!(fs::read_to_string(out.join("part-1000-1.csv")).unwrap(), "w,n\na,0\n\"b,c\",1\n");
    assert_eq!(fs::read_to_string(out.join("part-2000-2.csv")).unwrap(), "w,n\nd,0\nd,0\n");
    sink.write(&cut(3), &Delta::insert(rows(&["e"]))).await.unwrap();
    drop(sink);
    dir.write("out/part-9-x.csv", "");
    let mut sink = sink_to(&out, true, &[("format", "csv")]).unwrap();
    assert_eq!(sink.recover().await.unwrap(), Epoch(2));
    assert_eq!(listing(&out), ["part-1000-1.csv", "part-2000-2.csv", "part-9-x.csv"]);
}

#[tokio::test]
async fn what_a_sink_writes_a_source_reads() {
    for (format, filename) in [
        ("csv", "x-{epoch}.csv"),
        ("json", "x-{batch_time_ms}.json"),
        ("parquet", "x-{epoch}-{batch_time_ms}.parquet"),
        ("csv", "x-{epoch}.csv.gz"),
        ("json", "x-{epoch}.json.zst"),
    ] {
        let dir = Dir::new();
        let mut sink = sink_to(dir.path(), true, &[("filename", filename)]).unwrap();
        for epoch in 1..3 {
            sink.write(&cut(epoch), &Delta::insert(rows(&["a", "b\n\"c"]))).await.unwrap();
        }
        sink.commit(Epoch(2)).await.unwrap();
        let columns: &[(&str, DataType)] = &[("w", DataType::Utf8View), ("n", DataType::Int64)];
        let (taken, _) =
            take(dir.open(Some(columns), &[("bounded", "true"), ("format", format)]).as_mut(), WIDE).await;
        assert!(taken.bad.is_empty(), "{:?}", taken.bad);
        let words: Vec<String> =
            taken.lines(&dir).iter().map(|line| line.split('@').next().unwrap().to_string()).collect();
        assert_eq!(words, ["a|0", "b\n\"c|1", "a|0", "b\n\"c|1"], "{filename}");
    }
}

#[tokio::test]
async fn epochs_of_one_time_have_a_file_each() {
    for (filename, names) in [
        ("{batch_time_ms}", ["5", "5-2", "5-3"]),
        ("x.y-{batch_time_ms}.csv.gz", ["x.y-5-2.csv.gz", "x.y-5-3.csv.gz", "x.y-5.csv.gz"]),
        ("x-{batch_time_ms}-{epoch}.csv", ["x-5-1.csv", "x-5-2.csv", "x-5-3.csv"]),
    ] {
        let dir = Dir::new();
        let options = [("filename", filename), ("format", "csv")];
        let mut sink = sink_to(dir.path(), true, &options).unwrap();
        for epoch in 1..4 {
            let cut = Cut { now: Timestamp(5000), ..cut(epoch) };
            sink.write(&cut, &Delta::insert(rows(&["a"]))).await.unwrap();
            if epoch != 2 {
                sink.commit(Epoch(epoch)).await.unwrap();
            }
        }
        assert_eq!(listing(dir.path()), names);
    }
}

#[tokio::test]
async fn a_file_of_an_earlier_run_is_not_replaced() {
    let dir = Dir::new();
    let content = || fs::read_to_string(dir.path().join("x-1.csv")).unwrap();
    let mut sink = sink_to(dir.path(), true, &[("filename", "x-{epoch}.csv")]).unwrap();
    for _ in 0..2 {
        // An epoch sent again in the same run is there already.
        sink.write(&cut(1), &Delta::insert(rows(&["a"]))).await.unwrap();
        sink.commit(Epoch(1)).await.unwrap();
        assert_eq!(listing(dir.path()), ["x-1.csv"]);
    }
    let mut sink = sink_to(dir.path(), true, &[("filename", "x-{epoch}.csv")]).unwrap();
    sink.write(&cut(1), &Delta::insert(rows(&["b"]))).await.unwrap();
    for _ in 0..2 {
        let error = sink.commit(Epoch(1)).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("from an earlier run"));
        assert_eq!(content(), "w,n\na,0\n");
    }
    fs::rename(dir.path().join("x-1.csv"), dir.path().join("old")).unwrap();
    sink.commit(Epoch(1)).await.unwrap();
    assert_eq!(content(), "w,n\nb,0\n");
}

#[tokio::test]
async fn an_epoch_that_another_process_has_published_meanwhile_is_there_once() {
    let dir = Dir::new();
    let open = || sink_to(dir.path(), true, &[("filename", "x-{epoch}.csv")]).unwrap();
    let content = Delta::insert(rows(&["a"; 10_000]));
    let mut last = open();
    last.recover().await.unwrap();
    let mut next = open();
    next.recover().await.unwrap();
    last.write(&cut(1), &content).await.unwrap();
    last.commit(Epoch(1)).await.unwrap();
    next.write(&cut(1), &content).await.unwrap();
    next.commit(Epoch(1)).await.unwrap();
    assert_eq!(listing(dir.path()), ["x-1.csv"]);
    // A delta of the same length with a different last row.
    let other = [vec!["a"; 9_999], vec!["b"]].concat();
    let mut another = open();
    another.write(&cut(1), &Delta::insert(rows(&other))).await.unwrap();
    let error = another.commit(Epoch(1)).await.unwrap_err();
    assert!(error.to_string().contains("the file is there already"), "{error}");
}

#[tokio::test]
async fn changes_need_a_changelog() {
    let dir = Dir::new();
    let error = sink_to(dir.path(), false, &[]).err().unwrap().to_string();
    assert!(error.contains("changelog = 'true'"), "{error}");
    let mut sink = sink_to(dir.path(), false, &[("changelog", "true"), ("format", "json")]).unwrap();
    let delta = Delta::of(Chunk { rows: rows(&["a", "b"]), weights: Some(vec![2, -1].into()) });
    sink.write(&cut(1), &delta).await.unwrap();
    sink.commit(Epoch(1)).await.unwrap();
    let text = fs::read_to_string(dir.path().join("part-1000-1.json")).unwrap();
    let insert = "{\"_op\":\"insert\",\"w\":\"a\",\"n\":0}\n";
    assert_eq!(text, format!("{{\"_op\":\"delete\",\"w\":\"b\",\"n\":1}}\n{insert}{insert}"));
}

#[test]
fn wrong_sink_options_are_named() {
    let dir = Dir::new();
    let fails = |options: &[(&str, &str)]| sink_to(dir.path(), true, options).err().unwrap().to_string();
    assert!(fails(&[("format", "text")]).contains("writes one column, but there are 2 (w, n)"));
    assert!(fails(&[("filename", "all.csv")]).contains("{epoch} must be in it"));
    assert!(fails(&[("filename", "a/{epoch}.csv")]).contains("without directories"));
    assert!(fails(&[("filename", "{epoch}-{day}.csv")]).contains("only placeholders"));
    assert!(fails(&[("filename", "{epoch}.parquet.gz")]).contains("compressed inside"));
}

/// A file system of one megabyte, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "millstream-test"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_epoch_is_written_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small file system can't be mounted here (that needs root)");
        return;
    };
    let out = disk.0.path().join("out");
    for format in ["csv", "json", "parquet"] {
        let mut sink = sink_to(&out, true, &[("format", format)]).unwrap();
        sink.write(&cut(1), &Delta::insert(rows(&["before"]))).await.unwrap();
        sink.commit(Epoch(1)).await.unwrap();
        fs::write(out.join("ballast"), vec![0; 900 << 10]).unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        let noise: Vec<String> =
            (0..200).map(|_| (0..1000).map(|_| random.random_range('!'..'~')).collect()).collect();
        let noise = Delta::insert(rows(&noise.iter().map(String::as_str).collect::<Vec<_>>()));
        let error = sink.write(&cut(2), &noise).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::External(_)) && text.contains("No space left"), "{format}: {text}");
        assert_eq!(listing(&out).len(), 2, "{:?}", listing(&out));
        fs::remove_file(out.join("ballast")).unwrap();
        sink.write(&cut(2), &noise).await.unwrap();
        sink.commit(Epoch(2)).await.unwrap();
        assert_eq!(listing(&out).len(), 2);
        fs::remove_dir_all(&out).unwrap();
    }
}

#[tokio::test]
async fn epochs_are_gathered_until_their_time_or_size() {
    let dir = Dir::new();
    let rolling = [("format", "csv"), ("header", "false"), ("roll_interval", "3 seconds")];
    let mut sink = sink_to(dir.path(), true, &rolling).unwrap();
    for epoch in [1, 2, 3, 4, 5, 9] {
        sink.write(&cut(epoch), &Delta::insert(rows(&[&format!("e{epoch}")]))).await.unwrap();
        sink.commit(Epoch(epoch)).await.unwrap();
    }
    assert_eq!(listing(dir.path()), ["part-3000-3.csv", "part-5000-5.csv"]);
    // An epoch that is in a file is not written again.
    sink.write(&cut(5), &Delta::insert(rows(&["e5"]))).await.unwrap();
    drop(sink);
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(listing(dir.path()), ["part-3000-3.csv", "part-5000-5.csv", "part-9000-9.csv"]);
    assert_eq!(text("part-3000-3.csv"), "e1,0\ne2,0\ne3,0\n");
    assert_eq!(text("part-5000-5.csv"), "e4,0\ne5,0\n");
    assert_eq!(text("part-9000-9.csv"), "e9,0\n");
    let mut sink = sink_to(dir.path(), true, &rolling).unwrap();
    assert_eq!(sink.recover().await.unwrap(), Epoch(9));

    let dir = Dir::new();
    let mut sink =
        sink_to(dir.path(), true, &[("filename", "x-{epoch}.parquet"), ("roll_size", "16 KiB")]).unwrap();
    for epoch in 1..=60 {
        sink.write(&cut(epoch), &Delta::insert(rows(&["a long word that takes some room"; 10])))
            .await
            .unwrap();
        sink.commit(Epoch(epoch)).await.unwrap();
    }
    let files = listing(dir.path());
    assert!(files.len() > 1 && files.len() < 60, "{files:?}");
    for (name, value) in [("roll_size", "much"), ("roll_interval", "often")] {
        assert!(sink_to(dir.path(), true, &[(name, value)]).is_err());
    }
}

#[tokio::test]
async fn epochs_are_gathered_by_default_where_there_are_many() {
    let files = async |auto_pace: bool, options: &[(&str, &str)]| {
        let dir = Dir::new();
        let mut sink = sink_at(auto_pace, dir.path(), true, options).unwrap();
        let notice = sink.notice();
        for epoch in 1..20 {
            sink.write(&cut(epoch), &Delta::insert(rows(&["a"]))).await.unwrap();
            sink.commit(Epoch(epoch)).await.unwrap();
        }
        assert_eq!(sink.flush(Epoch(19)).await.unwrap(), Epoch(19));
        assert_eq!(notice.is_some(), auto_pace && options.len() == 1, "{options:?}");
        listing(dir.path()).len()
    };
    // The batch times of the epochs cover 19 seconds.
    assert_eq!(files(true, &[("format", "csv")]).await, 2);
    assert_eq!(files(false, &[("format", "csv")]).await, 19);
    assert_eq!(files(true, &[("format", "csv"), ("roll_interval", "0")]).await, 19);
    assert_eq!(files(true, &[("format", "csv"), ("roll_interval", "5 seconds")]).await, 4);
    // Nothing would show which epochs such a file holds.
    let dir = Dir::new();
    let sink = sink_at(true, dir.path(), true, &[("filename", "x-{batch_time_ms}.csv")]).unwrap();
    assert_eq!((sink.notice(), sink.delivery()), (None, crate::Delivery::AtLeastOnce));
}

#[tokio::test]
async fn a_gathered_file_is_written_in_its_time_also_if_nothing_comes() {
    let dir = Dir::new();
    let rolling = [("format", "json"), ("roll_interval", "50 ms"), ("changelog", "true")];
    let mut sink = sink_to(dir.path(), false, &rolling).unwrap();
    let change = |word: &str, weight: i64| {
        Delta::of(Chunk { rows: rows(&[word]), weights: Some(vec![weight].into()) })
    };
    for (epoch, weight) in [(1, 1), (2, -1)] {
        let cut = Cut { now: Timestamp(epoch as i64), ..cut(epoch) };
        sink.write(&cut, &change("a", weight)).await.unwrap();
    }
    assert_eq!(sink.commit(Epoch(2)).await.unwrap(), Epoch(0), "nothing of it is durable");
    tokio::time::sleep_until(sink.commit_due().unwrap().into()).await;
    assert_eq!(sink.commit(Epoch(2)).await.unwrap(), Epoch(2));
    assert_eq!(sink.commit_due(), None);
    let text = fs::read_to_string(dir.path().join("part-0-2.json")).unwrap();
    let ops: Vec<_> = text.lines().map(|line| line.contains("insert")).collect();
    assert_eq!(ops, [true, false], "changes stay in their order: {text}");
}
