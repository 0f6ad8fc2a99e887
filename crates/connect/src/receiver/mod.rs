//! Receivers: threads that read external bytes, and the source that turns the bytes into rows.
//!
//! A receiver's thread reads into a [`Feed`] of bounded size and waits while it is full, so TCP slows a
//! fast peer. The source takes the buffered bytes as one piece, however many reads they came in, and
//! decodes them. A [`Stop`] ends the threads at once when the source is dropped.

mod feed;
mod layout;
mod lines;
mod stop;

pub(crate) use feed::End;
pub use layout::FORMAT_OPTIONS;
pub(crate) use layout::Layout;
pub(crate) use lines::{Finish, Inbox, Lines};
pub(crate) use stop::{Stop, backoff};
