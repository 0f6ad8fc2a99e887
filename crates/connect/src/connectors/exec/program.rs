//! Supervises a program: starts it, reads its output, and restarts it when it ends.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use millstream_delta::spawn_detached;

use crate::receiver::{End, Finish, Inbox, Stop, backoff};
use crate::{Error, Health, Result};

/// Maximum number of lines of standard error shown when a program ends, and maximum bytes of each.
const LAST_LINES: usize = 5;
const LAST_LINE_BYTES: u64 = 500;

/// Maximum time to wait for the rest of standard error after a program ended.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// After running this long, a program counts as started well: its next failure counts as the first one.
const STARTED_WELL: Duration = Duration::from_secs(5);

/// The policy for restarting a program that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Never,
    OnFailure,
    Always,
}

/// A program to run.
pub(super) struct Program {
    /// The name of the program in messages.
    pub name: Arc<str>,
    /// The program and its arguments.
    pub words: Vec<String>,
    pub restart: Restart,
    pub health: Health,
}

/// The outcome of one run of a program.
struct Ended {
    failed: bool,
    reason: String,
}

impl Program {
    /// Starts the thread that runs the program.
    pub fn start(self, inbox: Arc<Inbox>, stop: Arc<Stop>) -> Result<()> {
        let name = self.name.clone();
        let thread = Builder::new().name(format!("exec {name}"));
        match spawn_detached(thread, move || self.supervise(&inbox, &stop)) {
            Ok(()) => Ok(()),
            Err(error) => Err(Error::External(format!("the receiver of {name} can't be started: {error}"))),
        }
    }

    fn supervise(&self, inbox: &Inbox, stop: &Arc<Stop>) {
        let mut attempt = 0;
        for run in 1_u64.. {
            let began = Instant::now();
            let ended = match self.run(run, inbox, stop) {
                Ok(ended) => ended,
                Err(error) => Ended { failed: true, reason: format!("it could not be started: {error}") },
            };
            if stop.is_stopped() {
                return;
            }
            match (self.restart, ended.failed) {
                (Restart::Never | Restart::OnFailure, false) => return inbox.finish(Finish::Ended),
                (Restart::Never, true) => {
                    return inbox.finish(Finish::Failed(format!("{}: {}", self.name, ended.reason)));
                }
                (Restart::OnFailure, true) | (Restart::Always, _) => {}
            }
            attempt = if began.elapsed() >= STARTED_WELL { 1 } else { attempt + 1 };
            self.health.restarting(&self.name, ended.reason, attempt);
            if stop.pause(backoff(attempt)) {
                return;
            }
        }
    }

    /// Runs the program once, to its end.
    fn run(&self, run: u64, inbox: &Inbox, stop: &Arc<Stop>) -> std::io::Result<Ended> {
        let mut child = self.spawn()?;
        let pid = child.id();
        let _registered = stop.register(move || kill(pid));
        let last_words = LastWords::of(child.stderr.take());
        self.health.well(&self.name);
        let feed = inbox.open(&self.name, format!("{}#{run}", self.name).into());
        let (end, _) = match child.stdout.take() {
            Some(stdout) => feed.fill(stdout),
            None => feed.fill(std::io::empty()),
        };
        if end == End::Closed {
            // The program's output doesn't fit, and the program may never end by itself.
            kill(pid);
        }
        let status = child.wait()?;
        let reason = match end {
            End::Closed => "its output begins with a header that doesn't fit; see bad_rows".to_string(),
            _ => describe(status, &last_words.get()),
        };
        Ok(Ended { failed: !status.success(), reason })
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A process group of its own: killing the group also ends child processes, and a Ctrl-C at the
        // terminal doesn't reach it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()
    }
}

/// Ends a program and its child processes.
#[cfg(unix)]
fn kill(pid: u32) {
    use nix::sys::signal::{Signal, killpg};
    if let Ok(group) = i32::try_from(pid) {
        let _ = killpg(nix::unistd::Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Ends a program.
#[cfg(windows)]
fn kill(pid: u32) {
    let _ = Command::new("taskkill").args(["/F", "/T", "/PID", &pid.to_string()]).status();
}

/// Returns true if a program of this name exists.
pub(super) fn is_there(program: &str) -> bool {
    if program.contains('/') || cfg!(windows) {
        return cfg!(windows) || Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn describe(status: ExitStatus, last_words: &str) -> String {
    let how = match status.code() {
        Some(code) => format!("it ended with exit status {code}"),
        None => format!("it was ended by a {status}"),
    };
    if last_words.is_empty() { how } else { format!("{how}, after it had written: {last_words}") }
}

/// The last lines of a program's standard error.
struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Receiver<()>,
}

impl LastWords {
    /// Reads `stderr` on a thread of its own, so that the program never blocks on a full pipe.
    fn of(stderr: Option<impl Read + Send + 'static>) -> LastWords {
        let lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (end, ended) = channel();
        if let Some(stderr) = stderr {
            let lines = lines.clone();
            // If no thread can start, standard error isn't read, and a program that writes much fails and
            // is restarted.
            let _ = spawn_detached(Builder::new().name("exec stderr".into()), move || {
                keep_last(stderr, &lines);
                let _ = end.send(());
            });
        }
        LastWords { lines, ended }
    }

    /// Returns the last lines, once the program has closed standard error.
    fn get(&self) -> String {
        let _ = self.ended.recv_timeout(LAST_WORDS_TIMEOUT);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

fn keep_last(stderr: impl Read, lines: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LAST_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim().to_string();
        if text.is_empty() {
            continue;
        }
        tracing::debug!(line = text, "a program said");
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(text);
        if lines.len() > LAST_LINES {
            lines.pop_front();
        }
    }
}
