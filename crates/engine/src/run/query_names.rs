//! The names that users know for queries, and the numbers of their operators. A sink's own query has an internal name, and so have the queries below the
//! windows of another query.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_flow::Explained;
use millstream_state::Tables;

use super::queries::Queries;
use super::query::RunningQuery;
use super::query::errors::FirstError;
use crate::statements::{own_relation, sink_of};

/// Returns the name that users know for a query: that of its view, or its sink.
pub(super) fn shown_name<'a>(queries: &'a [RunningQuery], query: &'a RunningQuery) -> &'a str {
    let owner = match query.role.is_part() {
        // A part belongs to its oldest reader.
        true => queries.iter().find(|reader| reader.reads_from(&query.name)),
        false => query.role.owner().and_then(|owner| queries.iter().find(|query| query.name == *owner)),
    };
    match owner {
        Some(owner) => shown_name(queries, owner),
        None => sink_of(&query.name).unwrap_or(&query.name),
    }
}

/// Returns the name as messages and system tables show it.
pub(super) fn displayed_name<'a>(queries: &'a [RunningQuery], query: &'a RunningQuery) -> &'a str {
    shown_name(queries, query).trim_start_matches('\0')
}

/// Returns the query of a view, a stream or a sink, by the name that users know.
pub(super) fn query_called<'a>(queries: &'a [RunningQuery], name: &str) -> Option<&'a RunningQuery> {
    let of_sink = own_relation(name);
    queries.iter().find(|query| *query.name == *name || query.name == of_sink)
}

/// Returns all queries under the names that users know, sorted by name.
pub(super) fn queries_by_name(queries: &[RunningQuery]) -> Vec<(&str, &RunningQuery)> {
    let shown = |query| (displayed_name(queries, query), query);
    let mut named: Vec<(&str, &RunningQuery)> = queries.iter().map(shown).collect();
    named.sort_by_key(|(name, _)| *name);
    named
}

/// Returns the bytes of state of each query, by the name that users know.
pub(super) fn state_sizes(queries: &[RunningQuery]) -> Vec<(Arc<str>, usize)> {
    let mut sizes: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for query in queries {
        *sizes.entry(displayed_name(queries, query).into()).or_default() += query.state_bytes();
    }
    sizes.into_iter().collect()
}

/// Returns the operator of a query's node.
pub(super) fn operator_of(query: &RunningQuery, node: usize) -> Option<Explained> {
    query.operators().into_iter().find(|operator| operator.place.node == node && !operator.place.repeated)
}

/// Returns the number that is added to the nodes of a query so that the operators of a view and of the queries below its
/// windows have numbers of their own: those below come first. Queries that are alone under their name are omitted.
pub(super) fn node_offsets(queries: &[RunningQuery]) -> BTreeMap<Arc<str>, usize> {
    let mut offsets = BTreeMap::new();
    for parts in queries_by_name(queries).chunk_by(|a, b| a.0 == b.0).filter(|parts| parts.len() > 1) {
        let mut offset = 0;
        for (_, query) in parts {
            offsets.insert(query.name.clone(), offset);
            offset +=
                query.operators().iter().map(|operator| operator.place.node + 1).max().unwrap_or_default();
        }
    }
    offsets
}

/// The parts that queries read, and the readers of each. A part counts with its readers in all that users see.
#[derive(Clone, Copy)]
pub(super) struct SharedParts<'a> {
    queries: &'a Queries,
}

