//! Traces: a script's batches, sinks and checkpoints arrive at a collector as spans.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Accepts requests on a thread of its own; returns the port, and the spans of each request.
fn collector() -> (u16, std::sync::mpsc::Receiver<Vec<Span>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let sender = sender.clone();
            std::thread::spawn(move || {
                loop {
                    let mut length = 0;
                    let mut head = String::new();
                    while reader.read_line(&mut head).unwrap_or(0) > 2 {
                        let lower = head.to_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        head.clear();
                    }
                    if length == 0 {
                        return;
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                    let mut spans = Vec::new();
                    for of_resource in request.resource_spans {
                        let attributes = of_resource.resource.unwrap().attributes;
                        let service =
                            attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
                        assert!(format!("{service:?}").contains("\"millstream\""), "{service:?}");
                        spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
                    }
                    sender.send(spans).unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (port, receiver)
}

#[test]
fn batches_sinks_and_checkpoints_are_traces() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = folder.path().join("app.sql");
    let text = format!(
        "CREATE TABLE t (k INT, v INT); CREATE TABLE u (k INT, w INT);
         CREATE MATERIALIZED VIEW m AS SELECT t.k, sum(v + w) AS s FROM t JOIN u ON t.k = u.k GROUP BY t.k;
         CREATE SINK out FROM m WITH (connector = 'file', path = '{}', format = 'json', changelog = 'true');
         INSERT INTO t VALUES (1, 2), (2, 3); INSERT INTO u VALUES (1, 10); CHECKPOINT; FLUSH;",
        out.display()
    );
    std::fs::write(&script, text).unwrap();
    let (port, received) = collector();
    let run = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["run", "--data"])
        .args([folder.path().join("data"), script])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    assert!(!String::from_utf8_lossy(&run.stderr).contains("traces"), "{run:?}");
    let spans: Vec<Span> = received.try_iter().flatten().collect();
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let names = || spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>();
    assert!(named("batch").len() >= 2, "{:?}", names());
    // The operators lie below the query, the query below the batch, within its time.
    for operator in ["Join", "Aggregate"] {
        let spans = named(operator);
        assert!(!spans.is_empty(), "{operator}: {:?}", names());
        for span in spans {
            let query = by_id[span.parent_span_id.as_slice()];
            let batch = by_id[query.parent_span_id.as_slice()];
            assert_eq!((query.name.as_str(), batch.name.as_str()), ("query m", "batch"));
            assert!(batch.parent_span_id.is_empty() && batch.trace_id == span.trace_id);
            for (inner, outer) in [(span, query), (query, batch)] {
                assert!(inner.end_time_unix_nano >= inner.start_time_unix_nano);
                assert!(outer.end_time_unix_nano >= inner.end_time_unix_nano, "{outer:?} {inner:?}");
            }
        }
    }
    let sinks = named("sink out");
    assert!(!sinks.is_empty(), "{:?}", names());
    assert!(sinks.iter().all(|sink| by_id[sink.parent_span_id.as_slice()].name == "batch"), "{sinks:?}");
    let checkpoints = named("checkpoint");
    assert!(checkpoints.iter().any(|span| !span.links.is_empty()), "{checkpoints:?}");
}

#[test]
fn a_collector_that_is_away_or_silent_holds_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for port in [silent.local_addr().unwrap().port(), away] {
        let begun = std::time::Instant::now();
        let run = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args([
                "-c",
                "CREATE TABLE t (x INT)",
                "-c",
                "INSERT INTO t VALUES (1)",
                "-c",
                "SELECT x + 1 AS y FROM t",
            ])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .output()
            .unwrap();
        assert!(run.status.success() && String::from_utf8_lossy(&run.stdout).contains('2'), "{run:?}");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
