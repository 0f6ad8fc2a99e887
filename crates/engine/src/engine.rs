//! The handle on a running engine, and how one is made.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionContext;
use millstream_connect::Connector;
use millstream_delta::{Cut, Delta, STACK_BYTES, Timestamp, on_large_stack};
use millstream_durable::{DataDirectory, StorePrefix};
use millstream_flow::Choice;
use millstream_sql::{Error, Planner, Result};
use millstream_state::Files;
use tokio::runtime::{Handle, Runtime};

use crate::catalog::Catalog;
use crate::error;
use crate::event::{Event, Reply};
use crate::jobs::{self, Jobs};
use crate::listener::{Listener, Listeners};
use crate::panics;
use crate::query_pool::QueryPool;
use crate::recovery::{self, Recovered};
use crate::run::{self, TimeSource};
use crate::session::Session;
use crate::settings::{Settings, ShutdownSettings};
use crate::statement_memory::AllStatements;

/// A running engine: a cheap handle, cloned at will. When the last handle and session are gone, it ends.
///
/// ```
/// # futures::executor::block_on(async {
/// use millstream_engine::Engine;
/// let engine = Engine::start()?;
/// let mut session = engine.session();
/// session.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)").await?;
/// session.execute("INSERT INTO t VALUES (1, 'one')").await?;
/// engine.stop().await?;
/// # Ok::<(), millstream_engine::Error>(())
/// # }).expect("a fresh engine takes these statements");
/// ```
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What decided one epoch, with the rows that can't be read again: all that a replay needs.
#[derive(Clone, Debug)]
pub struct Record {
    /// The cut.
    pub cut: Cut,
    /// The changes of tables, by their names. Of a view that late rows were put into there is what that changes in it,
    /// and under `late_rows('view')` the rows, which go from there.
    pub changes: Vec<(Arc<str>, Delta)>,
}

/// How far an engine has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Epochs done.
    pub epochs: u64,
    /// Rows taken of all sources.
    pub rows: u64,
    /// Records of all sources that could not be decoded.
    pub bad_rows: u64,
    /// Sources in use that have not ended.
    pub sources_open: usize,
    /// Sources in use that never end by themselves.
    pub sources_following: usize,
    /// Sources in use.
    pub sources: usize,
    /// How much was read, from 0 to 1, of the source of which least was read, among those that will end and know how
    /// much there is.
    pub share: Option<f64>,
    /// What is wrong now, in sentences: failing sinks and sources, suspended queries.
    pub problems: Vec<String>,
    /// What someone should look at although nothing is wrong, in sentences: memory_limit is passed.
    pub warnings: Vec<String>,
}

/// What sessions and the loop share.
pub(crate) struct Shared {
    pub(crate) events: Sender<Event>,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    pub(crate) progress: Mutex<Progress>,
    /// How it ends when its process is asked to; a copy of the settings, which the loop may be too busy to tell.
    pub(crate) shutdown: Mutex<ShutdownSettings>,
    pub(crate) planner: Planner,
    pub(crate) connectors: BTreeMap<&'static str, Arc<dyn Connector>>,
    pub(crate) handle: Handle,
    /// The statements that run.
    pub(crate) jobs: Arc<Jobs>,
    /// What all statements have taken of memory.
    pub(crate) memory: AllStatements,
    /// The threads that statements run on.
    pub(crate) pool: QueryPool,
    /// Whether the loop has ended since it was asked to.
    pub(crate) stopped: AtomicBool,
    /// What was found in the data directory, where there is one.
    pub(crate) recovered: OnceLock<Recovered>,
}

