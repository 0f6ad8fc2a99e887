//! The connectors that need no crate of their own.

mod blackhole;
mod datagen;
mod exec;
mod file;
mod nexmark;
mod print;
mod queue;
mod socket;

use std::sync::Arc;

use crate::Connector;

pub use blackhole::Blackhole;
pub use datagen::Datagen;
pub use exec::Exec;
pub use file::Files;
pub use nexmark::Nexmark;
pub use print::Print;
pub use queue::Queue;
pub use socket::Sockets;

/// Returns all of them, by name.
pub fn builtin() -> Vec<Arc<dyn Connector>> {
    vec![
        Arc::new(Blackhole::default()),
        Arc::new(Datagen),
        Arc::new(Exec),
        Arc::new(Files),
        Arc::new(Nexmark),
        Arc::new(Print::default()),
        Arc::new(Queue),
        Arc::new(Sockets),
    ]
}
