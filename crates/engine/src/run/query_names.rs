//! The names that users know for queries, and the numbers of their operators. A sink's own query has an internal name, and so have the queries below the
//! windows of another query.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_flow::Explained;

use super::query::RunningQuery;
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