impl Shared {
    /// The catalog as it is now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends an event and waits for its answer.
    pub(crate) async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T> {
        // What nobody waits for any more doesn't take effect.
        if jobs::current().is_some_and(|job| job.is_cancelled()) {
            return Err(jobs::cancelled());
        }
        let (reply, answer) = Reply::new();
        self.events.send(event(reply)).map_err(|_| error::stopped())?;
        answer.await.map_err(|_| error::stopped())?
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Its plans may be deep.
        let catalog = std::mem::take(self.catalog.get_mut().unwrap_or_else(PoisonError::into_inner));
        on_large_stack(|| drop(catalog));
        let _ = self.events.send(Event::Stop { reply: None, gracefully: false });
    }
}

impl Engine {
    /// How to make one that differs from the default.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// An engine in memory with the built-in connectors.
    pub fn start() -> Result<Engine> {
        Engine::builder().start()
    }

    /// A new session.
    pub fn session(&self) -> Session {
        Session::new(self.shared.clone())
    }

    /// What it found in its data directory when it was started; none where it lives in memory.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.shared.recovered.get()
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether some source in use never ends by itself.
    pub fn follows(&self) -> bool {
        self.progress().sources_following > 0
    }

    /// Waits until all sources in use have ended, every query has taken everything in and every sink has
    /// delivered, or a STOP has ended the engine. Never ready while a source follows. An error when a source or a sink
    /// has failed for good.
    pub async fn finished(&self) -> Result<()> {
        if self.has_stopped() {
            return Ok(());
        }
        self.shared.ask(|reply| Event::Finished { reply }).await
    }

    /// Runs a recorded epoch again: reads what its cut names of the sources and applies its changes. Only under a
    /// manual clock that nothing else moves.
    pub async fn replay(&self, record: Record) -> Result<()> {
        self.shared.ask(|reply| Event::Replay { record: Box::new(record), reply }).await
    }

    /// Finishes the epoch, lets the sinks deliver and ends. One that a STOP has ended already is left as it is.
    pub async fn stop(&self) -> Result<()> {
        self.end(false).await
    }

    /// The same, but processes first what sources have received, as STOP GRACEFULLY does.
    pub async fn stop_gracefully(&self) -> Result<()> {
        self.end(true).await
    }

    async fn end(&self, gracefully: bool) -> Result<()> {
        if self.has_stopped() {
            return Ok(());
        }
        let ended = self.shared.ask(|reply| Event::Stop { reply: Some(reply), gracefully }).await;
        // Another STOP may have ended it before this one came to it.
        if self.has_stopped() { Ok(()) } else { ended }
    }

