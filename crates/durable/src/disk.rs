//! The disk operations that the crate needs, as a trait, so that tests can simulate a disk.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder of files. File names contain no folders.
pub trait Disk: Debug + Send + Sync {
    /// Returns a file's name for messages, with its folder if that is known.
    fn shown(&self, name: &str) -> String {
        name.to_string()
    }
    /// Returns the names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Reads a whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Reads the first of `names` as a whole, and as many of the following files as cost little to read along
    /// with it.
    fn read_some(&self, names: &[&str]) -> io::Result<Vec<Vec<u8>>>;
    /// Creates a file; fails if a file of this name exists. On return, its existence survives a crash.
    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>>;
    /// Makes the present content of a file survive a crash, also if an earlier sync of it failed.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Removes a file durably.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file that grows at its end.
pub trait Growing: Debug + Send {
    /// Appends bytes. After an error, an unknown part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the appended bytes survive a crash. After an error, the durable length is unknown.
    fn sync(&mut self) -> io::Result<()>;
    /// Truncates the file to `length` bytes.
    fn shorten(&mut self, length: u64) -> io::Result<()>;
}

/// A folder of the operating system.
#[derive(Clone, Debug)]
pub struct OsDisk {
    folder: PathBuf,
}

impl OsDisk {
    /// Opens the folder. If it does not exist, creates it durably.
    pub fn open(folder: &Path) -> io::Result<OsDisk> {
        make_folder(folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        Ok(OsDisk { folder: folder.to_path_buf() })
    }
}

/// Creates a folder that only its owner can access, and its missing parents. On return they survive a crash.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new: Vec<&Path> = folder.ancestors().take_while(is_new).collect();
    for folder in new.iter().rev() {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Another process may have created it meanwhile.
        builder.recursive(true).create(folder)?;
        sync_folder(folder.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

/// Returns options to open files that only their owner can read: they hold users' data.
pub(crate) fn own_files() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the names in a folder survive a crash. The empty path is the current folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

impl Disk for OsDisk {
    fn shown(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join(name))
    }

    fn read_some(&self, names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
        names.iter().take(1).map(|name| self.read(name)).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        let file = own_files().write(true).create_new(true).open(self.folder.join(name))?;
        sync_folder(&self.folder)?;
        Ok(Box::new(file))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        // If a sync failed in an earlier process, the system may mark the unwritten pages as clean; then a
        // sync alone does nothing. So the same bytes are written once more. (Rebello et al., *Can
        // Applications Recover from fsync Failures?*, USENIX ATC 2020.)
        let mut file = OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))?;
        sync_folder(&self.folder)
    }
}

impl Growing for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn shorten(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }
}
