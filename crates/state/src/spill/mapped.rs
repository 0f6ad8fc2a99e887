//! What lies in mapped files, as slices. All that the compiler can't check of it is here.

use std::fmt;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::{Mmap, MmapRaw};

use super::rooms::{ALIGNMENT, Room};

/// The bytes of a file that stays as it is.
#[allow(unsafe_code)]
pub(super) fn mapped(file: &fs::File) -> io::Result<Mmap> {
    // SAFETY: a mapping is sound as long as nobody changes or shortens the file. This one has no name, its only handle is
    // closed right after, and all of it was written and synced before.
    unsafe { Mmap::map(file) }
}

/// Lets the memory go that a part of a file lies in, which others may change meanwhile: it is read again from the file.
#[cfg(unix)]
#[allow(unsafe_code)]
pub(super) fn let_go(map: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
    // SAFETY: what is written to a mapping that is shared with its file is the file's at once, so nothing is lost.
    unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, len) }
}

/// The same where the system has no word for it: it lets go when it has to.
#[cfg(not(unix))]
pub(super) fn let_go(_map: &MmapRaw, _from: usize, _len: usize) -> io::Result<()> {
    Ok(())
}

/// Values one after the other, in memory or in a room of a file: who reads or changes them needn't know where they are.
///
/// Those in memory are a vector's, and become one again to grow. What they own besides stays in memory: a file has but the
/// pointers to it, which mean something as long as the process, and so does the file.
pub(crate) struct Values<T> {
    start: NonNull<T>,
    len: usize,
    /// For how many values the vector had room; without meaning where they are in a file.
    capacity: usize,
    /// Where they are, if not in memory.
    room: Option<Box<Room>>,
}

// SAFETY: the values are this one's alone, as those of a vector are, whether they are in memory or in a room, which nobody
// else has.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Values<T> {}
// SAFETY: the same; only whoever has `&mut Values` changes them.
#[allow(unsafe_code)]
unsafe impl<T: Sync> Sync for Values<T> {}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Values<T> {
        let mut values = ManuallyDrop::new(values);
        let start = NonNull::new(values.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Values { start, len: values.len(), capacity: values.capacity(), room: None }
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
        // SAFETY: so many values lie there, initialized and aligned, as long as the vector's memory or the room is this
        // one's, which is as long as it lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Values<T> {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and whoever has `&mut self` is alone with them.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Values<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        match &self.room {
            // SAFETY: they are the parts of a vector, which nobody took back.
            None => drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.len, self.capacity) }),
            // SAFETY: the values are there and are this one's; the room goes after them, and nobody looks at them again.
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
    /// How many bytes of memory they take; none where they are in a file.
    pub(crate) fn memory_bytes(&self) -> usize {
        if self.room.is_some() { 0 } else { self.capacity * size_of::<T>() }
    }

    /// How many bytes of them are in a file.
    pub(crate) fn spilled_bytes(&self) -> usize {
        if self.room.is_some() { self.len * size_of::<T>() } else { 0 }
    }

    /// For how many values there is room before all of them must move.
    pub(crate) fn capacity(&self) -> usize {
        if self.room.is_some() { self.len } else { self.capacity }
    }

    pub(super) fn is_in_file(&self) -> bool {
        self.room.is_some()
    }

    /// Moves the values to a room of a file; not where it isn't large enough for them, or they are in one already.
    #[allow(unsafe_code)]
    pub(super) fn move_to(&mut self, room: Room) {
        let Some(start) = NonNull::new(room.start()).map(NonNull::cast::<T>) else { return };
        if self.room.is_some() || align_of::<T>() > ALIGNMENT || room.bytes() < size_of_val::<[T]>(self) {
            return;
        }
        // SAFETY: the room has as many bytes and its start is aligned, nobody else has it, and it goes on being there as long
        // as these values, which have it from here on. The vector is taken back empty, so that each value is in one place.
        unsafe {
            start.as_ptr().copy_from_nonoverlapping(self.start.as_ptr(), self.len);
            drop(Vec::from_raw_parts(self.start.as_ptr(), 0, self.capacity));
        }
        (self.start, self.capacity, self.room) = (start, 0, Some(Box::new(room)));
    }

    /// Changes them as a vector, in memory.
    #[inline]
    pub(crate) fn as_vec(&mut self, change: impl FnOnce(&mut Vec<T>)) {
        let mut values = std::mem::take(self).into_vec();
        change(&mut values);
        *self = values.into();
    }

    /// The same as a vector, in memory.
    #[inline]
    #[allow(unsafe_code)]
    fn into_vec(self) -> Vec<T> {
        let mut parts = ManuallyDrop::new(self);
        let Some(room) = parts.room.take() else {
            // SAFETY: they are the parts of a vector, which nothing else takes back: what would drop them doesn't run.
            return unsafe { Vec::from_raw_parts(parts.start.as_ptr(), parts.len, parts.capacity) };
        };
        let mut values = Vec::with_capacity(parts.len);
        // SAFETY: so many values are in the room, and the vector has room for them, from here on as its own: what would drop
        // them where they were doesn't run.
        unsafe {
            parts.start.as_ptr().copy_to_nonoverlapping(values.as_mut_ptr(), parts.len);
            values.set_len(parts.len);
        }
        drop(room);
        values
    }
}

impl<T: Clone> Values<T> {
    /// So many equal values where these are: in the file of the same place, if they are in one and it has room, else in
    /// memory.
    pub(crate) fn beside(&self, len: usize, value: T) -> Values<T> {
        let mut values = Values::from(vec![value; len]);
        if let Some(Ok(room)) = self.room.as_ref().map(|room| room.another(len * size_of::<T>())) {
            values.move_to(room);
        }
        values
    }
}
