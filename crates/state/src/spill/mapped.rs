//! Slices of mapped files. This module contains all code that the compiler cannot check.

use std::fmt;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use memmap2::{Mmap, MmapRaw};

use super::rooms::{ALIGNMENT, Room};

/// Maps the bytes of an immutable file.
#[allow(unsafe_code)]
pub(super) fn mapped(file: &fs::File) -> io::Result<Mmap> {
    // SAFETY: a mapping is sound as long as nobody changes or shortens the file. This file has no name, its
    // only handle is closed right after, and all of it was written and synced before.
    unsafe { Mmap::map(file) }
}

/// Frees the memory of a part of a mapped file, which others may change meanwhile. The next access reads the
/// file.
#[cfg(unix)]
#[allow(unsafe_code)]
pub(super) fn let_go(map: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
    // SAFETY: a write to a mapping that is shared with its file belongs to the file at once, so nothing is
    // lost.
    unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, len) }
}

/// Does nothing on systems without such a call: they free memory when they must.
#[cfg(not(unix))]
pub(super) fn let_go(_map: &MmapRaw, _from: usize, _len: usize) -> io::Result<()> {
    Ok(())
}

/// Values in sequence, in memory or in a room of a file; readers and writers need not know which.
///
/// In memory they belong to a vector, and become one again to grow. Memory that the values own stays in
/// memory: the file holds only the pointers to it. These are valid as long as the process, and the file lives
/// no longer.
///
/// [`Values::share`] returns an object that reads the same memory, for a thread that saves them. Neither changes
/// shared memory: the owner copies it on the next write, unless its readers are gone by then.
pub(crate) struct Values<T> {
    start: NonNull<T>,
    len: usize,
    /// The capacity of the vector; meaningless if the values are in a file.
    capacity: usize,
    /// The room of the values, if they are in a file.
    room: Option<Box<Room>>,
    /// Present if the memory may be shared, in the owner and in each reader.
    shared: OnceLock<Arc<Shared<T>>>,
    /// True if the memory belongs to another object, which leaves it to `shared` when it gives it up.
    is_reader: bool,
}

/// Memory with readers.
struct Shared<T> {
    copy: fn(&[T]) -> Vec<T>,
    /// The memory, once its owner has given it up. It is freed with the last reader.
    left: OnceLock<Values<T>>,
}

// SAFETY: the values belong to this object, like those of a vector, whether they are in memory or in a room,
// which nobody else has. Other objects that have the same `Shared` may read them on other threads, and the last one
// may drop them there, hence both bounds. Nobody changes them meanwhile.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Send for Values<T> {}
// SAFETY: the same; only the owner of `&mut Values` changes them.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Sync for Values<T> {}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Values<T> {
        let mut values = ManuallyDrop::new(values);
        let start = NonNull::new(values.as_mut_ptr()).unwrap_or(NonNull::dangling());
        let (len, capacity) = (values.len(), values.capacity());
        Values { start, len, capacity, room: None, shared: OnceLock::new(), is_reader: false }
    }
}

impl<T> Default for Values<T> {
    fn default() -> Values<T> {
        Vec::new().into()
    }
}

impl<T> Deref for Values<T> {
    type Target = [T];

    #[inline(always)]
    #[allow(unsafe_code)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values are there, initialized and aligned, as long as this object owns the vector's
        // memory or the room, which is as long as it lives. A reader has `shared`, and the owner leaves the memory to
        // that as long as there are readers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Values<T> {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [T] {
        if self.shared.get_mut().is_some() {
            self.unshare();
        }
        // SAFETY: as above, `&mut self` is exclusive, and nobody else reads the memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Values<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.is_reader {
            return;
        }
        if let Some(shared) = self.read_by_others() {
            let (start, len, capacity) = (self.start, self.len, self.capacity);
            let (room, is_reader) = (self.room.take(), false);
            let left = Values { start, len, capacity, room, shared: OnceLock::new(), is_reader };
            // Only the owner leaves its memory there, once.
            _ = shared.left.set(left);
            return;
        }
        match &self.room {
            // SAFETY: they are the parts of a vector, which nobody took back.
            None => drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.len, self.capacity) }),
            // SAFETY: the values exist and belong to this object; the room is dropped after them, and nobody
            // accesses them again.
            Some(_) => unsafe { NonNull::slice_from_raw_parts(self.start, self.len).drop_in_place() },
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Values<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(formatter)
    }
}

impl<T> Values<T> {
    /// Returns their memory in bytes; zero if they are in a file, or belong to another object.
    pub(crate) fn memory_bytes(&self) -> usize {
        if self.room.is_some() { 0 } else { self.capacity * size_of::<T>() }
    }

    /// Takes the values out of sharing. Returns the shared memory if other objects still read it.
    fn read_by_others(&mut self) -> Option<Arc<Shared<T>>> {
        let mut shared = self.shared.take()?;
        match Arc::get_mut(&mut shared) {
            Some(_) => None,
            None => Some(shared),
        }
    }

