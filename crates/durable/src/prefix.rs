//! A prefix of an object store as the location of a data directory.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::checkpoint;
use crate::claim::Claim;
use crate::directory::{CHECKPOINTS, DirectoryFormat, LABEL, LABEL_TEXT, check_label_text};
use crate::store::{Put, Store};
use crate::{DataDirectory, Error, Result};

/// A prefix of an object store. The store must support conditional puts (If-None-Match) and list every object
/// that was put before.
///
/// ```
/// use std::sync::Arc;
/// use millstream_durable::{StorePrefix, object_store::memory::InMemory};
///
/// let prefix = StorePrefix::new(Arc::new(InMemory::new()), "app/state", "memory:///app/state");
/// let first = prefix.open()?;
/// let second = prefix.open()?;  // From here on the first one can't write any more.
/// # Ok::<(), millstream_durable::Error>(())
/// ```
#[derive(Clone)]
pub struct StorePrefix {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    shown: String,
    pause: Duration,
}

/// The default pause before a request is retried.
const PAUSE: Duration = Duration::from_millis(100);

impl StorePrefix {
    /// Returns the prefix `prefix`, with `/` between its parts. `shown` is its name in messages.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str, shown: impl Into<String>) -> StorePrefix {
        StorePrefix { store, prefix: Path::from(prefix), shown: shown.into(), pause: PAUSE }
    }

    /// Sets the pause before the first retry of a failed request. The pause doubles with each retry.
    pub fn tries_again_after(self, pause: Duration) -> StorePrefix {
        StorePrefix { pause, ..self }
    }

    /// Opens the directory, and initializes it if the prefix is empty. A previous owner can't write any more.
    ///
    /// Errors: the prefix holds something else; the store can't be reached; it overwrites existing objects.
    pub fn open(&self) -> Result<DataDirectory> {
        let store = self.store()?;
        if self.label(&store)?.is_none() {
            let found = store.any().map_err(|error| Error::disk("listing", &self.shown, error))?;
            // Another process may have initialized it meanwhile.
            if let Some(found) = found
                && self.label(&store)?.is_none()
            {
                let reason =
                    format!("it has no object {LABEL}, but holds '{found}': name a prefix that is empty");
                return Err(self.foreign(reason));
            }
            self.put_label(&store, LABEL_TEXT)?;
        }
        // Another process, of another version, may have put it.
        let format = self.check_existing(&store)?;
        self.check_condition(&store)?;
        // Entries that a checkpoint covers are written, even if the journal has been removed.
        let names = store.list(CHECKPOINTS).map_err(|error| Error::disk("listing", CHECKPOINTS, error))?;
        let known = names.iter().filter_map(|name| checkpoint::number_of_manifest(name)).max();
        let claim = Claim::take(&store, known.unwrap_or_default())?;
        Ok(DataDirectory::on_store(&store, Some(claim), format))
    }

    /// Opens an existing data directory.
    pub fn open_existing(&self) -> Result<DataDirectory> {
        self.check_existing(&self.store()?)?;
        self.open()
    }

    /// Opens an existing data directory for reading. Its owner keeps it.
    pub(crate) fn look(&self) -> Result<DataDirectory> {
        let store = self.store()?;
        let format = self.check_existing(&store)?;
        Ok(DataDirectory::on_store(&store, None, format))
    }

    fn store(&self) -> Result<Store> {
        let store = Store::new(self.store.clone(), self.prefix.clone(), self.shown.clone(), self.pause);
        store.map_err(|error| Error::disk("opening", &self.shown, error))
    }

    fn check_existing(&self, store: &Store) -> Result<DirectoryFormat> {
        self.label(store)?.ok_or_else(|| self.foreign(format!("it has no object {LABEL}")))
    }

    /// Returns the format that the label of the prefix says; none without a label. Fails if it is of something else.
    fn label(&self, store: &Store) -> Result<Option<DirectoryFormat>> {
        match store.read(LABEL) {
            Ok(text) => check_label_text(&text).map(Some).map_err(|reason| self.foreign(reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::disk("reading", &self.name(LABEL), error)),
        }
    }

    fn put_label(&self, store: &Store, text: &'static str) -> Result<Put> {
        let put = store.put_new_surely(LABEL, &Bytes::from_static(text.as_bytes()));
        put.map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => {
                self.foreign(format!("its store doesn't support conditional writes: {error}"))
            }
            _ => Error::disk("writing", &self.name(LABEL), error),
        })
    }

    /// Fails if the store ignores the condition of a put: then nothing would fence two processes off from
    /// each other.
    fn check_condition(&self, store: &Store) -> Result<()> {
        const OTHER: &str = "this store writes over what is there: it can't have a data directory\n";
        match self.put_label(store, OTHER)? {
            Put::Taken(_) => Ok(()),
            Put::Done => {
                let _ = store.remove(LABEL);
                let reason =
                    "its store overwrites existing objects, although the request forbids it (If-None-Match)";
                Err(self.foreign(reason.into()))
            }
        }
    }

    fn foreign(&self, reason: String) -> Error {
        Error::Foreign { directory: PathBuf::from(&self.shown), reason }
    }

    fn name(&self, object: &str) -> String {
        format!("{}/{object}", self.shown.trim_end_matches('/'))
    }
}

impl fmt::Debug for StorePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorePrefix").field("shown", &self.shown).finish_non_exhaustive()
    }
}
