//! Tests of file contents, valid and invalid.

use arrow::datatypes::TimeUnit;
use millstream_delta::sql_type;

use super::cuts::check_replay;
use super::*;

#[tokio::test]
async fn bad_lines_are_kept_aside_and_the_rest_comes() {
    let dir = Dir::new();
    let long = "x".repeat(1001);
    dir.write("a.txt", [b"fine\nb\xFFd\n".as_slice(), long.as_bytes(), b"\nalso fine"].concat());
    let (taken, _) = take(dir.open(None, &[("bounded", "true")]).as_mut(), WIDE).await;
    assert_eq!(taken.lines(&dir), ["fine@a.txt:0", "also fine@a.txt:1011"]);
    assert_eq!(
        taken.bad(&dir),
        [
            "a.txt:5 invalid UTF-8: byte 1 of the record is 0xFF; text must be encoded as UTF-8 [b\u{FFFD}d]"
                .to_string(),
            format!("a.txt:9 the record is longer than max_record_bytes, which is 1000 [{long}]"),
        ]
    );
}

/// Large files are read ahead and decoded on several threads at once.
#[tokio::test]
async fn rows_of_large_files_come_in_their_order() {
    let dir = Dir::new();
    let mut text = String::new();
    for n in 0..150_000 {
        match n % 10_007 {
            5 => text.push_str("{\"n\": \"none\"}\n"),
            _ => text.push_str(&format!("{{\"n\": {n}, \"word\": \"a word that is number {n}\"}}\n")),
        }
    }
    assert!(text.len() > 6 << 20);
    dir.write("a.json", &text);
    dir.write("b.json.zst", zstd::encode_all(text.as_bytes(), 1).unwrap());
    let columns: &[(&str, DataType)] = &[("n", DataType::Int64), ("word", DataType::Utf8View)];
    let options = [("format", "json"), ("bounded", "true")];
    let (taken, _) = take(dir.open(Some(columns), &options).as_mut(), WIDE).await;
    let mut offset = 0;
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for (n, line) in text.lines().enumerate() {
        match n % 10_007 {
            5 => bad.push(format!("a.json:{offset} ")),
            _ => rows.push(format!("{n}|a word that is number {n}@a.json:{offset}")),
        }
        offset += line.len() + 1;
    }
    let found = taken.lines(&dir);
    assert_eq!(found.len(), 2 * rows.len());
    assert_eq!(found[..rows.len()], rows);
    let of_b = rows.iter().map(|row| row.replace("a.json", "b.json.zst"));
    assert!(of_b.eq(found[rows.len()..].iter().cloned()));
    let found = taken.bad(&dir);
    assert!(
        found.len() == 2 * bad.len() && found.iter().zip(&bad).all(|(found, bad)| found.starts_with(bad))
    );
    check_replay(&dir, Some(columns), &taken).await;
}

#[tokio::test]
async fn csv_columns_are_matched_by_name() {
    let dir = Dir::new();
    dir.write("a.csv", "Extra,n,word\nx,1,\"a, \"\"b\"\"\"\ny,oops,c\nz,3\n,,\n");
    dir.write("b.csv", "word,n\r\nlast,4\r\n");
    dir.write("c.csv", "word,m\nother,5\n");
    dir.write("d.csv", "");
    dir.write("e.csv", "n,word\n");
    dir.write("f.csv", "\u{feff}n,word\n7,bom");
    let columns: &[(&str, DataType)] = &[("word", DataType::Utf8View), ("n", DataType::Int64)];
    let (taken, _) = take(dir.open(Some(columns), &[("bounded", "true")]).as_mut(), WIDE).await;
    assert_eq!(
        taken.lines(&dir),
        ["a, \"b\"|1@a.csv:13", "NULL|NULL@a.csv:41", "last|4@b.csv:8", "bom|7@f.csv:10"]
    );
    assert_eq!(
        taken.bad(&dir),
        [
            "a.csv:28 column 'n': found 'oops', expected BIGINT [y,oops,c]",
            "a.csv:37 wrong number of fields: expected 3 got 2 [z,3]",
            "c.csv:0 another schema: the header has no column 'n', it has word, m; the file is kept aside whole [word,m]",
        ]
    );
    for span in &taken.spans {
        let mut source = dir.open(Some(columns), &[]);
        let again = source.replay(span, WIDE).await.unwrap();
        assert_eq!(again.spans, std::slice::from_ref(span));
    }
}

