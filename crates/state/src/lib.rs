//! State kept from epoch to epoch: rows found by content, key or position.
//!
//! - [`Rows`] is a multiset of rows in immutable chunks.
//! - [`Arranged`] is a multiset whose rows are found by key.
//! - [`Ordered`] is a multiset whose rows are found by key and by position; [`Sequence`] is such a set of
//!   keys alone.
//! - [`Keyed`] holds one row per key.
//! - [`KeyIndex`] numbers the distinct keys it has seen, so that its user can store columns by that number,
//!   or rows in [`Slotted`].
//! - [`RowsSnapshot`] is a reader's view of rows, which later changes don't affect.
//! - [`Tables`] is the form of all of these in a checkpoint.
//!
//! Deliberately absent: evaluating expressions, and any knowledge of queries; see the crate `flow`.

mod arranged;
mod compact;
mod directory;
mod error;
mod key_index;
mod keyed;
mod lineage;
mod lists;
mod ordered;
mod paged;
mod rows;
mod sizes;
mod slotted;
mod spill;
mod store;
mod tables;

pub use arranged::{Arranged, Placed};
pub use compact::compact;
pub use error::{Error, Result};
pub use key_index::{KeyIndex, NO_SLOT, SavedKeys};
pub use keyed::{Changed, Conflict, Keyed};
pub use lineage::{Lineage, Run, SlotMarks, TouchedSlots};
pub use ordered::{Entry, Moved, Ordered, Sequence, successor};
pub use paged::{PARTS, Paged, PagedPart, SlicePart, dealt_out, page_rows, part_of};
pub use rows::Rows;
pub use sizes::Size;
pub use slotted::Slotted;
pub use spill::{Files, Place, Room, Spillable, Spilling};
pub use store::{AddColumns, RowsSnapshot, Store};
pub use tables::{Batches, Columns, Lists, RunSlots, Runs, Tables};
