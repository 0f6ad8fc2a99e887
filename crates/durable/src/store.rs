//! A prefix of an object store: a few operations, each of which blocks until it has its answer.
//!
//! The caller may be inside an async runtime, where blocking on a future is not possible. So the store runs
//! its requests on a small runtime of its own. Writes are conditional: a put succeeds only if no object has
//! that name. If the answer to such a put is lost, the object under that name shows its outcome.
//!
//! Deliberately absent: the kind of store, and its credentials; whoever opens a store knows them.

mod disk;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use millstream_delta::drop_on_thread;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode};
use tokio::runtime::Runtime;

pub(crate) use disk::StoreDisk;

/// The timeout of one request, including the retries of the store's client.
const PATIENCE: Duration = Duration::from_secs(120);

/// Number of attempts of a request that may fail transiently and that the caller does not retry.
const TRIES: u32 = 5;

/// A prefix of an object store. Clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The store's name in messages.
    shown: String,
    /// The pause before the second attempt; each further pause is twice as long.
    pause: Duration,
    /// The runtime of the requests; `None` while the store is dropped.
    runtime: Option<Runtime>,
}

/// The outcome of a conditional put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The object was written.
    Done,
    /// Another object has this name; its bytes.
    Taken(Bytes),
}

impl Store {
    /// Returns the store of all objects below a prefix. `shown` is its name in messages, `pause` the pause
    /// before the second attempt.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        shown: String,
        pause: Duration,
    ) -> io::Result<Store> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("millstream-store")
            .enable_all()
            .build()?;
        Ok(Store { inner: Arc::new(Inner { store, prefix, shown, pause, runtime: Some(runtime) }) })
    }

    /// Returns the store's name in messages.
    pub(crate) fn shown(&self) -> &str {
        &self.inner.shown
    }

    /// Returns the pause before the second attempt.
    pub(crate) fn pause(&self) -> Duration {
        self.inner.pause
    }

    /// Returns the names of all objects below a folder, sorted and without the folder's name.
    pub(crate) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = self.path(folder);
        self.tried(move |store| {
            let prefix = prefix.clone();
            async move {
                let found: Vec<_> = store.list(Some(&prefix)).try_collect().await?;
                let name = |location: &Path| {
                    let parts: Vec<_> = location.prefix_match(&prefix)?.collect();
                    Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
                };
                let mut names: Vec<String> = found.iter().filter_map(|found| name(&found.location)).collect();
                names.sort_unstable();
                Ok(names)
            }
        })
    }

    /// Returns the name of any object below the prefix, or `None` if there is none.
    pub(crate) fn any(&self) -> io::Result<Option<String>> {
        let prefix = self.inner.prefix.clone();
        self.tried(move |store| {
            let prefix = prefix.clone();
            async move {
                let found = store.list(Some(&prefix)).try_next().await?;
                Ok(found.map(|found| found.location.to_string()))
            }
        })
    }

    /// Reads a whole object.
    pub(crate) fn read(&self, name: &str) -> io::Result<Bytes> {
        let path = self.path(name);
        self.tried(move |store| {
            let path = path.clone();
            async move { store.get(&path).await?.bytes().await }
        })
    }

    /// Reads whole objects, with all requests in flight at once.
    pub(crate) fn read_all(&self, names: Vec<String>) -> io::Result<Vec<Bytes>> {
        let paths: Vec<Path> = names.iter().map(|name| self.path(name)).collect();
        self.tried(move |store| {
            let read = |path: Path| {
                let store = store.clone();
                async move { store.get(&path).await?.bytes().await }
            };
            futures::future::try_join_all(paths.iter().cloned().map(read))
        })
    }

    /// Returns true if an object has this name.
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        let path = self.path(name);
        let found = self.tried(move |store| {
            let path = path.clone();
            async move { store.head(&path).await.map(drop) }
        });
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|()| true),
        }
    }

    /// Removes an object. Succeeds if the object does not exist.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let removed = self.tried(move |store| {
            let path = path.clone();
            async move { store.delete(&path).await }
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Puts an object if no object has its name. After an error the outcome is unknown. Putting the same
    /// bytes again reveals it, also if the first put succeeded. This function tries once: the caller decides
    /// how long to retry.
    pub(crate) fn put_new(&self, name: &str, bytes: &Bytes) -> io::Result<Put> {
        let (path, bytes) = (self.path(name), bytes.clone());
        self.wait(move |store| put_new(store, path, bytes))
    }

    /// Like [`Store::put_new`], but retries errors that may pass.
    pub(crate) fn put_new_surely(&self, name: &str, bytes: &Bytes) -> io::Result<Put> {
        let (path, bytes) = (self.path(name), bytes.clone());
        self.tried(move |store| put_new(store, path.clone(), bytes.clone()))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.inner.prefix.clone(), Path::join)
    }

    /// Runs `work` until it succeeds or fails permanently, at most [`TRIES`] times.
    fn tried<T, F>(&self, work: impl Fn(Arc<dyn ObjectStore>) -> F + Send + 'static) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let mut pause = self.inner.pause;
        self.wait(move |store| async move {
            for _ in 1..TRIES {
                match work(store.clone()).await {
                    Err(error) if may_pass(&error) => tokio::time::sleep(pause).await,
                    done => return done,
                }
                pause *= 2;
            }
            work(store).await
        })
    }

    fn wait<T, F>(&self, work: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let ended = || io::Error::other("the threads that speak with the store have ended");
        let runtime = self.inner.runtime.as_ref().ok_or_else(ended)?;
        let work = work(self.inner.store.clone());
        let (sender, answer) = sync_channel(1);
        runtime.spawn(async move { sender.send(tokio::time::timeout(PATIENCE, work).await) });
        match answer.recv().map_err(|_| ended())? {
            Ok(done) => done.map_err(io_error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the store doesn't answer")),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("shown", &self.inner.shown).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    /// The last clone may be dropped inside an async runtime, where blocking on another runtime is not
    /// allowed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            drop_on_thread(runtime, Runtime::shutdown_background);
        }
    }
}

