//! The `millstream` program; all of it is in the library beside it.

use std::process::ExitCode;

/// The engine allocates many small buffers on several threads, which this allocator does faster than the
/// system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millstream_cli::main()
}