impl<'a> SharedParts<'a> {
    /// Returns the parts of these queries.
    pub(super) fn of(queries: &'a Queries) -> SharedParts<'a> {
        SharedParts { queries }
    }

    /// Returns the parts that a query reads, directly or through others.
    pub(super) fn parts_of(self, query: &'a RunningQuery) -> Vec<&'a RunningQuery> {
        let mut all: Vec<&RunningQuery> = Vec::new();
        let mut left = vec![query];
        while let Some(query) = left.pop() {
            for part in query.role.parts().iter().filter_map(|read| self.queries.query(&read.name)) {
                if !all.iter().any(|known| known.name == part.name) {
                    all.push(part);
                    left.push(part);
                }
            }
        }
        all
    }

    /// Returns the queries that read a part, directly or through others, in their order.
    pub(super) fn readers_of(self, part: &RunningQuery) -> Vec<&'a RunningQuery> {
        let mut names = BTreeSet::from([part.name.clone()]);
        let mut readers = Vec::new();
        for query in self.queries {
            if query.reads().any(|name| names.contains(name)) {
                match query.role.is_part() {
                    true => drop(names.insert(query.name.clone())),
                    false => readers.push(query),
                }
            }
        }
        readers
    }

    /// Returns the relations that a query and its parts read, and their columns with those of a batch if they are read.
    pub(super) fn base_feeds(self, query: &'a RunningQuery) -> Vec<(Arc<str>, Option<SchemaRef>)> {
        let parts = self.parts_of(query);
        let all = std::iter::once(query).chain(parts).flat_map(|query| &query.feeds);
        let mut feeds: Vec<(Arc<str>, Option<SchemaRef>)> = Vec::new();
        for feed in all.filter(|feed| !self.queries.query(&feed.of).is_some_and(|query| query.role.is_part()))
        {
            if !feeds.iter().any(|(of, _)| *of == feed.of) {
                feeds.push((feed.of.clone(), feed.stamped.clone()));
            }
        }
        feeds
    }

    /// Returns the approximate bytes of a query's state, with that of the parts whose oldest reader it is.
    pub(super) fn state_bytes(self, query: &'a RunningQuery) -> usize {
        let is_oldest = |part: &RunningQuery| {
            self.readers_of(part).first().is_some_and(|oldest| oldest.name == query.name)
        };
        let parts = self.parts_of(query).into_iter().filter(|part| is_oldest(part));
        query.state_bytes() + parts.map(RunningQuery::state_bytes).sum::<usize>()
    }

    /// Returns the number of errors of a query and its parts.
    pub(super) fn error_count(self, query: &'a RunningQuery) -> usize {
        let parts = self.parts_of(query);
        query.result.errors.count() + parts.iter().map(|part| part.result.errors.count()).sum::<usize>()
    }

    /// Returns the first error of a query, or of one of its parts.
    pub(super) fn first_error(self, query: &'a RunningQuery) -> Option<FirstError> {
        let of_parts = || self.parts_of(query).into_iter().find_map(|part| part.result.errors.first());
        query.result.errors.first().or_else(of_parts)
    }

    /// Returns the operators of a query from the root down, those of its parts in their places.
    pub(super) fn operators_of(self, query: &'a RunningQuery) -> Vec<Explained> {
        let mut all = Vec::new();
        for operator in query.operators() {
            let input = operator.title.strip_prefix("Input ").and_then(|name| self.queries.query(name));
            let Some(part) = input.filter(|query| query.role.is_part()) else {
                all.push(operator);
                continue;
            };
            let of_part = self.operators_of(part);
            let readers = self.readers_of(part);
            for (number, mut below) in of_part.into_iter().enumerate() {
                below.place.depth += operator.place.depth;
                below.place.repeated |= operator.place.repeated;
                if number == 0 {
                    let names = readers.iter().map(|reader| displayed_name(self.queries, reader).into());
                    below.state.kept_once_for = names.collect();
                }
                all.push(below);
            }
        }
        all
    }

    /// Saves the places where queries were divided.
    pub(super) fn save(self, state: &mut Tables) {
        let reads =
            self.queries.iter().flat_map(|query| query.role.parts().iter().map(move |read| (query, read)));
        for (number, (query, read)) in reads.enumerate() {
            state.put_text_if(&format!("part{number}.of"), Some(&query.name));
            state.put_text_if(&format!("part{number}.name"), Some(&read.name));
            state.put_number(&format!("part{number}.node"), read.node as i64);
        }
    }
}
