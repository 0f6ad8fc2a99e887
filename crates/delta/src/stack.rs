//! Stacks on which deep expressions and plans can be walked, compared, copied and dropped.
//!
//! A chain of ten thousand `+` is a tree of that depth, and most of what walks it calls itself. Threads that hold
//! plans begin with such a stack; on others [`on_large_stack`] makes one for as long as it needs it. What isn't used
//! of it takes no memory.

/// How large the stack of a thread is that plans queries or holds plans.
pub const STACK_BYTES: usize = 256 << 20;

/// Does something on a stack with half of [`STACK_BYTES`] left at least, which may be the one that is there.
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
