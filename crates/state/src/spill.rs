//! State that memory has no room for: chunks of rows lie in files, and are read from there where they are looked at; pages of
//! what changes lie there and are changed there.
//!
//! A chunk of rows never changes, so its columns can be written once, as they lie in memory, and the file be mapped in
//! their place: who holds the chunk holds the same arrays as before, only that the system may let their pages go and read
//! them again. Which chunks go is decided as a clock does it, with a second chance for those that were looked at (Corbató,
//! *A Paging Experiment with the Multics System*, 1969).
//!
//! What changes in place, such as indexes, lists of rows and the columns of aggregates, lies in pages of [`Values`], which
//! move to a file as they are and are changed there. Which of them stay in memory all the same is for the system to say,
//! which knows what is looked at: so they all go alike, after the rows.
//!
//! Of trees that keep an order the leaves go so, too: they are small, so many share a page of the system.
//!
//! Deliberately absent: what such values own besides, such as texts and sets.

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

/// A file has about so many bytes, that of a larger chunk more.
const FILE_BYTES: usize = 16 << 20;

/// Pages of so many bytes are always worth it.
const PAGE_BYTES: usize = 4 << 10;

/// Less than so many bytes of pages are left to the system, which brings them to the disk when it likes.
const LET_GO_BYTES_MIN: usize = 1 << 20;

/// Where state goes that memory has no room for.
pub trait Place: Debug + Send + Sync {
    /// Puts bytes somewhere, for good, and gives them back without holding them in memory. They lie at a multiple of 64
    /// bytes, and are gone when the last who has some of them lets go.
    fn put(&self, bytes: &[u8]) -> io::Result<Bytes>;

    /// A room of so many bytes, at least, for what is changed where it lies. It is on the disk before it is given out.
    fn room(&self, bytes: usize) -> io::Result<Room>;
}

/// What can lie in files where memory has no room for it.
pub trait Spillable {
    /// Makes room: lets go to files what the round asks for.
    fn spill(&mut self, spilling: &mut Spilling<'_>);
    /// How many bytes of it are in files.
    fn spilled_bytes(&self) -> usize;
}

/// One round of making room, over as much that is [`Spillable`] as there is.
#[derive(Debug)]
pub struct Spilling<'a> {
    place: &'a dyn Place,
    /// Smaller chunks stay where they are.
    chunk_bytes_min: usize,
    /// Whether pages may go, too, that are changed where they lie.
    takes_pages: bool,
    written: Written,
    wanted: usize,
    freed: usize,
    failed: Option<io::Error>,
}

impl<'a> Spilling<'a> {
    /// A round that is to free so many bytes of memory.
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

    /// The same, where chunks of fewer bytes aren't worth it.
    pub fn only_from(mut self, bytes: usize) -> Spilling<'a> {
        self.chunk_bytes_min = bytes;
        self
    }

    /// How many bytes of memory it has freed.
    pub fn freed(&self) -> usize {
        self.freed
    }

    /// Whether it has freed what was wanted, or can't go on.
    pub fn is_over(&self) -> bool {
        self.freed >= self.wanted || self.failed.is_some()
    }

    /// From now on takes pages, too, that are changed where they lie.
    pub fn take_pages(&mut self) {
        self.takes_pages = true;
    }

    /// Ends the round: what was moved is brought to the disk. Says why it couldn't go on, where something failed; what
    /// wasn't moved is in memory as before.
    pub fn end(mut self) -> Option<io::Error> {
        if self.written.bytes() >= LET_GO_BYTES_MIN
            && let Err(error) = self.written.let_go()
        {
            self.failed.get_or_insert(error);
        }
        self.failed
    }

    /// Lets chunks of a store go that weren't looked at since it was here before.
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

    /// Moves pages to files, as far as they are wanted and large enough, and says how many bytes of them it has moved.
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

    /// Whether pages of so many bytes may go, or smaller ones that have so many together.
    pub(crate) fn takes_pages_of(&self, bytes: usize) -> bool {
        self.takes_pages && bytes >= self.chunk_bytes_min.clamp(1, PAGE_BYTES)
    }

    /// Moves a page to a file, however small it is, if it has anything and isn't in one.
    pub(crate) fn move_part<T>(&mut self, page: &mut Values<T>) {
        let bytes = size_of_val::<[T]>(page);
        if page.is_in_file() || bytes == 0 {
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

/// The same rows, read from a file that they share.
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

/// A file, which is there as long as one of its chunks.
#[derive(Debug)]
struct File {
    bytes: usize,
    /// How many bytes of it are those of chunks that are there.
    live: AtomicUsize,
}

/// A chunk's part of a file.
#[derive(Debug)]
pub(crate) struct Spilled {
    file: Arc<File>,
    bytes: usize,
}

impl Spilled {
    /// How many bytes it has there.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether less than half of its file is of any use, so that it had better be in another.
    pub(crate) fn is_lonely(&self) -> bool {
        self.bytes > 0 && 2 * self.file.live.load(Ordering::Relaxed) < self.file.bytes
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.file.live.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whether rows were looked at since the last round.
#[derive(Debug)]
pub(crate) struct Touched(AtomicBool);

impl Touched {
    /// They are being looked at. Threads do that side by side, and which of them says so means nothing.
    pub(crate) fn touch(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether they were; from now on they weren't.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Default for Touched {
    /// What is new was looked at.
    fn default() -> Touched {
        Touched(AtomicBool::new(true))
    }
}

impl Clone for Touched {
    fn clone(&self) -> Touched {
        Touched(AtomicBool::new(self.0.load(Ordering::Relaxed)))
    }
}
