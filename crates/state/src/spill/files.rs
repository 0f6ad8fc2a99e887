//! Files of a directory, mapped.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;

use super::Place;

/// Files that have no name: whatever ends the process, the system takes them away with it.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// Files in this directory, which is made when the first is.
    pub fn below(directory: impl Into<PathBuf>) -> Files {
        Files { directory: directory.into() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn written(&self, bytes: &[u8]) -> io::Result<fs::File> {
        fs::create_dir_all(&self.directory)?;
        let mut file = tempfile::tempfile_in(&self.directory)?;
        file.write_all(bytes)?;
        // Until it is on the disk it takes memory all the same, and a write that fails after it was said to have gone well
        // would be found by nobody.
        file.sync_data()?;
        Ok(file)
    }
}

impl Place for Files {
    fn put(&self, bytes: &[u8]) -> io::Result<Bytes> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("a file in '{}': {error}", self.directory.display()))
        };
        let file = self.written(bytes).map_err(named)?;
        Ok(Bytes::from_owner(mapped(&file).map_err(named)?))
    }
}

/// The bytes of a file that stays as it is.
#[allow(unsafe_code)]
fn mapped(file: &fs::File) -> io::Result<Mmap> {
    // SAFETY: a mapping is sound as long as nobody changes or shortens the file. This one has no name, its only handle is
    // closed right after, and all of it was written and synced before.
    unsafe { Mmap::map(file) }
}