    /// How it ends when a signal asks its process to: the settings `shutdown_timeout` and `stop_gracefully`. Answers at once,
    /// however busy the engine is.
    pub fn shutdown(&self) -> ShutdownSettings {
        *self.shared.shutdown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a STOP has ended it.
    pub fn has_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

/// Sees the record of each epoch, before it runs.
pub(crate) type Recorder = Box<dyn FnMut(&Record) + Send>;

/// Settings of an engine that is not started yet.
#[derive(Default)]
pub struct EngineBuilder {
    connectors: Vec<Arc<dyn Connector>>,
    context: Option<SessionContext>,
    recorder: Option<Recorder>,
    listeners: Vec<Box<dyn Listener>>,
    choice: Choice,
    append_only_tables: bool,
    spread_from: Option<usize>,
    apart: Option<u64>,
    time: Option<TimeSource>,
    data: Option<Data>,
    spill: Option<PathBuf>,
    must_exist: bool,
    settings: Vec<(String, String)>,
}

/// Where an engine keeps what it must not lose.
enum Data {
    Path(PathBuf),
    Store(StorePrefix),
    Directory(DataDirectory),
}

impl Data {
    fn open(self, must_exist: bool) -> millstream_durable::Result<DataDirectory> {
        match (self, must_exist) {
            (Data::Path(path), false) => DataDirectory::open(&path),
            (Data::Path(path), true) => DataDirectory::open_existing(&path),
            (Data::Store(prefix), false) => prefix.open(),
            (Data::Store(prefix), true) => prefix.open_existing(),
            (Data::Directory(directory), _) => Ok(directory),
        }
    }
}

impl EngineBuilder {
    /// Adds a connector, or replaces the one of its name.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> EngineBuilder {
        self.connectors.push(connector);
        self
    }

    /// Plans with the functions and settings of `context`; functions that were added before are left out.
    pub fn session_context(mut self, context: SessionContext) -> EngineBuilder {
        self.context = Some(context);
        self
    }

    /// Adds a scalar function. A function of its name that is built in gives way.
    pub fn scalar_function(mut self, function: ScalarUDF) -> EngineBuilder {
        self.context.get_or_insert_default().register_udf(function);
        self
    }

    /// Adds an aggregate function, which works in queries that are maintained as well, whether it can take rows back or
    /// not. A function of its name that is built in gives way.
    pub fn aggregate_function(mut self, function: AggregateUDF) -> EngineBuilder {
        self.context.get_or_insert_default().register_udaf(function);
        self
    }

    /// Shows the record of each epoch to `recorder` before it runs, on the loop's thread.
    pub fn recorder(mut self, recorder: impl FnMut(&Record) + Send + 'static) -> EngineBuilder {
        self.recorder = Some(Box::new(recorder));
        self
    }

    /// Tells `listener` what happens, on a thread of its own.
    pub fn listener(mut self, listener: impl Listener) -> EngineBuilder {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Runs every query with the operator Whole alone, so that tests can compare.
    pub fn whole_only(mut self) -> EngineBuilder {
        self.choice = Choice::WholeOnly;
        self
    }

    /// Counts rows to each window by itself where windows overlap, so that tests can compare.
    pub fn each_window(mut self) -> EngineBuilder {
        self.choice = Choice::EachWindow;
        self
    }

    /// Takes every table for one whose rows only come, and refuses to delete of it, so that tests can compare what
    /// is maintained the cheaper way then.
    pub fn append_only_tables(mut self) -> EngineBuilder {
        self.append_only_tables = true;
        self
    }

    /// Lets several threads work on changes of so few rows already, so that tests can compare.
    pub fn spread_from(mut self, rows: usize) -> EngineBuilder {
        self.spread_from = Some(rows);
        self
    }

    /// Steps every query that may be behind on a thread of its own, once every so many epochs and when someone waits for
    /// it, however fast it is and under any clock, so that tests can compare.
    pub fn step_apart(mut self, epochs: u64) -> EngineBuilder {
        self.apart = Some(epochs);
        self
    }

    /// Asks this for the time in the place of the machine's clock, so that tests can set it.
    pub fn time_source(mut self, source: impl Fn() -> Timestamp + Send + Sync + 'static) -> EngineBuilder {
        self.time = Some(Arc::new(source));
        self
    }

    /// Lets the engine survive crashes: it keeps what it decides in this directory, which is made where there is none,
    /// and begins with what is there. Sources, sinks and functions of users that its statements name must have been added.
    pub fn data(mut self, path: impl Into<PathBuf>) -> EngineBuilder {
        self.data = Some(Data::Path(path.into()));
        self
    }

    /// The same below a prefix of an object store. Whoever has it open loses it: that engine takes in nothing more and ends.
    pub fn data_store(mut self, prefix: StorePrefix) -> EngineBuilder {
        self.data = Some(Data::Store(prefix));
        self
    }

    /// Refuses to begin where there is nothing yet to go on from.
    pub fn must_exist(mut self) -> EngineBuilder {
        self.must_exist = true;
        self
    }

    /// The same with a directory that is open, which may be on a simulated disk.
    pub fn data_directory(mut self, directory: DataDirectory) -> EngineBuilder {
        self.data = Some(Data::Directory(directory));
        self
    }

    /// Puts rows that memory has no room for in files of this directory, which is made when there are some. Else that is
    /// `spill` in the data directory, and without one the system's for temporary files.
    pub fn spill_directory(mut self, path: impl Into<PathBuf>) -> EngineBuilder {
        self.spill = Some(path.into());
        self
    }

    /// Changes a setting before the first statement, as SET does: with a data directory it stays changed. Fails if there is no
    /// such setting, or it can't have this value.
    pub fn setting(mut self, name: &str, value: &str) -> Result<EngineBuilder> {
        Settings::default().set(name, value)?;
        self.settings.push((name.into(), value.into()));
        Ok(self)
    }

    /// Starts the engine. With a data directory it returns when all is as it was.
    pub fn start(mut self) -> Result<Engine> {
        panics::keep_backtraces();
        let directory = match self.data.take() {
            None => None,
            Some(data) => Some(data.open(self.must_exist).map_err(error::durable)?),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("millstream-io")
            .thread_stack_size(STACK_BYTES)
            .build()
            .map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))?;
        // What operators run as plans spawns its tasks here, apart from sources, sinks and timers.
        let steps = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .thread_name("millstream-plans")
            .thread_stack_size(STACK_BYTES)
            .build()
            .map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))?;
        let mut connectors = BTreeMap::new();
        for connector in millstream_connect::connectors::builtin().into_iter().chain(self.connectors) {
            connectors.insert(connector.name(), connector);
        }
        let (events, inbox) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared {
            events,
            catalog: RwLock::default(),
            progress: Mutex::default(),
            shutdown: Mutex::default(),
            planner: self.context.map_or_else(Planner::new, |context| Planner::with_context(&context)),
            connectors,
            handle: runtime.handle().clone(),
            jobs: Arc::default(),
            memory: AllStatements::default(),
            pool: QueryPool::new(runtime.handle().clone()),
            stopped: AtomicBool::new(false),
            recovered: OnceLock::new(),
        });
        let mut settings = Settings::default();
        for (name, value) in &self.settings {
            settings.set(name, value)?;
        }
        let spill = self.spill.or_else(|| directory.as_ref().and_then(DataDirectory::spill));
        let spill = Arc::new(Files::below(spill.unwrap_or_else(std::env::temp_dir)));
        let parts = run::Parts {
            spill,
            memory_limit: settings.memory_limit,
            recorder: self.recorder,
            listeners: Listeners::start(self.listeners)?,
            choice: self.choice,
            append_only_tables: self.append_only_tables,
            spread_from: self.spread_from,
            apart: self.apart,
            time: self.time.unwrap_or_else(|| Arc::new(run::system_time)),
            recovers: directory.is_some(),
            runtime,
            steps,
        };
        run::spawn(&shared, inbox, parts)?;
        if let Some(directory) = directory {
            let recovered = recovery::run(&shared, directory)?;
            let _ = shared.recovered.set(recovered);
        }
        configure(&shared, self.settings)?;
        Ok(Engine { shared })
    }
}

/// Changes settings as SET does.
fn configure(shared: &Arc<Shared>, settings: Vec<(String, String)>) -> Result<()> {
    if settings.is_empty() {
        return Ok(());
    }
    let (shared, handle) = (shared.clone(), shared.handle.clone());
    let set = async move {
        for (name, value) in settings {
            let (now, _) = shared.ask(|reply| Event::Settings { reply }).await?;
            let mut then = now.clone();
            then.set(&name, &value)?;
            // What doesn't change needs no entry in the journal. The loop began with this memory_limit, which may have none.
            if then.show(&name)? != now.show(&name)? || name == "memory_limit" {
                shared.ask(|reply| Event::Set { name, value, reply }).await?;
            }
        }
        Ok::<(), Error>(())
    };
    // A thread of its own, since the caller may be within a runtime, where nothing can be waited for.
    let thread = std::thread::Builder::new().name("millstream-settings".into());
    let thread = thread
        .spawn(move || handle.block_on(set))
        .map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(Error::bug("changing settings ended in a panic")))
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").field("connectors", &self.connectors).finish_non_exhaustive()
    }
}

/// What the loop's thread holds beyond what it shares; the runtime ends with it.
pub(crate) fn end(runtime: Runtime) {
    runtime.shutdown_background();
}
