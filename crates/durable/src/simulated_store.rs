//! An object store that fails, loses answers and cuts processes off when it is told to: for tests.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What one process sees of a store in memory.
#[derive(Clone, Debug)]
pub struct SimulatedStore {
    objects: Arc<InMemory>,
    state: Arc<Mutex<State>>,
    /// Tells that a process stands still, or goes on.
    stands: Arc<Condvar>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing has happened.
    Fails,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It, and all after it, come to nothing: the process is gone.
    Stops,
    /// It is done, and all after it come to nothing.
    StopsAfter,
}

#[derive(Default)]
struct State {
    /// How often something was asked of it.
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// The call before which the process is to stand still.
    stands_at: Option<u64>,
    /// Whether it does.
    stands: bool,
    /// Whether nobody is to wait until it does.
    ended: bool,
    /// Whether nothing is answered for now.
    away: bool,
    /// Whether the process has ended.
    gone: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Default for SimulatedStore {
    fn default() -> SimulatedStore {
        SimulatedStore { objects: Arc::new(InMemory::new()), state: Arc::default(), stands: Arc::default() }
    }
}

impl SimulatedStore {
    /// The same objects as another process sees them.
    pub fn another(&self) -> SimulatedStore {
        SimulatedStore { objects: self.objects.clone(), state: Arc::default(), stands: Arc::default() }
    }

    /// What becomes of a call: the n-th from now on, beginning with 1.
    pub fn at(&self, n: u64, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some((state.calls + n, fault));
    }

    /// Lets the process stand still before a call has its effect: the n-th from now on, beginning with 1.
    pub fn stand_at(&self, n: u64) {
        let mut state = self.lock();
        state.stands_at = Some(state.calls + n);
    }

    /// Waits until the process stands still, or has nothing more to do, as [`SimulatedStore::end`] says.
    pub fn wait(&self) {
        let mut state = self.lock();
        while !state.stands && !state.ended {
            state = self.stands.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets a process that stands still go on.
    pub fn go_on(&self) {
        self.lock().stands = false;
        self.stands.notify_all();
    }

    /// Says that the process has nothing more to do.
    pub fn end(&self) {
        self.lock().ended = true;
        self.stands.notify_all();
    }

    /// How often something was asked of it.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Whether nothing is answered for now.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Ends the process: whatever it still asks comes to nothing. The objects as the next one sees them.
    pub fn crash(&self) -> SimulatedStore {
        self.lock().gone = true;
        self.another()
    }

    /// Whether the process has ended.
    pub fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// The process of which nobody thought that it would come back does.
    pub fn come_back(&self) {
        self.lock().gone = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call. What becomes of it where that is not what was asked for.
    fn call(&self) -> Result<Option<Fault>> {
        let mut state = self.lock();
        if state.gone || state.away {
            return Err(lost("it doesn't answer"));
        }
        state.calls += 1;
        let calls = state.calls;
        if state.stands_at == Some(calls) {
            state.stands = true;
            self.stands.notify_all();
        }
        while state.stands {
            state = self.stands.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.fault {
            Some((n, Fault::Fails)) if n == calls => Err(lost("it fails as it was told to")),
            Some((n, Fault::Stops)) if n == calls => {
                state.gone = true;
                Err(lost("the process is gone"))
            }
            Some((n, fault)) if n == calls => {
                state.gone = fault == Fault::StopsAfter;
                Ok(Some(fault))
            }
            _ => Ok(None),
        }
    }

    /// Hands the answer on, or loses it.
    fn answer<T>(fault: Option<Fault>, answer: Result<T>) -> Result<T> {
        match fault {
            Some(_) => Err(lost("the answer is lost")),
            None => answer,
        }
    }
}

fn lost(reason: &'static str) -> Error {
    Error::Generic { store: "simulated store", source: reason.into() }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.call()?;
        Self::answer(fault, self.objects.put_opts(path, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.call()?;
        Self::answer(fault, self.objects.put_multipart_opts(path, options).await)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.call()?;
        Self::answer(fault, self.objects.get_opts(path, options).await)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = paths.then(move |path| {
            let this = this.clone();
            async move {
                let (path, fault) = (path?, this.call()?);
                let mut deleted = this.objects.delete_stream(stream::iter([Ok(path.clone())]).boxed());
                Self::answer(fault, deleted.next().await.unwrap_or(Ok(path)))
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.call() {
            Ok(None) => self.objects.list(prefix),
            Ok(Some(_)) => stream::iter([Err(lost("the answer is lost"))]).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.call()?;
        Self::answer(fault, self.objects.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.call()?;
        Self::answer(fault, self.objects.copy_opts(from, to, options).await)
    }
}
