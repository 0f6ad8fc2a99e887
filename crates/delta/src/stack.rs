//! Large stacks, on which deep expressions and plans can be walked, compared, copied and dropped.
//!
//! A chain of ten thousand `+` is a tree of that depth, and most code that walks it is recursive. Threads
//! that hold plans start with such a stack; on other threads [`on_large_stack`] allocates one temporarily.
//! Unused parts of a stack take no memory.

/// The stack size of a thread that plans queries or holds plans.
pub const STACK_BYTES: usize = 256 << 20;

/// Runs `work` on a stack with at least half of [`STACK_BYTES`] left, which may be the current one.
pub fn on_large_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_BYTES / 2, STACK_BYTES, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_itself_often_has_room() {
        fn depth(left: usize) -> usize {
            let filler = [left; 64];
            if left == 0 { 0 } else { depth(std::hint::black_box(filler)[0] - 1) + 1 }
        }
        let small =
            std::thread::Builder::new().stack_size(128 << 10).spawn(|| on_large_stack(|| depth(50_000)));
        assert_eq!(small.unwrap().join().unwrap(), 50_000);
    }
}
