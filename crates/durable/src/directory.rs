//! A data directory: who may open it, and what it must look like.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::{Claim, JOURNAL};
use crate::disk::{Disk, OsDisk, make_folder, own_files};
use crate::store::{Store, StoreDisk};
use crate::{Error, Result};

/// The file that says what the directory is.
pub(crate) const LABEL: &str = "MILLSTREAM";

/// What it says.
pub(crate) const LABEL_TEXT: &str = "millstream data directory, format 1\n";

/// The file that is locked as long as somebody has the directory open.
const LOCK: &str = "LOCK";

/// The folder of the checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The folder of what an engine notes that is in the middle of something.
const NOTES: &str = "notes";

/// The folder of what memory has no room for, which is of no use to a later start.
const SPILL: &str = "spill";

/// A data directory that is open: nobody else opens it meanwhile, or, on an object store, whoever opens it has it from then
/// on.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    journal: Arc<dyn Disk>,
    checkpoints: Arc<dyn Disk>,
    notes: Option<Arc<dyn Disk>>,
    /// By what it is known, on an object store, who may write.
    claim: Option<Arc<Claim>>,
    _lock: Option<File>,
    _folder: Option<File>,
}

impl DataDirectory {
    /// Opens a directory, and makes it where there is none, or an empty one.
    ///
    /// Errors: another process has it open; it holds something else; it can't be read or written.
    pub fn open(path: &Path) -> Result<DataDirectory> {
        let shown = path.display().to_string();
        make_folder(path).map_err(|error| Error::disk("making directory", &shown, error))?;
        check_label(path)?;
        let lock = lock(path)?;
        let locked = lock_folder(path)?;
        write_label(path)?;
        let folder = |name: &str| -> Result<Arc<dyn Disk>> {
            let folder = path.join(name);
            match OsDisk::open(&folder) {
                Ok(disk) => Ok(Arc::new(disk)),
                Err(error) => Err(Error::disk("opening", &folder.display().to_string(), error)),
            }
        };
        let (journal, checkpoints) = (folder(JOURNAL)?, folder(CHECKPOINTS)?);
        let notes = Some(folder(NOTES)?);
        let path = path.to_path_buf();
        Ok(DataDirectory {
            path,
            journal,
            checkpoints,
            notes,
            claim: None,
            _lock: Some(lock),
            _folder: locked,
        })
    }

    /// Opens one that is there.
    pub fn open_existing(path: &Path) -> Result<DataDirectory> {
        if !path.join(LABEL).is_file() {
            let reason = format!("it has no file {LABEL}");
            return Err(Error::Foreign { directory: path.to_path_buf(), reason });
        }
        DataDirectory::open(path)
    }

    /// One whose files are on another disk: for tests. Notes are of the process alone, so they aren't kept on it.
    pub fn on(disk: Arc<dyn Disk>) -> DataDirectory {
        DataDirectory {
            path: PathBuf::from("simulated"),
            journal: disk.clone(),
            checkpoints: disk,
            notes: None,
            claim: None,
            _lock: None,
            _folder: None,
        }
    }

    /// The same with its notes on this disk: for tests.
    pub fn with_notes(self, notes: Arc<dyn Disk>) -> DataDirectory {
        DataDirectory { notes: Some(notes), ..self }
    }

