//! Ends running statements from outside: on a cancel request, or because the server stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng;
use tokio::sync::watch;

/// A phase of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Clients are served.
    Serving,
    /// Running statements may finish; no new one begins.
    Draining,
    /// Running statements are cancelled.
    Stopping,
}

/// A connection's view of the server's phase.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    phase: watch::Receiver<Phase>,
}

impl Ending {
    /// Creates the view of a server's phase.
    pub(crate) fn of(phase: watch::Receiver<Phase>) -> Ending {
        Ending { phase }
    }

    /// Waits until the phase is reached, or the server is gone.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    /// Returns true if the phase is reached.
    pub(crate) fn has_reached(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }
}

/// Maximum bytes of messages in memory of all connections together, beyond `FREE_BYTES` of each.
pub(crate) const MESSAGES_BYTES_MAX: usize = 512 << 20;

/// Bytes of a connection's messages that don't count.
const FREE_BYTES: usize = 64 << 10;

/// Bytes of a secret key.
const SECRET_BYTES: usize = 4;

/// The open connections, each with a channel that cancels its running statement.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u32,
    /// Bytes of messages in memory that count.
    message_bytes: usize,
    by_process: HashMap<u32, ([u8; SECRET_BYTES], watch::Sender<u64>)>,
}

/// A connection's entry, removed on drop.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) process: u32,
    pub(crate) secret: [u8; SECRET_BYTES],
    pub(crate) cancels: watch::Receiver<u64>,
    connections: Arc<Connections>,
    /// Bytes of its messages that count.
    charged: usize,
}

impl Connections {
    /// Adds a connection; returns `None` if `most` are open.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<Entry> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.by_process.len() >= most {
            return None;
        }
        loop {
            open.last = open.last % (i32::MAX as u32) + 1;
            if !open.by_process.contains_key(&open.last) {
                break;
            }
        }
        let process = open.last;
        let secret = rand::rng().random();
        let (sender, cancels) = watch::channel(0);
        open.by_process.insert(process, (secret, sender));
        Some(Entry { process, secret, cancels, connections: Arc::clone(self), charged: 0 })
    }

    /// Cancels the running statement of a connection, if the secret is right.
    pub(crate) fn cancel(&self, process: u32, secret: &[u8]) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((own, cancels)) = open.by_process.get(&process)
            && own == secret
        {
            cancels.send_modify(|count| *count += 1);
        }
    }
}

impl Entry {
    /// Counts the bytes of the connection's message in memory. Returns false, and changes nothing, if the
    /// messages of all connections would be too large.
    pub(crate) fn try_charge(&mut self, bytes: usize) -> bool {
        let counted = bytes.saturating_sub(FREE_BYTES);
        if counted == self.charged {
            return true;
        }
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all = open.message_bytes - self.charged + counted;
        if counted > self.charged && all > MESSAGES_BYTES_MAX {
            return false;
        }
        open.message_bytes = all;
        self.charged = counted;
        true
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_process.remove(&self.process);
        open.message_bytes -= self.charged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_connections_have_a_bound() {
        let connections = Arc::new(Connections::default());
        let (mut one, mut other) = (connections.enter(2).unwrap(), connections.enter(2).unwrap());
        assert!(one.try_charge(MESSAGES_BYTES_MAX));
        // Short messages always have room.
        assert!(other.try_charge(FREE_BYTES));
        assert!(!other.try_charge(3 * FREE_BYTES));
        assert!(one.try_charge(MESSAGES_BYTES_MAX / 2));
        assert!(other.try_charge(3 * FREE_BYTES));
        drop(one);
        assert_eq!(connections.open.lock().unwrap().message_bytes, 2 * FREE_BYTES);
        assert!(other.try_charge(0));
        assert_eq!(connections.open.lock().unwrap().message_bytes, 0);
    }

    #[test]
    fn only_who_knows_the_secret_cancels() {
        let connections = Arc::new(Connections::default());
        let entry = connections.enter(1).unwrap();
        assert!(connections.enter(1).is_none());
        let mut wrong = entry.secret;
        wrong[0] ^= 1;
        connections.cancel(entry.process, &wrong);
        assert!(!entry.cancels.has_changed().unwrap());
        connections.cancel(entry.process, &entry.secret);
        assert!(entry.cancels.has_changed().unwrap());
        drop(entry);
        assert!(connections.enter(1).is_some());
    }
}
