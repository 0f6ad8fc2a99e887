//! Rooms in files, for mutable data.
//!
//! The blocks of a file are allocated before it is mapped. So a full disk fails the request for a room, not a
//! later write. Small files come first, so that little data takes little of the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memmap2::{MmapOptions, MmapRaw};

use super::files::named;
use super::mapped::let_go;

/// The alignment of a room: a cache line.
pub(super) const ALIGNMENT: usize = 64;
/// Larger rooms are aligned to this, a page of memory. Smaller ones share a page.
const PAGE_BYTES: usize = 4096;
/// The size of the first file; each file doubles the size of the previous one, up to the maximum. A system
/// limits a process to some ten thousand mappings.
const FILE_BYTES_FIRST: usize = 256 << 10;
const FILE_BYTES_MAX: usize = 16 << 20;
/// Written ranges with a smaller gap between them are flushed together.
const GAP_BYTES_MAX: usize = 64 << 10;
/// The number of free rooms from which those of removed files are purged.
const GIVEN_BACK_MIN: usize = 1024;

/// The allocator of rooms.
#[derive(Debug)]
pub(super) struct Rooms {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file whose rest is being allocated, from `used` on.
    filling: Weak<Mapping>,
    used: usize,
    next_bytes: usize,
    /// Free rooms, by their size.
    free: BTreeMap<usize, Vec<(Weak<Mapping>, usize)>>,
    num_free: usize,
    /// The number of free rooms at which the next purge happens.
    free_max: usize,
}

/// A file, which exists as long as one of its rooms.
#[derive(Debug)]
struct Mapping {
    map: MmapRaw,
    rooms: Arc<Rooms>,
}

/// A part of a mapped file, whose owner may change its bytes.
#[derive(Debug)]
pub struct Room {
    mapping: Arc<Mapping>,
    from: usize,
    bytes: usize,
}

impl Rooms {
    pub(super) fn below(directory: PathBuf) -> Rooms {
        Rooms { directory, state: Mutex::default() }
    }

    /// Returns a room of at least `bytes`.
    pub(super) fn room(self: &Arc<Rooms>, bytes: usize) -> io::Result<Room> {
        let alignment = if bytes < PAGE_BYTES { ALIGNMENT } else { PAGE_BYTES };
        let bytes = bytes.max(1).next_multiple_of(alignment);
        let mut state = self.state();
        if let Some((mapping, from)) = state.again(bytes) {
            return Ok(Room { mapping, from, bytes });
        }
        state.used = state.used.next_multiple_of(alignment);
        let rest = state.filling.upgrade().filter(|mapping| mapping.map.len() >= state.used + bytes);
        let mapping = match rest {
            Some(mapping) => mapping,
            None => {
                let len = state.next_bytes.max(FILE_BYTES_FIRST);
                let map = self.file(len.max(bytes)).map_err(|error| named(error, &self.directory))?;
                state.next_bytes = (2 * len).min(FILE_BYTES_MAX);
                let mapping = Arc::new(Mapping { map, rooms: self.clone() });
                (state.filling, state.used) = (Arc::downgrade(&mapping), 0);
                mapping
            }
        };
        let from = state.used;
        state.used += bytes;
        Ok(Room { mapping, from, bytes })
    }

    /// Creates an unnamed file with `len` bytes allocated on the disk.
    fn file(&self, len: usize) -> io::Result<MmapRaw> {
        fs::create_dir_all(&self.directory)?;
        let file = tempfile::tempfile_in(&self.directory)?;
        allocate(&file, len)?;
        MmapOptions::new().len(len).map_raw(&file)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Rooms {
    /// Returns the number of files from which rooms are allocated.
    pub(super) fn files(&self) -> usize {
        let state = self.state();
        let free = state.free.values().flatten().map(|(mapping, _)| mapping);
        let there = free.chain([&state.filling]).filter_map(Weak::upgrade);
        let files: std::collections::BTreeSet<usize> =
            there.map(|mapping| mapping.map.as_ptr() as usize).collect();
        files.len()
    }
}

/// Allocates `len` bytes of a file on the disk.
fn allocate(file: &fs::File, len: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, len as u64) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    // Writing allocates blocks, too.
    io::copy(&mut io::Read::take(io::repeat(0), len as u64), &mut &*file)?;
    Ok(())
}

impl State {
    /// Returns a free room of exactly this size.
    fn again(&mut self, bytes: usize) -> Option<(Arc<Mapping>, usize)> {
        let free = self.free.get_mut(&bytes)?;
        while let Some((mapping, from)) = free.pop() {
            self.num_free -= 1;
            if let Some(mapping) = mapping.upgrade() {
                return Some((mapping, from));
            }
        }
        None
    }

    fn give_back(&mut self, room: &Room) {
        self.free.entry(room.bytes).or_default().push((Arc::downgrade(&room.mapping), room.from));
        self.num_free += 1;
        if self.num_free > self.free_max.max(GIVEN_BACK_MIN) {
            self.free.values_mut().for_each(|free| free.retain(|(mapping, _)| mapping.strong_count() > 0));
            self.free.retain(|_, free| !free.is_empty());
            self.num_free = self.free.values().map(Vec::len).sum();
            self.free_max = 2 * self.num_free;
        }
    }
}

impl Room {
    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns its address.
    pub(super) fn start(&self) -> *mut u8 {
        self.mapping.map.as_mut_ptr().wrapping_add(self.from)
    }

    /// Returns another room from the same allocator.
    pub(super) fn another(&self, bytes: usize) -> io::Result<Room> {
        self.mapping.rooms.room(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // The last room of a file removes the file.
        if Arc::strong_count(&self.mapping) > 1 {
            self.mapping.rooms.state().give_back(self);
        }
    }
}

/// Recently written ranges of rooms, joined if they are adjacent.
#[derive(Debug, Default)]
pub(super) struct Written {
    parts: Vec<(Arc<Mapping>, usize, usize)>,
    bytes: usize,
}

impl Written {
    pub(super) fn add(&mut self, room: &Room) {
        self.bytes += room.bytes;
        let end = room.from + room.bytes;
        match self.parts.last_mut() {
            Some((mapping, _, to)) if Arc::ptr_eq(mapping, &room.mapping) && *to == room.from => *to = end,
            _ => self.parts.push((room.mapping.clone(), room.from, end)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Flushes the ranges to the disk, and frees their memory until the next access. Includes small gaps,
    /// which cost less than another system call.
    pub(super) fn let_go(mut self) -> io::Result<()> {
        self.parts.sort_unstable_by_key(|(mapping, from, _)| (Arc::as_ptr(mapping) as usize, *from));
        let mut parts = self.parts.into_iter().peekable();
        while let Some((mapping, from, mut to)) = parts.next() {
            let is_near = |(other, from, _): &(Arc<Mapping>, usize, usize), to: usize| {
                Arc::ptr_eq(other, &mapping) && from.saturating_sub(to) < GAP_BYTES_MAX
            };
            while let Some((_, _, end)) = parts.next_if(|next| is_near(next, to)) {
                to = to.max(end);
            }
            let flushed = mapping.map.flush_range(from, to - from);
            flushed.map_err(|error| named(error, &mapping.rooms.directory))?;
            let_go(&mapping.map, from, to - from)?;
        }
        Ok(())
    }
}
