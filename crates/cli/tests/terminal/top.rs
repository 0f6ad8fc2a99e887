//! `millstream top` at a server: as text, and on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Shell};

/// Names and values with all that could harm a terminal.
const SCRIPT: &str = "CREATE TABLE clicks (id BIGINT PRIMARY KEY, page TEXT);
    CREATE SOURCE ticks (n BIGINT) WITH (connector = 'datagen', rows = 40, fields.n.kind = 'sequence');
    CREATE MATERIALIZED VIEW per_page AS SELECT page, count(*) AS n FROM clicks GROUP BY page;
    CREATE MATERIALIZED VIEW broken AS SELECT 1 / (id - 1) AS x FROM clicks;
    CREATE MATERIALIZED VIEW \"evil\x1b[2J\x07\" AS SELECT count(*) AS n FROM ticks;
    CREATE SINK out FROM per_page WITH (connector = 'blackhole');
    CREATE SINK held FROM per_page WITH (connector = 'blackhole');
    INSERT INTO clicks VALUES (1, '/'), (2, '/a');
    PAUSE SINK held;";

/// A running server; dropping this kills it.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts a server at this address and waits until it listens.
    fn start(place: &Path, address: &str) -> Server {
        std::fs::write(place.join("app.sql"), SCRIPT).unwrap();
        let said = place.join("said.txt");
        let output = File::create(&said).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["server", "--listen", address, "--ui", "none", "app.sql"])
            .current_dir(place)
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut server = Server { child, address: address.to_owned() };
        let until = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&said).unwrap().contains("listening on") {
            assert!(server.child.try_wait().unwrap().is_none() && Instant::now() < until, "no server");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address that nobody uses.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Runs `top` without a terminal.
fn top(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .arg("top")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn without_a_terminal_one_reading_is_printed() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start(place.path(), &free_address());
    let (code, out, err) = top(&["--host", &server.address, "--interval", "0.2"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.chars().all(|letter| letter == '\n' || !letter.is_control()), "{out:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(out.starts_with(&format!("millstream {version} at {}, up ", server.address)), "{out}");
    for part in [
        "\nepochs/s ",
        "\nmaterialized view \"broken\" fails for 1 rows: division by zero for (1)\n    SELECT * FROM millstream.errors",
        "\nsink \"held\" is paused\n    RESUME SINK \"held\"\n",
        "\nQUERY",
        "\nevil\\u{1b}[2J\\u{7}  running  ",
        "\nper_page ",
        "\nSOURCE",
        "\nticks ",
        "\nSINK",
        "\nheld  paused ",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    // The states of the engine are no state of `top`: it ends with 0 each time.
    assert_eq!(top(&["--once", "--host", &server.address, "--interval", "0.1"]).0, Some(0));
}

#[test]
fn an_address_without_a_server_says_so() {
    let address = free_address();
    let (code, out, err) = top(&["--host", &address]);
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    assert!(err.starts_with(&format!("error: the server at {address} can't be reached: ")), "{err}");
    assert!(err.contains("millstream server"), "{err}");
    let (code, _, err) = top(&["--host", "127.0.0.1:x"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--host is '127.0.0.1:x'"), "{err}");
}

#[test]
fn a_server_that_is_no_postgres_server_is_refused() {
    for (answer, reason) in [
        ("", "can't be reached: "),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "does not speak PostgreSQL's protocol: is it the address of the web page?",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let (code, _, err) = top(&["--host", &address]);
        assert_eq!(code, Some(3), "{err}");
        assert!(err.starts_with(&format!("error: the server at {address} {reason}")), "{err}");
    }
}

#[test]
fn the_view_survives_the_end_of_its_server() {
    let place = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::start(place.path(), &address);
    let arguments = format!("top --host {address} --interval 0.2");
    let Some(mut view) = Shell::open(&arguments, &[]) else { return };
    view.waits_for("arrows").waits_for("per_page");
    // Enter opens the first query: its operators, and why it waits.
    view.press("ssss").press("\r").waits_for("OPERATOR").waits_for("Input");
    view.press("\x7f").waits_for("QUERY");
    // So does one whose name can't be shown as it is: the first one by name.
    view.press("sss").press("\r").waits_for("OPERATOR").waits_for("Input");
    view.press("\x7f").waits_for("QUERY");
    view.press("p").waits_for("PAUSED").press("p");
    server.end();
    view.waits_for("disconnected,").waits_for("trying");
    let server = Server::start(place.path(), &address);
    // The line of the problem is the query's again.
    view.waits_for("fails");
    view.press("q");
    assert_eq!(view.ends(), Some(0));
    // The screen is left.
    view.waits_for("\x1b[?1049l");
    let shown = String::from_utf8_lossy(&view.shown.lock().unwrap()).into_owned();
    assert!(!shown.contains("\x1b[2J\x07"), "{shown:?}");
    // NO_COLOR is set.
    assert!(!shown.contains("\x1b[31m") && !shown.contains("\x1b[38;5"), "{shown:?}");
    server.end();
}
