//! Durable state of an engine: the data directory, the journal in it, and checkpoints.
//!
//! The [`Journal`] lists, in order, everything that determined an engine's behaviour: the statements that
//! created its objects, and for each epoch the cut and the rows of sources that cannot be replayed.
//! Everything else follows from it. An appended entry is durable once the journal reports so;
//! acknowledgements wait for that report.
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
//! A [`StorePrefix`] locates a data directory on an object store.
//!
//! [`protocol`] decides when the engine may acknowledge, publish and remove something.
//!
//! [`Checkpoints`] hold the state of an engine as of an entry, so that recovery skips all entries before it.
//!
//! docs/formats.md describes the byte formats. Deliberately absent: any knowledge of SQL and of queries, and
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
pub use directory::{DataDirectory, DirectoryFormat};
pub use disk::{Disk, Growing, OsDisk};
pub use entry::{Brought, Delivered, Digested, Entry, Plan, Recorded, SequenceValue, Standing};
pub use error::{Error, Result};
pub use frame::Sequence;
pub use inspect::{InspectedCheckpoint, InspectedPart, InspectedPlan, Inspection, inspect, inspect_store};
pub use journal::{Journal, Report};
pub use notes::{Before, Death, Notes};
pub use object_store;
pub use oom_kills::OomKills;
pub use prefix::StorePrefix;
pub use read::{Entries, Torn};