/// The CSV reader ends a row at a carriage return and skips a byte-order mark where it begins; the framing does neither.
#[tokio::test]
async fn csv_records_mean_the_same_in_each_group() {
    let dir = Dir::new();
    let lines =
        ["1,one", "2,a\r\",b", "3,\"a\rb\"", "4,c\rd", "\u{feff}5,e", "5,f\r\r", "\r6,\u{feff}", "7,g\r"];
    dir.write("a.csv", lines.join("\n"));
    let columns: &[(&str, DataType)] = &[("n", DataType::Int64), ("word", DataType::Utf8View)];
    for rows in [1, 2, 3, usize::MAX] {
        let options = [("bounded", "true"), ("header", "false")];
        let (taken, _) =
            take(dir.open(Some(columns), &options).as_mut(), Limit { rows, bytes: usize::MAX }).await;
        assert_eq!(
            taken.lines(&dir),
            ["1|one@a.csv:0", "3|a\rb@a.csv:14", "5|f@a.csv:35", "6|\u{feff}@a.csv:41", "7|g@a.csv:48"],
            "{rows} rows at a time"
        );
        let ends = "a carriage return within it, outside of quotes, ends its row: put the field in quotes";
        assert_eq!(
            taken.bad(&dir),
            [
                format!("a.csv:6 {ends} [2,a\r\",b]"),
                format!("a.csv:22 {ends} [4,c\rd]"),
                "a.csv:28 column 'n': found '\u{feff}5', expected BIGINT [\u{feff}5,e]".to_string(),
            ]
        );
    }
}

