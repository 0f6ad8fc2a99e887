//! A prefix of an object store: few operations, each of which waits for its answer.
//!
//! Whoever asks may be within an async runtime, where nothing can be waited for; so requests are run by a small runtime of
//! the store's own. What is written is put only if there is nothing of its name. Where the answer to such a put is lost,
//! what lies there says what became of it.
//!
//! Deliberately absent: which store it is, and its credentials; whoever opens one knows them.

mod disk;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode};
use tokio::runtime::Runtime;

pub(crate) use disk::StoreDisk;

/// How long one request may take, with what the store's client tries again by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often what may pass is tried, where nobody tries again.
const TRIES: u32 = 5;

/// A prefix of an object store. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// How it is called in messages.
    shown: String,
    /// How long it is waited before the second try; before each further one twice as long.
    pause: Duration,
    /// None while it is let go.
    runtime: Option<Runtime>,
}

/// What became of putting an object where there may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there.
    Done,
    /// Another one is there.
    Taken(Bytes),
}

impl Store {
    /// What lies below a prefix; `shown` is how it is called, `pause` how long it is waited before the second try.
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

    /// How it is called in messages.
    pub(crate) fn shown(&self) -> &str {
        &self.inner.shown
    }

    /// How long it is waited before something is tried again.
    pub(crate) fn pause(&self) -> Duration {
        self.inner.pause
    }

    /// The names of all objects below a folder, without the folder's and in their order.
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

    /// The name of some object below the prefix, if there is one.
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

    /// All bytes of an object.
    pub(crate) fn read(&self, name: &str) -> io::Result<Bytes> {
        let path = self.path(name);
        self.tried(move |store| {
            let path = path.clone();
            async move { store.get(&path).await?.bytes().await }
        })
    }

    /// All bytes of some objects, which are asked for at once.
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

    /// Whether there is an object of this name.
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

    /// Removes an object. One that isn't there is removed.
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

    /// Puts an object if there is none of its name. Where it fails nobody knows whether it is there; to do it again with the
    /// same bytes finds that out, also after it has succeeded. It is tried once: who calls knows for how long to go on.
    pub(crate) fn put_new(&self, name: &str, bytes: &Bytes) -> io::Result<Put> {
        let (path, bytes) = (self.path(name), bytes.clone());
        self.wait(move |store| put_new(store, path, bytes))
    }

    /// The same, tried again a few times where that may help.
    pub(crate) fn put_new_surely(&self, name: &str, bytes: &Bytes) -> io::Result<Put> {
        let (path, bytes) = (self.path(name), bytes.clone());
        self.tried(move |store| put_new(store, path.clone(), bytes.clone()))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.inner.prefix.clone(), Path::join)
    }

    /// Does something again and again, at most so often, while it fails in a way that may pass.
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
    /// The last one may go within an async runtime, where another one can't be waited for.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn put_new(store: Arc<dyn ObjectStore>, path: Path, bytes: Bytes) -> object_store::Result<Put> {
    match store.put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await {
        Ok(_) => return Ok(Put::Done),
        Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    // Perhaps it is this very one, whose answer was lost.
    match store.get(&path).await {
        Ok(found) => {
            let found = found.bytes().await?;
            Ok(if found == bytes { Put::Done } else { Put::Taken(found) })
        }
        // S3 answers so where somebody else is about to put one, which may come to nothing.
        Err(StoreError::NotFound { .. }) => Err(StoreError::Generic {
            store: "object store",
            source: format!("'{path}' can't be put, since it is there, but it isn't there").into(),
        }),
        Err(error) => Err(error),
    }
}

/// Whether the same request may succeed a little later.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { .. } | StoreError::JoinError { .. })
}

/// The error as those see it who know disks.
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

/// What an error says, without what a server tells of the request beyond its code and its message: that may show whose key
/// it was signed with.
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
