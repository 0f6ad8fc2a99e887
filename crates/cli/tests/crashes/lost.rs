//! A data directory whose newest part was removed: the start reports the loss.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, program};

#[test]
fn entries_that_were_durable_and_are_gone_are_told() {
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    // The program reads a pipe without a writer until it is killed.
    assert!(Command::new("mkfifo").arg(place.join("more.sql")).status().unwrap().success());
    let starts = |sql: &str| {
        let sql = format!("{sql}; SELECT 'told' AS told");
        let mut child = program(place, &["--data", "state", "-q", "-c", &sql, "-c", ".read more.sql"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answer = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(answer.any(|line| line.unwrap().contains("told")), "{sql}");
        // The notes record durable entries once the engine is idle.
        let since = Instant::now();
        while !all_is_durable(&place.join("state/notes")) {
            assert!(child.try_wait().unwrap().is_none() && since.elapsed() < PATIENCE, "{sql}");
            thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        child.wait().unwrap();
        told
    };
    starts("SET checkpoint_interval = 'off'; CREATE TABLE t (x INT); INSERT INTO t VALUES (1)");
    let told = starts("INSERT INTO t VALUES (2)");
    assert!(!told.contains("are gone"), "{told}");
    let newest = fs::read_dir(place.join("state/journal")).unwrap().map(|entry| entry.unwrap().path()).max();
    fs::remove_file(newest.unwrap()).unwrap();
    let output =
        program(place, &["--data", "state", "-c", ".mode csv", "-c", "SELECT x FROM t"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n1\n", "{told}");
    assert!(told.contains("were durable and are gone: what was acknowledged in them is lost"), "{told}");
    // Reported only once: the next start knows only the remaining data.
    let output = program(place, &["--data", "state", "-c", "SELECT x FROM t"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("are gone"), "{told}");
}

/// Returns true if the last line of the notes says that all stepped entries are durable.
fn all_is_durable(notes: &Path) -> bool {
    let files = fs::read_dir(notes).unwrap().map(|file| file.unwrap().path());
    let notes = files.filter(|path| path.extension().is_some_and(|ending| ending == "notes"));
    let text: String = notes.filter_map(|path| fs::read_to_string(path).ok()).collect();
    let last = text.lines().last().unwrap_or_default();
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = last.split_once(&format!("\"{name}\":"))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    last.contains("stepped") && number("durable") == number("stepped")
}
