//! Mapped files in a directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Place;
use super::mapped::mapped;
use super::rooms::{Room, Rooms};

/// Unnamed files: the system removes them when the process ends, for whatever reason.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    rooms: Arc<Rooms>,
}

impl Files {
    /// Returns files in this directory, which the first file creates.
    pub fn below(directory: impl Into<PathBuf>) -> Files {
        let directory = directory.into();
        Files { rooms: Arc::new(Rooms::below(directory.clone())), directory }
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn written(&self, bytes: &[u8]) -> io::Result<fs::File> {
        fs::create_dir_all(&self.directory)?;
        let mut file = tempfile::tempfile_in(&self.directory)?;
        file.write_all(bytes)?;
        // Unsynced bytes would still take memory, and nothing would notice a later write error.
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

/// Adds the directory to the error of a file.
pub(super) fn named(error: io::Error, directory: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("a file in '{}': {error}", directory.display()))
}
