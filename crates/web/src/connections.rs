//! The connections of the page. They are limited, so that they can't take the file descriptors that sources and sinks need,
//! and a client that sends its request too slowly is left.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of open connections; further ones wait.
const CONNECTIONS_MAX: usize = 512;

/// Maximum time for the head of a request. A connection that is idle for as long is closed, too.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// A listener that accepts a limited number of connections at a time.
#[derive(Debug)]
pub(crate) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Limited {
    pub(crate) fn new(listener: TcpListener) -> Limited {
        Limited { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Serves connections. It never ends by itself.
    pub(crate) async fn serve(self, router: Router) {
        loop {
            let (stream, permit) = self.accept().await;
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
                // A client that breaks the protocol, or is too slow, is left.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                drop(permit);
            });
        }
    }

    async fn accept(&self) -> (TcpStream, Option<OwnedSemaphorePermit>) {
        let permit = self.permits.clone().acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are short, and browsers wait for them.
                    let _ = stream.set_nodelay(true);
                    return (stream, permit);
                }
                Err(error) => {
                    // For example, too many open files; some may be closed soon.
                    tracing::warn!(%error, "a connection of the web page could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
