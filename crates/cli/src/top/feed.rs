//! The task that reads a server at an interval, and connects again when the server goes away.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::top::address::Address;
use crate::top::details::{Details, Object};
use crate::top::reading::Reading;
use crate::top::server::{Failure, Server};

/// The time between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

/// The view's needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The object whose details are shown.
    pub opened: Option<Object>,
    /// True if no readings are needed.
    pub is_paused: bool,
}

/// News for the view.
#[derive(Debug)]
pub enum Update {
    /// A reading.
    Read(Box<Reading>),
    /// The details of an object.
    Details(Details),
    /// The reason why the server can't be read now.
    Lost(String),
}

/// Reads the server until the view is gone.
pub async fn run(
    address: Address,
    server: Server,
    interval: Duration,
    mut wishes: watch::Receiver<Wish>,
    updates: mpsc::Sender<Update>,
) {
    let mut connected = Some(server);
    loop {
        let failure = match connected.take() {
            Some(server) => match follow(&server, interval, &mut wishes, &updates).await {
                Some(failure) => failure,
                None => return,
            },
            None => match Server::connect(&address).await {
                Ok(server) => {
                    connected = Some(server);
                    continue;
                }
                Err(failure) => failure,
            },
        };
        if updates.send(Update::Lost(failure.to_string())).await.is_err() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Reads a connected server until it fails. Returns `None` if the view is gone.
async fn follow(
    server: &Server,
    interval: Duration,
    wishes: &mut watch::Receiver<Wish>,
    updates: &mpsc::Sender<Update>,
) -> Option<Failure> {
    let mut due = Instant::now();
    let mut opened = None;
    loop {
        let wish = wishes.borrow_and_update().clone();
        let is_due = !wish.is_paused && Instant::now() >= due;
        if is_due {
            match server.read().await {
                Ok(reading) => updates.send(Update::Read(Box::new(reading))).await.ok()?,
                Err(failure) => return Some(failure),
            }
            due = Instant::now() + interval;
        }
        if let Some(object) = wish.opened.as_ref().filter(|_| is_due || opened != wish.opened) {
            match server.details(object).await {
                Ok(details) => updates.send(Update::Details(details)).await.ok()?,
                Err(failure) => return Some(failure),
            }
        }
        opened = wish.opened;
        tokio::select! {
            changed = wishes.changed() => changed.ok()?,
            () = sleep_until(due), if !wish.is_paused => {}
        }
    }
}
