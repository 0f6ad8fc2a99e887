//! Files of a directory, mapped.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Place;
use super::mapped::mapped;
use super::rooms::{Room, Rooms};

/// Files that have no name: whatever ends the process, the system takes them away with it.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    rooms: Arc<Rooms>,
}

impl Files {
    /// Files in this directory, which is made when the first is.
    pub fn below(directory: impl Into<PathBuf>) -> Files {
        let directory = directory.into();
        Files { rooms: Arc::new(Rooms::below(directory.clone())), directory }
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
        let named = |error: io::Error| named(error, &self.directory);
        let file = self.written(bytes).map_err(named)?;
        Ok(Bytes::from_owner(mapped(&file).map_err(named)?))
    }

    fn room(&self, bytes: usize) -> io::Result<Room> {
        self.rooms.room(bytes)
    }
}

/// An error of a file, with where it was to be.
pub(super) fn named(error: io::Error, directory: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("a file in '{}': {error}", directory.display()))
}
