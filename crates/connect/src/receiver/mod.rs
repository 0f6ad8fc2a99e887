//! Receivers: threads that read bytes from outside, and the source that turns what they read into rows.
//!
//! A receiver's thread reads into a [`Feed`] of bounded size and waits when that is full, so that a fast peer is slowed
//! by its own connection. The source takes what is there as one piece, however many reads it took, splits it into
//! records and decodes them. A [`Stop`] ends the threads at once when the source is dropped.

mod feed;
mod layout;
mod lines;
mod stop;

pub(crate) use feed::End;
pub(crate) use layout::{FORMAT_OPTIONS, Layout};
pub(crate) use lines::{Finish, Inbox, Lines};
pub(crate) use stop::{Stop, backoff};