#[tokio::test]
async fn csv_options_and_types() {
    let dir = Dir::new();
    dir.write("a.csv", "1;true;1.50;2024-01-02;2024-01-02T03:04:05Z\n-;-;-;-;-\n");
    let columns: &[(&str, DataType)] = &[
        ("i", DataType::Int32),
        ("b", DataType::Boolean),
        ("d", DataType::Decimal128(10, 2)),
        ("day", DataType::Date32),
        ("ts", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
    ];
    let options = [("bounded", "true"), ("delimiter", ";"), ("header", "false"), ("null", "-")];
    let (taken, _) = take(dir.open(Some(columns), &options).as_mut(), WIDE).await;
    assert!(taken.bad.is_empty(), "{:?}", taken.bad(&dir));
    assert_eq!(
        taken.lines(&dir),
        ["1|true|1.50|2024-01-02|2024-01-02T03:04:05Z@a.csv:0", "NULL|NULL|NULL|NULL|NULL@a.csv:44"]
    );
    let list = DataType::new_list(DataType::Int32, true);
    let error = dir.open_as("", Some(&[("l", list)]), &[]).err().unwrap().to_string();
    assert!(error.contains("column 'l'"), "{error}");
    let error = dir.open_as("", Some(columns), &[("delimiter", "ab")]).err().unwrap().to_string();
    assert!(error.contains("one ASCII character"), "{error}");
}

#[tokio::test]
async fn json_rows_and_what_is_wrong_with_them() {
    let dir = Dir::new();
    let lines = [
        "{\"n\": 1, \"w\": \"a\", \"x\": []}",
        "",
        "{\"n\": \"x\"}",
        "{\"n\":",
        "2}",
        "{\"n\":3}{\"n\":4}",
        "[5]",
        "{\"w\": \"b\"}",
        "{\"w\":\"\\uD800\"}",
    ];
    dir.write("a.json", lines.join("\n"));
    let columns: &[(&str, DataType)] = &[("n", DataType::Int64), ("w", DataType::Utf8View)];
    let (taken, _) = take(dir.open(Some(columns), &[("bounded", "true")]).as_mut(), WIDE).await;
    assert_eq!(taken.lines(&dir), ["1|a@a.json:0", "NULL|b@a.json:68"]);
    let bad = taken.bad(&dir);
    assert_eq!(bad.len(), 6, "{bad:#?}");
    assert!(bad[0].contains("'n'") && bad[0].contains("\"x\""), "{}", bad[0]);
    assert!(bad[1].contains("ends before its JSON object does"), "{}", bad[1]);
    assert!(bad[3].contains("more than one JSON value"), "{}", bad[3]);
}

#[tokio::test]
async fn columns_nobody_declared_are_found_in_the_first_file() {
    let dir = Dir::new();
    let names = |source: &dyn Source| {
        let fields = source.schema().fields().iter();
        fields
            .map(|field| format!("{} {}", field.name(), sql_type(field.data_type())))
            .take(3)
            .collect::<Vec<_>>()
    };
    let error = dir.open_as("", None, &[("format", "csv")]).err().unwrap().to_string();
    assert!(error.contains("declare its columns"), "{error}");
    dir.write("a.csv", "id,name,at\n1,x,2024-01-02 03:04:05\n");
    assert_eq!(names(dir.open(None, &[]).as_ref()), ["id BIGINT", "name TEXT", "at TIMESTAMP"]);
    let dir = Dir::new();
    dir.write("a.jsonl", "{\"z\": 1}\n{\"a\": \"x\", \"m\": 1.5}\n");
    assert_eq!(names(dir.open(None, &[]).as_ref()), ["z BIGINT", "a TEXT", "m DOUBLE PRECISION"]);
}

#[tokio::test]
async fn compressed_files_are_read_by_name() {
    let dir = Dir::new();
    let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    dir.write("a.txt.gz", &gzip);
    dir.write("b.txt.zst", zstd::encode_all(text.as_bytes(), 3).unwrap());
    dir.write("c.gz", &gzip[..gzip.len() / 2]);
    let mut source = dir.open(None, &[("bounded", "true")]);
    let (taken, _) = take(source.as_mut(), Limit { rows: 3000, bytes: 1 << 20 }).await;
    let lines = taken.lines(&dir);
    assert_eq!(lines[9_999], format!("line 9999@a.txt.gz:{}", text.len() - 10));
    assert_eq!(lines[10_000], "line 0@b.txt.zst:0");
    assert!(lines.len() > 20_000 && lines.len() < 30_000, "{}", lines.len());
    assert_eq!(taken.bad.len(), 1);
    assert!(taken.bad[0].reason.contains("can't be decompressed"), "{}", taken.bad[0].reason);
    let again = source.replay(taken.spans.last().unwrap(), WIDE).await.unwrap();
    assert_eq!(again.bad_rows, taken.bad);
}

fn parquet_file(columns: Vec<(&str, arrow::array::ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut out = Vec::new();
    crate::formats::encode::encode(&Format::Parquet, &batch.schema(), std::slice::from_ref(&batch), &mut out)
        .unwrap();
    out
}

#[tokio::test]
async fn parquet_rows_are_counted_and_other_schemas_kept_aside() {
    let dir = Dir::new();
    let numbers =
        || Arc::new(arrow::array::Int32Array::from_iter_values(0..20_000)) as arrow::array::ArrayRef;
    let words = || {
        Arc::new(arrow::array::StringArray::from_iter(
            (0..20_000).map(|n| (n % 3 != 0).then(|| format!("w{n}"))),
        )) as _
    };
    dir.write("a.parquet", parquet_file(vec![("x", words()), ("n", numbers()), ("w", words())]));
    dir.write("b.parquet", parquet_file(vec![("n", words()), ("w", words())]));
    dir.write("c.parquet", "not parquet");
    dir.write("d.parquet", parquet_file(vec![("w", words())]));
    dir.write("e.parquet", parquet_file(vec![("w", words()), ("n", numbers())]));
    let columns: &[(&str, DataType)] = &[("w", DataType::Utf8View), ("n", DataType::Int64)];
    let mut source = dir.open(Some(columns), &[("bounded", "true")]);
    let (taken, _) = take(source.as_mut(), Limit { rows: 7000, bytes: usize::MAX }).await;
    let lines = taken.lines(&dir);
    assert_eq!(lines.len(), 40_000);
    assert_eq!(
        (lines[12_345].as_str(), lines[20_001].as_str()),
        ("NULL|12345@a.parquet:12345", "w1|1@e.parquet:1")
    );
    let bad = taken.bad(&dir);
    assert!(
        bad[0].starts_with("b.parquet:0 another schema: column 'n' is TEXT in the file, expected BIGINT"),
        "{bad:?}"
    );
    assert!(bad[1].starts_with("c.parquet:0 not a Parquet file"), "{bad:?}");
    assert!(
        bad[2].starts_with("d.parquet:0 another schema: the file has no column 'n', it has w"),
        "{bad:?}"
    );
    assert_eq!(bad.len(), 3);
    check_replay(&dir, Some(columns), &taken).await;
    let found = dir.open_as("a.parquet", None, &[]).unwrap();
    let types: Vec<_> = found.schema().fields().iter().map(|field| sql_type(field.data_type())).collect();
    assert_eq!(types, ["TEXT", "INT", "TEXT", "TEXT", "BIGINT"]);
}

#[tokio::test]
async fn rows_of_parquet_that_do_not_fit_are_bad() {
    let dir = Dir::new();
    let times = arrow::array::TimestampSecondArray::from(vec![Some(1), Some(i64::MAX / 2), None]);
    dir.write("a.parquet", parquet_file(vec![("t", Arc::new(times) as _)]));
    let columns: &[(&str, DataType)] = &[("t", DataType::Timestamp(TimeUnit::Nanosecond, None))];
    let (taken, _) = take(dir.open(Some(columns), &[("bounded", "true")]).as_mut(), WIDE).await;
    assert_eq!(taken.lines(&dir), ["1970-01-01T00:00:01@a.parquet:0", "NULL@a.parquet:2"]);
    assert!(taken.bad(&dir)[0].starts_with("a.parquet:1 column 't': found "), "{:?}", taken.bad(&dir));
}

#[tokio::test]
async fn columns_of_parquet_that_nobody_looks_at_are_not_read() {
    let dir = Dir::new();
    let numbers =
        || Arc::new(arrow::array::Int64Array::from_iter_values(0..20_000)) as arrow::array::ArrayRef;
    let words =
        arrow::array::StringArray::from_iter((0..20_000).map(|n| (n % 3 != 0).then(|| format!("w{n}"))));
    let times = arrow::array::TimestampSecondArray::from_iter_values(
        (0..20_000).map(|n| if n == 5 { i64::MAX } else { n }),
    );
    dir.write(
        "a.parquet",
        parquet_file(vec![("t", Arc::new(times) as _), ("n", numbers()), ("w", Arc::new(words))]),
    );
    let columns: &[(&str, DataType)] = &[
        ("w", DataType::Utf8View),
        ("n", DataType::Int64),
        ("t", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ];
    let mut source = dir.open(Some(columns), &[("bounded", "true")]);
    assert!(source.properties().prunes_columns);
    source.want(&[false, true, false, false, false]).await.unwrap();
    let limit = Limit { rows: 3_000, bytes: usize::MAX };
    let first = source.next(limit).await.unwrap();
    // A time may be invalid, which makes its row bad even if the column isn't read. A text can't be
    // invalid.
    assert_eq!(first.bad_rows.len(), 1);
    assert_eq!(
        (first.rows[0].column(0).null_count(), first.rows[0].column(2).null_count()),
        (first.rows[0].num_rows(), 0)
    );
    source.want(&[true, true, false, false, false]).await.unwrap();
    let (rest, _) = take(source.as_mut(), limit).await;
    let lines = rest.lines(&dir);
    assert_eq!(lines.len(), 17_000);
    assert!(lines[0].starts_with("NULL|3000|") && lines[1].starts_with("w3001|3001|"), "{:?}", &lines[..2]);
    let again = source.replay(&first.spans[0], WIDE).await.unwrap();
    assert_eq!((&again.bad_rows, &again.spans), (&first.bad_rows, &first.spans));
    assert_eq!(again.rows[0].column(0).null_count(), 1_000);
}
