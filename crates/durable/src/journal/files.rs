//! The journal in a folder: a segment is a file that grows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Ended, Segments, Told};
use crate::disk::{Disk, Growing};
use crate::frame::{self, Salt, Sequence, segment_name};
use crate::{Error, Result};

/// The size from which a segment is followed by another.
const SEGMENT_BYTES: u64 = 64 << 20;

/// The pause between two attempts while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// The segments of a folder. The last one is being written.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    segment: Segment,
    /// True if the next write begins another segment.
    ends: bool,
}

/// The segment being written.
struct Segment {
    name: String,
    file: Box<dyn Growing>,
    /// The number of its bytes that are whole entries.
    length: u64,
}

impl Segment {
    fn create(disk: &dyn Disk, first: Sequence, salt: Salt) -> io::Result<Segment> {
        let name = segment_name(first);
        let mut file = disk.create(&name)?;
        let head = frame::head(first, salt);
        file.append(&head)?;
        Ok(Segment { name, file, length: head.len() as u64 })
    }
}

impl Files {
    /// Begins the segment after the entry `after`.
    pub(super) fn begin(disk: Arc<dyn Disk>, after: Sequence, salt: Salt) -> Result<Files> {
        let name = segment_name(after.next());
        let failed = |error| Error::disk("creating", &name, error);
        let before = disk.list().map_err(failed)?;
        // A crash right after its creation may have left an empty segment.
        if before.contains(&name) {
            disk.remove(&name).map_err(failed)?;
        }
        // The last entries read may have been written but not synced; from here on others rely on them.
        if let Some(last) =
            before.iter().rfind(|before| frame::first_of(before).is_some() && **before != name)
        {
            disk.sync(last).map_err(failed)?;
        }
        let segment = Segment::create(disk.as_ref(), after.next(), salt).map_err(failed)?;
        Ok(Files { disk, segment, ends: false })
    }

    /// Retries `work` while the disk is full, and undoes a partial attempt before each retry.
    fn unless_full<T>(
        &mut self,
        told: &mut Told,
        mut work: impl FnMut(&mut Files) -> io::Result<T>,
        mut undo: impl FnMut(&mut Files) -> io::Result<()>,
    ) -> Result<T, Ended> {
        let failed = |files: &Files, error: &io::Error| {
            format!("writing journal '{}' failed: {error}", files.disk.shown(&files.segment.name))
        };
        loop {
            let error = match work(self) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if !is_full || told.is_ending() {
                return Err(Ended::Failed(failed(self, &error)));
            }
            undo(self).map_err(|error| Ended::Failed(failed(self, &error)))?;
            told.wait(failed(self, &error), FULL_PAUSE);
        }
    }
}

impl Segments for Files {
    fn write(
        &mut self,
        (begins, _): (Sequence, Sequence),
        (group, salt): (&[u8], Salt),
        told: &mut Told,
    ) -> Result<(), Ended> {
        if std::mem::take(&mut self.ends) || self.segment.length >= SEGMENT_BYTES {
            self.segment = self.unless_full(
                told,
                |files| Segment::create(files.disk.as_ref(), begins, salt),
                |files| {
                    let name = segment_name(begins);
                    match files.disk.list()?.contains(&name) {
                        true => files.disk.remove(&name),
                        false => Ok(()),
                    }
                },
            )?;
        }
        self.unless_full(
            told,
            |files| files.segment.file.append(group),
            |files| files.segment.file.shorten(files.segment.length),
        )?;
        let name = self.disk.shown(&self.segment.name);
        let synced = self.segment.file.sync();
        synced.map_err(|error| Ended::Failed(format!("syncing journal '{name}' failed: {error}")))?;
        self.segment.length += group.len() as u64;
        Ok(())
    }

    /// Ends the current segment, and removes the segments that have no entry after `through`.
    fn forget(&mut self, through: Sequence) -> io::Result<()> {
        self.ends = self.segment.length > frame::HEAD as u64;
        let names = self.disk.list()?;
        for (name, _) in super::passed(&names, through) {
            if *name != self.segment.name {
                self.disk.remove(name)?;
            }
        }
        Ok(())
    }
}
