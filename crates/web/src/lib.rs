//! The web page of an engine: what runs, whether it keeps up, and a box for SQL. Also its metrics and its health, for
//! other programs.
//!
//! A [`Page`] serves HTTP on the loopback interface, on threads of its own. It is bound before the engine starts, so
//! that it can say that the engine recovers. It learns of epochs as a listener of the engine, and reads the rest from
//! the system tables while someone asks.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use millstream_engine::Engine;
//! use millstream_web::Page;
//! let page = Page::bind("127.0.0.1:0").await?;
//! let engine = Engine::builder().listener(page.listener()).start()?;
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
mod guard;
mod health;
mod history;
mod inputs;
mod metrics;
mod openmetrics;
mod process;
mod reading;
mod routes;
mod sql;
mod sql_stream;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millstream_engine::{Engine, Listener, Names};
pub use millstream_server::ListenError;
use tokio::runtime::Runtime;
use tokio::time::MissedTickBehavior;

use crate::completion::Completion;
use crate::connections::Limited;
use crate::details::Details;
use crate::history::{SAMPLE_SECONDS, Sample, SharedHistory};
use crate::inputs::{RecentInputs, Watcher};
pub use crate::metrics::{MetricDoc, metrics};
use crate::reading::{Readings, number};

/// Threads that answer requests.
const THREADS: usize = 2;

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
    pub(crate) history: SharedHistory,
    pub(crate) engine: OnceLock<Engine>,
    pub(crate) readings: Readings,
    pub(crate) inputs: RecentInputs,
    pub(crate) details: Details,
    pub(crate) completion: Completion,
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
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let shared = Arc::new(Shared {
            address,
            history: SharedHistory::new(),
            engine: OnceLock::new(),
            readings: Readings::default(),
            inputs: RecentInputs::default(),
            details: Details::default(),
            completion: Completion::default(),
        });
        let router = routes::router(shared.clone());
        runtime.spawn(async move {
            // It never ends by itself.
            let _ = axum::serve(Limited::new(listener), router).await;
        });
        runtime.spawn(sample(shared.clone()));
        Ok(Page { shared, runtime: Some(runtime) })
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Returns the listener by which the page learns of epochs. Add it to the builder of the engine.
    pub fn listener(&self) -> impl Listener + use<> {
        Watcher { history: self.shared.history.clone(), inputs: self.shared.inputs.clone() }
    }

    /// Sets the engine, which has started. Later calls have no effect.
    pub fn attach(&self, engine: Engine) {
        let _ = self.shared.engine.set(engine);
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
            runtime.shutdown_background();
        }
    }
}

/// Takes a sample of memory every few seconds.
async fn sample(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(SAMPLE_SECONDS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(engine) = shared.engine.get() else { continue };
        if engine.has_stopped() {
            return;
        }
        let Ok((memory, checkpoint)) = reading::read_memory(engine).await else { continue };
        let mut history = shared.history.lock();
        let number_now = history.now();
        history.sample(Sample {
            number: number_now,
            state_bytes: number(&memory, "state_bytes").unwrap_or_default(),
            spilled_bytes: number(&memory, "spilled_bytes").unwrap_or_default(),
            resident_bytes: process::resident_bytes(),
            checkpoint_age_ms: checkpoint.map(|at| routes::now_ms().saturating_sub(at)),
        });
    }
}