async fn put_new(store: Arc<dyn ObjectStore>, path: Path, bytes: Bytes) -> object_store::Result<Put> {
    match store.put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await {
        Ok(_) => return Ok(Put::Done),
        Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    // The object may be this very one, from a put whose answer was lost.
    match store.get(&path).await {
        Ok(found) => {
            let found = found.bytes().await?;
            Ok(if found == bytes { Put::Done } else { Put::Taken(found) })
        }
        // S3 answers so while another process is putting an object there; that put may still fail.
        Err(StoreError::NotFound { .. }) => Err(StoreError::Generic {
            store: "object store",
            source: format!("'{path}' can't be put, since it is there, but it isn't there").into(),
        }),
        Err(error) => Err(error),
    }
}

/// Returns true if the same request may succeed a little later.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { .. } | StoreError::JoinError { .. })
}

/// Converts a store's error to the error that a disk would return.
fn io_error(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::NotFound { .. } => io::ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => io::ErrorKind::AlreadyExists,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, text(&error))
}

/// Returns the text of an error. A server's XML answer is reduced to its code and message: the rest may show
/// the key that signed the request.
fn text(error: &StoreError) -> String {
    let text = error.to_string();
    let Some(body) = text.find("<?xml").or_else(|| text.find("<Error")) else { return text };
    let (before, body) = text.split_at(body);
    let inside = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
    };
    let said: Vec<&str> = [inside("Code"), inside("Message")].into_iter().flatten().collect();
    format!("{}{}", before, said.join(": "))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn store() -> Store {
        Store::new(Arc::new(InMemory::new()), Path::from("a/b"), "memory".into(), Duration::ZERO).unwrap()
    }

    #[test]
    fn an_object_is_put_once() {
        let store = store();
        let (one, other) = (Bytes::from_static(b"one"), Bytes::from_static(b"other"));
        assert_eq!(store.put_new("x/1", &one).unwrap(), Put::Done);
        assert_eq!(store.put_new("x/1", &one).unwrap(), Put::Done, "it is this very one");
        assert_eq!(store.put_new("x/1", &other).unwrap(), Put::Taken(one.clone()));
        assert_eq!(store.read("x/1").unwrap(), one);
        assert_eq!((store.list("x").unwrap(), store.list("y").unwrap()), (vec!["1".to_string()], vec![]));
        assert!(store.has("x/1").unwrap() && !store.has("x").unwrap());
        store.remove("x/1").unwrap();
        store.remove("x/1").unwrap();
        assert_eq!(store.read("x/1").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn it_may_be_asked_and_let_go_within_a_runtime() {
        let store = store();
        assert_eq!(store.list("").unwrap(), Vec::<String>::new());
        drop(store);
    }

    #[test]
    fn whose_key_it_was_is_not_told() {
        let body = "403 Forbidden: <?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>\
                    <AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let error = StoreError::Generic { store: "S3", source: body.into() };
        let text = text(&error);
        assert!(text.ends_with("403 Forbidden: SignatureDoesNotMatch: no"), "{text}");
    }
}
