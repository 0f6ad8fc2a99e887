//! Ctrl-C, the program's end and a closed output end the work at hand.

use std::io;

use futures::FutureExt;

use crate::page::Page;
use crate::shutdown::{Phase, Shutdown};
use crate::stop::Stop;

/// Waits for signals, and for the output's being closed. While it exists signals don't end the program by
/// themselves.
pub struct Signals {
    interrupt: Interrupt,
    /// The program's end, which SIGTERM and SIGHUP begin.
    pub(crate) shutdown: Shutdown,
    page: Page,
}

impl Signals {
    /// Takes Ctrl-C, and the signals that ask a program to end.
    pub fn new(page: Page) -> io::Result<Self> {
        Ok(Signals { interrupt: interrupt()?, shutdown: Shutdown::start()?, page })
    }

    /// Returns at the next Ctrl-C, or when running statements are to be cancelled.
    async fn signal(&mut self) {
        let Signals { interrupt, shutdown, .. } = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            () = shutdown.reached(Phase::Cancelling) => {}
        }
    }

    /// Returns at the next signal, or when nobody reads the output any more.
    async fn received(&mut self) -> Stop {
        let page = self.page.clone();
        tokio::select! {
            biased;
            () = self.signal() => Stop::Interrupted,
            () = page.closed() => Stop::Closed,
        }
    }

    /// Forgets a Ctrl-C that has come already, so that it doesn't end what is begun next.
    pub fn forget(&mut self) {
        while let Some(Some(())) = self.interrupt.recv().now_or_never() {}
        let _ = self.page.closed().now_or_never();
    }

    /// Waits for `work`, which a signal drops, but which needs nobody who reads the output.
    pub async fn unless_signal<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.signal() => Err(Stop::Interrupted),
            result = work => Ok(result),
        }
    }

    /// Waits for `work`, which Ctrl-C alone drops.
    pub async fn unless_interrupted<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Err(Stop::Interrupted),
            result = work => Ok(result),
        }
    }

    /// Waits for `work`, which a signal drops, and a reader that goes.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            stop = self.received() => Err(stop),
            result = work => Ok(result),
        }
    }

    /// The same of `work` that may never end by itself: it is dropped as soon as the program begins to end.
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
