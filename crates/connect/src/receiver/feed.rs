//! The bytes of one connection, on their way from a thread that reads to the source that takes.

use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use memchr::memchr;
use tokio::sync::Notify;

/// Bytes that wait at most, but for what one read brought: a reader that meets this waits.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Bytes of one read at most.
const READ_BYTES: usize = 64 << 10;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side said so; a last line without its line end is whole.
    Whole,
    /// It broke, for this reason.
    Broken(String),
    /// Nobody takes what comes any more.
    Closed,
}

/// One connection's bytes.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Which split of the source they belong to.
    pub split: Arc<str>,
    /// Whom they come from.
    pub peer: Arc<str>,
    state: Mutex<State>,
    room: Condvar,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    end: Option<End>,
    closed: bool,
}

impl Feed {
    /// An empty feed that tells `arrived` when there is something to take.
    pub fn new(split: Arc<str>, peer: Arc<str>, arrived: Arc<Notify>) -> Feed {
        Feed { split, peer, state: Mutex::default(), room: Condvar::new(), arrived }
    }

    /// Reads `input` to its end, waiting while too much waits to be taken. Says how it ended and how many bytes it
    /// had.
    pub fn fill(&self, mut input: impl Read) -> (End, u64) {
        let mut buffer = vec![0; READ_BYTES];
        let mut total = 0;
        let end = loop {
            match input.read(&mut buffer) {
                Ok(0) => break End::Whole,
                Ok(count) => {
                    total += count as u64;
                    if !self.push(&buffer[..count]) {
                        break End::Closed;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break End::Broken(error.to_string()),
            }
        };
        self.state().end = Some(end.clone());
        self.arrived.notify_one();
        (end, total)
    }

    /// Adds bytes when there is room; `false` when nobody takes them any more.
    fn push(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        while state.bytes.len() >= WAITING_BYTES_MAX && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        state.bytes.extend_from_slice(bytes);
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// Takes what is there, and the end where it is known. With `pending` bytes of a record that is not complete,
    /// few more without a line end are left to grow, so that a long record isn't copied for each of its pieces.
    pub fn take(&self, pending: usize) -> (Vec<u8>, Option<End>) {
        let mut state = self.state();
        let few = state.bytes.len() < (pending / 2).min(WAITING_BYTES_MAX / 2);
        if few && pending > READ_BYTES && state.end.is_none() && memchr(b'\n', &state.bytes).is_none() {
            return (Vec::new(), None);
        }
        let bytes = std::mem::take(&mut state.bytes);
        self.room.notify_one();
        (bytes, state.end.clone())
    }

    /// Takes nothing more: whoever reads stops.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.bytes = Vec::new();
        self.room.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Arc<Feed> {
        Arc::new(Feed::new("s".into(), "p".into(), Arc::default()))
    }

    #[test]
    fn a_reader_waits_while_too_much_waits() {
        let feed = feed();
        let reader = {
            let feed = feed.clone();
            std::thread::spawn(move || feed.fill(std::io::repeat(b'x').take(10 << 20)))
        };
        let mut total = 0;
        loop {
            let (bytes, end) = feed.take(0);
            assert!(bytes.len() < WAITING_BYTES_MAX + READ_BYTES);
            total += bytes.len();
            if end.is_some() {
                break;
            }
        }
        assert_eq!((total, reader.join().unwrap()), (10 << 20, (End::Whole, 10 << 20)));
    }

    #[test]
    fn a_closed_feed_ends_its_reader() {
        let feed = feed();
        let reader = {
            let feed = feed.clone();
            std::thread::spawn(move || feed.fill(std::io::repeat(b'x')))
        };
        feed.close();
        assert_eq!(reader.join().unwrap().0, End::Closed);
    }

    #[test]
    fn few_bytes_of_a_long_record_are_left_to_grow() {
        let feed = feed();
        assert!(feed.push(b"abc"));
        assert_eq!(feed.take(1 << 20), (vec![], None));
        assert!(feed.push(b"\n"));
        assert_eq!(feed.take(1 << 20), (b"abc\n".to_vec(), None));
    }
}
