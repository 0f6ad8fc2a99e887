//! The web page of an engine: what runs, whether it keeps up, and a box for SQL. Also its metrics and its health, for
//! other programs.
//!
//! A [`Page`] serves HTTP on the loopback interface, on threads of its own. It is bound before the engine starts, so
//! that it can say that the engine recovers. It reads the engine's history, and its system tables while someone asks.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use millstream_engine::Engine;
//! use millstream_web::Page;
//! let page = Page::bind("127.0.0.1:0").await?;
//! let engine = Engine::start()?;
//! page.attach(engine.clone());
//! println!("open http://{}/", page.address());
//! engine.stop().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assets;
mod completion;
mod connections;
mod details;
mod ending;
mod guard;
mod health;
mod metrics;
mod openmetrics;
mod overview;
mod reading;
mod results;
mod routes;
mod sql;
mod sql_stream;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millstream_delta::drop_on_thread;
use millstream_engine::{Engine, History, Names};
pub use millstream_server::ListenError;
use tokio::runtime::Runtime;

use crate::completion::Completion;
use crate::connections::Limited;
use crate::details::Details;
use crate::ending::{Ending, Phase};
pub use crate::metrics::metrics;
use crate::overview::Answers;
use crate::reading::Readings;
use crate::results::Results;

/// Threads that answer requests.
const THREADS: usize = 2;

/// The time between two looks for results that no page uses any more.
const RESULTS_LOOK: Duration = Duration::from_secs(20);

/// A web page that is being served, until this is dropped. Statements that run for it are cancelled then.
#[derive(Debug)]
pub struct Page {
    shared: Arc<Shared>,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

/// The state that requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) engine: OnceLock<Engine>,
    /// The empty history that is shown until there is an engine.
    before: History,
    pub(crate) answers: Answers,
    pub(crate) readings: Readings,
    pub(crate) details: Details,
    pub(crate) completion: Completion,
    pub(crate) ending: Ending,
    /// Results that pages read in parts.
    pub(crate) results: Results,
}

impl Shared {
    /// Returns the history of the engine.
    pub(crate) fn history(&self) -> History {
        self.engine.get().map_or_else(|| self.before.clone(), Engine::history)
    }
}

impl Page {
    /// Starts to serve on an address of this machine, `host:port`; port 0 selects a free one.
    pub async fn bind(address: &str) -> Result<Page, ListenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("millstream-web")
            .enable_all()
            .build()
            .map_err(ListenError::Threads)?;
        let address = address.to_string();
        let listening = runtime.spawn(async move { millstream_server::listen(&address).await }).await;
        let listened = listening.unwrap_or_else(|error| Err(ListenError::Threads(error.into())));
        let (listener, address) = match listened {
            Ok(listened) => listened,
            Err(error) => {
                drop_on_thread(runtime, Runtime::shutdown_background);
                return Err(error);
            }
        };
        let shared = Arc::new(Shared {
            address,
            engine: OnceLock::new(),
            before: History::default(),
            answers: Answers::default(),
            readings: Readings::default(),
            details: Details::default(),
            completion: Completion::default(),
            results: Results::default(),
            ending: Ending::default(),
        });
        let router = routes::router(shared.clone());
        let watched = Arc::downgrade(&shared);
        runtime.spawn(async move {
            while let Some(shared) = watched.upgrade() {
                shared.results.drop_idle();
                drop(shared);
                tokio::time::sleep(RESULTS_LOOK).await;
            }
        });
        runtime.spawn(Limited::new(listener).serve(router));
        Ok(Page { shared, runtime: Some(runtime) })
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Sets the engine, which has started. Later calls have no effect.
    pub fn attach(&self, engine: Engine) {
        let _ = self.shared.engine.set(engine);
    }

    /// Begins no new statement, and ends those without an end. Others may finish.
    pub fn drain(&self) {
        self.shared.ending.raise(Phase::Draining);
    }

    /// Waits until no statement runs for the page.
    pub fn finished(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared.clone();
        async move { shared.ending.finished().await }
    }

    /// Stops to serve. Statements that run for the page end with an error, as those of PostgreSQL's clients do.
    pub async fn stop(self) {
        self.shared.ending.stop().await;
    }

    /// Sets the completion of the SQL page: a function of a text, a byte of it and the names of the catalog. It
    /// returns the byte from which on words replace the text, and these words. Later calls have no effect.
    pub fn complete_with(
        &self,
        complete: impl Fn(&str, usize, &Names) -> (usize, Vec<String>) + Send + Sync + 'static,
    ) {
        self.shared.completion.set(Box::new(complete));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            drop_on_thread(runtime, Runtime::shutdown_background);
        }
    }
}
