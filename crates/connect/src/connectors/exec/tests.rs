//! Tests of the output of programs of every kind.

use std::time::Duration;

use arrow::array::AsArray;

use super::*;
use crate::{Arrival, Health, Limit, More};

const LIMIT: Limit = Limit { rows: 10_000, bytes: 1 << 20 };

fn source(command: &str, more: &[(&str, &str)]) -> Result<(Box<dyn Source>, Health)> {
    let mut options = Options([("command".to_string(), command.to_string())].into());
    options.0.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let health = Health::default();
    let spec = SourceSpec {
        name: "s".into(),
        columns: None,
        key: vec![],
        options,
        max_record_bytes: 1000,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: health.clone(),
    };
    Ok((Exec.source(&spec)?, health))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.unwrap() })
}

/// Reads until the source has ended, failed, or returned `rows` rows.
async fn read(source: &mut dyn Source, rows: usize) -> (Vec<String>, Result<Arrival>) {
    let mut lines = Vec::new();
    loop {
        let arrival = match source.next(LIMIT).await {
            Ok(arrival) => arrival,
            Err(error) => return (lines, Err(error)),
        };
        for batch in &arrival.rows {
            lines.extend(batch.column(0).as_string_view().iter().flatten().map(str::to_string));
        }
        if arrival.more == More::Never || lines.len() >= rows {
            return (lines, Ok(arrival));
        }
        if arrival.more == More::Later {
            source.ready().await.unwrap();
        }
    }
}

#[test]
fn a_program_that_ends_ends_its_source() {
    let (mut source, _) = source("printf 'a\\nb b\\nlast'", &[]).unwrap();
    assert!(source.properties().bounded && !source.properties().replayable);
    let (lines, end) = block_on(read(source.as_mut(), usize::MAX));
    assert_eq!(lines, ["a", "b b", "last"]);
    assert_eq!(end.unwrap().more, More::Never);
}

#[test]
fn a_program_that_fails_says_its_last_words() {
    let (mut source, _) = source("echo a; echo boom >&2; exit 3", &[("shell", "true")]).unwrap();
    let (lines, end) = block_on(read(source.as_mut(), usize::MAX));
    assert_eq!(lines, ["a"]);
    let error = end.unwrap_err().to_string();
    assert_eq!(error, "sh: it ended with exit status 3, after it had written: boom");
}

#[test]
fn a_program_is_started_again() {
    for (restart, command) in [("always", "echo a"), ("on_failure", "echo a; exit 1")] {
        let (mut source, health) = source(command, &[("shell", "true"), ("restart", restart)]).unwrap();
        assert_eq!(source.properties().bounded, restart == "on_failure");
        let (lines, end) = block_on(read(source.as_mut(), 3));
        assert_eq!(lines, ["a"; 3]);
        assert_eq!(end.unwrap().more, More::Later);
        assert!(health.restarts() >= 2);
    }
}

#[test]
fn a_flood_waits_in_the_pipe_and_ends_with_the_source() {
    let (mut source, _) = source("yes", &[]).unwrap();
    let (lines, _) = block_on(read(source.as_mut(), 100_000));
    assert!(lines.len() >= 100_000);
    drop(source);
}

#[test]
fn what_a_program_started_ends_with_the_source() {
    // The inner shell prints its process number, then sleeps while it holds the pipe.
    let (mut source, _) = source("sh -c 'echo $$; exec sleep 600'; true", &[("shell", "true")]).unwrap();
    let (lines, _) = block_on(read(source.as_mut(), 1));
    let process = std::path::PathBuf::from(format!("/proc/{}/stat", lines[0]));
    drop(source);
    let gone = || match std::fs::read_to_string(&process) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    for _ in 0..1000 {
        if gone() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {} is still there", lines[0]);
}

#[test]
fn wrong_commands_are_refused() {
    let check = |command: &str, part: &str| {
        let error = source(command, &[]).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    };
    check("no_such_program -x", "there is no program 'no_such_program'");
    check("echo 'a", "a quote in it is not closed");
    check(" ", "a program with its arguments was expected");
    assert!(source("cat", &[("restart", "sometimes")]).is_err());
    assert!(source("cat", &[("format", "parquet")]).is_err());
    assert!(source("cat", &[("format", "json")]).is_err());
}
