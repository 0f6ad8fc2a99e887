//! A receiver that clients connect to.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Endpoint, spawn};
use crate::receiver::{Inbox, Stop, backoff};
use crate::{Health, Result};

/// Maximum time to reach our own listener.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time for a dropped source to release its address, and the interval of the checks.
const LET_GO_TIMEOUT: Duration = Duration::from_millis(500);
const LET_GO_PAUSE: Duration = Duration::from_millis(10);

/// A listener for clients.
pub(super) struct Door {
    pub endpoint: Endpoint,
    pub listener: TcpListener,
    pub connections_max: usize,
}

/// Listens at `endpoint`. Retries for a moment, because a source just dropped may still hold the address.
pub(super) fn bind(endpoint: &Endpoint) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind((endpoint.host.as_str(), endpoint.port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && began.elapsed() < LET_GO_TIMEOUT => {
                std::thread::sleep(LET_GO_PAUSE);
            }
            result => return result,
        }
    }
}

/// Starts the thread that accepts clients.
pub(super) fn start(door: Door, inbox: Arc<Inbox>, stop: Arc<Stop>, health: Health) -> Result<()> {
    let name = door.endpoint.to_string();
    spawn(&name.clone(), move || {
        let split: Arc<str> = name.as_str().into();
        let address = door.listener.local_addr().ok();
        // Only a client ends the wait for clients, so stopping connects to the listener.
        let _registered = stop.register(move || {
            if let Some(address) = address {
                let _ = TcpStream::connect_timeout(&reachable(address), KNOCK_TIMEOUT);
            }
        });
        let connections = Arc::new(AtomicUsize::new(0));
        let mut attempt = 0;
        loop {
            let accepted = door.listener.accept();
            if stop.is_stopped() {
                return;
            }
            let admitted = accepted.map_err(|error| error.to_string()).and_then(|(stream, peer)| {
                if connections.load(Ordering::SeqCst) >= door.connections_max {
                    tracing::warn!(%peer, connections_max = door.connections_max, "too many clients: one was disconnected");
                    return Ok(());
                }
                let peer: Arc<str> = peer.to_string().into();
                admit(stream, (&split, peer), &inbox, &stop, &connections).map_err(|error| error.to_string())
            });
            match admitted {
                Ok(()) => {
                    attempt = 0;
                    health.well(&name);
                }
                Err(error) => {
                    attempt += 1;
                    health.restarting(
                        &name,
                        format!("could not take a client's connection: {error}"),
                        attempt,
                    );
                    if stop.pause(backoff(attempt)) {
                        return;
                    }
                }
            }
        }
    })
}

/// Reads one client on a thread of its own.
fn admit(
    stream: TcpStream,
    (split, peer): (&Arc<str>, Arc<str>),
    inbox: &Inbox,
    stop: &Arc<Stop>,
    connections: &Arc<AtomicUsize>,
) -> Result<()> {
    let other = stream.try_clone().map_err(|error| crate::Error::External(error.to_string()))?;
    let registered = stop.register(move || {
        let _ = other.shutdown(Shutdown::Both);
    });
    connections.fetch_add(1, Ordering::SeqCst);
    let open = connections.clone();
    let feed = inbox.open(split, peer.clone());
    let started = spawn(&peer, {
        let feed = feed.clone();
        move || {
            let _registered = registered;
            feed.fill(stream);
            open.fetch_sub(1, Ordering::SeqCst);
        }
    });
    if started.is_err() {
        feed.fill(std::io::empty());
        connections.fetch_sub(1, Ordering::SeqCst);
    }
    started
}

/// Returns an address at which this machine reaches a listener at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port())
}
