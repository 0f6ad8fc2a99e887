//! The signals that ask the program to end.

use std::future::Future;
use std::io;

use futures::FutureExt;

use crate::page::Page;
use crate::stop::Stop;

/// Waits for signals, and for the output's being closed. While it exists signals don't end the program by
/// themselves.
pub struct Signals {
    interrupt: Interrupt,
    terminate: Option<Interrupt>,
    page: Page,
}

impl Signals {
    /// Takes Ctrl-C, and the signal that asks a program to end.
    pub fn all(page: Page) -> io::Result<Self> {
        Ok(Signals { interrupt: interrupt()?, terminate: terminate()?, page })
    }

    /// Takes Ctrl-C alone: a shell that waits for a line must be ended by the other at once.
    pub fn interrupt_only(page: Page) -> io::Result<Self> {
        Ok(Signals { interrupt: interrupt()?, terminate: None, page })
    }

    /// Returns at the next signal.
    async fn signal(&mut self) {
        let Signals { interrupt, terminate, .. } = self;
        let terminated = async {
            match terminate {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminated => {}
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

    /// Takes note of signals that have come already, so that they don't end what is begun next.
    pub fn forget(&mut self) {
        while self.received().now_or_never().is_some() {}
    }

    /// Waits for `work`, which a signal drops, but which needs nobody who reads the output.
    pub async fn unless_signal<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.signal() => Err(Stop::Interrupted),
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
}

#[cfg(unix)]
type Interrupt = tokio::signal::unix::Signal;

#[cfg(unix)]
fn interrupt() -> io::Result<Interrupt> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(unix)]
fn terminate() -> io::Result<Option<Interrupt>> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map(Some)
}

#[cfg(windows)]
type Interrupt = tokio::signal::windows::CtrlC;

#[cfg(windows)]
fn interrupt() -> io::Result<Interrupt> {
    tokio::signal::windows::ctrl_c()
}

#[cfg(windows)]
fn terminate() -> io::Result<Option<Interrupt>> {
    Ok(None)
}
