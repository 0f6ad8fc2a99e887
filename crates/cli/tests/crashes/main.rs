//! The built program under `kill -9`: after a restart all acknowledged data is there, and its files hold
//! every row once. `ROUNDS=200 cargo test -p millstream-cli --test crashes` kills it more often.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

mod clients;
#[cfg(unix)]
mod ending;
mod feeds;
mod fixtures;
mod ledger;
mod logged;
mod lost;
mod reader;
mod served;
mod soak;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use millstream_testkit::drive::block_on;
use millstream_testkit::moto::Moto;
use millstream_testkit::postgres::Postgres;

/// Longer than any run here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const SCRIPT: &str = "
SET checkpoint_interval = '30 milliseconds';
CREATE SOURCE s (n INT) WITH (connector = 'file', path = 'in/', format = 'csv', header = false);
CREATE TABLE once (x INT);
CREATE SINK doubled AS SELECT n * 2 AS d FROM s
  WITH (connector = 'file', path = 'doubled/', format = 'csv', header = false, roll_interval = '0');
CREATE SINK rolled AS SELECT n * 2 AS d FROM s
  WITH (connector = 'file', path = 'rolled/', format = 'csv', header = false, roll_interval = '150 ms');
CREATE SINK small AS SELECT n * 2 AS d FROM s
  WITH (connector = 'file', path = 'small/', format = 'csv', header = false, roll_interval = '0', roll_size = '6 KB');
CREATE SINK by_default AS SELECT n * 2 AS d FROM s
  WITH (connector = 'file', path = 'by_default/', format = 'csv', header = false);
CREATE SINK counts AS SELECT n % 10 AS g, count(*) AS c FROM s GROUP BY n % 10
  WITH (connector = 'file', path = 'counts/', format = 'csv', header = false, changelog = true, roll_interval = '0');
INSERT INTO once VALUES (7);
";

/// Returns a command for the program; `PROGRAM=target/release/millstream` selects another build.
fn program(place: &Path, arguments: &[&str]) -> Command {
    let built = env!("CARGO_BIN_EXE_millstream");
    let mut command = Command::new(std::env::var("PROGRAM").as_deref().unwrap_or(built));
    command.args(arguments).current_dir(place).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Returns all lines of the visible files in a folder.
fn lines(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let visible = paths.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    visible
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_string).collect::<Vec<_>>())
        .collect()
}

fn doubled(place: &Path) -> Vec<i64> {
    numbers(place, "doubled")
}

