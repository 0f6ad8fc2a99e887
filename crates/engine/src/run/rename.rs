//! Renaming an object between two epochs: every structure keyed by the old name gets the new one, and readers of the
//! object continue.
//!
//! Tasks of a source, a sink or a backfilling query name themselves by the copy of the name that they were started
//! with. [`Renamed`] maps these copies to the present names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::query::RunningQuery;
use super::subscribe::Subscription;
use super::tasks::Tasks;
use crate::catalog::{bad_rows_name, late_rows_name, move_key};
use crate::event::Event;
use crate::run::CatalogChanges;
use crate::run::outputs::Outputs;
use crate::run::queries::Queries;
use crate::run::sources::Sources;
use crate::run::tables::BaseTables;
use crate::run::watermarks::Watermarks;
use crate::statements::own_relation;

/// Old names with their new ones.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<Arc<str>, Arc<str>>);

impl Names {
    /// Replaces a name by its new one and returns the old one; `None` if the name stays.
    pub(super) fn put(&self, name: &mut Arc<str>) -> Option<Arc<str>> {
        let now = self.0.get(name)?;
        Some(std::mem::replace(name, now.clone()))
    }

    /// Replaces each name by its new one.
    pub(super) fn put_all<'a>(&self, names: impl IntoIterator<Item = &'a mut Arc<str>>) {
        for name in names {
            self.put(name);
        }
    }

    /// Returns each old name with its new one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter()
    }
}

impl CatalogChanges<'_> {
    /// Renames an object; the catalog has the new name already.
    pub(super) fn rename(&mut self, from: &Arc<str>, to: &Arc<str>) {
        let names = self.queries.names_of(from, to);
        rename_kept(self.sources, self.tables, self.outputs, self.watermarks, self.tasks, &names);
        for place in 0..self.queries.len() {
            rename_in_query(self.queries, self.tasks, place, &names);
        }
        self.tables.sequences.rename(from, to);
        names.put_all(self.outputs.sinks.values_mut().map(|sink| &mut sink.from));
        names.put_all(self.outputs.subscriptions.durable.values_mut().map(|durable| &mut durable.from));
        names.put_all(self.outputs.subscriptions.values_mut().map(Subscription::follows_mut));
        self.waiters.rename(&names);
        self.durability.rename_delivered(&names);
        self.setup.catalog.called(to).rename(to.clone());
        self.watermarks.plan_moves(&self.setup.settings);
        self.queries.readers_left();
        self.tasks.renamed.forget();
    }
}

/// Renames the keys of the loop's maps.
fn rename_kept(
    sources: &mut Sources,
    tables: &mut BaseTables,
    outputs: &mut Outputs,
    watermarks: &mut Watermarks,
    tasks: &mut Tasks,
    names: &Names,
) {
    for (from, to) in names.iter() {
        let copies = [
            sources.get_key_value(from).map(|(copy, _)| copy.clone()),
            outputs.sinks.get_key_value(from).map(|(copy, _)| copy.clone()),
        ];
        copies.into_iter().flatten().for_each(|copy| tasks.renamed.note(copy, to));
        move_key(tables, from, to);
        tables.get_mut(to).into_iter().for_each(|table| table.indexes.rename(to));
        move_key(sources, from, to);
        sources.get(to).into_iter().for_each(|source| source.health.rename(to));
        move_key(&mut outputs.sinks, from, to);
        move_key(&mut outputs.logs, from, to);
        move_key(&mut outputs.logs.histories, from, to);
        move_key(watermarks, from, to);
        outputs.transactions.values_mut().for_each(|open| open.rename(from, to));
    }
    // Readers of a log use the watermarks in its cuts.
    let cuts = outputs.logs.values_mut().flat_map(|log| log.cuts_mut());
    names.put_all(cuts.flat_map(|cut| &mut cut.watermarks).map(|(name, _)| name));
}

impl Tasks {
    /// Puts the present names into an event of a task that was started under old ones.
    pub(super) fn under_its_name(&self, mut event: Event) -> Event {
        match &mut event {
            Event::Arrived { source: name, .. }
            | Event::Jumped { source: name, .. }
            | Event::Replayed { source: name, .. }
            | Event::Sink { sink: name, .. } => self.renamed.by_now(name),
            Event::CaughtUp { query, source, .. } => {
                self.renamed.by_now(query);
                self.renamed.by_now(source);
            }
            _ => {}
        }
        event
    }
}

impl Queries {
    /// Returns the names of a relation and of its parts: a sink's query, the queries below a query's windows.
    fn names_of(&self, from: &Arc<str>, to: &Arc<str>) -> Names {
        let mut names = BTreeMap::from([
            (from.clone(), to.clone()),
            (own_relation(from), own_relation(to)),
            (bad_rows_name(from).into(), bad_rows_name(to).into()),
            (late_rows_name(from).into(), late_rows_name(to).into()),
        ]);
        let mut below: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        for query in &self.all {
            let Some((of, now)) = names.iter().find(|(name, _)| query.role.owner() == Some(name)) else {
                continue;
            };
            let window = query.name.strip_suffix(of.trim_start_matches('\0'));
            below.extend(window.map(|window| {
                (query.name.clone(), Arc::from(format!("{window}{}", now.trim_start_matches('\0'))))
            }));
        }
        names.extend(below);
        Names(names)
    }
}

fn rename_in_query(queries: &mut Queries, tasks: &mut Tasks, place: usize, names: &Names) {
    let query: &mut RunningQuery = &mut queries[place];
    let new = |name: &mut Arc<str>| Some((names.put(name)?, name.clone()));
    let mut copies = Vec::new();
    copies.extend(new(&mut query.name));
    copies.extend(query.feeds.iter_mut().filter_map(|feed| new(&mut feed.of)));
    names.put_all(query.role.owner_mut());
    names.put_all(query.into.iter_mut().flat_map(|into| [&mut into.sink, &mut into.table]));
    query.status.rename_read(names);
    if let Some(flow) = query.flow.here_mut() {
        names.iter().for_each(|(from, to)| flow.rename_relation(from, to));
    }
    copies.iter().for_each(|(copy, now)| tasks.renamed.note(copy.clone(), now));
}
