//! The bytes of one connection, on their way from the reading thread to the source.

use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use memchr::memchr;
use tokio::sync::Notify;

/// Maximum number of buffered bytes, but for those of one read. At this limit the reading thread waits.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Maximum bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer closed the connection; a last line without a line end is complete.
    Whole,
    /// The connection broke, for this reason.
    Broken(String),
    /// The source no longer takes bytes.
    Closed,
}

/// The buffered bytes of one connection.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The split of the source that the bytes belong to.
    pub split: Arc<str>,
    /// The peer that sends the bytes.
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
    /// Creates an empty feed that notifies `arrived` when there are bytes to take.
    pub fn new(split: Arc<str>, peer: Arc<str>, arrived: Arc<Notify>) -> Feed {
        Feed { split, peer, state: Mutex::default(), room: Condvar::new(), arrived }
    }

    /// Reads `input` to its end, and waits while the buffer is full. Returns the kind of end and the number
    /// of bytes.
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

    /// Adds bytes when there is room. Returns false if the source no longer takes them.
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

    /// Takes the buffered bytes, and the end if it is known. While a record of `pending` bytes is
    /// incomplete, leaves a small number of bytes without a line end in the buffer. So a long record isn't
    /// copied for each of its pieces.
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

    /// Closes the feed, which stops the reading thread.
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
