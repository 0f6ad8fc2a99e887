//! The handle on a running engine, and its builder.

mod options;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionContext;
use millstream_connect::Connector;
use millstream_delta::{Cut, Delta, Epoch, STACK_BYTES, Timestamp, drop_on_thread, on_large_stack};
use millstream_durable::{DataDirectory, DirectoryFormat, StorePrefix};
use millstream_sql::{CompatibilityLevel, Error, Planner, Result, planner_at};
use tokio::runtime::{Handle, Runtime};
use tokio::time::{Instant, MissedTickBehavior};

use crate::advisory_locks::{self, AdvisoryLocks};
use crate::catalog::Catalog;
use crate::event::{Event, Question, Reply};
use crate::execution_options::ExecutionOptions;
use crate::jobs::{self, Jobs};
use crate::listener::{Listener, Listeners};
use crate::metrics::{History, MetricValue, SAMPLE_SECONDS};
use crate::query_pool::QueryPool;
use crate::recovery::{self, Recovered};
use crate::run::{self, TimeSource};
use crate::sequences::{self, Sequences};
use crate::session::Session;
use crate::settings::{Settings, ShutdownSettings};
use crate::statement_memory::AllStatements;
use crate::storage::{DurablePlace, Storage};
use crate::system::{self, Excerpt};
use crate::{error, panics, sleep};

/// The time after which the first sample of metrics is taken.
const FIRST_SAMPLE: Duration = Duration::from_secs(1);

/// A handle on a running engine, cheap to clone. The engine ends when the last handle and the last session
/// are dropped.
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

/// Everything needed to replay one epoch: its cut, and the rows that cannot be read again.
#[derive(Clone, Debug)]
pub struct Record {
    /// The cut.
    pub cut: Cut,
    /// The changes of tables, by table name. If late rows were put into a view, `view` has the change of its
    /// result. `late_rows('view')` then has the late rows that were put in; they leave that relation.
    pub changes: Vec<(Arc<str>, Delta)>,
}

/// The progress of an engine.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Epochs completed.
    pub epochs: u64,
    /// Rows taken from all sources.
    pub rows: u64,
    /// Records of all sources that could not be decoded.
    pub bad_rows: u64,
    /// Sources in use that have not ended.
    pub sources_open: usize,
    /// Sources in use that never end by themselves.
    pub sources_following: usize,
    /// Sources in use.
    pub sources: usize,
    /// The smallest share read of any open source, from 0 to 1. Only bounded sources that know their size
    /// count.
    pub share: Option<f64>,
    /// Current problems, as sentences: failing sinks and sources, suspended queries.
    pub problems: Vec<String>,
    /// Conditions that need attention but are not failures, as sentences: memory use exceeds `memory_limit`.
    pub warnings: Vec<String>,
}

/// State shared by the sessions and the loop.
pub(crate) struct Shared {
    pub(crate) events: Sender<Event>,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    pub(crate) progress: Mutex<Progress>,
    /// The settings for shutting down: a copy, since the loop may be too busy to answer.
    pub(crate) shutdown: Mutex<ShutdownSettings>,
    /// The number of times that settings were changed.
    pub(crate) settings_version: AtomicU64,
    pub(crate) planner: Planner,
    pub(crate) connectors: BTreeMap<&'static str, Arc<dyn Connector>>,
    pub(crate) handle: Handle,
    pub(crate) statements: RunningStatements,
    /// The history of epochs, which the loop writes.
    pub(crate) history: History,
    /// True if the loop has ended on request.
    pub(crate) stopped: AtomicBool,
    pub(crate) recovery: RecoveryState,
}

/// The things that running statements share: jobs, memory, threads, the sequences that they take numbers of, and locks.
pub(crate) struct RunningStatements {
    pub(crate) jobs: Arc<Jobs>,
    /// The memory reserved by all of them.
    pub(crate) memory: AllStatements,
    pub(crate) pool: QueryPool,
    pub(crate) sequences: Arc<Sequences>,
    pub(crate) locks: Arc<AdvisoryLocks>,
}

/// The recovery of an engine from its data directory, if it has one.
#[derive(Default)]
pub(crate) struct RecoveryState {
    /// True if sources pass over records that were lost.
    skips_lost_records: bool,
    recovered: OnceLock<Recovered>,
}

impl RecoveryState {
    /// Returns true if sources pass over records that were lost.
    pub(crate) fn skips_lost_records(&self) -> bool {
        self.skips_lost_records
    }

    /// Returns the result once the recovery has ended; `None` for an engine in memory.
    pub(crate) fn recovered(&self) -> Option<&Recovered> {
        self.recovered.get()
    }

    /// Ends the recovery.
    fn end(&self, recovered: Recovered) {
        let _ = self.recovered.set(recovered);
    }
}

