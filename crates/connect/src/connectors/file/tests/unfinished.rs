//! Tests of files that are found while still being written, and of files that grow after their end was
//! read.

use std::time::Duration;

use millstream_delta::Progress;

use super::*;

const OFTEN: (&str, &str) = ("poll_interval", "2 ms");
const NUMBER: &[(&str, DataType)] = &[("n", DataType::Int64)];

/// Checks that a few listings return nothing.
async fn is_quiet(source: &mut dyn Source) {
    for _ in 0..5 {
        source.ready().await.unwrap();
        let arrival = source.next(WIDE).await.unwrap();
        assert!(arrival.spans.is_empty() && arrival.rows.is_empty() && arrival.bad_rows.is_empty());
    }
}

#[tokio::test]
async fn half_a_line_waits_for_its_rest() {
    let dir = Dir::new();
    dir.write("a", "1\n2");
    let mut source = dir.open(None, &[OFTEN]);
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["1@a:0"]);
    is_quiet(source.as_mut()).await;
    // Other files are read meanwhile.
    dir.write("b", "x\n");
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["x@b:0"]);
    dir.append("a", "3\n4");
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["23@a:2"]);
    is_quiet(source.as_mut()).await;
    dir.append("a", "5\n");
    let last = follow(source.as_mut(), 1).await;
    assert_eq!(last.lines(&dir), ["45@a:5"]);
    assert!(last.spans.iter().all(|span| span.done));
}

#[tokio::test]
async fn a_half_line_that_stays_is_read_in_the_end() {
    let dir = Dir::new();
    dir.write("a.csv", "n\n1\n2");
    let mut source = dir.open(Some(NUMBER), &[OFTEN, ("tail_timeout", "30 ms")]);
    let taken = follow(source.as_mut(), 2).await;
    assert_eq!(taken.lines(&dir), ["1@a.csv:2", "2@a.csv:4"]);
    let position = taken.position();
    let (_, progress) = position.splits.iter().next().unwrap();
    assert_eq!(*progress, Progress { through: 5, done: true });
    // A restart reads the same spans, however much time has passed.
    for span in &taken.spans {
        assert_eq!(source.replay(span, WIDE).await.unwrap().spans, std::slice::from_ref(span));
    }
}

#[tokio::test]
async fn a_header_and_an_empty_file_wait_too() {
    let dir = Dir::new();
    dir.write("a.csv", "m,");
    dir.write("b.csv", "");
    let mut source = dir.open(Some(NUMBER), &[OFTEN, ("format", "csv")]);
    is_quiet(source.as_mut()).await;
    dir.append("a.csv", "n\nx,7\n");
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["7@a.csv:4"]);
    dir.append("b.csv", "n\n8\n");
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["8@b.csv:2"]);
}

#[tokio::test]
async fn a_parquet_file_waits_for_its_footer() {
    let dir = Dir::new();
    let rows = RecordBatch::try_from_iter([("n", Arc::new(arrow::array::Int64Array::from(vec![1, 2])) as _)]);
    let mut bytes = Vec::new();
    let rows = rows.unwrap();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    for timeout in ["10 seconds", "40 ms"] {
        dir.write("a.parquet", &bytes[..bytes.len() - 3]);
        let mut source = dir.open(Some(NUMBER), &[OFTEN, ("format", "parquet"), ("tail_timeout", timeout)]);
        is_quiet(source.as_mut()).await;
        if timeout == "40 ms" {
            assert_eq!(follow(source.as_mut(), 1).await.bad.len(), 1);
            continue;
        }
        dir.write("a.parquet", &bytes);
        assert_eq!(follow(source.as_mut(), 2).await.lines(&dir), ["1@a.parquet:0", "2@a.parquet:1"]);
    }
}

#[tokio::test]
async fn what_is_appended_later_is_read_where_that_is_asked_for() {
    let dir = Dir::new();
    dir.write("a", "1\n");
    let options = [OFTEN, ("on_change", "append")];
    let mut source = dir.open(None, &options);
    let mut taken = follow(source.as_mut(), 1).await;
    for (line, expected) in [("2\n", "2@a:2"), ("3\n", "3@a:4")] {
        dir.append("a", line);
        let more = follow(source.as_mut(), 1).await;
        assert_eq!(more.lines(&dir), [expected]);
        taken.spans.extend(more.spans);
    }
    let mut again = dir.open(None, &options);
    again.seek(&taken.position()).await.unwrap();
    is_quiet(again.as_mut()).await;
    dir.append("a", "4\n");
    assert_eq!(follow(again.as_mut(), 1).await.lines(&dir), ["4@a:6"]);
    for span in &taken.spans {
        assert_eq!(source.replay(span, WIDE).await.unwrap().rows.len(), 1, "{span:?}");
    }
    // A change that isn't an addition is ignored.
    dir.write("a", "z\n");
    is_quiet(source.as_mut()).await;
}

#[tokio::test]
async fn a_file_that_grows_after_its_end_is_counted() {
    let dir = Dir::new();
    dir.write("a", "1\n");
    let health = crate::Health::default();
    let mut options = Options::default();
    options.0.insert("path".into(), dir.path().to_str().unwrap().to_string());
    options.0.insert("poll_interval".into(), "2 ms".into());
    let (columns, key) = (None, vec![]);
    let spec = SourceSpec {
        name: "s".into(),
        columns,
        key,
        options,
        max_record_bytes: 1000,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: health.clone(),
    };
    let mut source = Files.source(&spec).unwrap();
    assert_eq!(follow(source.as_mut(), 1).await.lines(&dir), ["1@a:0"]);
    assert_eq!(health.changes(), 0);
    dir.append("a", "2\n");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while health.changes() == 0 && std::time::Instant::now() < until {
        source.ready().await.unwrap();
        assert!(source.next(WIDE).await.unwrap().rows.is_empty());
    }
    assert_eq!(health.changes(), 1);
}
