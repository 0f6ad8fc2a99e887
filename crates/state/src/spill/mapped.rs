//! Slices of mapped files. This module contains all code that the compiler cannot check.

use std::fmt;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
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
///
/// Small, since columns have one for each page, which each access reads.
pub(crate) struct Values<T> {
    start: NonNull<T>,
    len: u32,
    /// The capacity of the vector; meaningless if the values are in a file. [`READER`] if the memory belongs to another
    /// object, which leaves it to `shared` when it gives it up.
    capacity: u32,
    /// The room of the values, if they are in a file.
    room: Option<Box<Room>>,
    /// An `Arc` if the memory may be shared, in the owner and in each reader; null otherwise.
    shared: AtomicPtr<Shared<T>>,
}

/// The capacity of values whose memory belongs to another object.
const READER: u32 = u32::MAX;

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
        // Pages are bounded, so none comes near this.
        assert!(values.capacity() < READER as usize, "{} values in a page", values.capacity());
        let (len, capacity) = (values.len() as u32, values.capacity() as u32);
        Values { start, len, capacity, room: None, shared: AtomicPtr::default() }
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
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl<T> DerefMut for Values<T> {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [T] {
        if !self.shared.get_mut().is_null() {
            self.unshare();
        }
        // SAFETY: as above, `&mut self` is exclusive, and nobody else reads the memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

impl<T> Drop for Values<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let shared = self.take_shared();
        if self.is_reader() {
            return;
        }
        if let Some(mut shared) = shared
            && Arc::get_mut(&mut shared).is_none()
        {
            let (start, len, capacity, room) = (self.start, self.len, self.capacity, self.room.take());
            // Only the owner leaves its memory there, once.
            _ = shared.left.set(Values { start, len, capacity, room, shared: AtomicPtr::default() });
            return;
        }
        let (len, capacity) = (self.len as usize, self.capacity as usize);
        match &self.room {
            // SAFETY: they are the parts of a vector, which nobody took back.
            None => drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), len, capacity) }),
            // SAFETY: the values exist and belong to this object; the room is dropped after them, and nobody
            // accesses them again.
            Some(_) => unsafe { NonNull::slice_from_raw_parts(self.start, len).drop_in_place() },
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
        if self.room.is_some() || self.is_reader() { 0 } else { self.capacity as usize * size_of::<T>() }
    }

    fn is_reader(&self) -> bool {
        self.capacity == READER
    }

    /// Takes the values out of sharing.
    #[allow(unsafe_code)]
    fn take_shared(&mut self) -> Option<Arc<Shared<T>>> {
        let shared = std::mem::take(self.shared.get_mut());
        // SAFETY: a pointer there is that of an `Arc` whose count includes it, and it is taken once.
        (!shared.is_null()).then(|| unsafe { Arc::from_raw(shared) })
    }

    /// Returns the shared memory, after `new` has begun to share it, if need be.
    #[allow(unsafe_code)]
    fn shared_or(&self, new: impl FnOnce() -> Arc<Shared<T>>) -> Arc<Shared<T>> {
        let mut shared = self.shared.load(Ordering::Acquire).cast_const();
        if shared.is_null() {
            let new = Arc::into_raw(new());
            let none = std::ptr::null_mut();
            match self.shared.compare_exchange(none, new.cast_mut(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => shared = new,
                Err(other) => {
                    // SAFETY: the pointer comes from `into_raw`, and nobody else has it.
                    drop(unsafe { Arc::from_raw(new) });
                    shared = other;
                }
            }
        }
        // SAFETY: the pointer is that of an `Arc` that these values own, since only `&mut self` takes it out.
        unsafe {
            Arc::increment_strong_count(shared);
            Arc::from_raw(shared)
        }
    }

    /// True if the memory belongs to another object, or others read it.
    pub(crate) fn is_shared(&mut self) -> bool {
        let Some(mut shared) = self.take_shared() else { return false };
        let has_readers = self.is_reader() || Arc::get_mut(&mut shared).is_none();
        if has_readers {
            *self.shared.get_mut() = Arc::into_raw(shared).cast_mut();
        }
        has_readers
    }

    /// Makes the values belong to this object alone; copies them if others read them. The copy is in a file of the same
    /// directory if these are in one and it has room.
    #[cold]
    #[inline(never)]
    fn unshare(&mut self) {
        if !self.is_shared() {
            return;
        }
        let Some(shared) = self.take_shared() else { return };
        let copy = shared.copy;
        *self.shared.get_mut() = Arc::into_raw(shared).cast_mut();
        let mut copied = Values::from(copy(self));
        let bytes = size_of_val::<[T]>(&copied);
        if let Some(Ok(room)) = self.room.as_ref().map(|room| room.another(bytes)) {
            copied.move_to(room);
        }
        // The old memory stays with its readers.
        *self = copied;
    }

    /// Returns the number of their bytes in a file.
    pub(crate) fn spilled_bytes(&self) -> usize {
        if self.room.is_some() { size_of_val::<[T]>(self) } else { 0 }
    }

    /// Returns the number of values that fit before all of them must move.
    pub(crate) fn capacity(&self) -> usize {
        (if self.room.is_some() || self.is_reader() { self.len } else { self.capacity }) as usize
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
            start.as_ptr().copy_from_nonoverlapping(self.start.as_ptr(), self.len as usize);
            drop(Vec::from_raw_parts(self.start.as_ptr(), 0, self.capacity as usize));
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
        let (len, capacity) = (parts.len as usize, parts.capacity as usize);
        let Some(room) = parts.room.take() else {
            // SAFETY: they are the parts of a vector, which nothing else reclaims: their drop does not run.
            return unsafe { Vec::from_raw_parts(parts.start.as_ptr(), len, capacity) };
        };
        let mut values = Vec::with_capacity(len);
        // SAFETY: the room holds `len` values, and the vector has the capacity for them and owns them from
        // here on: their drop in the room does not run.
        unsafe {
            parts.start.as_ptr().copy_to_nonoverlapping(values.as_mut_ptr(), len);
            values.set_len(len);
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
        let shared = self.shared_or(|| Arc::new(Shared { copy: <[T]>::to_vec, left: OnceLock::new() }));
        let shared = AtomicPtr::new(Arc::into_raw(shared).cast_mut());
        Values { start: self.start, len: self.len, capacity: READER, room: None, shared }
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