impl Shared {
    /// Returns the current catalog.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Delays epochs until they may begin again.
    pub(crate) fn hold(&self, hold: bool) -> Result<()> {
        self.events.send(Event::Hold(hold)).map_err(|_| error::stopped())
    }

    /// Sends an event and waits for the reply.
    pub(crate) async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T> {
        // A request that nobody waits for any more must not take effect.
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
        // Its plans may be deep, so dropping them takes a large stack.
        let catalog = std::mem::take(self.catalog.get_mut().unwrap_or_else(PoisonError::into_inner));
        on_large_stack(|| drop(catalog));
        let _ = self.events.send(Event::Stop { reply: None, gracefully: false });
    }
}

impl Engine {
    /// Returns a builder with the default settings.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Starts an engine in memory with the built-in connectors.
    pub fn start() -> Result<Engine> {
        Engine::builder().start()
    }

    /// Opens a new session.
    pub fn session(&self) -> Session {
        Session::new(self.shared.clone())
    }

    /// Returns the result of recovery from the data directory, or `None` if the engine lives in memory.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.shared.recovery.recovered()
    }

    /// Returns the progress of the engine.
    pub fn progress(&self) -> Progress {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the history of its epochs.
    pub fn history(&self) -> History {
        self.shared.history.clone()
    }

    /// Returns the values of all metrics, in the order of [`metrics`](crate::metrics).
    pub async fn metrics(&self) -> Result<Vec<MetricValue>> {
        // The loop answers between batches, so the one that is running now is looked at before.
        let active = self.history().active_values();
        let mut values = self.shared.ask(|reply| Event::Ask(Question::Metrics { reply })).await?;
        for (metric, active) in active {
            let of_metric = values.iter_mut().filter(|value| std::ptr::eq(value.metric, metric));
            of_metric.for_each(|value| value.value = active);
        }
        Ok(values)
    }

    /// Returns the rows of tables of the schema `millstream` as of one moment, in the order of `names`. Fails if there
    /// is no such table.
    pub async fn system_tables(&self, names: &[&str]) -> Result<Vec<RecordBatch>> {
        self.read_system_tables(names, Excerpt::All).await
    }

    /// Does the same; of tables of epochs, returns the rows of one epoch.
    pub async fn system_tables_of(&self, names: &[&str], epoch: u64) -> Result<Vec<RecordBatch>> {
        self.read_system_tables(names, Excerpt::Epoch(Epoch(epoch))).await
    }

    /// Returns the rows of `millstream.operator_history` between two seconds since the start; the second one is excluded.
    pub async fn operator_history(&self, from: u64, to: u64) -> Result<RecordBatch> {
        let tables = self.read_system_tables(&["operator_history"], Excerpt::Seconds(from, to)).await?;
        tables.into_iter().next().ok_or_else(|| Error::bug("there is no operator_history"))
    }

    async fn read_system_tables(&self, names: &[&str], excerpt: Excerpt) -> Result<Vec<RecordBatch>> {
        let find = |name: &&str| {
            system::find(name).ok_or_else(|| {
                Error::invalid(format!("there is no system table \"{name}\""))
                    .hint("SELECT table_name FROM information_schema.tables WHERE table_schema = 'millstream' lists them.")
            })
        };
        let tables = names.iter().map(find).collect::<Result<Vec<_>>>()?;
        self.shared.ask(|reply| Event::Ask(Question::SystemTables { tables, excerpt, reply })).await
    }

    /// Returns true if a source in use is unbounded.
    pub fn follows(&self) -> bool {
        self.progress().sources_following > 0
    }

    /// Waits until all sources in use have ended, every query is current and every sink has delivered, or a
    /// STOP has ended the engine. Never completes while an unbounded source is in use. Fails if a source or
    /// sink has failed for good.
    pub async fn finished(&self) -> Result<()> {
        if self.has_stopped() {
            return Ok(());
        }
        self.shared.ask(|reply| Event::Finished { reply }).await
    }

    /// Runs a recorded epoch again: reads the spans of its cut from the sources and applies its changes.
    /// Needs a manual clock that nothing else moves.
    pub async fn replay(&self, record: Record) -> Result<()> {
        self.shared.ask(|reply| Event::Replay { record: Box::new(record), reply }).await
    }

    /// Finishes the epoch, lets the sinks deliver and ends the engine. Does nothing if a STOP has already
    /// ended it.
    pub async fn stop(&self) -> Result<()> {
        self.end(false).await
    }

    /// Processes the rows that sources have received, then stops, as STOP GRACEFULLY does.
    pub async fn stop_gracefully(&self) -> Result<()> {
        self.end(true).await
    }

    async fn end(&self, gracefully: bool) -> Result<()> {
        if self.has_stopped() {
            return Ok(());
        }
        let ended = self.shared.ask(|reply| Event::Stop { reply: Some(reply), gracefully }).await;
        // Another STOP may have ended the engine before the loop reached this one.
        if self.has_stopped() { Ok(()) } else { ended }
    }

    /// Returns the settings `shutdown_timeout` and `stop_gracefully`, which apply when a signal asks the
    /// process to end. Returns at once, however busy the engine is.
    pub fn shutdown(&self) -> ShutdownSettings {
        *self.shared.shutdown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a STOP has ended the engine.
    pub fn has_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

/// A callback that receives the record of each epoch before the epoch runs.
pub(crate) type Recorder = Box<dyn FnMut(&Record) + Send>;

/// The builder of an engine.
#[derive(Default)]
pub struct EngineBuilder {
    connectors: Vec<Arc<dyn Connector>>,
    context: Option<SessionContext>,
    recorder: Option<Recorder>,
    listeners: Vec<Box<dyn Listener>>,
    execution: ExecutionOptions,
    time: Option<TimeSource>,
    storage: Storage,
    skips_lost_records: bool,
    settings: Vec<(String, String)>,
}

impl EngineBuilder {
    /// Adds a connector, or replaces the one with the same name.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> EngineBuilder {
        self.connectors.push(connector);
        self
    }

    /// Uses the functions and settings of `context` for planning. Discards functions that were added before.
    pub fn session_context(mut self, context: SessionContext) -> EngineBuilder {
        self.context = Some(context);
        self
    }

    /// Adds a scalar function. It replaces a built-in function with the same name.
    pub fn scalar_function(mut self, function: ScalarUDF) -> EngineBuilder {
        self.context.get_or_insert_default().register_udf(function);
        self
    }

    /// Adds an aggregate function. It also works in maintained queries, even if it cannot retract rows. It
    /// replaces a built-in function with the same name.
    pub fn aggregate_function(mut self, function: AggregateUDF) -> EngineBuilder {
        self.context.get_or_insert_default().register_udaf(function);
        self
    }

    /// Passes the record of each epoch to `recorder` before the epoch runs, on the loop's thread.
    pub fn recorder(mut self, recorder: impl FnMut(&Record) + Send + 'static) -> EngineBuilder {
        self.recorder = Some(Box::new(recorder));
        self
    }

    /// Notifies `listener` of batches and sources, on a thread of its own.
    pub fn listener(mut self, listener: impl Listener) -> EngineBuilder {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Uses `source` instead of the machine's clock, so that tests can set the time.
    pub fn time_source(mut self, source: impl Fn() -> Timestamp + Send + Sync + 'static) -> EngineBuilder {
        self.time = Some(Arc::new(source));
        self
    }

    /// Keeps the journal and the checkpoints in this directory, so that the engine survives crashes. Creates
    /// the directory if needed, else recovers from it. Before the start, add the connectors and functions
    /// that its statements name.
    pub fn data(mut self, path: impl Into<PathBuf>) -> EngineBuilder {
        self.storage.data = Some(DurablePlace::Path(path.into()));
        self
    }

    /// Keeps the same below a prefix of an object store. Takes the prefix over: an engine that has it open
    /// stops and ends.
    pub fn data_store(mut self, prefix: StorePrefix) -> EngineBuilder {
        self.storage.data = Some(DurablePlace::Store(prefix));
        self
    }

    /// Fails to start if the directory or prefix holds no engine yet.
    pub fn must_exist(mut self) -> EngineBuilder {
        self.storage.must_exist = true;
        self
    }

    /// Lets all sources with the option `on_data_loss` pass over lost records, as if it were 'skip', while this engine
    /// runs. A start whose journal needs records that are gone then goes on without them.
    pub fn skip_lost_records(mut self) -> EngineBuilder {
        self.skips_lost_records = true;
        self
    }

    /// Uses an open directory, which may be on a simulated disk.
    pub fn data_directory(mut self, directory: DataDirectory) -> EngineBuilder {
        self.storage.data = Some(DurablePlace::Directory(directory));
        self
    }

    /// Writes spilled rows to files in this directory, which is created on the first spill. The default is
    /// `spill` in the data directory, or the system's directory for temporary files.
    pub fn spill_directory(mut self, path: impl Into<PathBuf>) -> EngineBuilder {
        self.storage.spill = Some(path.into());
        self
    }

    /// Changes a setting before the first statement, as SET does. With a data directory the change persists.
    /// Fails if the setting is unknown or does not accept the value.
    pub fn setting(mut self, name: &str, value: &str) -> Result<EngineBuilder> {
        Settings::default().set(name, value)?;
        self.settings.push((name.into(), value.into()));
        Ok(self)
    }

    /// Starts the engine. With a data directory, returns after recovery.
    pub fn start(self) -> Result<Engine> {
        panics::keep_backtraces();
        let (directory, spill) = self.storage.open()?;
        let runtime = threads("millstream-io", None)?;
        // Plans that operators run spawn their tasks here, separate from sources, sinks and timers.
        let steps = threads("millstream-plans", Some(2))?;
        let connectors = millstream_connect::connectors::builtin().into_iter().chain(self.connectors);
        let connectors = connectors.map(|connector| (connector.name(), connector)).collect();
        let (events, inbox) = std::sync::mpsc::channel();
        let (history, sequences): (History, Arc<Sequences>) = Default::default();
        let shared = Arc::new(Shared {
            events,
            catalog: RwLock::default(),
            progress: Mutex::default(),
            shutdown: Mutex::default(),
            settings_version: AtomicU64::new(0),
            planner: planner(self.context, &sequences, directory.as_ref())?,
            connectors,
            handle: runtime.handle().clone(),
            statements: RunningStatements {
                jobs: Arc::default(),
                memory: AllStatements::default(),
                pool: QueryPool::new(runtime.handle().clone()),
                sequences: sequences.clone(),
                locks: Arc::default(),
            },
            history: history.clone(),
            stopped: AtomicBool::new(false),
            recovery: RecoveryState {
                skips_lost_records: self.skips_lost_records,
                ..RecoveryState::default()
            },
        });
        let mut settings = Settings::default();
        for (name, value) in &self.settings {
            settings.set(name, value)?;
        }
        let parts = run::Parts {
            spill,
            memory_limit: settings.memory.limit,
            recorder: self.recorder,
            listeners: Listeners::start(self.listeners)?,
            execution: self.execution,
            time: self.time.unwrap_or_else(|| Arc::new(run::system_time)),
            history,
            sequences,
            recovers: directory.is_some(),
            runtime,
            steps,
        };
        run::spawn(&shared, inbox, parts)?;
        if let Some(directory) = directory {
            let recovered = recovery::run(&shared, directory)?;
            shared.recovery.end(recovered);
        }
        configure(&shared, self.settings)?;
        shared.handle.spawn(sample(shared.events.clone()));
        Ok(Engine { shared })
    }
}

/// Returns a planner with the functions of a user's context, and those of the engine.
fn planner(
    context: Option<SessionContext>,
    sequences: &Arc<Sequences>,
    directory: Option<&DataDirectory>,
) -> Result<Planner> {
    let mut state = context.unwrap_or_default().state();
    sequences::register(&mut state, sequences).and_then(|()| advisory_locks::register(&mut state))?;
    sleep::register(&mut state)?;
    let level = match directory.map(DataDirectory::format) {
        Some(DirectoryFormat::One) => CompatibilityLevel::One,
        Some(DirectoryFormat::Two) => CompatibilityLevel::Two,
        Some(DirectoryFormat::Three) | None => CompatibilityLevel::Three,
    };
    Ok(planner_at(state, level))
}

/// Returns a runtime with threads of this name; without a count, one for each core.
fn threads(name: &str, count: Option<usize>) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    count.iter().for_each(|count| {
        builder.worker_threads(*count);
    });
    let built = builder.enable_all().thread_name(name).thread_stack_size(STACK_BYTES).build();
    built.map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))
}

