//! A program that runs: started, read, ended, started again.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::receiver::{End, Finish, Inbox, Stop, backoff};
use crate::{Error, Health, Result};

/// Lines of a program's standard error that are shown when it ends, and bytes of each.
const LAST_LINES: usize = 5;
const LAST_LINE_BYTES: u64 = 500;

/// How long the last words of a program that has ended may take to arrive.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// A program that ran for so long had started well: its next failure is its first.
const STARTED_WELL: Duration = Duration::from_secs(5);

/// What follows when a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Never,
    OnFailure,
    Always,
}

/// A program to be run.
pub(super) struct Program {
    /// What it is called in messages.
    pub name: Arc<str>,
    /// The program and its arguments.
    pub words: Vec<String>,
    pub restart: Restart,
    pub health: Health,
}

/// How one run of a program ended.
struct Ended {
    failed: bool,
    reason: String,
}

impl Program {
    /// Starts the thread that runs it.
    pub fn start(self, inbox: Arc<Inbox>, stop: Arc<Stop>) -> Result<()> {
        let name = self.name.clone();
        let thread = std::thread::Builder::new().name(format!("exec {name}"));
        match thread.spawn(move || self.supervise(&inbox, &stop)) {
            Ok(_) => Ok(()),
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

    /// Runs it once, to its end.
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
            // What it writes doesn't fit, and it may go on for ever.
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
        // A group of its own, so that what it starts ends with it, and a Ctrl-C at our terminal isn't for it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()
    }
}

/// Ends a program and what it has started.
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

/// Whether a program of this name can be found.
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
    if last_words.is_empty() { how } else { format!("{how}, after it had said: {last_words}") }
}

/// The last lines of a program's standard error.
struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Receiver<()>,
}

impl LastWords {
    /// Reads `stderr` in a thread of its own, so that the program is never held up by it.
    fn of(stderr: Option<impl Read + Send + 'static>) -> LastWords {
        let lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (end, ended) = channel();
        if let Some(stderr) = stderr {
            let lines = lines.clone();
            // Without a thread nothing is read, and a program that writes much stops; it will be tried again.
            let _ = std::thread::Builder::new().name("exec stderr".into()).spawn(move || {
                keep_last(stderr, &lines);
                let _ = end.send(());
            });
        }
        LastWords { lines, ended }
    }

    /// The last lines, once all are there.
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
