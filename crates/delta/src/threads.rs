//! Threads that nobody joins.
//!
//! A thread must not end while it is detached: glibc's `pthread_detach` reads the thread's descriptor, which lies on the
//! thread's stack, and large stacks are unmapped as soon as their threads end. The process would then end with a
//! segmentation fault. So threads here begin their work after they are detached, and the threads of a runtime are joined.

use std::io;
use std::sync::mpsc::channel;
use std::thread::Builder;

/// Starts a thread that nobody joins.
pub fn spawn_detached(builder: Builder, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (detached, is_detached) = channel::<()>();
    let thread = builder.spawn(move || {
        // The error says that the sender was dropped: the thread is detached.
        let _ = is_detached.recv();
        work();
    })?;
    drop(thread);
    drop(detached);
    Ok(())
}

/// Drops a value on a thread of its own, so that the caller waits for nothing; for example a runtime, whose `drop` joins
/// its threads and may not be called from a task. If no thread can be started, it calls `otherwise`.
pub fn drop_on_thread<T: Send + 'static>(value: T, otherwise: impl FnOnce(T)) {
    let (sender, receiver) = channel::<T>();
    let builder = Builder::new().name("millstream-end".into());
    match spawn_detached(builder, move || drop(receiver.recv())) {
        Ok(()) => drop(sender.send(value)),
        Err(_) => otherwise(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender};
    use std::thread::{self, ThreadId};

    /// Waits when it is dropped, then reports the thread that dropped it.
    struct Slow(Receiver<()>, Sender<ThreadId>);

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.recv().unwrap();
            self.1.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn a_value_is_dropped_on_another_thread() {
        let ((go, wait), (sender, dropped)) = (channel(), channel());
        drop_on_thread(Slow(wait, sender), |_| panic!("a thread can be started"));
        go.send(()).unwrap();
        assert_ne!(dropped.recv().unwrap(), thread::current().id());
    }

    #[test]
    fn threads_with_large_stacks_end_at_once() {
        let start = |_| {
            thread::spawn(|| {
                for _ in 0..500 {
                    let large = Builder::new().stack_size(crate::STACK_BYTES);
                    spawn_detached(large, || ()).unwrap();
                }
            })
        };
        (0..8).map(start).collect::<Vec<_>>().into_iter().for_each(|starting| starting.join().unwrap());
    }
}
