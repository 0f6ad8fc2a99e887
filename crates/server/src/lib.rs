//! A server for PostgreSQL clients.
//!
//! A [`Server`] speaks PostgreSQL's protocol 3.0 on a TCP port. Each connection drives a session of an
//! engine, as any other front end does. There are no users and no encryption yet, so it listens on the
//! loopback interface only.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use millstream_engine::Engine;
//! use millstream_server::Server;
//! let engine = Engine::start()?;
//! let server = Server::bind("127.0.0.1:0", engine.clone()).await?;
//! println!("psql -h 127.0.0.1 -p {}", server.address().port());
//! // The argument is ready at once, so the server stops.
//! server.run(async {}).await;
//! engine.stop().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod binary;
mod bits;
mod connection;
mod copy;
mod decode;
mod extended;
mod geometry;
mod interrupt;
mod map_keys;
mod message;
mod network;
mod newcomers;
mod oid;
mod query;
mod ranges;
mod report;
mod rows;
mod starting;
mod startup;
mod text;
mod text_rows;
mod wire;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::Engine;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::connection::Connection;
pub use crate::copy::{CopyReader, CopyWriter};
use crate::interrupt::{Connections, Ending, Phase};
use crate::newcomers::{Newcomer, Newcomers};
pub use crate::starting::Starting;
pub use crate::text_rows::TextRows;
use crate::wire::Wire;

/// Maximum number of connected clients.
const CONNECTIONS_MAX: usize = 10_000;

/// Maximum number of connections that have not logged in.
const NEWCOMERS_MAX: usize = 256;

/// Time to wait for clients when the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// A failure to start listening.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is invalid.
    #[error("\"{address}\" is no address to listen on ({source}): write it as 127.0.0.1:4777")]
    Address {
        /// The given address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// The address is reachable from other machines.
    #[error(
        "{0} can be reached from other machines, where anyone could connect: there are no users and no \
         encryption yet, so listen on 127.0.0.1 or [::1], and put an SSH tunnel or a proxy in front of it"
    )]
    Open(SocketAddr),
    /// Another program uses the port.
    #[error("port {} of {} is taken: stop the program that listens there, or choose another port", .0.port(), .0.ip())]
    Taken(SocketAddr),
    /// The system refuses.
    #[error("{address} can't be listened on: {source}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The system starts no threads.
    #[error("the threads that serve can't be started: {0}")]
    Threads(io::Error),
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    engine: Engine,
    connections: Arc<Connections>,
    newcomers: Arc<Newcomers>,
}

impl Server {
    /// Starts listening on an address of this machine, `host:port`; port 0 selects a free one.
    pub async fn bind(address: &str, engine: Engine) -> Result<Server, ListenError> {
        let (listener, address) = listen(address).await?;
        Ok(Server::on(listener, address, engine))
    }

    fn on(listener: TcpListener, address: SocketAddr, engine: Engine) -> Server {
        Server { listener, address, engine, connections: Arc::default(), newcomers: Arc::default() }
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `stop` is ready. Then cancels running statements, notifies the clients, and
    /// waits a short time for them. Returns the number of connections that a bug of the server ended.
    pub async fn run(self, stop: impl Future<Output = ()>) -> usize {
        self.run_until(std::future::pending(), stop).await
    }

    /// Like `run`, but first drains: once `drain` is ready, it accepts no connection and no new statement,
    /// and lets running statements finish. Returns as soon as all clients are gone. `stop` cancels the
    /// statements that still run.
    pub async fn run_until(self, drain: impl Future<Output = ()>, stop: impl Future<Output = ()>) -> usize {
        let (sender, phase) = watch::channel(Phase::Serving);
        let ending = Ending::of(phase);
        let mut clients = JoinSet::new();
        tokio::pin!(drain, stop);
        let mut panicked = 0;
        let mut ended = |ended: Result<(), JoinError>| {
            if let Err(error) = ended {
                tracing::error!(%error, "a connection was closed by an internal error");
                panicked += 1;
            }
        };
        loop {
            tokio::select! {
                biased;
                () = &mut stop => {
                    let _ = sender.send(Phase::Stopping);
                    break;
                }
                () = &mut drain => {
                    let _ = sender.send(Phase::Draining);
                    break;
                }
                Some(done) = clients.join_next(), if !clients.is_empty() => ended(done),
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        let newcomer = self.newcomers.enter(NEWCOMERS_MAX);
                        let (engine, connections) = (self.engine.clone(), self.connections.clone());
                        clients.spawn(serve(socket, newcomer, engine, connections, ending.clone()));
                    }
                    Err(error) => {
                        // For example, too many open files; some may be closed soon.
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(self.listener);
        while !clients.is_empty() && !ending.has_reached(Phase::Stopping) {
            tokio::select! {
                biased;
                () = &mut stop => {
                    let _ = sender.send(Phase::Stopping);
                }
                Some(done) = clients.join_next() => ended(done),
            }
        }
        let gone = async {
            while let Some(done) = clients.join_next().await {
                ended(done);
            }
        };
        let _ = tokio::time::timeout(GOODBYE, gone).await;
        panicked
    }
}

/// Starts listening on an address of this machine, `host:port`, which other machines can't reach.
pub async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let named = |source| ListenError::Address { address: address.to_string(), source };
    let mut found = lookup_host(address).await.map_err(named)?;
    let first = found.next().ok_or_else(|| named(io::ErrorKind::AddrNotAvailable.into()))?;
    if !first.ip().is_loopback() {
        return Err(ListenError::Open(first));
    }
    let listener = TcpListener::bind(first).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(first),
        _ => ListenError::Refused { address: first, source },
    })?;
    let address = listener.local_addr().map_err(|source| ListenError::Refused { address: first, source })?;
    Ok((listener, address))
}

/// Serves one client until it leaves.
async fn serve(
    mut socket: TcpStream,
    mut newcomer: Newcomer,
    engine: Engine,
    connections: Arc<Connections>,
    mut ending: Ending,
) {
    // Answers are short, and clients wait for them.
    let _ = socket.set_nodelay(true);
    let addresses = socket.peer_addr().and_then(|client| Ok((client, socket.local_addr()?)));
    let admitted = tokio::select! {
        biased;
        () = ending.reached(Phase::Draining) => None,
        admitted = startup::admit(&mut socket, &connections, CONNECTIONS_MAX) => admitted,
        () = newcomer.ousted() => {
            startup::oust(&mut socket, NEWCOMERS_MAX).await;
            None
        }
    };
    drop(newcomer);
    let Some(admitted) = admitted else { return };
    let wire = Wire::new(socket, admitted.input, admitted.answers, admitted.entry, ending);
    let mut connection = Connection::new(wire, engine.session());
    let (user, database) = &admitted.who;
    connection.session.connected_as(user, database, connection.wire.entry.process);
    if let Ok((client, server)) = addresses {
        connection.session.connected_between(client, server);
    }
    connection.begin_with(&admitted.settings).await;
    connection.serve().await;
}
