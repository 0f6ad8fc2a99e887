//! Tests that this version continues with data directories written by earlier versions.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, lines, program};

/// Data directories of earlier versions, with the scripts that made them and the expected answers.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/tests/fixtures");

/// Copies a folder without the lock of a process.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns the scripts that made a fixture: `made.sql`, and `then.sql`, which alters its objects.
fn scripts(fixture: &Path) -> impl Iterator<Item = &'static str> {
    ["made.sql", "then.sql"].into_iter().filter(|script| fixture.join(script).exists())
}

/// Runs a script until it is done and `holds` returns true, then kills the program.
fn run_until(place: &Path, script: &str, holds: impl Fn() -> bool) {
    let told = fs::File::create(place.join("told.txt")).unwrap();
    let mut child = program(place, &["--data", "state", "run", script])
        .stdout(told.try_clone().unwrap())
        .stderr(told)
        .spawn()
        .unwrap();
    let since = Instant::now();
    let text = || fs::read_to_string(place.join("told.txt")).unwrap();
    while !(text().contains("done") && holds()) {
        assert!(child.try_wait().unwrap().is_none() && since.elapsed() < PATIENCE, "{}", text());
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Writes the data directory of a fixture: runs each script and kills the program after it. The last kill
/// comes some time after a checkpoint.
fn write_fixture(fixture: &Path) {
    assert!(!fixture.join("state").exists(), "{} is kept as it is: write another", fixture.display());
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    copy(fixture, place);
    fs::create_dir(place.join("in")).unwrap();
    fs::write(place.join("in/1.csv"), "1\n2\n3\n").unwrap();
    let scripts: Vec<&str> = scripts(fixture).collect();
    let (last, before) = scripts.split_last().unwrap();
    before.iter().for_each(|script| run_until(place, script, || true));
    run_until(place, last, || {
        let delivered = lines(&place.join("out")).len();
        if delivered == 3 && !place.join("in/2.csv").exists() {
            fs::write(place.join(".2.csv"), "4\n5\n").unwrap();
            fs::rename(place.join(".2.csv"), place.join("in/2.csv")).unwrap();
        }
        delivered == 5
    });
    ["state", "in", "out"].iter().for_each(|folder| copy(&place.join(folder), &fixture.join(folder)));
}

#[test]
fn directories_of_versions_before_are_gone_on_with() {
    // `FIXTURE=name cargo test …` writes one, see CONTRIBUTING.md.
    if let Ok(name) = std::env::var("FIXTURE") {
        write_fixture(&Path::new(FIXTURES).join(name));
    }
    for fixture in fs::read_dir(FIXTURES).unwrap().map(|entry| entry.unwrap().path()) {
        let temporary = tempfile::tempdir().unwrap();
        let place = temporary.path();
        copy(&fixture, place);
        let read = |name: &str| fs::read_to_string(place.join(name)).unwrap();
        let ask = |name: &str| {
            let arguments = ["--data", "state", "--must-exist", "-q", "-c", ".mode csv", "-c", &read(name)];
            let output = program(place, &arguments).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            (String::from_utf8_lossy(&output.stdout).into_owned(), told)
        };
        let check = |name: &str, answers: &str| {
            let (found, told) = ask(name);
            assert_eq!(found, read(answers), "{}: {told}", fixture.display());
        };
        assert!(program(place, &["inspect", "state"]).output().unwrap().status.success());
        check("ask.sql", "answers.csv");
        // Running the last script again changes nothing. Earlier scripts describe an older state.
        run_until(place, scripts(place).last().unwrap(), || true);
        check("ask.sql", "answers.csv");
        check("more.sql", "more.csv");
        // Fixtures of an object store have other file names, and tables only.
        if !fixture.join("in").exists() {
            continue;
        }
        let mut delivered: Vec<i64> =
            lines(&place.join("out")).iter().map(|line| line.parse().unwrap()).collect();
        delivered.sort_unstable();
        assert_eq!(delivered, [2, 4, 6, 8, 10], "{}", fixture.display());
    }
}
