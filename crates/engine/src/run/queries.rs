//! The running queries, in the order of their creation. A query reads only queries before it.

use std::ops::{Deref, DerefMut};

use super::query::RunningQuery;

/// The owner of all running queries: finds them, what they read of each other, and which of them lag or are suspended.
///
/// Its methods lie in the modules of their topics.
#[derive(Debug, Default)]
pub(super) struct Queries {
    pub(super) all: Vec<RunningQuery>,
    /// True during a RESUME that stages what sinks bring into tables for the next epoch.
    pub(super) stage_sinks: bool,
    /// True if each epoch of a query is part of its history.
    pub(super) keep_every_epoch: bool,
}

impl Deref for Queries {
    type Target = Vec<RunningQuery>;

    fn deref(&self) -> &Vec<RunningQuery> {
        &self.all
    }
}

impl DerefMut for Queries {
    fn deref_mut(&mut self) -> &mut Vec<RunningQuery> {
        &mut self.all
    }
}

impl<'a> IntoIterator for &'a Queries {
    type Item = &'a RunningQuery;
    type IntoIter = std::slice::Iter<'a, RunningQuery>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl<'a> IntoIterator for &'a mut Queries {
    type Item = &'a mut RunningQuery;
    type IntoIter = std::slice::IterMut<'a, RunningQuery>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter_mut()
    }
}
