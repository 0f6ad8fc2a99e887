//! The few things that are asked of a disk, so that a test can stand for it.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder of files whose names have no folders in them.
pub trait Disk: Debug + Send + Sync {
    /// The names of all files, in their order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// All bytes of the first of some files, and of as many behind it as are had with it at little cost.
    fn read_some(&self, names: &[&str]) -> io::Result<Vec<Vec<u8>>>;
    /// A new file; an error where there is one of its name. That it is there survives a crash from here on.
    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>>;
    /// What is in a file by now survives a crash from here on, also where an earlier sync of it failed.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Removes a file, for good.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file that grows at its end.
pub trait Growing: Debug + Send {
    /// Adds bytes, all or an unknown part of them where it fails.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// What was appended survives a crash from here on. After a failure nobody knows what does.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts off all behind so many bytes.
    fn shorten(&mut self, length: u64) -> io::Result<()>;
}

/// A folder of the operating system's.
#[derive(Clone, Debug)]
pub struct OsDisk {
    folder: PathBuf,
}

impl OsDisk {
    /// The folder, which is made where it isn't there, and stays after a crash.
    pub fn open(folder: &Path) -> io::Result<OsDisk> {
        make_folder(folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        Ok(OsDisk { folder: folder.to_path_buf() })
    }
}

/// Makes a folder that only its owner may look into, and those it lies in, which survive a crash from here on.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new: Vec<&Path> = folder.ancestors().take_while(is_new).collect();
    for folder in new.iter().rev() {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Another process may have made it meanwhile.
        builder.recursive(true).create(folder)?;
        sync_folder(folder.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

/// How files are opened, which only their owner may read: they hold what users have written.
pub(crate) fn own_files() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes sure that the names in a folder survive a crash. The empty path is the folder that one is in.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

impl Disk for OsDisk {
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
        // Where a sync failed in a process before this one, the system may take what it couldn't write for written: then a
        // sync alone does nothing. So the same bytes are written once more. (Rebello et al., *Can Applications Recover from
        // fsync Failures?*, USENIX ATC 2020.)
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
