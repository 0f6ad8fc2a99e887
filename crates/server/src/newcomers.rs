//! Limits the connections that have not logged in, and ends the oldest when there are too many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The connections that have not logged in. They must not take the place of real clients, whose login takes
/// only milliseconds. If there are too many, the one that has waited longest is ended.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    by_number: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection that has not logged in. Dropping this marks it as logged in.
#[derive(Debug)]
pub(crate) struct Newcomer {
    number: u64,
    ousted: oneshot::Receiver<()>,
    newcomers: Arc<Newcomers>,
}

impl Newcomers {
    /// Adds a connection and ends the oldest ones beyond `most`.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Newcomer {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.by_number.len() >= most.max(1)
            && let Some((_, oust)) = waiting.by_number.pop_first()
        {
            let _ = oust.send(());
        }
        waiting.last += 1;
        let number = waiting.last;
        let (oust, ousted) = oneshot::channel();
        waiting.by_number.insert(number, oust);
        Newcomer { number, ousted, newcomers: Arc::clone(self) }
    }
}

impl Newcomer {
    /// Waits until the connection must make room for another.
    pub(crate) async fn ousted(&mut self) {
        let _ = (&mut self.ousted).await;
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut waiting = self.newcomers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_has_waited_longest_makes_room() {
        let newcomers = Arc::new(Newcomers::default());
        let (mut first, mut second) = (newcomers.enter(2), newcomers.enter(2));
        assert_eq!(first.ousted().now_or_never(), None);
        let mut third = newcomers.enter(2);
        assert_eq!(first.ousted().now_or_never(), Some(()));
        // A login makes room, too.
        drop(second);
        second = newcomers.enter(2);
        for newcomer in [&mut second, &mut third] {
            assert_eq!(newcomer.ousted().now_or_never(), None);
        }
        drop(first);
        assert_eq!(newcomers.waiting.lock().unwrap().by_number.len(), 2);
    }
}
