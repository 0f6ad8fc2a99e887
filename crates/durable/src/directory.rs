//! A data directory: its locks, its label and its layout.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::{Claim, JOURNAL};
use crate::disk::{Disk, OsDisk, make_folder, own_files};
use crate::store::{Store, StoreDisk};
use crate::{Error, Result};

/// The label file, which identifies a data directory.
pub(crate) const LABEL: &str = "MILLSTREAM";

/// The content of the label that this version writes.
pub(crate) const LABEL_TEXT: &str = "millstream data directory, format 3\n";

/// The contents of the labels of earlier versions.
const EARLIER_LABELS: [(&str, DirectoryFormat); 2] = [
    ("millstream data directory, format 1\n", DirectoryFormat::One),
    ("millstream data directory, format 2\n", DirectoryFormat::Two),
];

/// The format of a data directory, by its label. It says what statements mean (docs/formats.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectoryFormat {
    /// A TIMESTAMP without digits is in nanoseconds.
    One,
    /// Numbers and bytes are cast as in DataFusion.
    Two,
    /// Numbers and bytes are cast as in PostgreSQL.
    #[default]
    Three,
}

/// The file that is locked while a process has the directory open.
const LOCK: &str = "LOCK";

/// The folder of the checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The folder of the crash notes.
const NOTES: &str = "notes";

/// The folder of spilled state, which no later start reads.
const SPILL: &str = "spill";

/// An open data directory. A local one is locked against other processes. On an object store, the next
/// process that opens it takes it over.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    journal: Arc<dyn Disk>,
    checkpoints: Arc<dyn Disk>,
    notes: Option<Arc<dyn Disk>>,
    /// The claim that gives write access, on an object store.
    claim: Option<Arc<Claim>>,
    format: DirectoryFormat,
    _lock: Option<File>,
    _folder: Option<File>,
}

impl DataDirectory {
    /// Opens a directory. If it is missing or empty, initializes it.
    ///
    /// Errors: another process has it open; it holds something else; it cannot be read or written.
    pub fn open(path: &Path) -> Result<DataDirectory> {
        let shown = path.display().to_string();
        make_folder(path).map_err(|error| Error::disk("making directory", &shown, error))?;
        let format = check_label(path)?;
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
            format,
            _lock: Some(lock),
            _folder: locked,
        })
    }

    /// Opens an existing data directory.
    pub fn open_existing(path: &Path) -> Result<DataDirectory> {
        if !path.join(LABEL).is_file() {
            let reason = format!("it has no file {LABEL}");
            return Err(Error::Foreign { directory: path.to_path_buf(), reason });
        }
        DataDirectory::open(path)
    }

    /// Returns a directory whose files are on another disk, for tests. It has no notes: they belong to one
    /// process.
    pub fn on(disk: Arc<dyn Disk>) -> DataDirectory {
        DataDirectory {
            path: PathBuf::from("simulated"),
            journal: disk.clone(),
            checkpoints: disk,
            notes: None,
            claim: None,
            format: DirectoryFormat::default(),
            _lock: None,
            _folder: None,
        }
    }

    /// Puts the notes on this disk, for tests.
    pub fn with_notes(self, notes: Arc<dyn Disk>) -> DataDirectory {
        DataDirectory { notes: Some(notes), ..self }
    }

    /// Returns a data directory on an object store. Without a claim it is read-only.
    pub(crate) fn on_store(store: &Store, claim: Option<Claim>, format: DirectoryFormat) -> DataDirectory {
        DataDirectory {
            path: PathBuf::from(store.shown()),
            journal: Arc::new(StoreDisk::new(store.clone(), JOURNAL)),
            checkpoints: Arc::new(StoreDisk::new(store.clone(), CHECKPOINTS)),
            notes: None,
            claim: claim.map(Arc::new),
            format,
            _lock: None,
            _folder: None,
        }
    }

    /// Returns the format of the directory.
    pub fn format(&self) -> DirectoryFormat {
        self.format
    }

    /// Returns the location of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder for spilled state; `None` unless the directory is local.
    pub fn spill(&self) -> Option<PathBuf> {
        self._lock.is_some().then(|| self.path.join(SPILL))
    }

    /// Returns the disk of the checkpoints.
    pub(crate) fn checkpoints(&self) -> &Arc<dyn Disk> {
        &self.checkpoints
    }

    /// Returns the disk of the notes, if the directory has notes.
    pub(crate) fn notes(&self) -> Option<&Arc<dyn Disk>> {
        self.notes.as_ref()
    }

    /// Returns the disk of the journal.
    pub(crate) fn journal(&self) -> &Arc<dyn Disk> {
        &self.journal
    }

    /// Returns [`Error::Lost`] if another process has claimed the prefix, else `error`. The new owner removes
    /// files that it needs no more, which makes operations of this process fail.
    pub fn explain(&self, error: Error) -> Error {
        self.claim.as_ref().and_then(|claim| claim.lost_to()).unwrap_or(error)
    }

    /// Returns the claim that gives write access, on an object store.
    pub(crate) fn claim(&self) -> Option<&Arc<Claim>> {
        self.claim.as_ref()
    }
}

/// Returns the format of a data directory, or of one that is to be written at this path. Fails if the path holds
/// something else.
fn check_label(path: &Path) -> Result<DirectoryFormat> {
    let foreign = |reason: String| Error::Foreign { directory: path.to_path_buf(), reason };
    let label = path.join(LABEL);
    match fs::read(&label) {
        Ok(text) => check_label_text(&text).map_err(foreign),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(path)
                .map_err(|error| Error::disk("listing", &path.display().to_string(), error))?;
            // A crash during initialization leaves these files.
            let unfinished = format!("{LABEL}.tmp");
            let is_ours =
                |entry: &fs::DirEntry| entry.file_name() == LOCK || entry.file_name() == unfinished.as_str();
            match entries.find_map(|entry| entry.ok().filter(|entry| !is_ours(entry))) {
                None => Ok(DirectoryFormat::default()),
                Some(entry) => Err(foreign(format!(
                    "it has no file {LABEL}, but holds '{}': name a directory that is empty, or not there yet",
                    entry.file_name().to_string_lossy()
                ))),
            }
        }
        Err(error) => Err(Error::disk("reading", &label.display().to_string(), error)),
    }
}

/// Returns the format that a label says. Fails if this version can't read it.
pub(crate) fn check_label_text(text: &[u8]) -> Result<DirectoryFormat, String> {
    if text == LABEL_TEXT.as_bytes() {
        return Ok(DirectoryFormat::default());
    }
    if let Some((_, format)) = EARLIER_LABELS.into_iter().find(|(label, _)| text == label.as_bytes()) {
        return Ok(format);
    }
    let (found, expected) = (String::from_utf8_lossy(text), LABEL_TEXT.trim_end());
    let found: String = found.trim_end().chars().take(80).collect();
    Err(format!("its file {LABEL} says '{found}', but '{expected}' or an earlier format was expected"))
}

/// Writes the label if there is none. The write is atomic.
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

/// Locks the lock file and writes this process's id to it.
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
        // The file was removed between open and lock, so another process may have locked a new file of the
        // same name.
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

/// Returns true if `name` still refers to the open file.
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

/// Locks the folder itself, if the system supports it: so removing LOCK lets no second process in.
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
        assert!(error.contains("format 7") && error.contains("format 3"), "{error}");
    }
}