/// Asks the loop for a sample of all metrics every few seconds, until it ends.
async fn sample(events: Sender<Event>) {
    let mut ticks =
        tokio::time::interval_at(Instant::now() + FIRST_SAMPLE, Duration::from_secs(SAMPLE_SECONDS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (reply, answer) = Reply::new();
        if events.send(Event::Ask(Question::Sample { reply })).is_err() || answer.await.is_err() {
            return;
        }
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
            let (now, _) = shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
            let mut then = now.clone();
            then.set(&name, &value)?;
            // An unchanged value needs no journal entry. `memory_limit` is always set, since the loop began
            // with this value and the journal may have no entry of it.
            if then.show(&name)? != now.show(&name)? || name == "memory_limit" {
                shared.ask(|reply| Event::Set { name, value, reply }).await?;
            }
        }
        Ok::<(), Error>(())
    };
    // The caller may be inside a runtime, where blocking is not allowed, so this uses its own thread.
    let thread = std::thread::Builder::new().name("millstream-settings".into());
    let thread = thread
        .spawn(move || handle.block_on(set))
        .map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(Error::bug("changing settings panicked")))
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").field("connectors", &self.connectors).finish_non_exhaustive()
    }
}

/// Shuts a runtime down without waiting. A task that doesn't yield ends at its next yield.
pub(crate) fn end(runtime: Runtime) {
    drop_on_thread(runtime, Runtime::shutdown_background);
}
