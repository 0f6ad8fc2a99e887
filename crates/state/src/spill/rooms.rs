//! Rooms in files, for what is changed where it lies.
//!
//! A file has its blocks before it is mapped, so that a disk that is full says so when a room is asked for, not when it is
//! written. Small files come first, so that little that is kept takes little of the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memmap2::{MmapOptions, MmapRaw};

use super::files::named;
use super::mapped::let_go;

/// A room begins at a multiple of so many bytes, as a line of a cache does.
pub(super) const ALIGNMENT: usize = 64;
/// One of so many bytes or more begins at a multiple of them, as a page of memory does. Smaller ones share it.
const PAGE_BYTES: usize = 4096;
/// How many bytes the first file has; each has twice those of the one before, up to so many. A system lets a process have
/// some ten thousand mappings.
const FILE_BYTES_FIRST: usize = 256 << 10;
const FILE_BYTES_MAX: usize = 16 << 20;
/// What was written is brought to the disk together where less than so much lies between.
const GAP_BYTES_MAX: usize = 64 << 10;
/// How many rooms are given back before it is looked which of them went with their files.
const GIVEN_BACK_MIN: usize = 1024;

/// Where there is room.
#[derive(Debug)]
pub(super) struct Rooms {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file whose rest is given out, from `used` on.
    filling: Weak<Mapping>,
    used: usize,
    next_bytes: usize,
    /// Rooms that were given back, by how many bytes they have.
    free: BTreeMap<usize, Vec<(Weak<Mapping>, usize)>>,
    num_free: usize,
    /// With so many of them it is looked which are gone.
    free_max: usize,
}

/// A file, which is there as long as one of its rooms.
#[derive(Debug)]
struct Mapping {
    map: MmapRaw,
    rooms: Arc<Rooms>,
}

/// A part of a file that is mapped, whose bytes whoever has it may change.
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

    /// A room of so many bytes, at least.
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

    /// A file without a name that has so many bytes on the disk.
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
    /// How many files there are that rooms are given out of.
    pub(super) fn files(&self) -> usize {
        let state = self.state();
        let free = state.free.values().flatten().map(|(mapping, _)| mapping);
        let there = free.chain([&state.filling]).filter_map(Weak::upgrade);
        let files: std::collections::BTreeSet<usize> =
            there.map(|mapping| mapping.map.as_ptr() as usize).collect();
        files.len()
    }
}

/// Gives a file so many bytes that are on the disk.
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
    // What is written has its blocks, too.
    io::copy(&mut io::Read::take(io::repeat(0), len as u64), &mut &*file)?;
    Ok(())
}

impl State {
    /// A room of just so many bytes that was given back.
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
    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it begins.
    pub(super) fn start(&self) -> *mut u8 {
        self.mapping.map.as_mut_ptr().wrapping_add(self.from)
    }

    /// Another room of the same place.
    pub(super) fn another(&self, bytes: usize) -> io::Result<Room> {
        self.mapping.rooms.room(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // The last room of a file takes it along.
        if Arc::strong_count(&self.mapping) > 1 {
            self.mapping.rooms.state().give_back(self);
        }
    }
}

/// What was written to rooms lately, joined where they lie side by side.
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

    /// Brings it to the disk, and lets the memory go that it lies in until somebody looks at it again. What lies between, if
    /// it is little, goes along: a call of the system costs more.
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
