//! A receiver that connects to a server, and reconnects whenever the connection ends.

use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, spawn};
use crate::receiver::{End, Inbox, Stop, backoff};
use crate::{Health, Result};

/// Maximum time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the receiver's thread.
pub(super) fn start(endpoint: Endpoint, inbox: Arc<Inbox>, stop: Arc<Stop>, health: Health) -> Result<()> {
    let name = endpoint.to_string();
    spawn(&name.clone(), move || {
        let split: Arc<str> = name.as_str().into();
        let mut attempt = 0;
        while !stop.is_stopped() {
            let reason = match receive(&endpoint, &split, &inbox, &stop, &health) {
                // A server that accepts a connection and ends it at once is retried after a pause.
                Ok((end, bytes)) => {
                    attempt = if bytes > 0 { 0 } else { attempt };
                    match end {
                        End::Whole => "the server has closed the connection".to_string(),
                        End::Closed => "it sent a header that doesn't fit; see bad_rows".to_string(),
                        End::Broken(reason) => format!("the connection broke: {reason}"),
                    }
                }
                Err(error) => format!("could not connect: {error}"),
            };
            attempt += 1;
            health.restarting(&name, reason, attempt);
            if stop.pause(backoff(attempt)) {
                return;
            }
        }
    })
}

/// Connects and reads until the connection ends.
fn receive(
    endpoint: &Endpoint,
    split: &Arc<str>,
    inbox: &Inbox,
    stop: &Arc<Stop>,
    health: &Health,
) -> std::io::Result<(End, u64)> {
    let stream = connect(endpoint)?;
    let other = stream.try_clone()?;
    let _registered = stop.register(move || {
        let _ = other.shutdown(Shutdown::Both);
    });
    health.well(split);
    let feed = inbox.open(split, split.clone());
    Ok(feed.fill(stream))
}

/// Connects to the first address that accepts.
fn connect(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let mut failure = None;
    for address in (endpoint.host.as_str(), endpoint.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| std::io::Error::other("the name has no address")))
}
