//! A simulated object store that fails, loses answers and cuts processes off on demand, for tests.

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

/// One process's view of an in-memory store.
#[derive(Clone, Debug)]
pub struct SimulatedStore {
    objects: Arc<InMemory>,
    state: Arc<Mutex<State>>,
    /// Notified when a process blocks or resumes.
    stands: Arc<Condvar>,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails without effect.
    Fails,
    /// The call takes effect, and its answer is lost.
    AnswerLost,
    /// The call and all later ones have no effect: the process is gone.
    Stops,
    /// The call takes effect, and all later ones have none.
    StopsAfter,
}

#[derive(Default)]
struct State {
    /// The number of calls.
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// The call before which the process blocks.
    stands_at: Option<u64>,
    /// True while the process blocks.
    stands: bool,
    /// True if [`SimulatedStore::wait`] must not wait for the process to block.
    ended: bool,
    /// True while the store answers nothing.
    away: bool,
    /// True if the process has ended.
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
    /// Returns another process's view of the same objects.
    pub fn another(&self) -> SimulatedStore {
        SimulatedStore { objects: self.objects.clone(), state: Arc::default(), stands: Arc::default() }
    }

    /// Sets the outcome of the n-th call from now on, counting from 1.
    pub fn at(&self, n: u64, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some((state.calls + n, fault));
    }

    /// Makes the process block before the n-th call from now on takes effect, counting from 1.
    pub fn stand_at(&self, n: u64) {
        let mut state = self.lock();
        state.stands_at = Some(state.calls + n);
    }

    /// Waits until the process blocks, or has nothing more to do, as [`SimulatedStore::end`] declares.
    pub fn wait(&self) {
        let mut state = self.lock();
        while !state.stands && !state.ended {
            state = self.stands.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Unblocks the process.
    pub fn go_on(&self) {
        self.lock().stands = false;
        self.stands.notify_all();
    }

    /// Declares that the process has nothing more to do.
    pub fn end(&self) {
        self.lock().ended = true;
        self.stands.notify_all();
    }

    /// Returns the number of calls.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Makes the store unreachable, or reachable again.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Ends the process: its further calls have no effect. Returns the next process's view of the objects.
    pub fn crash(&self) -> SimulatedStore {
        self.lock().gone = true;
        self.another()
    }

    /// Returns true if the process has ended.
    pub fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Revives an ended process.
    pub fn come_back(&self) {
        self.lock().gone = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call. Returns its fault if the call takes effect but its answer is lost.
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

    /// Returns the answer, or loses it.
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
