//! Interrupts the present work on Ctrl-C, at the program's end, or when the output is closed.

use std::io;

use futures::FutureExt;

use crate::page::Page;
use crate::shutdown::{Phase, Shutdown};
use crate::stop::Stop;

/// Waits for signals, and for the closing of the output. While this exists, signals don't end the program
/// by themselves.
pub struct Signals {
    interrupt: Interrupt,
    /// The program's end, which SIGTERM and SIGHUP begin.
    pub(crate) shutdown: Shutdown,
    page: Page,
}

impl Signals {
    /// Installs handlers for Ctrl-C and the termination signals.
    pub fn new(page: Page) -> io::Result<Self> {
        Ok(Signals { interrupt: interrupt()?, shutdown: Shutdown::start()?, page })
    }

    /// Waits for the next Ctrl-C, or until running statements must be cancelled.
    async fn signal(&mut self) {
        let Signals { interrupt, shutdown, .. } = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            () = shutdown.reached(Phase::Cancelling) => {}
        }
    }

    /// Waits for the next signal, or until the output is closed.
    async fn received(&mut self) -> Stop {
        let page = self.page.clone();
        tokio::select! {
            biased;
            () = self.signal() => Stop::Interrupted,
            () = page.closed() => Stop::Closed,
        }
    }

    /// Discards a Ctrl-C received already, so that it doesn't end the next work.
    pub fn forget(&mut self) {
        while let Some(Some(())) = self.interrupt.recv().now_or_never() {}
        let _ = self.page.closed().now_or_never();
    }

    /// Waits for `work`. A signal cancels it; a closed output doesn't.
    pub async fn unless_signal<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.signal() => Err(Stop::Interrupted),
            result = work => Ok(result),
        }
    }

    /// Waits for `work`. Only Ctrl-C cancels it.
    pub async fn unless_interrupted<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Err(Stop::Interrupted),
            result = work => Ok(result),
        }
    }

    /// Waits for `work`. A signal or a closed output cancels it.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            stop = self.received() => Err(stop),
            result = work => Ok(result),
        }
    }

    /// Like [`Signals::unless`], for `work` that may never end by itself: also cancels it when the program
    /// begins to end.
    pub async fn unless_ending<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let shutdown = self.shutdown.clone();
        self.unless(shutdown.unless_draining(work)).await.and_then(|done| done)
    }
}

#[cfg(unix)]
type Interrupt = tokio::signal::unix::Signal;

#[cfg(unix)]
fn interrupt() -> io::Result<Interrupt> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
type Interrupt = tokio::signal::windows::CtrlC;

#[cfg(windows)]
fn interrupt() -> io::Result<Interrupt> {
    tokio::signal::windows::ctrl_c()
}
