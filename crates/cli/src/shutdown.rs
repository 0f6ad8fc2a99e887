//! Ends the program on SIGTERM or SIGHUP: in bounded time, whatever its threads do.
//!
//! A separate thread waits for the signals, since all others may be busy with a statement:
//!
//! | when | phase |
//! | --- | --- |
//! | the first signal | `Draining`: no new statement begins; running statements and sinks may finish |
//! | `shutdown_timeout` later | `Cancelling`: statements that still run are cancelled |
//! | [`GRACE`] later | the process exits with [`TIMED_OUT`] |
//! | a second signal | the process exits at once with [`INTERRUPTED`] |
//!
//! Exiting is as safe as a crash: with a data directory, the journal has everything that was acknowledged,
//! and its thread continues to write until the process exits.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use millstream::Engine;
use tokio::sync::watch;

use crate::logging::{self, Message};
use crate::stop::Stop;

/// Maximum time for the engine to stop after the running statements were cancelled.
const GRACE: Duration = Duration::from_secs(5);

/// The exit code after a second signal.
const INTERRUPTED: i32 = 130;

/// The exit code if the engine has not stopped in time.
const TIMED_OUT: i32 = 4;

/// The phase of the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No end was requested.
    Working,
    /// No new statement begins.
    Draining,
    /// Running statements are cancelled.
    Cancelling,
}

/// The program's end, as its parts see it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    engine: OnceLock<Engine>,
    /// True if SIGTERM or SIGHUP has begun it.
    terminated: AtomicBool,
    /// True while the main thread waits for a typed line, and can't stop the engine.
    prompting: AtomicBool,
}

impl Shutdown {
    /// Starts the thread that waits for the signals. From then on they don't end the program by themselves.
    pub fn start() -> io::Result<Shutdown> {
        let shutdown = Shutdown::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _within = runtime.enter();
            Watched::new()?
        };
        let watching = shutdown.clone();
        std::thread::Builder::new()
            .name("millstream-signals".into())
            .spawn(move || runtime.block_on(watching.watch(signals)))?;
        Ok(shutdown)
    }

    fn new() -> Shutdown {
        let shared = Shared {
            phase: watch::Sender::new(Phase::Working),
            engine: OnceLock::new(),
            terminated: AtomicBool::new(false),
            prompting: AtomicBool::new(false),
        };
        Shutdown { shared: Arc::new(shared) }
    }

    /// Sets the engine to stop.
    pub fn watch_over(&self, engine: Engine) {
        // There is one engine a program.
        let _ = self.shared.engine.set(engine);
    }

    /// Begins the end, as Ctrl-C does when it ends the program: it takes no longer than after SIGTERM.
    pub fn begin(&self) {
        self.raise(Phase::Draining);
    }

    /// Returns true if no new statement may begin.
    pub fn is_draining(&self) -> bool {
        *self.shared.phase.borrow() >= Phase::Draining
    }

    /// Returns true if the engine must process the rows that sources have received before it ends.
    pub fn is_graceful(&self) -> bool {
        let settings = self.shared.engine.get().map(Engine::shutdown);
        self.shared.terminated.load(Ordering::SeqCst) && settings.is_some_and(|settings| settings.gracefully)
    }

    /// Waits until the phase is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.shared.phase.subscribe();
        if phases.wait_for(|now| *now >= phase).await.is_err() {
            // Can't happen, since this holds the sender; no further phase is reached then.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for `work` that may never end by itself. Drops it when the program begins to end.
    pub async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.reached(Phase::Draining) => Err(Stop::Interrupted),
            result = work => Ok(result),
        }
    }

    /// Waits on this thread for a typed line. Returns `None` if the program is ending.
    pub fn prompt<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        self.shared.prompting.store(true, Ordering::SeqCst);
        // If the end began before this store, the signal thread did not see it.
        let read = (!self.is_draining()).then(read);
        self.shared.prompting.store(false, Ordering::SeqCst);
        read
    }

    fn raise(&self, to: Phase) {
        self.shared.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }

    /// Waits for the first signal, then makes sure that the process ends.
    async fn watch(self, mut signals: Watched) {
        tokio::select! {
            () = signals.terminated() => {
                self.shared.terminated.store(true, Ordering::SeqCst);
                self.raise(Phase::Draining);
            }
            () = self.reached(Phase::Draining) => {}
        }
        // A Ctrl-C that began the end is not a second signal.
        signals.forget();
        let Some(engine) = self.shared.engine.get().cloned() else {
            // A starting engine has not acknowledged anything that could be lost.
            std::process::exit(INTERRUPTED);
        };
        let code = tokio::select! {
            () = signals.any() => INTERRUPTED,
            code = self.run_down(&engine) => code,
        };
        std::process::exit(code);
    }

    /// Waits while the main thread ends the program. Returns the exit code if it doesn't.
    async fn run_down(&self, engine: &Engine) -> i32 {
        let timeout = engine.shutdown().timeout;
        let at_prompt = self.stop_at_prompt(engine);
        tokio::pin!(at_prompt);
        if let Ok(code) = tokio::time::timeout(timeout, &mut at_prompt).await {
            return code;
        }
        self.raise(Phase::Cancelling);
        if let Ok(code) = tokio::time::timeout(GRACE, &mut at_prompt).await {
            return code;
        }
        logging::tell(Message::Failure(&format!(
            "error: the engine has not stopped within shutdown_timeout ({} s) and {} s more: the process exits without it. \
             With --data the next start continues from the journal",
            timeout.as_secs_f64(),
            GRACE.as_secs()
        )));
        TIMED_OUT
    }

    /// Stops the engine in place of a main thread that waits for a line. Otherwise never returns.
    async fn stop_at_prompt(&self, engine: &Engine) -> i32 {
        if !self.shared.prompting.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let stopped = if self.is_graceful() { engine.stop_gracefully().await } else { engine.stop().await };
        // A full-screen view may control the terminal.
        let _ = crossterm::terminal::disable_raw_mode();
        match stopped {
            Ok(()) => 0,
            Err(error) => {
                let stop = Stop::engine(&error);
                logging::tell(Message::Failure(&stop.to_string()));
                i32::from(stop.code())
            }
        }
    }
}

