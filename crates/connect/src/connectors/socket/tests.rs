//! Tests with servers and clients of every kind.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use arrow::array::AsArray;

use super::*;
use crate::{Arrival, BadRow, Health, Limit, More};

const LIMIT: Limit = Limit { rows: 10_000, bytes: 1 << 20 };

fn source(pairs: &[(&str, &str)]) -> Result<(Box<dyn Source>, Health)> {
    let options = Options(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
    let health = Health::default();
    let spec = SourceSpec {
        name: "s".into(),
        columns: None,
        key: vec![],
        options,
        max_record_bytes: 10,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: health.clone(),
    };
    Ok((Sockets.source(&spec)?, health))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.unwrap() })
}

/// Reads until there are `count` rows and bad rows.
fn read(source: &mut dyn Source, count: usize) -> (Vec<String>, Vec<BadRow>) {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    block_on(async {
        while lines.len() + bad.len() < count {
            let arrival: Arrival = source.next(LIMIT).await.unwrap();
            for batch in &arrival.rows {
                lines.extend(batch.column(0).as_string_view().iter().flatten().map(str::to_string));
            }
            bad.extend(arrival.bad_rows);
            if arrival.more == More::Later && lines.len() + bad.len() < count {
                source.ready().await.unwrap();
            }
        }
    });
    lines.sort();
    (lines, bad)
}

fn server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

fn free_port() -> String {
    server().1
}

#[test]
fn a_connection_that_ends_is_made_again() {
    let (listener, port) = server();
    let (mut source, health) = source(&[("host", "127.0.0.1"), ("port", &port)]).unwrap();
    assert!(!source.properties().bounded);
    let serving = std::thread::spawn(move || {
        for text in ["a\nb\r\nlast", "c\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        }
        listener
    });
    let (lines, bad) = read(source.as_mut(), 4);
    assert_eq!((lines, bad), (vec!["a".into(), "b".into(), "c".into(), "last".into()], vec![]));
    assert!(health.restarts() >= 1);
    drop(serving.join().unwrap());
}

#[test]
fn a_server_that_is_not_there_is_told_and_tried_again() {
    let port = free_port();
    let (mut source, health) = source(&[("host", "127.0.0.1"), ("port", &port)]).unwrap();
    let arrival = block_on(source.next(LIMIT)).unwrap();
    assert_eq!(arrival.more, More::Later);
    while health.restarts() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let reason = health.reason().unwrap();
    assert!(reason.starts_with(&format!("127.0.0.1:{port}: could not connect: ")), "{reason}");
    assert!(reason.contains("(attempt "), "{reason}");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"here\n").unwrap();
        stream
    });
    assert_eq!(read(source.as_mut(), 1).0, ["here"]);
    assert_eq!(health.reason(), None);
    drop(serving.join().unwrap());
}

#[test]
fn several_servers_are_one_source() {
    let ((left, left_port), (right, right_port)) = (server(), server());
    let hosts = format!("127.0.0.1:{left_port}, 127.0.0.1:{right_port}");
    let (mut source, _) = source(&[("hosts", &hosts)]).unwrap();
    assert_eq!(source.properties().partitions, 2);
    let serving = std::thread::spawn(move || {
        let streams: Vec<TcpStream> = [left, right].map(|listener| listener.accept().unwrap().0).into();
        for (mut stream, text) in streams.iter().zip(["l1\nl2\n", "r1\n"]) {
            stream.write_all(text.as_bytes()).unwrap();
        }
        streams
    });
    assert_eq!(read(source.as_mut(), 3).0, ["l1", "l2", "r1"]);
    drop(serving.join().unwrap());
}

#[test]
fn clients_are_one_source_and_one_too_many_is_sent_away() {
    let port = free_port();
    let (mut source, _) = source(&[("mode", "listen"), ("port", &port), ("max_connections", "2")]).unwrap();
    let connect = || TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let (mut one, mut two) = (connect(), connect());
    one.write_all(b"a\nhalf").unwrap();
    two.write_all(b"b\n").unwrap();
    assert_eq!(read(source.as_mut(), 2).0, ["a", "b"]);
    let mut three = connect();
    assert_eq!(std::io::Read::read(&mut three, &mut [0]).unwrap_or(0), 0);
    one.write_all(b"way\n").unwrap();
    drop(two);
    assert_eq!(read(source.as_mut(), 1), (vec!["halfway".to_string()], vec![]));
}

#[test]
fn a_long_line_is_a_bad_row_with_its_place() {
    let port = free_port();
    let (mut source, _) = source(&[("mode", "listen"), ("port", &port)]).unwrap();
    let mut client = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let me: std::sync::Arc<str> = client.local_addr().unwrap().to_string().into();
    let writing = std::thread::spawn(move || {
        client.write_all(b"ok\n").unwrap();
        client.write_all("x".repeat(2 << 20).as_bytes()).unwrap();
        client.write_all(b"\nafter\nbad \xFF\n").unwrap();
    });
    let (lines, bad) = read(source.as_mut(), 4);
    writing.join().unwrap();
    assert_eq!(lines, ["after", "ok"]);
    let found: Vec<_> = bad.iter().map(|bad| (bad.split.clone(), bad.offset)).collect();
    assert_eq!(found, [(me.clone(), 3), (me, 3 + (2 << 20) + 7)]);
    assert!(bad[0].reason.contains("longer than max_record_bytes"), "{}", bad[0].reason);
    assert!(bad[1].reason.contains("invalid UTF-8"), "{}", bad[1].reason);
}

#[test]
fn wrong_options_are_refused() {
    let check = |pairs: &[(&str, &str)], part: &str| {
        let error = source(pairs).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(&[], "option 'port' is missing");
    check(&[("port", "70000")], "from 1 to 65535");
    check(&[("hosts", "a:1,a:1")], "different servers");
    check(&[("hosts", "a:1,b")], "option 'port' is missing");
    check(&[("hosts", "a:1"), ("host", "b")], "exclude each other");
    check(&[("port", "1"), ("max_connections", "2")], "mode = 'listen'");
    check(&[("mode", "listen"), ("hosts", "a:1")], "mode = 'connect'");
    check(&[("mode", "sideways"), ("port", "1")], "connect, listen");
    let (_taken, port) = server();
    check(&[("mode", "listen"), ("port", &port)], "can't listen at 127.0.0.1");
}
