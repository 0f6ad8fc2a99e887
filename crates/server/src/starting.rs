//! The time before an engine has recovered: the port is open, and clients learn that they must wait.

use std::net::SocketAddr;
use std::time::Duration;

use millstream_engine::Engine;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::{ListenError, NEWCOMERS_MAX, Server, listen, startup};

/// A server whose engine starts. Until then it refuses each client with the code 57P03.
#[derive(Debug)]
pub struct Starting {
    address: SocketAddr,
    ready: oneshot::Sender<()>,
    refusing: JoinHandle<TcpListener>,
}

impl Starting {
    /// Starts listening on an address of this machine, `host:port`; port 0 selects a free one.
    pub async fn bind(address: &str) -> Result<Starting, ListenError> {
        let (listener, address) = listen(address).await?;
        let (ready, started) = oneshot::channel();
        Ok(Starting { address, ready, refusing: tokio::spawn(refuse(listener, started)) })
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the server of the engine, which has started.
    pub async fn with(self, engine: Engine) -> Result<Server, ListenError> {
        let _ = self.ready.send(());
        match self.refusing.await {
            Ok(listener) => Ok(Server::on(listener, self.address, engine)),
            Err(error) => {
                Err(ListenError::Refused { address: self.address, source: std::io::Error::other(error) })
            }
        }
    }
}

/// Refuses clients until the engine has started. Those that have not asked by then are refused all the same.
async fn refuse(listener: TcpListener, mut started: oneshot::Receiver<()>) -> TcpListener {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut started => break,
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept(), if clients.len() < NEWCOMERS_MAX => {
                match accepted {
                    Ok((mut socket, _)) => {
                        clients.spawn(async move { startup::refuse_early(&mut socket).await });
                    }
                    // For example, too many open files; some may be closed soon.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
    }
    clients.detach_all();
    listener
}
