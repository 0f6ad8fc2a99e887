//! What survives a crash: an engine's data directory, the journal in it, and checkpoints.
//!
//! The [`Journal`] is the list of all that decided what an engine did, in its order: the statements that made its
//! objects, and of each epoch the cut, with the rows that can't be read again. Everything else is a function of it. What
//! is appended is durable when the journal says so; whoever was promised something waits for that.
//!
//! ```
//! use millstream_durable::{DataDirectory, Entry, Journal};
//!
//! let place = tempfile::tempdir()?;
//! let (sender, durable) = std::sync::mpsc::channel();
//! let directory = DataDirectory::open(place.path())?;
//! let mut journal = Journal::start(directory, Default::default(), move |report| { let _ = sender.send(report); })?;
//! journal.append(Entry::Set { name: "batch_interval".into(), value: "1 second".into() });
//! durable.recv()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`StorePrefix`] is the place of a data directory on an object store.
//!
//! What may be promised, put out and removed, and when, is decided in [`protocol`].
//!
//! [`Checkpoints`] hold what an engine keeps as of an entry, so that what came before it need not be done again.
//!
//! What the bytes are is drawn in docs/formats.md. Deliberately absent: any knowledge of SQL and of queries, and
//! DataFusion.

mod checkpoint;
mod claim;
mod cuts;
mod directory;
mod disk;
mod entry;
mod error;
mod frame;
mod inspect;
mod journal;
mod notes;
mod oom_kills;
mod prefix;
pub mod protocol;
mod read;
mod rows;
pub mod simulated;
pub mod simulated_store;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, Checkpoints, Draft, Found, Size};
pub use directory::DataDirectory;
pub use disk::{Disk, Growing, OsDisk};
pub use entry::{Brought, Delivered, Digested, Entry, Plan, Recorded, Standing};
pub use error::{Error, Result};
pub use frame::Sequence;
pub use inspect::{InspectedCheckpoint, InspectedPart, InspectedPlan, Inspection, inspect, inspect_store};
pub use journal::{Journal, Report};
pub use notes::{Before, Death, Notes};
pub use object_store;
pub use oom_kills::OomKills;
pub use prefix::StorePrefix;
pub use read::{Entries, Torn};
