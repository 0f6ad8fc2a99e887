//! The thread that applies a subscription's changes, even while the view is not on the screen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};
use millstream::datafusion::execution::SendableRecordBatchStream;
use millstream::{Engine, Error, Response, Session};
use tokio::sync::oneshot;

use crate::live::refreshed;
use crate::live::state::State;

/// The shortest time between two answers of a statement that is run again and again.
const REFRESH: Duration = Duration::from_secs(1);

/// Interval of the queries for the engine's delay.
const MEASURE: Duration = Duration::from_millis(500);

/// A followed subscription. It ends when this is dropped.
pub struct Feed {
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts following the query `subscribe`. Fails if it can't be followed.
    pub async fn start(engine: Engine, subscribe: String) -> Result<Feed, Error> {
        let mut session = engine.session();
        let rows = open(&mut session, &subscribe).await?;
        let state = State::new(&rows.schema());
        Feed::spawn(engine, state, async move |state| follow(session, &subscribe, rows, &state).await)
    }

    /// Starts to run a statement again and again. Fails if it can't be run.
    pub async fn refresh(engine: Engine, statement: String) -> Result<Feed, Error> {
        let mut session = engine.session();
        let first = refreshed::answer(&mut session, &statement).await?;
        let state = State::new(&refreshed::followed(&first.schema()));
        Feed::spawn(engine, state, async move |state| refresh(session, &statement, first, &state).await)
    }

    /// Starts the thread of a feed, which runs `follow`.
    fn spawn(
        engine: Engine,
        state: State,
        follow: impl AsyncFnOnce(Arc<Mutex<State>>) + Send + 'static,
    ) -> Result<Feed, Error> {
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = oneshot::channel();
        let shared = state.clone();
        let failed = |error| Error::external(format!("the live view can't be started: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let thread = std::thread::Builder::new().name("millstream-live".into()).spawn(move || {
            runtime.block_on(async {
                let measuring = measure(engine.session(), &shared);
                tokio::select! {
                    _ = stopped => {}
                    () = follow(shared.clone()) => {}
                    () = measuring => {}
                }
            });
        });
        Ok(Feed { state, stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }

    /// Returns the present state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread's result is in the state.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open(session: &mut Session, subscribe: &str) -> Result<SendableRecordBatchStream, Error> {
    match session.execute(subscribe).await? {
        Response::Rows(rows) => Ok(rows),
        _ => Err(Error::bug(format!("{subscribe} gave no rows"))),
    }
}

/// Runs a statement again and again until it fails.
async fn refresh(mut session: Session, statement: &str, first: RecordBatch, state: &Mutex<State>) {
    let (mut before, mut now, mut number) = (None, first, 0);
    let error = loop {
        let begun = tokio::time::Instant::now();
        number += 1;
        let changes = match refreshed::changes(before.as_ref(), &now, number) {
            Ok(changes) => changes,
            Err(error) => break error,
        };
        let applied = lock(state).apply(&changes, Instant::now());
        if let Err(error) = applied {
            break Error::bug(format!("an answer can't be shown: {error}"));
        }
        let next = refreshed::answer(&mut session, statement).await;
        // A statement that answers at once rests.
        tokio::time::sleep_until(begun + REFRESH).await;
        match next {
            Ok(next) => before = Some(std::mem::replace(&mut now, next)),
            Err(error) => break error,
        }
    };
    lock(state).end = Some(Err(error.to_string()));
    std::future::pending().await
}

/// Applies changes until the subscription ends. Subscribes again if the reader fell too far behind.
async fn follow(
    mut session: Session,
    subscribe: &str,
    mut rows: SendableRecordBatchStream,
    state: &Mutex<State>,
) {
    let end = loop {
        let failed = match take(&mut rows, state).await {
            Ok(()) => break Ok(()),
            Err(error) => error,
        };
        if !failed.message.contains("fell behind") {
            break Err(failed.to_string());
        }
        lock(state).begin_anew();
        match open(&mut session, subscribe).await {
            Ok(again) => rows = again,
            Err(error) => break Err(error.to_string()),
        }
    };
    lock(state).end = Some(end);
    // Keep measuring: the view may stay open.
    std::future::pending().await
}

async fn take(rows: &mut SendableRecordBatchStream, state: &Mutex<State>) -> Result<(), Error> {
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(Error::from)?;
        let applied = lock(state).apply(&batch, Instant::now());
        applied.map_err(|error| Error::bug(format!("a change can't be shown: {error}")))?;
    }
    Ok(())
}

/// Queries repeatedly how long epochs take, and how many rows wait for one.
async fn measure(mut session: Session, state: &Mutex<State>) {
    const DELAY: &str = "SELECT total_delay_us FROM millstream.epochs ORDER BY epoch DESC LIMIT 1";
    const WAITING: &str = "SELECT sum(waiting_rows) FROM millstream.sources";
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        let delay = number(&mut session, DELAY).await;
        let waiting = number(&mut session, WAITING).await;
        let mut state = lock(state);
        state.load.delay_us = delay;
        state.load.waiting = waiting.unwrap_or(0);
    }
}

/// Returns the one number of a query's answer, if there is one.
async fn number(session: &mut Session, sql: &str) -> Option<u64> {
    let Ok(Response::Rows(rows)) = session.execute(sql).await else { return None };
    let batches: Vec<RecordBatch> = rows.try_collect().await.ok()?;
    let batch = batches.iter().find(|batch| batch.num_rows() > 0)?;
    let column = batch.column(0).as_primitive_opt::<Int64Type>()?;
    column.is_valid(0).then(|| column.value(0).max(0) as u64)
}
