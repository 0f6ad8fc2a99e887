//! Rows that are kept from epoch to epoch, by content or by key.
//!
//! [`Rows`] is a multiset of rows in immutable chunks, [`Arranged`] one whose rows are found by key, [`Ordered`] one
//! whose rows are found by key and by position, [`Sequence`] a set of keys that are, [`Keyed`] holds one row a key, and [`KeyIndex`] numbers the distinct
//! keys it has seen, so that whoever uses it can keep columns addressed by that number, or rows in [`Slotted`]. Readers
//! get a [`RowsSnapshot`], which later changes leave alone. [`Tables`] is what any of them is for a checkpoint.
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
pub use key_index::{KeyIndex, NO_SLOT};
pub use keyed::{Changed, Conflict, Keyed};
pub use lineage::{Lineage, Run, SlotMarks};
pub use ordered::{Entry, Moved, Ordered, Sequence, successor};
pub use paged::{PARTS, Paged, PagedPart, dealt_out, page_rows, part_of};
pub use rows::Rows;
pub use sizes::Size;
pub use slotted::Slotted;
pub use spill::{Files, Place, Room, Spillable, Spilling};
pub use store::{RowsSnapshot, Store};
pub use tables::{Columns, Lists, Runs, Tables};
