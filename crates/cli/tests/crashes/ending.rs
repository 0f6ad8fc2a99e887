//! Signals that end the program: SIGTERM and SIGHUP let running work finish in bounded time, a second one
//! ends it at once.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use millstream_testkit::drive::ignores_hangup;

use super::{PATIENCE, lines, program};

/// A statement that runs far longer than any test.
const ENDLESS: &str = "CREATE TABLE o (x INT);
    INSERT INTO o SELECT 1 FROM generate_series(1, 100000000000) g(i) WHERE i = -1";

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn start(place: &Path, arguments: &[&str]) -> Child {
    let mut command = program(place, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end. Returns the exit code, standard output and standard error.
fn finish(mut child: Child) -> (Option<i32>, String, String) {
    let until = Instant::now() + PATIENCE;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it doesn't end");
        }
        thread::sleep(Duration::from_millis(10));
    };
    // The output here always fits into a pipe.
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (code, out, err)
}

/// Starts a run with a statement that doesn't end.
fn run_endless(place: &Path, setting: &str) -> Child {
    let child = start(place, &["-c", setting, "-c", ENDLESS]);
    thread::sleep(Duration::from_secs(2));
    child
}

#[test]
fn a_graceful_stop_processes_what_was_received() {
    // Nothing is processed before the first batch, which is an hour away.
    for (signal, graceful, expect) in [
        ("-TERM", "on", vec!["one"]),
        ("-HUP", "on", vec!["one"]),
        ("-TERM", "off", vec![]),
        ("-INT", "on", vec![]),
    ] {
        if signal == "-HUP" && ignores_hangup() {
            println!("SIGHUP is skipped: these tests run under nohup, which the program inherits");
            continue;
        }
        let temporary = tempfile::tempdir().unwrap();
        let place = temporary.path();
        let script = format!(
            "SET batch_interval = '1 hour'; SET stop_gracefully = {graceful};
             CREATE SOURCE s (line TEXT) WITH (connector = 'file', path = 'in', format = 'text', bounded = false);
             CREATE SINK k FROM s WITH (connector = 'file', path = 'out', format = 'text');"
        );
        fs::write(place.join("app.sql"), script).unwrap();
        fs::create_dir(place.join("in")).unwrap();
        fs::write(place.join("in/a.txt"), "one\n").unwrap();
        let child = start(place, &["run", "app.sql"]);
        // By then the source has read its file.
        thread::sleep(Duration::from_secs(6));
        send(signal, &child);
        let (code, _, err) = finish(child);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(lines(&place.join("out")), expect, "{signal} with stop_gracefully = {graceful}: {err}");
    }
}

#[test]
fn a_running_statement_ends_with_shutdown_timeout() {
    let temporary = tempfile::tempdir().unwrap();
    let child = run_endless(temporary.path(), "SET shutdown_timeout = '1 second'");
    let begun = Instant::now();
    send("-TERM", &child);
    let (code, _, err) = finish(child);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "it took {took:?}: {err}");
    // 130 if the statement could be cancelled, 4 if the engine was too busy to stop.
    match code {
        Some(4) => assert!(err.contains("shutdown_timeout (1 s)"), "{err}"),
        code => assert_eq!(code, Some(130), "{err}"),
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for (first, second) in [("-TERM", "-TERM"), ("-HUP", "-INT")] {
        let temporary = tempfile::tempdir().unwrap();
        let child = run_endless(temporary.path(), "SET shutdown_timeout = '1 hour'");
        let begun = Instant::now();
        send(first, &child);
        thread::sleep(Duration::from_millis(500));
        send(second, &child);
        let (code, _, err) = finish(child);
        assert_eq!(code, Some(130), "{err}");
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    }
}

#[test]
fn a_running_statement_finishes_after_sigterm_and_no_other_begins() {
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    // A COPY on the command line reads standard input to its end.
    let table = "CREATE TABLE t (x BIGINT)";
    let mut child =
        start(place, &["--data", "state", "-c", table, "-c", "COPY t FROM STDIN", "-c", "SELECT 7 AS never"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"1\n").unwrap();
    thread::sleep(Duration::from_secs(2));
    send("-TERM", &child);
    thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it doesn't wait for the statement");
    input.write_all(b"2\n").unwrap();
    drop(input);
    let (code, out, err) = finish(child);
    assert_eq!(code, Some(130), "{err}");
    assert!(!out.contains("never"), "{out}");
    let read = ["--data", "state", "-q", "-c", ".mode csv", "-c", "SELECT count(*) AS n FROM t"];
    let output = program(place, &read).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "n\n2\n");
}
