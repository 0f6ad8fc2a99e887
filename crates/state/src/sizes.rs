//! Sizes of pages, chunks and pieces: constants in release builds, which tests of debug builds make small.
//!
//! The boundary between two pages is where paged structures go wrong, and few tests hold enough rows to reach one of
//! the usual size. `MILLSTREAM_PAGES=3` gives all pages of a process three entries, or the least number that a
//! structure allows. All tests and the replay oracle run so: `MILLSTREAM_PAGES=3 cargo test -p millstream-testkit`.

/// How many entries, rows or bytes a page has.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    usual: usize,
    #[cfg_attr(not(debug_assertions), allow(dead_code))]
    least: usize,
}

impl Size {
    /// A size that tests may make as small as two.
    pub const fn of(usual: usize) -> Size {
        Size { usual, least: 2 }
    }

    /// A size that tests may make as small as `least`.
    pub const fn from(usual: usize, least: usize) -> Size {
        Size { usual, least }
    }

    /// The size: in release builds always the usual one.
    #[inline(always)]
    pub fn get(self) -> usize {
        #[cfg(debug_assertions)]
        if let Some(small) = small() {
            return small.max(self.least).min(self.usual);
        }
        self.usual
    }

    /// The size as a power of two: the exponent.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        self.get().next_power_of_two().ilog2()
    }
}

/// The size that tests ask for.
#[cfg(debug_assertions)]
fn small() -> Option<usize> {
    static SMALL: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *SMALL.get_or_init(|| std::env::var("MILLSTREAM_PAGES").ok().and_then(|size| size.parse().ok()))
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Every test of this crate holds with small pages too, but for those that say how little memory pages of the usual
    /// size take, or how much of them goes to files.
    #[test]
    fn every_structure_works_with_small_pages() {
        let (pages, marks) = (Size::of(256), Size::from(4096, 64));
        if let Some(small) = small() {
            return assert_eq!((pages.get(), marks.bits()), (small, 6));
        }
        assert_eq!((pages.get(), marks.bits()), (256, 12));
        let start = |size: usize| {
            let mut tests = Command::new(std::env::current_exe().unwrap());
            tests.env("MILLSTREAM_PAGES", size.to_string()).arg("--test-threads=1");
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
