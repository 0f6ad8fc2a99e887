//! The names that users know for queries. A sink's own query has an internal name, and so have the queries below the
//! windows of another query.

use super::query::RunningQuery;
use crate::statements::{own_relation, sink_of};

/// Returns the name that users know for a query: that of its view, or its sink.
pub(super) fn shown_name<'a>(queries: &'a [RunningQuery], query: &'a RunningQuery) -> &'a str {
    let owner = query.owner.as_ref().and_then(|owner| queries.iter().find(|query| query.name == *owner));
    match owner {
        Some(owner) => shown_name(queries, owner),
        None => sink_of(&query.name).unwrap_or(&query.name),
    }
}

/// Returns the query of a view, a stream or a sink, by the name that users know.
pub(super) fn query_called<'a>(queries: &'a [RunningQuery], name: &str) -> Option<&'a RunningQuery> {
    let of_sink = own_relation(name);
    queries.iter().find(|query| *query.name == *name || query.name == of_sink)
}

/// Returns all queries under the names that users know, sorted by name.
pub(super) fn queries_by_name(queries: &[RunningQuery]) -> Vec<(&str, &RunningQuery)> {
    let shown = |query| (shown_name(queries, query).trim_start_matches('\0'), query);
    let mut named: Vec<(&str, &RunningQuery)> = queries.iter().map(shown).collect();
    named.sort_by_key(|(name, _)| *name);
    named
}
