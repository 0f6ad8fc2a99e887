//! Interrupts: the owner of a step ends it before it is done, since nobody needs its result any more.
//!
//! Steps that may take long check now and then; the step then fails, and its operators can't be used again. The threads
//! that help with a step check for it, too.
//!
//! Deliberately absent: interrupting a plan of DataFusion's between two of its batches.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

thread_local! {
    /// The interrupt of the work of this thread.
    static CURRENT: RefCell<Option<Interrupt>> = const { RefCell::new(None) };
}

/// Ends the work that runs with it, once it is raised.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends the work.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True if the work is to end.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Runs work that it can end.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let _restored = Restored(before);
        work()
    }

    /// Returns the interrupt of the work of this thread, if it has one.
    pub(crate) fn current() -> Option<Interrupt> {
        CURRENT.with_borrow(Clone::clone)
    }
}

/// Restores the interrupt of this thread when it is dropped, also by a panic.
struct Restored(Option<Interrupt>);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

/// Runs work of another thread's step.
pub(crate) fn run_with<T>(interrupt: Option<&Interrupt>, work: impl FnOnce() -> T) -> T {
    match interrupt {
        Some(interrupt) => interrupt.run(work),
        None => work(),
    }
}

/// Fails if the work of this thread is to end.
pub(crate) fn check() -> Result<()> {
    let is_raised = |current: &Option<Interrupt>| current.as_ref().is_some_and(Interrupt::is_raised);
    if CURRENT.with_borrow(is_raised) { Err(Error::Interrupted) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::parallelism::Threads;

    #[test]
    fn it_ends_the_work_of_helping_threads_and_nothing_else() {
        let threads = Threads::one();
        threads.set(NonZeroUsize::new(3).unwrap());
        let interrupt = Interrupt::default();
        let checks = || threads.spread((0..20).collect(), |_| check().is_err());
        assert!(interrupt.run(checks).iter().all(|ended| !ended));
        interrupt.raise();
        assert!(interrupt.run(checks).iter().all(|ended| *ended));
        assert!(checks().iter().all(|ended| !ended));
    }
}