/// The signals that the thread waits for.
#[cfg(unix)]
struct Watched {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// None under nohup, which lets a program outlive its terminal.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Watched {
    fn new() -> io::Result<Watched> {
        use tokio::signal::unix::{SignalKind, signal};
        // Read before the handler is installed, which changes the answer.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ok(Watched {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if ignores_hangup(&status) { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next SIGTERM or SIGHUP.
    async fn terminated(&mut self) {
        either(&mut self.terminate, self.hangup.as_mut()).await;
    }

    /// Waits for the next signal of any kind.
    async fn any(&mut self) {
        let Watched { interrupt, terminate, hangup } = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            () = either(terminate, hangup.as_mut()) => {}
        }
    }

    /// Discards a Ctrl-C received already.
    fn forget(&mut self) {
        while let Some(Some(())) = self.interrupt.recv().now_or_never() {}
    }
}

#[cfg(unix)]
async fn either(
    terminate: &mut tokio::signal::unix::Signal,
    hangup: Option<&mut tokio::signal::unix::Signal>,
) {
    let hung_up = async {
        match hangup {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hung_up => {}
    }
}

/// Returns true if a process with this status (Linux's format) ignores SIGHUP, because nohup has started
/// it.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, the lowest bit.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

/// The signals that the thread waits for.
#[cfg(windows)]
struct Watched {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Watched {
    fn new() -> io::Result<Watched> {
        Ok(Watched { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn terminated(&mut self) {
        std::future::pending::<()>().await;
    }

    async fn any(&mut self) {
        let _ = self.interrupt.recv().await;
    }

    fn forget(&mut self) {
        while let Some(Some(())) = self.interrupt.recv().now_or_never() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("nothing is asked of it").block_on(work)
    }

    #[test]
    fn phases_only_go_forward() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_draining());
        assert_eq!(block_on(shutdown.unless_draining(async { 1 })), Ok(1));
        shutdown.raise(Phase::Cancelling);
        shutdown.begin();
        assert_eq!(*shutdown.shared.phase.borrow(), Phase::Cancelling);
        block_on(shutdown.reached(Phase::Draining));
        block_on(shutdown.reached(Phase::Cancelling));
        assert_eq!(block_on(shutdown.unless_draining(async { 1 })), Err(Stop::Interrupted));
    }

    #[test]
    fn no_line_is_waited_for_when_the_program_ends() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.prompt(|| "line"), Some("line"));
        shutdown.begin();
        assert_eq!(shutdown.prompt(|| "line"), None);
        assert!(!shutdown.shared.prompting.load(Ordering::SeqCst));
    }

    #[test]
    fn ctrl_c_is_never_graceful() {
        let engine = Engine::start().unwrap();
        let shutdown = Shutdown::new();
        shutdown.watch_over(engine.clone());
        let mut session = engine.session();
        block_on(session.execute("SET stop_gracefully = on")).unwrap();
        shutdown.begin();
        assert!(!shutdown.is_graceful());
        shutdown.shared.terminated.store(true, Ordering::SeqCst);
        assert!(shutdown.is_graceful());
        block_on(session.execute("SET stop_gracefully = off")).unwrap();
        assert!(!shutdown.is_graceful());
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_nohup_started_outlives_its_terminal() {
        assert!(ignores_hangup("Name:\tx\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
