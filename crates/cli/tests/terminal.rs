//! Drives the shell, and `top`, on a pseudo-terminal, which the program `script` of util-linux creates.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use millstream_testkit::drive::ignores_hangup;
use tempfile::TempDir;

#[path = "terminal/top.rs"]
mod top;

/// Longer than any run here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell on a terminal.
struct Shell {
    child: Child,
    input: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Number of bytes already examined.
    seen: usize,
    place: TempDir,
}

impl Shell {
    /// Starts a shell; `None` if `script` is missing, which the test then reports.
    fn start(environment: &[(&str, &str)]) -> Option<Shell> {
        let mut shell = Shell::open("", environment)?;
        shell.waits_for("millstream> ");
        Some(shell)
    }

    /// Starts the program with these arguments.
    fn open(arguments: &str, environment: &[(&str, &str)]) -> Option<Shell> {
        let place = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_millstream");
        let child = Command::new("script")
            .args(["-qfec", &format!("stty rows 24 cols 80; '{program}' {arguments}"), "/dev/null"])
            .current_dir(place.path())
            .env("TERM", "xterm")
            .env("MILLSTREAM_HISTORY", place.path().join("history"))
            .env("NO_COLOR", "1")
            .env("PAGER", "")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: there is no program `script`, which makes a terminal");
            return None;
        };
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, all) = (child.stdout.take().unwrap(), shown.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let input = child.stdin.take().unwrap();
        Some(Shell { child, input, shown, seen: 0, place })
    }

    fn press(&mut self, keys: &str) -> &mut Shell {
        self.input.write_all(keys.as_bytes()).unwrap();
        self.input.flush().unwrap();
        self
    }

    /// Types a line, waits for its echo, and runs it.
    fn line(&mut self, text: &str) -> &mut Shell {
        self.press(text).press("\r")
    }

    /// Runs a statement and waits for its output, and for the prompt after it. The output begins a line,
    /// unlike the statement that the editor redraws at each key.
    #[track_caller]
    fn runs(&mut self, statement: &str, says: &str) -> &mut Shell {
        self.line(statement).waits_for(&format!("\n{says}")).waits_for(PROMPT)
    }

    /// Waits for a text that wasn't shown before.
    #[track_caller]
    fn waits_for(&mut self, text: &str) -> &mut Shell {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = String::from_utf8_lossy(&self.shown.lock().unwrap()[self.seen..]).into_owned();
            if let Some(at) = shown.find(text) {
                self.seen += at + text.len();
                return self;
            }
            assert!(Instant::now() < until, "'{text}' isn't shown: {shown:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Leaves the shell and waits until it has ended.
    #[track_caller]
    fn leave(mut self) {
        self.line("\\q").ends();
    }

    /// Waits until the shell has ended; returns the exit code.
    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it doesn't end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

const PROMPT: &str = "millstream> ";

#[test]
fn a_signal_stops_the_engine_of_a_shell_that_waits_for_a_line() {
    for signal in ["TERM", "HUP"] {
        if signal == "HUP" && ignores_hangup() {
            println!("SIGHUP is skipped: these tests run under nohup, which the program inherits");
            continue;
        }
        let Some(mut shell) = Shell::start(&[]) else { return };
        shell.runs("CREATE TABLE t (a INT);", "CREATE TABLE");
        // The signal arrives after the prompt is back.
        shell.line(&format!("\\! (sleep 1; kill -{signal} $PPID) > /dev/null 2>&1 &"));
        assert_eq!(shell.ends(), Some(0), "{signal}");
    }
}

#[test]
fn statements_of_several_lines_run_at_their_semicolon() {
    let Some(mut shell) = Shell::start(&[]) else { return };
    shell.line("SELECT 'a").waits_for("[in a text: ' ends it]");
    shell
        .line("b' AS x")
        .waits_for("[; runs it]")
        .line(";")
        .waits_for("a+")
        .waits_for("(1 row)")
        .waits_for(PROMPT);
    shell.line("SELECT 1 +").waits_for("[; runs it]").press("\x03").waits_for(PROMPT);
    shell.press("\x03").waits_for(PROMPT).press("\x03").waits_for("\\q leaves the shell").waits_for(PROMPT);
    let history = std::fs::read_to_string(shell.place.path().join("history")).unwrap();
    assert_eq!(history, "#V2\nSELECT 'a\\nb' AS x\\n;\n");
    shell.leave();
}

#[test]
fn rows_of_a_copy_are_typed_up_to_their_end() {
    let Some(mut shell) = Shell::start(&[]) else { return };
    shell.runs("CREATE TABLE t (id INT, v TEXT);", "CREATE TABLE");
    shell.line("COPY t FROM STDIN;").waits_for("[a row, or \\. after the last]");
    shell.line("1\tone; and").waits_for("[a row").line("2\t\\N").waits_for("[a row");
    shell.line("\\.").waits_for("COPY 2").waits_for(PROMPT);
    shell.line("COPY t FROM STDIN;").waits_for("[a row").press("\x03").waits_for(PROMPT);
    shell.line("COPY t TO STDOUT;").waits_for("1\tone; and").waits_for("2\t\\N").waits_for(PROMPT);
    shell.leave();
}

#[test]
fn tab_completes_from_the_catalog() {
    let Some(mut shell) = Shell::start(&[]) else { return };
    shell.runs("CREATE TABLE warehouses (id INT, town TEXT);", "CREATE TABLE");
    shell.press("SELECT w.to\t").press(" FROM wareh\t").waits_for("warehouses").press(" w;\r");
    // Above, the alias did not exist yet when its column was typed. Here the column can be completed.
    shell
        .waits_for(PROMPT)
        .press("SELECT 1 FROM warehouses w WHERE w.to\t")
        .waits_for("w.town")
        .press("\x03");
    shell.waits_for(PROMPT).press("\\mode mark\t").waits_for("markdown").press("\r").waits_for(PROMPT);
    shell.line("SELECT 1 AS x;").waits_for("| x |").waits_for(PROMPT);
    shell.leave();
}

#[test]
fn ctrl_c_ends_a_statement_and_not_the_shell() {
    let Some(mut shell) = Shell::start(&[]) else { return };
    shell.runs(
        "CREATE SOURCE g (k BIGINT) WITH (connector = 'datagen', rows_per_second = 20);",
        "CREATE SOURCE",
    );
    shell.line("SELECT k FROM g EMIT CHANGES;").waits_for("\\live then shows it").waits_for("----");
    shell.press("\x03").waits_for(PROMPT);
    shell.line("SELECT 1 AS again \\watch 0.05").waits_for("-----").waits_for("-----").waits_for("-----");
    shell.press("\x03").waits_for(PROMPT);
    shell.line("\\! echo begun; sleep 30").waits_for("\nbegun");
    shell.press("\x03").waits_for("the command was ended by a signal").waits_for(PROMPT);
    shell.leave();
}

#[test]
fn what_is_typed_while_a_statement_runs_is_kept() {
    let Some(mut shell) = Shell::start(&[]) else { return };
    // Both lines arrive at once: the editor reads the second one together with the first.
    shell
        .line("SELECT 1 AS x;\rSELECT 40 + 2 AS y;")
        .waits_for("\n(1 row)")
        .waits_for("42")
        .waits_for("\n(1 row)");
    shell.waits_for(PROMPT);
    shell.leave();
}

#[test]
fn a_live_view_is_left_and_found_again() {
    let Some(mut shell) = Shell::start(&[]) else { return };
    shell.runs("CREATE TABLE t (id INT PRIMARY KEY, n INT);", "CREATE TABLE");
    shell.runs("INSERT INTO t VALUES (1, 10), (2, 20);", "INSERT 0 2");
    shell.line("\\live SELECT sum(n) AS total FROM t").waits_for("\x1b[?1049h").waits_for("[rows]");
    shell
        .waits_for("30")
        .press("c")
        .waits_for("[changes]")
        .waits_for("+")
        .press("q")
        .waits_for("\x1b[?1049l");
    shell.waits_for("The query continues as live view 1").waits_for(PROMPT);
    shell.runs("INSERT INTO t VALUES (3, 12);", "INSERT 0 1");
    shell
        .line("\\live")
        .waits_for("\x1b[?1049h")
        .waits_for("[changes]")
        .press("r")
        .waits_for("[rows]")
        .waits_for("42");
    shell.press("\x03").waits_for("\x1b[?1049l").waits_for(PROMPT);
    shell.runs("\\live list", "There are no live views");
    shell.line("\\live t").waits_for("[rows]").press("q").waits_for("\x1b[?1049l").waits_for(PROMPT);
    shell.leave();
}

#[test]
fn long_results_go_to_the_pager() {
    let Some(mut shell) = Shell::start(&[("PAGER", "sed s/^/paged:/")]) else { return };
    shell.line("SELECT * FROM generate_series(1, 5) AS t(n);").waits_for("(5 rows)").waits_for(PROMPT);
    shell
        .line("SELECT * FROM generate_series(1, 50) AS t(n);")
        .waits_for("paged:  n")
        .waits_for("paged:(50 rows)");
    shell.waits_for(PROMPT).runs("\\pager off", "No pager is used.");
    shell.line("SELECT * FROM generate_series(1, 60) AS t(n);").waits_for("\n(60 rows)").waits_for(PROMPT);
    shell.leave();
}

#[test]
fn the_editor_opens_with_the_last_statement() {
    let Some(mut shell) = Shell::start(&[("EDITOR", "sed -i s/1/41+1/"), ("VISUAL", "")]) else { return };
    shell.line("SELECT 1 AS x;").waits_for("(1 row)").waits_for(PROMPT);
    shell.line("\\e").waits_for("42").waits_for("(1 row)").waits_for(PROMPT);
    // The edited statement is in the history.
    shell.press("\x1b[A").waits_for("SELECT 41+1 AS x;").press("\x03").waits_for(PROMPT);
    shell.leave();
}
