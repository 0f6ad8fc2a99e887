//! Drives the built program as a user would, with arguments and files, and checks its output and exit
//! codes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than any run here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The result of a run.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A directory of files to run the program in.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn start(&self, arguments: &[&str], input: Option<&str>) -> Child {
        let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        if let Some(input) = input {
            stdin.write_all(input.as_bytes()).unwrap();
        }
        child
    }

    fn run(&self, arguments: &[&str]) -> Run {
        finish(self.start(arguments, None))
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Run {
        finish(self.start(arguments, Some(input)))
    }
}

/// Waits for the end. Kills a program that hangs, which fails its test.
fn finish(mut child: Child) -> Run {
    let out = reader(child.stdout.take().unwrap());
    let err = reader(child.stderr.take().unwrap());
    let until = Instant::now() + PATIENCE;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it hangs; standard error: {}", err.join().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    Run { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

fn reader(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

fn run(arguments: &[&str]) -> Run {
    Place::new().run(arguments)
}

impl Run {
    #[track_caller]
    fn code(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn out(self, expect: &str) -> Run {
        assert_eq!(self.out, expect, "{self:#?}");
        self
    }

    #[track_caller]
    fn err(self, expect: &str) -> Run {
        assert_eq!(self.err, expect, "{self:#?}");
        self
    }

    #[track_caller]
    fn says(self, parts: &[&str]) -> Run {
        for part in parts {
            assert!(self.err.contains(part), "'{part}' isn't there: {self:#?}");
        }
        self
    }
}

#[test]
fn a_command_prints_a_table() {
    run(&["-c", "SELECT 1 AS one, 'x' AS word, NULL AS nothing"])
        .code(0)
        .err("")
        .out(" one | word | nothing\n-----+------+---------\n   1 | x    | NULL\n(1 row)\n");
}

#[test]
fn commands_share_a_session() {
    let commands = ["CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"];
    let read = "SELECT v FROM t WHERE id = 2; SELECT count(*) AS n FROM t;";
    run(&["-c", commands[0], "-c", commands[1], "-c", read])
        .code(0)
        .err("")
        .out(" v\n---\n b\n(1 row)\n n\n---\n 2\n(1 row)\n");
}

#[test]
fn a_script_comes_from_a_file_or_from_standard_input() {
    let place = Place::new();
    let sql = "-- a script\nCREATE TABLE t (x BIGINT);\nINSERT INTO t VALUES (1), (2);\nSELECT sum(x) AS s FROM t;\n";
    let expect = " s\n---\n 3\n(1 row)\n";
    place.write("a.sql", &format!("\u{feff}{sql}"));
    place.run(&["run", "a.sql"]).code(0).err("").out(expect);
    place.feed(&["run", "-"], sql).code(0).err("").out(expect);
    place.feed(&[], sql).code(0).err("").out(expect);
    place.feed(&[], "").code(0).err("").out("");
}

#[test]
fn variables_are_put_in() {
    let place = Place::new();
    place.write("a.sql", "SELECT :'word' AS w, :n + 1 AS n, ':word' AS s, 1::bigint AS b;");
    place
        .run(&["--set", "n=41", "run", "a.sql", "--set", "word=it's"])
        .code(0)
        .err("")
        .out(" w    |  n | s     | b\n------+----+-------+---\n it's | 42 | :word | 1\n(1 row)\n");
    place.run(&["run", "a.sql", "--set", "n=1", "--set", "wrd=x"]).code(1).out("").says(&[
        "a.sql:1: error: variable 'word' is not set (those set are n, wrd): give it with --set word=…",
    ]);
}

#[test]
fn the_first_error_ends_a_script() {
    let place = Place::new();
    place.write(
        "a.sql",
        "CREATE TABLE orders (amount BIGINT);\n\nSELECT amout\nFROM orders;\nSELECT 'never';\n",
    );
    place.run(&["run", "a.sql"]).code(1).out("").says(&[
        "a.sql:3: error: ",
        "amout",
        "^^^^^",
        "HINT",
        "amount",
    ]);
    run(&["-c", "SELECT 1 AS a", "-c", "SELEC 2", "-c", "SELECT 3"])
        .code(1)
        .out(" a\n---\n 1\n(1 row)\n")
        .says(&["error: ", "SELEC", "^"]);
}

#[test]
fn an_error_of_statements_that_take_effect_together_has_its_line() {
    let place = Place::new();
    place.write(
        "a.sql",
        "CREATE TABLE t (id INT);\n\nCREATE VIEW v AS\n  SELECT id, id FROM t;\nCREATE TABLE u (id INT);\n",
    );
    place
        .run(&["run", "a.sql"])
        .code(1)
        .out("")
        .says(&["a.sql:3: error: column \"id\" appears twice in the result", "LINE 3: CREATE VIEW v AS"]);
}

#[test]
fn a_query_that_fails_on_its_way_is_an_error() {
    let place = Place::new();
    place.write(
        "a.sql",
        "CREATE TABLE t (x BIGINT);\nINSERT INTO t VALUES (0);\nSELECT 1 / x FROM t;\nSELECT 2;",
    );
    place.run(&["run", "a.sql"]).code(1).out("").says(&["a.sql", "error: ", "ivi"]);
}

#[test]
fn wrong_arguments_are_told() {
    run(&["--nothing"]).code(2).says(&["--nothing"]);
    run(&["--must-exist", "-c", "SELECT 1"]).code(2).says(&["--data"]);
    run(&["--data", "nowhere", "--must-exist", "-c", "SELECT 1"]).code(3).says(&["nowhere", "--must-exist"]);
    run(&["--set", "x", "-c", "SELECT 1"]).code(2).says(&["name=value"]);
    let limit = ["--set memory_limit=much", "bytes were expected"];
    run(&["--memory-limit", "much", "-c", "SELECT 1"]).code(2).says(&limit);
    run(&["--set", "memory_limit=much", "-c", "SELECT 1"]).code(2).says(&limit);
    run(&["run"]).code(2).says(&["FILE"]);
    run(&["-c", "SELECT 1", "run", "a.sql"]).code(2).says(&["-c"]);
    let place = Place::new();
    place.write("a.sql", "SELECT 1");
    place.run(&["a.sql"]).code(2).says(&["millstream run a.sql"]);
}

#[test]
fn settings_may_stand_on_the_command_line() {
    let place = Place::new();
    place.write(
        "a.sql",
        "SELECT limit_bytes FROM millstream.memory; SHOW shutdown_timeout; SHOW memory_limit;",
    );
    let given = ["-q", "--set", "memory_limit=2GB", "run", "a.sql", "--set", "shutdown_timeout=5 s"];
    let run = place.run(&given).code(0).err("");
    for part in ["2147483648", "5 seconds"] {
        assert!(run.out.contains(part), "'{part}' isn't there: {run:#?}");
    }
    let show = ["-q", "--data", "state", "-c", ".mode csv", "-c", "SHOW memory_limit"];
    let limited = [&["--memory-limit", "1 GiB"][..], &show].concat();
    place.run(&limited).code(0).err("").out("memory_limit\n1073741824\n");
    // As after SET, the data directory keeps the setting.
    place.run(&show).code(0).err("").out("memory_limit\n1073741824\n");
}

#[test]
fn help_and_version_are_there() {
    let help = run(&["--help"]).code(0).err("");
    for part in ["millstream run app.sql", "Exit codes", "130", "--set", "--memory-limit", "test"] {
        assert!(help.out.contains(part), "{part}");
    }
    run(&["--version"]).code(0).err("").out(&format!("millstream {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn files_that_cannot_be_read_have_their_own_code() {
    let place = Place::new();
    place.write("bytes.sql", "SELECT 1;\n");
    fs::write(place.path("bytes.sql"), b"SELECT 1;\nSELECT '\xff';").unwrap();
    place.run(&["run", "nowhere.sql"]).code(3).out("").says(&["error: 'nowhere.sql' can't be read"]);
    place.run(&["run", "bytes.sql"]).code(3).out("").says(&["bytes.sql", "not UTF-8", "line 2"]);
    place.run(&["test", "nowhere"]).code(3).out("").says(&["'nowhere'"]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = Place::new();
    let mut child = place.start(&["-c", "SELECT * FROM generate_series(1, 200000)"], None);
    let mut first = [0; 10];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

const UPPER: &str = "
CREATE SOURCE lines (line TEXT) WITH (connector = 'file', path = :'path', format = 'text', bounded = :'bounded');
CREATE SINK upper AS SELECT upper(line) AS line FROM lines
  WITH (connector = 'file', path = 'out', format = 'text', roll_interval = '0');
CREATE SINK shown AS SELECT line FROM lines WITH (connector = 'print', limit = 100);
";

/// Returns the rows delivered by the sink `upper`, in order of its files' names.
fn delivered(place: &Place) -> String {
    let Ok(entries) = fs::read_dir(place.path("out")) else { return String::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.file_name().unwrap().to_string_lossy().starts_with('.'));
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn a_bounded_run_ends_by_itself() {
    let place = Place::new();
    place.write("upper.sql", UPPER);
    place.write("in/a.txt", "one\ntwo\n");
    place.write("in/b.txt", "three\n");
    let run = place.run(&["run", "upper.sql", "--set", "path=in", "--set", "bounded=true"]).code(0).err("");
    assert_eq!(delivered(&place), "ONE\nTWO\nTHREE\n");
    for line in ["\none\n", "two\n", "three\n", "Time: "] {
        assert!(run.out.contains(line), "{line:?} isn't there: {}", run.out);
    }
}

#[test]
fn a_command_with_a_sink_runs_to_the_end_of_its_sources() {
    let place = Place::new();
    place.write("in/a.txt", "one\n");
    place.run(&["--set", "path=in", "--set", "bounded=true", "-c", UPPER]).code(0).err("");
    assert_eq!(delivered(&place), "ONE\n");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_that_follows() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new();
        place.write("upper.sql", UPPER);
        place.write("in/a.txt", "one\n");
        let child = place.start(&["run", "upper.sql", "--set", "path=in", "--set", "bounded=false"], None);
        until(|| delivered(&place) == "ONE\n");
        place.write(".b.txt", "two\n");
        fs::rename(place.path(".b.txt"), place.path("in/b.txt")).unwrap();
        until(|| delivered(&place) == "ONE\nTWO\n");
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let run = finish(child).code(0).says(&["with --data DIR the next run continues from there"]);
        assert_eq!(run.err.lines().count(), 1, "{run:#?}");
        assert_eq!(delivered(&place), "ONE\nTWO\n");
        let left = fs::read_dir(place.path("out"))
            .unwrap()
            .filter(|entry| is_hidden(&entry.as_ref().unwrap().path()));
        assert_eq!(left.count(), 0, "files that are not in place are left");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_changes_and_is_no_failure() {
    let place = Place::new();
    let changes = "CREATE TABLE t (a INT); INSERT INTO t VALUES (7);
        CREATE SINK k FROM t WITH (connector = 'file', path = 'out', format = 'csv', changelog = 'true',
          roll_interval = '0');
        SELECT * FROM t EMIT CHANGES; DROP TABLE nothing";
    let child = place.start(&["-c", changes], None);
    until(|| place.path("out").exists() && delivered(&place) == "_op,a\ninsert,7\n");
    // By now the program waits for changes, or is about to.
    thread::sleep(Duration::from_millis(300));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    finish(child).code(0).err("").out(" _op    | a\n--------+---\n insert | 7\n");
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with('.')
}

#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it doesn't come about");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn bad_rows_are_told_at_the_end() {
    let place = Place::new();
    place.write("in/a.csv", "id,name\n1,a\nx,b\n3,c\n");
    place.write(
        "a.sql",
        "CREATE SOURCE s (id BIGINT, name TEXT) WITH (connector = 'file', path = 'in', format = 'csv', bounded = true);
         CREATE SINK k FROM s WITH (connector = 'file', path = 'out', format = 'csv');",
    );
    place.run(&["run", "a.sql"]).code(0).says(&["NOTICE: 1 bad row was kept aside"]);
    assert_eq!(delivered(&place), "id,name\n1,a\n3,c\n");
    place.run(&["run", "-q", "a.sql"]).code(0).err("");
}

const SUITE: &str = "\
statement ok
CREATE TABLE t (x BIGINT, w TEXT)

statement count 3
INSERT INTO t VALUES (1, 'a'), (2, ''), (NULL, 'c d')

# a comment that stays
query IT rowsort
SELECT x, w FROM t
----
1 a
2 (empty)
NULL c d

statement error not found
SELECT y FROM t

query R
SELECT 1.5::double
----
1.5
";

#[test]
fn suites_that_hold_pass() {
    let place = Place::new();
    place.write("suites/good.slt", SUITE);
    place.write("suites/deeper/other.slt", SUITE);
    let run = place.run(&["test", "suites"]).code(0).err("");
    assert!(run.out.contains("ok   suites/good.slt"), "{}", run.out);
    assert!(run.out.contains("2 files: 2 passed, 0 failed; 10 records"), "{}", run.out);
    let run = place.run(&["test", "suites", "deep"]).code(0);
    assert!(run.out.contains("1 file: 1 passed") && !run.out.contains("good"), "{}", run.out);
    place.run(&["test", "suites", "none-such"]).code(2).says(&["no .slt file with 'none-such' in its path"]);
}

#[test]
fn suites_that_fail_say_where_and_can_be_rewritten() {
    let place = Place::new();
    let wrong = SUITE.replace("2 (empty)", "2 x").replace("1.5\n", "2.5\n");
    place.write("suites/bad.slt", &wrong);
    place.write("suites/good.slt", SUITE);
    let run = place.run(&["test", "suites"]).code(1).err("");
    for part in [
        "FAIL suites/bad.slt",
        "suites/bad.slt:8: query result mismatch",
        "-   2 x",
        "+   2 (empty)",
        "-   2.5",
        "2 files: 1 passed, 1 failed",
    ] {
        assert!(run.out.contains(part), "'{part}' isn't there: {}", run.out);
    }
    let run = place.run(&["test", "suites", "--complete"]).code(0).err("");
    assert!(run.out.contains("rewritten suites/bad.slt"), "{}", run.out);
    assert!(run.out.contains("unchanged suites/good.slt"), "{}", run.out);
    assert_eq!(place.read("suites/bad.slt"), SUITE);
    place.run(&["test", "suites"]).code(0);
}

#[test]
fn a_statement_that_fails_ends_its_suite() {
    let place = Place::new();
    place.write("a.slt", "statement ok\nSELECT * FROM nowhere\n\nquery I\nSELECT 1\n----\n2\n");
    let run = place.run(&["test", "a.slt"]).code(1);
    assert!(run.out.contains("a.slt:1: statement failed"), "{}", run.out);
    assert!(run.out.contains("the rest was not run") && !run.out.contains("mismatch"), "{}", run.out);
}

#[test]
fn commands_of_the_shell_work_in_pipes_and_with_c() {
    run(&["-c", "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", "-c", "\\d", "-c", "\\di", "-c", "\\dk"])
        .code(0)
        .err("")
        .out(
            " name | kind  | status\n------+-------+--------\n t    | table |\n(1 row)\n name | primary_key\n------+-------------\n \
             t    | id\n(1 row)\nThere are no sinks.\n",
        );
    let script = "SELECT 1 AS a, NULL AS b \\gx\n.mode csv\nSELECT 1 AS x, 'a,b' AS y;\n\\mode json\nSELECT 1 AS x;\n\
                  .mode table\nSELECT 3 AS n\n\\p\n\\g\n\\set v 'it''s'\nSELECT :'v' AS v;\n\\echo 'a  b' :v\n\\q\nSELECT 9;";
    Place::new().feed(&[], script).code(0).err("").out(
        "-[ RECORD 1 ]-\na | 1\nb | NULL\n(1 row)\nx,y\n1,\"a,b\"\n[{\"x\":1}]\nSELECT 3 AS n\n n\n---\n 3\n(1 row)\n \
         v\n------\n it's\n(1 row)\na  b it's\n",
    );
}

#[test]
fn results_go_to_files_and_programs() {
    let place = Place::new();
    let script = "\\mode csv\n\\o rows.csv\nSELECT 1 AS x;\nSELECT 2 AS x;\n\\o\nSELECT 3 AS x;\nSELECT 4 AS x \\g one.csv\n\
                  SELECT 5 AS x \\g | cat > piped.csv\n\\o |cat >> piped.csv\nSELECT 6 AS x;";
    place.feed(&[], script).code(0).err("").out("x\n3\n");
    assert_eq!(place.read("rows.csv"), "x\n1\nx\n2\n");
    assert_eq!(place.read("one.csv"), "x\n4\n");
    assert_eq!(place.read("piped.csv"), "x\n5\nx\n6\n");
}

#[test]
fn files_run_files() {
    let place = Place::new();
    place.write("sub/a.sql", "CREATE TABLE t (v INT);\n\\ir b.sql\nSELECT * FROM t;\n");
    place.write("sub/b.sql", "INSERT INTO t VALUES (7);\n\\q\nSELECT 'not run';\n");
    place.run(&["-c", "\\i sub/a.sql"]).code(0).err("").out(" v\n---\n 7\n(1 row)\n");
    place.run(&["run", "sub/a.sql"]).code(0).err("").out(" v\n---\n 7\n(1 row)\n");
    place.write("bad.sql", "SELECT 1 AS one;\n\n\\timng\n");
    place.write("outer.sql", "\n\\i bad.sql\n");
    place
        .run(&["run", "outer.sql"])
        .code(1)
        .says(&["bad.sql:3: error: there is no command \\timng\nHINT: Did you mean \\timing?"]);
    place.write("again.sql", "\\i again.sql\n");
    place.run(&["-c", "\\i again.sql"]).code(1).says(&["is 16 files deep: does it run itself?"]);
    place.run(&["-c", "\\i nowhere.sql"]).code(3).says(&["error: 'nowhere.sql' can't be read"]);
}

#[test]
fn statements_are_run_again_and_again() {
    let run = run(&["-q", "-c", "SELECT 1 AS x \\watch 0.01 c=3"]).code(0).err("");
    assert_eq!(run.out.matches(" x\n---\n 1\n(1 row)\n").count(), 3, "{run:#?}");
    assert_eq!(run.out.matches("UTC (every 0.01 s)").count(), 3, "{run:#?}");
}

#[test]
fn rows_are_copied_in_and_out() {
    let place = Place::new();
    let script = "CREATE TABLE t (id INT, v TEXT);\nCOPY t FROM STDIN;\n1\tone\n2\t\\N\n\\.\n\
         COPY t (v, id) FROM STDIN (FORMAT csv, HEADER); -- rows\nv,id\n\"three; 3\",3\n\\.\n\
         COPY (SELECT * FROM t ORDER BY id) TO STDOUT;\n\\o out.csv\n\
         COPY (SELECT * FROM t ORDER BY id) TO STDOUT (FORMAT csv, HEADER);\n";
    place.write("copy.sql", script);
    place.run(&["run", "copy.sql"]).code(0).err("").out("1\tone\n2\t\\N\n3\tthree; 3\n");
    assert_eq!(place.read("out.csv"), "id,v\n1,one\n2,\n3,three; 3\n");
    // A COPY on the command line reads standard input.
    let commands = ["-c", "CREATE TABLE t (id INT)", "-c", "COPY t FROM STDIN; SELECT sum(id) AS s FROM t"];
    place.feed(&commands, "4\n5\n").code(0).err("").out(" s\n---\n 9\n(1 row)\n");
    let wrong = "CREATE TABLE t (id INT);\nCOPY t FROM STDIN;\n1\nx\n\\.\n";
    place.feed(&["run", "-"], wrong).code(1).says(&["standard input:2: error: COPY, row 2, column \"id\""]);
    place
        .feed(&["run", "-"], "CREATE TABLE t (id INT); COPY t FROM STDIN; SELECT 1;")
        .code(1)
        .says(&["is not followed by rows"]);
}

#[test]
fn commands_that_make_no_sense_say_so() {
    for (command, message) in [
        ("\\l", "there is one database"),
        ("\\x sideways", "\\x takes on, off or auto, not 'sideways'"),
        ("\\mode xml", "the modes are table, csv, json, ndjson, markdown, line"),
        ("\\timing on off", "\\timing takes [on|off]: 'off' is too much"),
        ("\\watch soon", "'soon' is no number of seconds"),
        ("\\g", "there is no statement"),
        ("\\e", "an editor needs a terminal"),
        ("\\live", "there is no statement"),
        ("\\live t", "a live view needs a terminal"),
        ("\\unset x", "variable 'x' is not set"),
        ("\\set 1x 2", "'1x' can't name a variable"),
        ("\\echo 'open", "a quoted word lacks its closing '"),
        ("\\", "a command's name is missing"),
        ("\\d nothing", "there is no relation \"nothing\""),
        ("\\! exit 3", "the command ended with code 3"),
    ] {
        run(&["-c", command]).code(1).out("").says(&["error: ", message]);
    }
    run(&["-c", "\\o /nowhere/x"]).code(3).says(&["'/nowhere/x' can't be written"]);
}

#[test]
fn the_log_may_be_objects() {
    let place = Place::new();
    place.write("a.sql", "CREATE TABLE t (id INT);\nCREATE TABLE IF NOT EXISTS t (id INT);\nSELECT 1 AS one;\n\\warn two words\nSELECT nothing;");
    let run = place.run(&["run", "a.sql", "--log-format", "json"]).code(1);
    assert!(run.out.contains("one"), "{run:#?}");
    let found: Vec<String> = run
        .err
        .lines()
        .map(|line| {
            assert!(line.starts_with("{\"timestamp\":\"2") && line.ends_with('}'), "{line}");
            line.split_once("Z\",").unwrap().1.to_owned()
        })
        .collect();
    assert_eq!(
        found,
        [
            r#""level":"INFO","target":"millstream","message":"\"t\" already exists, nothing was done"}"#,
            r#""level":"INFO","target":"millstream","message":"two words"}"#,
            r#""level":"ERROR","target":"millstream","message":"a.sql:5: error: column \"nothing\" not found\nLINE 2: SELECT nothing;\n               ^^^^^^^"}"#,
        ]
    );
    let text = place.run(&["run", "a.sql"]).code(1);
    assert!(text.err.starts_with("NOTICE: \"t\" already exists"), "{text:#?}");
}
