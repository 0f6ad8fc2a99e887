//! Sizes of pages, chunks and other pieces: constant, but for tests that ask for smaller ones.
//!
//! Paged structures fail at the boundary between two pages, and few tests hold enough rows to reach one of
//! the usual size. `MILLSTREAM_PAGES=3` gives all pages of a process three entries, or the least number that
//! a structure allows. All tests and the replay oracle can run so: `MILLSTREAM_PAGES=3 cargo test --release -p
//! millstream-testkit`. Without it, a size costs one read of a variable that nobody writes.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The size that tests ask for, or one of the two values below.
static SMALL: AtomicUsize = AtomicUsize::new(UNREAD);
/// All sizes are the usual ones.
const USUAL: usize = 0;
/// The environment has not been asked yet.
const UNREAD: usize = usize::MAX;

/// The number of entries, rows or bytes of a page.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    usual: usize,
    least: usize,
}

impl Size {
    /// Returns a size that tests can reduce to two.
    pub const fn of(usual: usize) -> Size {
        Size { usual, least: 2 }
    }

    /// Returns a size that tests can reduce to `least`.
    pub const fn from(usual: usize, least: usize) -> Size {
        Size { usual, least }
    }

    /// Returns the size.
    #[inline(always)]
    pub fn get(self) -> usize {
        match SMALL.load(Ordering::Relaxed) {
            USUAL => self.usual,
            small => self.reduced(small),
        }
    }

    /// Returns the exponent of the size as a power of two.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        match SMALL.load(Ordering::Relaxed) {
            USUAL => exponent(self.usual),
            small => exponent(self.reduced(small)),
        }
    }

    #[cold]
    fn reduced(self, small: usize) -> usize {
        let small = if small == UNREAD { asked() } else { small };
        if small == USUAL { self.usual } else { small.max(self.least).min(self.usual) }
    }
}

const fn exponent(size: usize) -> u32 {
    size.next_power_of_two().ilog2()
}

/// Reads from the environment the size that tests ask for.
fn asked() -> usize {
    let small = std::env::var("MILLSTREAM_PAGES").ok().and_then(|size| size.parse().ok());
    let small = small.filter(|size| *size != UNREAD).unwrap_or(USUAL);
    SMALL.store(small, Ordering::Relaxed);
    small
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Every test of this crate passes with small pages, too, except those of the memory and the spilled
    /// bytes of pages of the usual size.
    #[test]
    fn every_structure_works_with_small_pages() {
        let (pages, marks) = (Size::of(256), Size::from(4096, 64));
        match asked() {
            USUAL => assert_eq!((pages.get(), marks.bits()), (256, 12)),
            small => return assert_eq!((pages.get(), marks.bits()), (small, 6)),
        }
        let start = |size: usize| {
            let mut tests = Command::new(std::env::current_exe().unwrap());
            tests.env("MILLSTREAM_PAGES", size.to_string());
            OF_USUAL_SIZE.iter().for_each(|name| _ = tests.args(["--skip", name]));
            (size, tests.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        };
        for (size, tests) in [3].map(start) {
            let output = tests.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "with pages of {size}:\n{said}");
        }
    }

    const OF_USUAL_SIZE: [&str; 10] = [
        "a_place_takes_less_than_twenty_bytes_a_key",
        "a_table_that_is_in_files_grows_there",
        "columns_are_the_same_in_files",
        "keys_are_the_same_in_files",
        "keys_in_their_order_fill_leaves",
        "leaves_of_an_order_are_the_same_in_files",
        "many_small_epochs_leave_few_chunks_and_deletes_leave_little_memory",
        "one_id_a_slot_takes_no_more_than_its_words",
        "pages_that_a_disk_has_no_room_for_stay",
        "values_stay_where_they_are",
    ];
}