/// Returns the numbers in the files of a folder.
fn numbers(place: &Path, folder: &str) -> Vec<i64> {
    let mut numbers: Vec<i64> = lines(&place.join(folder)).iter().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn files_hold_everything_once_whenever_it_is_killed() {
    let rounds: u32 = std::env::var("ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    fs::write(place.join("app.sql"), SCRIPT).unwrap();
    fs::create_dir(place.join("in")).unwrap();
    let mut n = 0;
    for round in 0..=rounds {
        let last = round == rounds;
        // The lifetime varies by round, from before the end of the start to long after it.
        let lives = Duration::from_millis(u64::from(round * 7919 % 13) * 40);
        let (mut child, since) = run_for(place, lives, &mut n);
        while last && since.elapsed() < PATIENCE && (doubled(place).len() as i64) < n {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(50));
        }
        kill(child, round);
    }
    let expected: Vec<i64> = (0..n).map(|n| n * 2).collect();
    assert_eq!(doubled(place), expected);
    let output =
        program(place, &["--data", "state", "-q", "-c", ".mode csv", "-c", "SELECT x FROM once; FLUSH"])
            .output()
            .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n7\n", "{told}");
    assert!(output.status.success(), "{told}");
    // FLUSH writes the rows that sinks have gathered.
    for folder in ["rolled", "small", "by_default"] {
        assert_eq!(numbers(place, folder), expected, "{folder}");
    }
    let mut left = BTreeMap::<String, i64>::new();
    for line in lines(&place.join("counts")) {
        let (op, row) = line.split_once(',').unwrap();
        *left.entry(row.to_string()).or_default() += if op == "insert" { 1 } else { -1 };
    }
    left.retain(|_, count| *count != 0);
    let expected = (0..10).map(|g| (format!("{g},{}", (0..n).filter(|n| n % 10 == g).count()), 1));
    assert_eq!(left, expected.collect(), "{told}");
}

/// Runs the script for the time `lives`, and adds files with the next numbers meanwhile. Returns the start
/// time too.
fn run_for(place: &Path, lives: Duration, n: &mut i64) -> (Child, Instant) {
    let child = program(place, &["--data", "state", "run", "app.sql"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let since = Instant::now();
    while since.elapsed() < lives {
        put(place, *n..*n + 50);
        *n += 50;
        thread::sleep(Duration::from_millis(20));
    }
    (child, since)
}

/// Kills the program, which must not have reported an error.
fn kill(mut child: Child, round: u32) {
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains("error:"), "round {round}: {told}");
}

/// Writes numbers as a file for the program, which appears atomically.
fn put(place: &Path, numbers: std::ops::Range<i64>) {
    let name = format!("{:07}.csv", numbers.end);
    let lines: Vec<String> = numbers.map(|n| n.to_string()).collect();
    fs::write(place.join(format!("in/.{name}")), lines.join("\n") + "\n").unwrap();
    fs::rename(place.join(format!("in/.{name}")), place.join(format!("in/{name}"))).unwrap();
}

#[test]
fn tables_of_postgres_hold_everything_once_whenever_it_is_killed() {
    let Some(postgres) = block_on(async { Postgres::start() }).unwrap() else { return };
    let rounds: u32 = std::env::var("ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    fs::create_dir(place.join("in")).unwrap();
    let with = |table: &str| {
        let url = postgres.url(postgres.port);
        format!("WITH (connector = 'postgres', url = '{url}', table = '{table}', create = true)")
    };
    let script = format!(
        "SET checkpoint_interval = '30 milliseconds';
        CREATE SOURCE s (n INT) WITH (connector = 'file', path = 'in/', format = 'csv', header = false);
        CREATE SINK doubled AS SELECT n * 2 AS d FROM s {};
        CREATE SINK counts AS SELECT n % 10 AS g, count(*) AS c FROM s GROUP BY n % 10 {};",
        with("doubled"),
        with("counts")
    );
    fs::write(place.join("app.sql"), script).unwrap();
    let asked = |sql: &str| block_on(postgres.query(sql)).unwrap_or_default();
    let mut n = 0;
    for round in 0..=rounds {
        let lives = Duration::from_millis(u64::from(round * 7919 % 13) * 60);
        let (mut child, since) = run_for(place, lives, &mut n);
        let is_there = || asked("SELECT count(*) FROM doubled") == [n.to_string()];
        while round == rounds && since.elapsed() < PATIENCE && !is_there() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(50));
        }
        let sums = format!("SELECT sum(c) FROM counts HAVING sum(c) = {n}");
        while round == rounds && since.elapsed() < PATIENCE && asked(&sums).is_empty() {
            thread::sleep(Duration::from_millis(50));
        }
        kill(child, round);
    }
    let doubled: Vec<String> = (0..n).map(|n| (n * 2).to_string()).collect();
    assert_eq!(asked("SELECT d FROM doubled ORDER BY d"), doubled);
    let counts = (0..10).map(|g| format!("{g}|{}", (0..n).filter(|n| n % 10 == g).count()));
    assert_eq!(asked("SELECT g, c FROM counts ORDER BY g"), counts.collect::<Vec<_>>());
}

/// Returns the newest checkpoint file whose name ends in `ending`.
fn newest(place: &Path, ending: &str) -> std::path::PathBuf {
    let entries = fs::read_dir(place.join("state/checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).max().unwrap()
}

#[test]
fn a_stop_leaves_a_checkpoint_and_a_damaged_one_is_passed_over() {
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    let run = |arguments: &[&str]| {
        let output = program(place, arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), told)
    };
    let sum = ["--data", "state", "-c", ".mode csv", "-c", "SELECT s FROM m"];
    let made = run(&[
        "--data",
        "state",
        "-c",
        "CREATE TABLE t (x INT); CREATE MATERIALIZED VIEW m AS SELECT sum(x) AS s FROM t;
         CREATE MATERIALIZED VIEW series AS SELECT t.x FROM t JOIN generate_series(1, 3) AS s(n) ON s.n = t.x;
         INSERT INTO t VALUES (1), (2)",
    ]);
    assert_eq!(made.0, Some(0), "{}", made.2);
    let (code, found, told) = run(&["inspect", "state"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(found.contains("table0.t.rows: ") && found.contains(", 2 rows"), "{found}");
    assert!(found.contains("a start replays 1, 0 of them epochs"), "{found}");
    let plans: Vec<&str> = found
        .lines()
        .skip_while(|line| *line != "plans:")
        .skip(1)
        .take_while(|line| *line != "journal:")
        .collect();
    let [kept, none] = plans[..] else { panic!("{found}") };
    let by = concat!(" bytes, made by version ", env!("CARGO_PKG_VERSION"));
    assert!(kept.starts_with("  m: ") && kept.ends_with(by), "{found}");
    let why = "a table function of the query engine's can't be kept: a start plans it again";
    assert_eq!(none, format!("  series: none, since {why}"));
    assert_eq!(run(&sum).1, "s\n3\n");
    let added = run(&["--data", "state", "-c", "INSERT INTO t VALUES (10)"]);
    assert_eq!(added.0, Some(0), "{}", added.2);
    let path = newest(place, ".parquet");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, found, told) = run(&["inspect", "state"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(found.contains("DAMAGED") && told.contains("'state' is damaged"), "{found}{told}");
    let (_, found, told) = run(&sum);
    assert_eq!(found, "s\n13\n", "{told}");
    assert!(told.contains("is skipped"), "{told}");
    let (code, _, told) = run(&["inspect", "elsewhere"]);
    assert_eq!(code, Some(3));
    assert!(told.contains("'elsewhere' is not a data directory"), "{told}");
}

#[test]
fn one_process_has_a_directory_at_a_time() {
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    fs::create_dir(place.join("in")).unwrap();
    fs::write(place.join("app.sql"), SCRIPT).unwrap();
    let mut first = program(place, &["--data", "state", "run", "app.sql"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Wait until the first process holds the directory: otherwise a second one could take it.
    let (lock, id) = (place.join("state/LOCK"), first.id().to_string());
    let since = Instant::now();
    while fs::read_to_string(&lock).map_or(true, |text| text.trim() != id) {
        assert_eq!(first.try_wait().unwrap(), None);
        assert!(since.elapsed() < PATIENCE, "it doesn't open the directory");
        thread::sleep(Duration::from_millis(20));
    }
    let output = program(place, &["--data", "state", "--must-exist", "-c", "SELECT 1"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(told.contains("is in use by another process (process "), "{told}");
}

/// Returns the program with less memory than one of its queries requests, which aborts the process.
fn within_memory(place: &Path) -> Command {
    let mut command = Command::new("sh");
    let limited = "ulimit -v 16000000; exec \"$0\" --data state -q -c '.mode csv' \"$@\"";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_millstream")]);
    command.current_dir(place).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Runs a session. Returns true if it ended by itself, and its output.
fn say(place: &Path, sql: &str) -> (bool, String, String) {
    let output = within_memory(place).args(["-c", sql]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // An aborted process has no exit code. An error about a suspended query has code 1.
    (output.status.code().is_some(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_query_that_the_process_died_in_twice_is_suspended_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    // Twenty gigabytes at once: a text repeated a hundred times.
    let long = vec!["x"; 100].join(", ");
    let made = say(
        place,
        &format!(
            "SET checkpoint_interval = 'off';
         CREATE TABLE t (k INT, n BIGINT) APPEND ONLY;
         CREATE MATERIALIZED VIEW before AS SELECT sum(k) AS s FROM t;
         -- It takes its time, so that the epoch is in the journal before the next query is stepped.
         CREATE MATERIALIZED VIEW slow AS SELECT length(lpad('x', least(n, 100000000))) AS l FROM t;
         CREATE MATERIALIZED VIEW deadly AS SELECT k, length(concat({long})) / 100 AS l
             FROM (SELECT k, repeat('y', least(n, 200000000)) AS x FROM t);
         CREATE MATERIALIZED VIEW above AS SELECT count(*) AS c FROM deadly;
         CREATE MATERIALIZED VIEW after AS SELECT max(k) AS m FROM t;
         CREATE SINK out FROM t WITH (connector = 'file', path = 'out/', format = 'csv', header = false);
         INSERT INTO t VALUES (1, 5); SELECT l FROM deadly"
        ),
    );
    assert!(made.0 && made.1.ends_with("l\n5\n"), "{made:?}");
    let died = say(place, "INSERT INTO t VALUES (2, 1000000000000)");
    assert!(!died.0 && died.2.contains("memory allocation"), "{died:?}");
    // The next start replays that epoch and aborts again.
    let died = say(place, "SELECT 1");
    assert!(!died.0 && died.2.contains("memory allocation") && died.1.is_empty(), "{died:?}");
    // The one after it suspends the query and continues with the others. It reads a pipe without a writer
    // until it is killed, before there is a checkpoint.
    assert!(Command::new("mkfifo").arg(place.join("more.sql")).status().unwrap().success());
    let mut third = within_memory(place)
        .args(["-c", "SELECT s, m FROM before, after; INSERT INTO t VALUES (4, 1)", "-c", ".read more.sql"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    while lines(&place.join("out")).len() < 3 && since.elapsed() < PATIENCE {
        assert!(third.try_wait().unwrap().is_none(), "it ended by itself");
        thread::sleep(Duration::from_millis(50));
    }
    third.kill().unwrap();
    let output = third.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "s,m\n3,2\n");
    let (lived, found, told) = say(
        place,
        "SELECT s, m FROM before, after; SELECT query, message FROM millstream.errors ORDER BY query; \
         SELECT name, status FROM millstream.materialized_views ORDER BY name",
    );
    assert!(lived, "{told}");
    let expected = "s,m\n7,4\nquery,message\nabove,\"it reads \"\"deadly\"\", which is suspended\"\n\
        deadly,\"the process crashed in this query (abort, panic or out of memory) each time that it ran this \
        epoch\"\nname,status\n\
        above,suspended\nafter,running\nbefore,running\ndeadly,suspended\nslow,running\n";
    assert_eq!(found, expected);
    let mended = say(
        place,
        "DROP MATERIALIZED VIEW deadly CASCADE; \
         CREATE MATERIALIZED VIEW mild AS SELECT count(*) AS c FROM t WHERE n < 100; SELECT c FROM mild",
    );
    assert!(mended.0 && mended.1 == "c\n2\n", "{mended:?}");
    let mut delivered = lines(&place.join("out"));
    delivered.sort();
    assert_eq!(delivered, ["1,5", "2,1000000000000", "4,1"]);
}

/// The bucket of all tests with an object store.
const BUCKET: &str = "state";

const ON_A_STORE: &str = "
SET checkpoint_interval = '300 milliseconds';
SET journal_interval = '20 milliseconds';
CREATE TABLE t (x BIGINT);
CREATE SOURCE s (n INT) WITH (connector = 'file', path = 'in/', format = 'csv', header = false);
CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c, sum(n) AS s FROM s;
CREATE SINK doubled AS SELECT n * 2 AS d FROM s
  WITH (connector = 'file', path = 'doubled/', format = 'csv', header = false);
";

/// Returns the program as in `program`, with access to the store.
fn on_store(moto: &Moto, place: &Path, arguments: &[&str]) -> Command {
    let mut command = program(place, &["--data", "s3://state/an/app"]);
    command.args(arguments).envs(moto.environment());
    command
}

/// The machine is lost, and another one opens the prefix without anything from the first one's disk.
#[test]
fn a_prefix_of_an_object_store_holds_everything_whenever_the_machine_is_lost() {
    let Some(moto) = Moto::start(BUCKET).unwrap() else { return };
    let rounds: u32 = std::env::var("ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    fs::write(place.join("app.sql"), ON_A_STORE).unwrap();
    fs::create_dir(place.join("in")).unwrap();
    let (mut n, mut acknowledged) = (0, Vec::new());
    for round in 0..=rounds {
        let last = round == rounds;
        let lives = Duration::from_millis(300 + u64::from(round * 7919 % 13) * 130);
        let mut child = on_store(&moto, place, &["run", "app.sql"]);
        let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let since = Instant::now();
        while since.elapsed() < lives {
            put(place, n..n + 50);
            n += 50;
            thread::sleep(Duration::from_millis(20));
        }
        while last && since.elapsed() < PATIENCE && (doubled(place).len() as i64) < n {
            thread::sleep(Duration::from_millis(50));
        }
        kill(child, round);
        // Also statements on another machine, acknowledged one by one until it is killed, too.
        acknowledged.extend(insert_until_killed(&moto, place, i64::from(round) * 1_000_000, lives));
    }
    assert_eq!(doubled(place), (0..n).map(|n| n * 2).collect::<Vec<_>>());
    let asked = "SELECT c, s FROM m; SELECT x FROM t ORDER BY x";
    let output = on_store(&moto, place, &["-q", "-c", ".mode csv", "-c", asked]).output().unwrap();
    let (found, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let (views, rows) = found.split_once("x\n").unwrap_or_else(|| panic!("{found}{told}"));
    assert_eq!(views, format!("c,s\n{n},{}\n", (0..n).sum::<i64>()), "{told}");
    let rows: Vec<i64> = rows.lines().map(|line| line.parse().unwrap()).collect();
    for window in rows.windows(2) {
        assert!(window[0] < window[1], "{} is there twice", window[0]);
    }
    let lost: Vec<&i64> = acknowledged.iter().filter(|x| rows.binary_search(x).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are lost");
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let inspected =
        program(place, &["inspect", "s3://state/an/app"]).envs(moto.environment()).output().unwrap();
    let found = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.status.success() && found.contains("table0.t.rows: "), "{found}");
}

/// Inserts numbers from `from` on for the time `lives`, then kills the program. Returns the acknowledged
/// numbers.
fn insert_until_killed(moto: &Moto, place: &Path, from: i64, lives: Duration) -> Vec<i64> {
    let mut command = on_store(moto, place, &["run", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut script: String =
        (from..from + 200).map(|x| format!("INSERT INTO t VALUES ({x}); SELECT {x} AS told;\n")).collect();
    script.insert_str(0, ".mode csv\n");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    thread::sleep(lives * 2);
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    // The last line may be cut short.
    let whole = told.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Of two processes on one prefix, the first one stops by itself and reports the reason.
#[test]
fn the_process_that_loses_an_object_store_exits() {
    let Some(moto) = Moto::start(BUCKET).unwrap() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    fs::write(place.join("app.sql"), ON_A_STORE).unwrap();
    fs::create_dir(place.join("in")).unwrap();
    put(place, 0..50);
    let mut first = on_store(&moto, place, &["run", "app.sql"]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while since.elapsed() < PATIENCE && doubled(place).len() < 50 {
        thread::sleep(Duration::from_millis(50));
    }
    let asked = ["--must-exist", "-q", "-c", ".mode csv", "-c", "SELECT c FROM m"];
    let second = on_store(&moto, place, &asked).output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(String::from_utf8_lossy(&second.stdout), "c\n50\n", "{told}");
    // The process notices at its next write.
    put(place, 50..100);
    while since.elapsed() < PATIENCE && first.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(50));
    }
    first.kill().unwrap();
    let output = first.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("has taken over 's3://state/an/app'"), "{told}");
    assert!(!told.contains("open sesame"), "{told}");
    let missing = program(place, &["--data", "s3://state/nowhere", "--must-exist", "-c", "SELECT 1"])
        .envs(moto.environment())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && told.contains("it has no object MILLSTREAM"), "{told}");
}
