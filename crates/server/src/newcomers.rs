//! Connections that have not logged in: how many there may be, and which one goes when there are more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The connections that have not logged in. They must not take the place of clients that do, which takes these only
/// milliseconds: when there are too many, the one that has waited longest goes.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    by_number: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection that has not logged in; it has once this is dropped.
#[derive(Debug)]
pub(crate) struct Newcomer {
    number: u64,
    ousted: oneshot::Receiver<()>,
    newcomers: Arc<Newcomers>,
}

impl Newcomers {
    /// Adds a connection; at most `most` stay.
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
    /// Returns when it has to make room for another.
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
        // Whoever logs in makes room, too.
        drop(second);
        second = newcomers.enter(2);
        for newcomer in [&mut second, &mut third] {
            assert_eq!(newcomer.ousted().now_or_never(), None);
        }
        drop(first);
        assert_eq!(newcomers.waiting.lock().unwrap().by_number.len(), 2);
    }
}
