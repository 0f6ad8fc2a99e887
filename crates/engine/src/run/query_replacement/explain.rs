//! EXPLAIN ALTER: the state that a relation's new query would keep of the old one, or recompute.

use std::sync::Arc;

use millstream_flow::Succession;
use millstream_sql::Result;

use super::super::feed::Feed;
use super::super::query::RunningQuery;
use super::super::source::RunningSource;
use crate::catalog::Object;
use crate::run::flow_control::FlowControl;
use crate::run::queries::Queries;
use crate::run::query_replacement::ddl_place::check_names;
use crate::run::query_replacement::fits::check_place;
use crate::run::query_replacement::keeping::holds_all;
use crate::run::query_replacement::{check_can_be_read, queries_to_be};
use crate::run::read_view::ReadView;
use crate::run::sources::Sources;
use crate::run::tables::BaseTables;

/// The lines of an explanation: each has a subject and its fate.
type Lines = Vec<(String, String)>;

impl ReadView<'_> {
    /// Returns the fate of a relation, its operators and its readers, or the reason for a refusal.
    /// `extends`: it is a plain view, and its present columns keep their plan.
    pub(in crate::run) fn explain_replace(
        &self,
        object: &Arc<Object>,
        (from_now, extends): (bool, bool),
    ) -> Result<Lines> {
        let name = &object.name;
        let queries = queries_to_be(&self.setup.catalog, &self.setup.settings, self.scope(), object)?;
        let query = queries.last();
        let maintained = query.filter(|query| !query.is_per_batch());
        let succession = match maintained {
            Some(query) => self.flow_control.succession(name, query, from_now),
            None => None,
        };
        let readable = match (maintained, &succession) {
            (Some(query), None) if !from_now => {
                check_can_be_read(self.queries, self.tables, self.sources, name, query)
            }
            _ => Ok(()),
        };
        let refused = check_names(self.durability, &self.setup.catalog, object)
            .and(check_place(self.flow_control, object, extends, query))
            .and(readable)
            .err();
        let is_copied_apart = |query, succession| {
            self.queries
                .query(name)
                .is_some_and(|old| self.flow_control.copied_apart(old, query, succession).is_some())
        };
        let what = match (&refused, query, &succession) {
            (Some(error), ..) => format!("refused: {}", error.message),
            (None, None, _) => "its plan changes".into(),
            (None, Some(query), _) if query.is_per_batch() => "starts with the next batch".into(),
            (None, _, Some(succession)) if succession.is_same() => {
                "is the same query: nothing changes".into()
            }
            (None, Some(query), None) if self.flow_control.is_made_beside(name, query, from_now) => {
                "changes once all is rebuilt; until then the old query continues".into()
            }
            (None, Some(query), Some(succession)) if is_copied_apart(query, succession) => {
                "changes once its state is copied; until then the old query continues".into()
            }
            (None, ..) => "changes at once".into(),
        };
        let mut lines = vec![(name.to_string(), what)];
        if let (None, Some(query)) = (&refused, query) {
            lines.extend(fates_of(
                self.queries,
                self.tables,
                self.sources,
                query,
                succession.as_ref(),
                from_now,
            ));
            let readers = self.setup.catalog.dependants(name).into_iter();
            lines.extend(readers.map(|reader| (reader.to_string(), "applies the difference".into())));
        }
        Ok(lines)
    }
}

impl FlowControl<'_> {
    /// Returns true if the new query takes in its inputs beside the old one.
    fn is_made_beside(&self, name: &str, query: &RunningQuery, from_now: bool) -> bool {
        let is_large = |old| !from_now && self.is_better_apart(old, query);
        query.reads().any(|name| self.sources.is_to_be_read(self.tables, name))
            || self.queries.query(name).is_some_and(is_large)
    }
}

impl Sources {
    /// Returns true if a source has delivered rows that it must read again.
    fn is_to_be_read(&self, tables: &BaseTables, name: &str) -> bool {
        self.is_read_again(tables, name) && self.get(name).is_some_and(RunningSource::has_past)
    }
}

/// Returns the fate of each operator.
fn fates_of(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    query: &RunningQuery,
    succession: Option<&Succession>,
    from_now: bool,
) -> Lines {
    let fate = |operator: &millstream_flow::Explained| {
        let name = operator.title.strip_prefix("Input ").filter(|_| operator.cost.is_none());
        let place = query.feeds.iter().position(|feed| Some(feed.of.as_ref()) == name);
        match (place.and_then(|place| Some((place, query.feeds.get(place)?))), succession) {
            (Some(_), _) if query.is_per_batch() => "from the next batch on".into(),
            (Some((place, _)), Some(succession)) if !succession.needs(place) => "continues from here".into(),
            (Some((_, feed)), _) => way_of_reading(queries, tables, sources, feed, from_now),
            (_, Some(succession)) if succession.keeps(operator.place.node) => {
                match operator.state.is_none() {
                    true => "continues".into(),
                    false => format!("keeps {}", operator.state.text),
                }
            }
            (_, Some(_)) if succession.is_some_and(Succession::is_same) => "continues".into(),
            _ => "rebuilt".to_string(),
        }
    };
    query.operators().iter().map(|operator| (operator.indented(), fate(operator))).collect()
}

/// Returns where the rows of an input come from, if the query reads it from its beginning.
fn way_of_reading(
    queries: &Queries,
    tables: &BaseTables,
    sources: &Sources,
    feed: &Feed,
    from_now: bool,
) -> String {
    match () {
        () if sources.is_to_be_read(tables, &feed.of) => "read again from its beginning".into(),
        () if holds_all(queries, tables, sources, feed) => "read from its current content".into(),
        () if from_now => "read from its retained rows and from now on".into(),
        () => "some of its rows are gone".into(),
    }
}
