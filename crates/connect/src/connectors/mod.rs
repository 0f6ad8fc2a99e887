//! The connectors that need no crate of their own.

mod blackhole;
mod datagen;
mod file;
mod print;

use std::sync::Arc;

use crate::{Connector, Error};

pub use blackhole::Blackhole;
pub use datagen::Datagen;
pub use file::Files;
pub use print::Print;

/// All of them, by name.
pub fn builtin() -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(Blackhole::default()), Arc::new(Datagen), Arc::new(Files), Arc::new(Print::default())]
}

/// The error of a connector that has no source or no sink.
fn has_no(side: &str, connector: &str, other: &str) -> Error {
    Error::Invalid(format!(
        "connector '{connector}' has no {side}: it works in CREATE {} only",
        other.to_uppercase()
    ))
}
