//! Spilled state: chunks of rows are read from files on access; pages of mutable data are changed in files.
//!
//! A chunk of rows never changes. So its columns are written once, in their memory layout, and the file is
//! mapped in their place. Owners of the chunk hold the same arrays as before, but the system may drop their
//! pages and read them again. A clock algorithm with a second chance for accessed chunks selects the chunks
//! to spill (Corbató, *A Paging Experiment with the Multics System*, 1969).
//!
//! Mutable data, such as indexes, lists of rows and the columns of aggregates, is stored in pages of
//! [`Values`]. These move to a file unchanged and are changed there. The system knows which of them are
//! accessed and keeps those in memory. So all of them move together, after the rows.
//!
//! The leaves of ordered trees move too: they are small, so many share a page of the system.
//!
//! Deliberately absent: memory that such values own in turn, such as texts and sets.

mod files;
mod layout;
mod mapped;
#[cfg(test)]
mod pages_tests;
mod rooms;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;

use crate::store::Store;
pub use files::Files;
pub(crate) use mapped::Values;
pub use rooms::Room;
use rooms::Written;

/// The approximate size of a file; a larger chunk has a larger file.
const FILE_BYTES: usize = 16 << 20;

/// The size from which pages are always worth spilling.
const PAGE_BYTES: usize = 4 << 10;

/// Fewer written bytes than this are left to the system, which writes them to the disk at its leisure.
const LET_GO_BYTES_MIN: usize = 1 << 20;

/// A location for spilled state.
pub trait Place: Debug + Send + Sync {
    /// Writes bytes, which never change again, and returns them without holding them in memory. They are
    /// aligned to 64 bytes, and removed when the last reference to part of them is dropped.
    fn put(&self, bytes: &[u8]) -> io::Result<Bytes>;

    /// Returns a room of at least `bytes` for mutable data. Its disk space is allocated on return.
    fn room(&self, bytes: usize) -> io::Result<Room>;
}

/// State that can be spilled.
pub trait Spillable {
    /// Spills what the round asks for.
    fn spill(&mut self, spilling: &mut Spilling<'_>);
    /// Returns the number of spilled bytes.
    fn spilled_bytes(&self) -> usize;
}

/// One round of spilling, over any number of [`Spillable`] values.
#[derive(Debug)]
pub struct Spilling<'a> {
    place: &'a dyn Place,
    /// The minimum size of a chunk to spill.
    chunk_bytes_min: usize,
    /// True if the round also spills pages of mutable data.
    takes_pages: bool,
    written: Written,
    wanted: usize,
    freed: usize,
    failed: Option<io::Error>,
}

impl<'a> Spilling<'a> {
    /// Returns a round that is to free `wanted` bytes of memory.
    pub fn new(place: &'a dyn Place, wanted: usize) -> Spilling<'a> {
        let (chunk_bytes_min, takes_pages, freed) = (0, false, 0);
        Spilling {
            place,
            chunk_bytes_min,
            takes_pages,
            written: Written::default(),
            wanted,
            freed,
            failed: None,
        }
    }

    /// Sets the minimum size of a chunk to spill.
    pub fn only_from(mut self, bytes: usize) -> Spilling<'a> {
        self.chunk_bytes_min = bytes;
        self
    }

    /// Returns the number of bytes of memory freed.
    pub fn freed(&self) -> usize {
        self.freed
    }

    /// Returns true if the round has freed enough, or has failed.
    pub fn is_over(&self) -> bool {
        self.freed >= self.wanted || self.failed.is_some()
    }

    /// Makes the round also spill pages of mutable data from now on.
    pub fn take_pages(&mut self) {
        self.takes_pages = true;
    }

    /// Ends the round and writes moved pages to the disk. Returns the error if the round failed. Everything
    /// not moved is in memory as before.
    pub fn end(mut self) -> Option<io::Error> {
        if self.written.bytes() >= LET_GO_BYTES_MIN
            && let Err(error) = self.written.let_go()
        {
            self.failed.get_or_insert(error);
        }
        self.failed
    }

