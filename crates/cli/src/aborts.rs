//! Leaves a note in the data directory when this process aborts because it ran out of memory or stack. The
//! note lets a start distinguish a query that kills the process from a user who kills it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::logging::{self, Message};

/// The note's file, and its name after another process has left it.
const ABORT: &str = "abort";
const ABORTED: &str = "aborted";

/// True if an abort leaves a note.
static LEAVES_NOTE: AtomicBool = AtomicBool::new(false);

/// Registers the note. Does nothing if the directory isn't a data directory yet; a later call then
/// registers it.
pub fn leave_note(data: &Path) {
    let folder = data.join("notes");
    if !folder.is_dir() || LEAVES_NOTE.swap(true, Ordering::Relaxed) {
        return;
    }
    if let Err(error) = register(&folder) {
        warn(&error);
    }
}

fn register(folder: &Path) -> io::Result<()> {
    let note = folder.join(ABORT);
    if fs::metadata(&note).is_ok_and(|note| note.len() > 0) {
        fs::rename(&note, folder.join(ABORTED))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(&note)?;
    #[cfg(unix)]
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGABRT, file)?;
    #[cfg(not(unix))]
    drop(file);
    Ok(())
}

fn warn(error: &io::Error) {
    logging::tell(Message::Warning(&format!("an abort of this process can't be recorded: {error}")));
}
