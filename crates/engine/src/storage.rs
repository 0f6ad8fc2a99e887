//! The places in which an engine keeps its data.

use std::path::PathBuf;
use std::sync::Arc;

use millstream_durable::{DataDirectory, StorePrefix};
use millstream_state::{Files, Place};

use crate::{Result, error};

/// The places of an engine's durable data and of spilled rows.
#[derive(Default)]
pub(crate) struct Storage {
    /// The place of the journal and the checkpoints, if the engine survives crashes.
    pub(crate) data: Option<DurablePlace>,
    /// The directory for spilled rows, if not the default.
    pub(crate) spill: Option<PathBuf>,
    /// True if the place must hold an engine already.
    pub(crate) must_exist: bool,
}

/// The place of an engine's durable data.
pub(crate) enum DurablePlace {
    Path(PathBuf),
    Store(StorePrefix),
    Directory(DataDirectory),
}

impl Storage {
    /// Opens the place of the durable data, if there is one, and returns the place of spilled rows: `spill` in the data
    /// directory, or the system's directory for temporary files, if none was given.
    pub(crate) fn open(self) -> Result<(Option<DataDirectory>, Arc<dyn Place>)> {
        let Storage { data, spill, must_exist } = self;
        let directory = data.map(|place| place.open(must_exist)).transpose().map_err(error::durable)?;
        let spill = spill.or_else(|| directory.as_ref().and_then(DataDirectory::spill));
        let spill = Arc::new(Files::below(spill.unwrap_or_else(std::env::temp_dir)));
        Ok((directory, spill))
    }
}

impl DurablePlace {
    fn open(self, must_exist: bool) -> millstream_durable::Result<DataDirectory> {
        match (self, must_exist) {
            (DurablePlace::Path(path), false) => DataDirectory::open(&path),
            (DurablePlace::Path(path), true) => DataDirectory::open_existing(&path),
            (DurablePlace::Store(prefix), false) => prefix.open(),
            (DurablePlace::Store(prefix), true) => prefix.open_existing(),
            (DurablePlace::Directory(directory), _) => Ok(directory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_created_unless_it_must_exist() {
        let path = std::env::temp_dir().join(format!("millstream-storage-{}", std::process::id()));
        let storage = |must_exist| Storage {
            data: Some(DurablePlace::Path(path.clone())),
            must_exist,
            ..Storage::default()
        };
        assert!(storage(true).open().is_err());
        assert!(storage(false).open().is_ok_and(|(directory, _)| directory.is_some()));
        std::fs::remove_dir_all(&path).unwrap();
        assert!(Storage::default().open().is_ok_and(|(directory, _)| directory.is_none()));
    }
}