    /// One that lies on an object store. Without a claim it can only be looked at.
    pub(crate) fn on_store(store: &Store, claim: Option<Claim>) -> DataDirectory {
        DataDirectory {
            path: PathBuf::from(store.shown()),
            journal: Arc::new(StoreDisk::new(store.clone(), JOURNAL)),
            checkpoints: Arc::new(StoreDisk::new(store.clone(), CHECKPOINTS)),
            notes: None,
            claim: claim.map(Arc::new),
            _lock: None,
            _folder: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for what memory has no room for, where the directory is one of this machine.
    pub fn spill(&self) -> Option<PathBuf> {
        self._lock.is_some().then(|| self.path.join(SPILL))
    }

    /// The disk of its checkpoints.
    pub(crate) fn checkpoints(&self) -> &Arc<dyn Disk> {
        &self.checkpoints
    }

    /// The disk of its notes, where it has some.
    pub(crate) fn notes(&self) -> Option<&Arc<dyn Disk>> {
        self.notes.as_ref()
    }

    /// The disk of its journal.
    pub(crate) fn journal(&self) -> &Arc<dyn Disk> {
        &self.journal
    }

    /// Why something failed, where that may be that another process has taken over an object store's prefix: it removes
    /// what it needs no more.
    pub fn explain(&self, error: Error) -> Error {
        self.claim.as_ref().and_then(|claim| claim.lost_to()).unwrap_or(error)
    }

    /// By what it is known, on an object store, who may write.
    pub(crate) fn claim(&self) -> Option<&Arc<Claim>> {
        self.claim.as_ref()
    }
}

/// Fails where something else than a data directory of this format is there.
fn check_label(path: &Path) -> Result<()> {
    let foreign = |reason: String| Error::Foreign { directory: path.to_path_buf(), reason };
    let label = path.join(LABEL);
    match fs::read(&label) {
        Ok(text) => check_label_text(&text).map_err(foreign),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(path)
                .map_err(|error| Error::disk("listing", &path.display().to_string(), error))?;
            // A crash between the first steps leaves these.
            let unfinished = format!("{LABEL}.tmp");
            let is_ours =
                |entry: &fs::DirEntry| entry.file_name() == LOCK || entry.file_name() == unfinished.as_str();
            match entries.find_map(|entry| entry.ok().filter(|entry| !is_ours(entry))) {
                None => Ok(()),
                Some(entry) => Err(foreign(format!(
                    "it has no file {LABEL}, but holds '{}': name a directory that is empty, or not there yet",
                    entry.file_name().to_string_lossy()
                ))),
            }
        }
        Err(error) => Err(Error::disk("reading", &label.display().to_string(), error)),
    }
}

/// Fails where a label says something else than this version writes.
pub(crate) fn check_label_text(text: &[u8]) -> Result<(), String> {
    if text == LABEL_TEXT.as_bytes() {
        return Ok(());
    }
    let (found, expected) = (String::from_utf8_lossy(text), LABEL_TEXT.trim_end());
    let found: String = found.trim_end().chars().take(80).collect();
    Err(format!("its file {LABEL} says '{found}', but '{expected}' was expected"))
}

/// Says what the directory is, where nothing says it yet: the whole text or none of it.
fn write_label(path: &Path) -> Result<()> {
    let label = path.join(LABEL);
    if label.exists() {
        return Ok(());
    }
    let written = path.join(format!("{LABEL}.tmp"));
    let write = || {
        let mut file = own_files().write(true).create(true).truncate(true).open(&written)?;
        file.write_all(LABEL_TEXT.as_bytes())?;
        file.sync_all()?;
        fs::rename(&written, &label)?;
        File::open(path)?.sync_all()
    };
    write().map_err(|error| Error::disk("writing", &label.display().to_string(), error))
}

/// The lock, with the number of this process in it.
fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK);
    let failed = |error| Error::disk("locking", &name.display().to_string(), error);
    let mut file =
        own_files().read(true).write(true).create(true).truncate(false).open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut by = String::new();
            let by = match file.read_to_string(&mut by) {
                Ok(_) if !by.trim().is_empty() => format!(" (process {})", by.trim()),
                _ => String::new(),
            };
            return Err(Error::Locked { directory: path.to_path_buf(), by });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    if !is_same_file(&file, &name).map_err(failed)? {
        // It was removed between opening and locking it, so that another process may have locked another file of its name.
        return Err(Error::Locked { directory: path.to_path_buf(), by: String::new() });
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    note(&mut file).map_err(failed)?;
    Ok(file)
}

/// Whether an open file is the one that has this name now.
#[cfg(unix)]
fn is_same_file(file: &File, name: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (opened, named) = (file.metadata()?, fs::metadata(name)?);
    Ok((opened.dev(), opened.ino()) == (named.dev(), named.ino()))
}

#[cfg(not(unix))]
fn is_same_file(_: &File, _: &Path) -> std::io::Result<bool> {
    Ok(true)
}

/// Locks the folder itself, where the system can do that: whoever removes LOCK lets nobody in.
fn lock_folder(path: &Path) -> Result<Option<File>> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => {
            let by = format!(", though its file {LOCK} was removed");
            Err(Error::Locked { directory: path.to_path_buf(), by })
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_opens_it_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let open = || DataDirectory::open(&place.path().join("data"));
        let first = open().unwrap();
        let Err(Error::Locked { by, .. }) = open() else { panic!("it was opened twice") };
        assert_eq!(by, format!(" (process {})", std::process::id()));
        drop(first);
        open().unwrap();
    }

    #[test]
    fn whoever_removes_the_lock_opens_nothing() {
        let place = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(place.path()).unwrap();
        fs::remove_file(place.path().join(LOCK)).unwrap();
        let error = DataDirectory::open(place.path()).unwrap_err().to_string();
        assert!(error.contains("was removed"), "{error}");
        drop(first);
        DataDirectory::open(place.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_look_into_it() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/data");
        let directory = DataDirectory::open(&path).unwrap();
        drop(directory.journal.create("x").unwrap());
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode(JOURNAL), mode(CHECKPOINTS), mode(NOTES)], [0o700; 4]);
        assert_eq!([mode(LABEL), mode(LOCK), mode("journal/x")], [0o600; 3]);
    }

    #[test]
    fn what_is_something_else_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("notes.txt"), "mine").unwrap();
        let error = DataDirectory::open(place.path()).unwrap_err().to_string();
        assert!(error.contains("holds 'notes.txt'"), "{error}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_version_is_named() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(LABEL), "millstream data directory, format 7\n").unwrap();
        let error = DataDirectory::open(place.path()).unwrap_err().to_string();
        assert!(error.contains("format 7") && error.contains("format 1"), "{error}");
    }
}
