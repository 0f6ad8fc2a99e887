//! The role of a query: whom it runs for.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_flow::{Divided, Flow};
use millstream_sql::Result;

use crate::error;

/// Whom a query runs for: a statement's object, another query, a subscriber, or the query that it will replace.
#[derive(Debug, Default)]
pub(crate) struct QueryRole {
    /// The query that this one is a part of, and its only reader.
    owner: Option<Arc<str>>,
    /// True if no statement can name it: it is a subscriber's own, or a successor.
    is_temporary: bool,
    /// True if it replaces another query once it is current.
    is_successor: bool,
    /// True if it is a part that other queries have in common.
    is_part: bool,
    /// The parts that it reads instead of computing them itself, in the order in which it was divided.
    parts: Vec<PartRead>,
}

/// A part that a query reads: the place where its flow was divided.
#[derive(Clone, Debug)]
pub(in crate::run) struct PartRead {
    /// The part's last operator, by its place in the flow as it was before.
    pub(in crate::run) node: usize,
    /// The name of the part.
    pub(in crate::run) name: Arc<str>,
}

impl QueryRole {
    /// Returns the query that this one is a part of.
    pub(in crate::run) fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }

    /// Returns the place of the owner's name, to rename it.
    pub(in crate::run) fn owner_mut(&mut self) -> Option<&mut Arc<str>> {
        self.owner.as_mut()
    }

    /// Returns true if it is a part that other queries have in common.
    pub(in crate::run) fn is_part(&self) -> bool {
        self.is_part
    }

    /// Makes it a part that other queries have in common.
    pub(in crate::run) fn make_part(&mut self) {
        self.is_part = true;
    }

    /// Returns the parts that it reads instead of computing them itself.
    pub(in crate::run) fn parts(&self) -> &[PartRead] {
        &self.parts
    }

    /// Divides a flow of the query's statement as the query was divided. Returns the rest, and the parts by their names.
    pub(in crate::run) fn divide(&self, mut flow: Flow) -> Result<(Flow, BTreeMap<Arc<str>, Flow>)> {
        let mut parts = BTreeMap::new();
        for read in &self.parts {
            let Divided { part, rest } =
                Divided::of(flow, read.node, read.name.clone()).map_err(error::flow)?;
            flow = rest;
            parts.insert(read.name.clone(), part);
        }
        Ok((flow, parts))
    }

    /// Adds a part that it reads from now on.
    pub(in crate::run) fn read_part(&mut self, part: PartRead) {
        self.parts.push(part);
    }

    /// Makes it a part of another query, if there is one.
    pub(in crate::run) fn set_owner(&mut self, owner: Option<Arc<str>>) {
        self.owner = owner;
    }

    /// Returns true if no statement can name it: it is a subscriber's own, or a successor.
    pub(crate) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// Makes it a subscriber's own query.
    pub(in crate::run) fn make_temporary(&mut self) {
        self.is_temporary = true;
    }

    /// Takes over the role of the query that it was rebuilt from, except for its owner.
    pub(in crate::run) fn set_temporary(&mut self, is_temporary: bool) {
        self.is_temporary = is_temporary;
    }

    /// Returns true if it replaces another query once it is current.
    pub(crate) fn is_successor(&self) -> bool {
        self.is_successor
    }

    /// Makes it a successor.
    pub(in crate::run) fn make_successor(&mut self) {
        (self.is_temporary, self.is_successor) = (true, true);
    }

    /// Lets a successor take the place of the query that it replaces.
    pub(in crate::run) fn take_over(&mut self) {
        (self.is_temporary, self.is_successor) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_can_be_named_once_it_took_over() {
        let mut role = QueryRole::default();
        assert!(!role.is_temporary() && !role.is_successor());
        role.make_successor();
        assert!(role.is_temporary() && role.is_successor());
        role.take_over();
        assert!(!role.is_temporary() && !role.is_successor());
    }
}