    /// True if other objects read the values.
    pub(super) fn is_shared(&mut self) -> bool {
        let has_readers = self.shared.get_mut().is_some_and(|shared| Arc::get_mut(shared).is_none());
        if !has_readers && !self.is_reader {
            self.shared.take();
        }
        has_readers || self.is_reader
    }

    /// Makes the values belong to this object alone; copies them if others read them. The copy is in a file of the same
    /// directory if these are in one and it has room.
    #[cold]
    #[inline(never)]
    fn unshare(&mut self) {
        if !self.is_shared() {
            return;
        }
        let Some(copy) = self.shared.get().map(|shared| shared.copy) else { return };
        let mut copied = Values::from(copy(self));
        let another = |room: &Box<Room>| room.another(size_of_val::<[T]>(&copied));
        if let Some(Ok(room)) = self.room.as_ref().map(another) {
            copied.move_to(room);
        }
        // The old memory stays with its readers.
        *self = copied;
    }

    /// Returns the number of their bytes in a file.
    pub(crate) fn spilled_bytes(&self) -> usize {
        if self.room.is_some() { self.len * size_of::<T>() } else { 0 }
    }

    /// Returns the number of values that fit before all of them must move.
    pub(crate) fn capacity(&self) -> usize {
        if self.room.is_some() || self.is_reader { self.len } else { self.capacity }
    }

    pub(super) fn is_in_file(&self) -> bool {
        self.room.is_some()
    }

    /// Moves the values to a room of a file, unless the room is too small, they are shared, or in a file already.
    #[allow(unsafe_code)]
    pub(super) fn move_to(&mut self, room: Room) {
        let Some(start) = NonNull::new(room.start()).map(NonNull::cast::<T>) else { return };
        let is_small = room.bytes() < size_of_val::<[T]>(self);
        if self.room.is_some() || self.is_shared() || align_of::<T>() > ALIGNMENT || is_small {
            return;
        }
        // SAFETY: the room is large enough and its start is aligned. Nobody else has it, and it lives as long
        // as these values, which own it from here on. The vector is reclaimed empty, so that each value
        // exists once.
        unsafe {
            start.as_ptr().copy_from_nonoverlapping(self.start.as_ptr(), self.len);
            drop(Vec::from_raw_parts(self.start.as_ptr(), 0, self.capacity));
        }
        (self.start, self.capacity, self.room) = (start, 0, Some(Box::new(room)));
    }

    /// Changes the values as a vector, in memory.
    #[inline]
    pub(crate) fn as_vec(&mut self, change: impl FnOnce(&mut Vec<T>)) {
        let mut values = std::mem::take(self).into_vec();
        change(&mut values);
        *self = values.into();
    }

    /// Returns the values as a vector, in memory.
    #[inline]
    #[allow(unsafe_code)]
    fn into_vec(mut self) -> Vec<T> {
        self.unshare();
        let mut parts = ManuallyDrop::new(self);
        let Some(room) = parts.room.take() else {
            // SAFETY: they are the parts of a vector, which nothing else reclaims: their drop does not run.
            return unsafe { Vec::from_raw_parts(parts.start.as_ptr(), parts.len, parts.capacity) };
        };
        let mut values = Vec::with_capacity(parts.len);
        // SAFETY: the room holds `len` values, and the vector has the capacity for them and owns them from
        // here on: their drop in the room does not run.
        unsafe {
            parts.start.as_ptr().copy_to_nonoverlapping(values.as_mut_ptr(), parts.len);
            values.set_len(parts.len);
        }
        drop(room);
        values
    }
}

impl<T: Clone> Clone for Values<T> {
    /// Returns the same values in memory, with room for as many as the vector had.
    fn clone(&self) -> Values<T> {
        let mut values = Vec::with_capacity(self.capacity());
        values.extend_from_slice(self);
        values.into()
    }
}

impl<T: Clone> Values<T> {
    /// Returns an object that reads the same memory. It keeps the present values, whatever becomes of these.
    pub(crate) fn share(&self) -> Values<T> {
        let new = || Arc::new(Shared { copy: <[T]>::to_vec, left: OnceLock::new() });
        let shared = OnceLock::from(self.shared.get_or_init(new).clone());
        Values { start: self.start, len: self.len, capacity: 0, room: None, shared, is_reader: true }
    }

    /// Returns `len` equal values in the same place: in a file of the same directory if these are in one and
    /// it has room, else in memory.
    pub(crate) fn beside(&self, len: usize, value: T) -> Values<T> {
        let mut values = Values::from(vec![value; len]);
        if let Some(Ok(room)) = self.room.as_ref().map(|room| room.another(len * size_of::<T>())) {
            values.move_to(room);
        }
        values
    }
}
