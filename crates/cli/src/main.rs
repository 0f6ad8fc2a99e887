//! The `millstream` program; all code is in the library beside it.

use std::process::ExitCode;

/// The engine allocates many small buffers on several threads. This allocator is faster at that than the
/// system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millstream_cli::main()
}