    /// Spills the chunks of a store that were not accessed since the previous round.
    pub(crate) fn take(&mut self, store: &mut Store) {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for position in 0..store.num_chunks() {
            if self.freed + bytes >= self.wanted || self.failed.is_some() {
                break;
            }
            let Some(more) = store.chunk_to_spill(position, self.chunk_bytes_min) else { continue };
            taken.push(position);
            bytes += more;
            if bytes >= FILE_BYTES {
                self.write(store, &std::mem::take(&mut taken));
                bytes = 0;
            }
        }
        self.write(store, &taken);
    }

    /// Moves pages to files, if they are wanted and large enough. Returns the number of bytes moved.
    pub(crate) fn move_out<'v, T: 'v>(
        &mut self,
        pages: impl IntoIterator<Item = &'v mut Values<T>>,
    ) -> usize {
        let mut moved = 0;
        for page in pages {
            if self.is_over() {
                break;
            }
            let before = page.spilled_bytes();
            if self.takes_pages_of(size_of_val::<[T]>(page)) {
                self.move_part(page);
            }
            moved += page.spilled_bytes() - before;
        }
        moved
    }

    /// Returns true if pages of this size, or of this total size, are worth spilling.
    pub(crate) fn takes_pages_of(&self, bytes: usize) -> bool {
        self.takes_pages && bytes >= self.chunk_bytes_min.clamp(1, PAGE_BYTES)
    }

    /// Moves a page to a file, however small it is, unless it is empty, shared, or in a file already.
    pub(crate) fn move_part<T>(&mut self, page: &mut Values<T>) {
        let bytes = size_of_val::<[T]>(page);
        if page.is_in_file() || bytes == 0 || page.is_shared() {
            return;
        }
        match self.place.room(bytes) {
            Ok(room) => {
                self.written.add(&room);
                let before = page.memory_bytes();
                page.move_to(room);
                self.freed += before - page.memory_bytes();
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn write(&mut self, store: &mut Store, positions: &[usize]) {
        if positions.is_empty() || self.failed.is_some() {
            return;
        }
        let batches: Vec<&RecordBatch> = positions.iter().map(|position| store.rows_at(*position)).collect();
        match spilled(self.place, &batches) {
            Ok(batches) => {
                for (position, (rows, spilled)) in positions.iter().zip(batches) {
                    self.freed += store.put_spilled(*position, rows, spilled);
                }
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

/// Returns the same rows, read from one shared file.
fn spilled(place: &dyn Place, batches: &[&RecordBatch]) -> io::Result<Vec<(RecordBatch, Spilled)>> {
    let laid = layout::lay_out(batches);
    let bytes = place.put(&laid)?;
    drop(laid);
    let file = Arc::new(File { bytes: bytes.len(), live: AtomicUsize::new(0) });
    let mut rest = layout::Reader::new(bytes);
    let batch = |batch: &&RecordBatch| {
        let from = rest.position();
        let rows = rest.batch(batch)?;
        let bytes = rest.position() - from;
        file.live.fetch_add(bytes, Ordering::Relaxed);
        Ok((rows, Spilled { file: file.clone(), bytes }))
    };
    batches.iter().map(batch).collect::<Result<_, ArrowError>>().map_err(io::Error::other)
}

/// A file, which exists as long as one of its chunks.
#[derive(Debug)]
struct File {
    bytes: usize,
    /// The number of its bytes that belong to existing chunks.
    live: AtomicUsize,
}

/// The part of a file that belongs to a chunk.
#[derive(Debug)]
pub(crate) struct Spilled {
    file: Arc<File>,
    bytes: usize,
}

impl Spilled {
    /// Returns its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns true if less than half of its file is in use, so that it should move to another file.
    pub(crate) fn is_lonely(&self) -> bool {
        self.bytes > 0 && 2 * self.file.live.load(Ordering::Relaxed) < self.file.bytes
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.file.live.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// True if rows were accessed since the last round.
#[derive(Debug)]
pub(crate) struct Touched(AtomicBool);

impl Touched {
    /// Records an access. Threads do so concurrently; their order does not matter.
    pub(crate) fn touch(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Returns true if rows were accessed, and resets the flag.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Default for Touched {
    /// New rows count as accessed.
    fn default() -> Touched {
        Touched(AtomicBool::new(true))
    }
}

impl Clone for Touched {
    fn clone(&self) -> Touched {
        Touched(AtomicBool::new(self.0.load(Ordering::Relaxed)))
    }
}
