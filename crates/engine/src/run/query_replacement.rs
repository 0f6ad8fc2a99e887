//! Replacing the query of a relation: ALTER … AS SELECT, CREATE OR REPLACE.
//!
//! The new query, the **successor**, runs beside the old one under a name that no statement knows, until its backfill
//! is done. Then it replaces the old query between two epochs. Readers of the relation see one change: the new answer
//! minus the old one. Until then nothing is journalled or visible, so a crash, an error or a cancelled statement
//! changes nothing. The journal's one entry says that the relation has another query from here on; a start backfills
//! that query there, up to the same positions.
//!
//! If both queries have some operators in common, and the kept rows suffice for all others, the successor keeps their
//! state. Then it takes over at once, or when a large state has been copied (`keeping.rs`). The rows that a stream has
//! emitted stay; the successor's rows follow them.
//!
//! Deliberately absent: fewer columns, other types, or another key, for relations that have readers (`fits.rs` says why).
//! New columns at the end are fine (`added_columns.rs`).

mod added_columns;
mod ddl_place;
mod difference;
mod explain;
mod fits;
mod keeping;

use std::sync::Arc;

use added_columns::AddedColumns;
pub(super) use ddl_place::is_wider;
use ddl_place::{check_names, ddl_of_replacement};
use difference::{Comparison, difference_of_answers};
use millstream_delta::{Cut, Delta, Epoch};
use millstream_durable::Entry;
use millstream_sql::{Error, Result};

use super::backfill::Beginning;
use super::catch_up::{BeginningMemory, Inherited, next_since};
use super::change::{notice_missed, queries_of};
use super::compile::Scope;
use super::deltas::Deltas;
use super::durable::Durability;
use super::into_table::put_newest_before_readers;
use super::pending_reads::relations_of_successor;
use super::queries::Queries;
use super::query::{RunningQuery, Status};
use super::sharing::Arranging;
use super::waiters::{Awaits, Changing};
use crate::catalog::{Catalog, Definition, Object};
use crate::event::{Replacing, Reply};
use crate::jobs::Job;
use crate::run::catch_up::step_past;
use crate::run::contents::Bases;
use crate::run::durable::{begin_change, is_loading};
use crate::run::{CatalogChanges, Successors};
use crate::settings::Settings;
pub(super) use difference::take_differences;
pub(super) use fits::check_can_be_read;
use fits::check_place;
use fits::unfit;
use keeping::Keeping;
use keeping::check_repeatable;

/// A query that is to replace another one.
#[derive(Debug)]
pub(crate) struct Successor {
    /// The relation with its new definition.
    object: Arc<Object>,
    /// The relation as it is now.
    before: Arc<Object>,
    /// The objects that the new query reads.
    reads: Vec<Arc<Object>>,
    /// The name of the new query until it takes over.
    name: Arc<str>,
    notices: Vec<String>,
    /// The entry for the journal.
    entry: Entry,
    reply: Reply<Option<Vec<String>>>,
    /// The comparison of both answers, once the new one is there.
    comparison: Option<Comparison>,
    /// The state of the old query that it keeps, if threads copy it.
    keeping: Option<Keeping>,
    /// The memory of the statement, once the new query counts there.
    memory: Option<Arc<BeginningMemory>>,
}

/// The way in which a successor begins.
enum Start {
    /// It takes over at once.
    AtOnce,
    /// It takes over at once, with the same query and so the same answer.
    Same,
    /// It reads its inputs first.
    Anew,
    /// It takes over when threads have copied this state.
    FromCopy(Keeping),
}

/// A successor's queries, and how it begins.
struct Begun {
    queries: Vec<RunningQuery>,
    start: Start,
    notices: Vec<String>,
}

impl Successor {
    /// Returns the columns that the new query adds, if any.
    fn added_columns(&self) -> Option<AddedColumns> {
        AddedColumns::of(&self.before, &self.object).ok().flatten()
    }

    /// Returns the ALTER statement, if this is the name of its query.
    pub(super) fn job_of(&self, name: &Arc<str>) -> Option<Arc<Job>> {
        self.reply.job().filter(|_| self.name == *name)
    }
}

/// The readiness of a successor to take over.
enum Readiness {
    NotYet,
    Now,
    Never(Error),
}

impl CatalogChanges<'_> {
    /// Begins to replace the query of a relation. Replies `Ok(None)` if the catalog has changed meanwhile.
    pub(super) fn replace(&mut self, replacing: Replacing) {
        let Replacing { base, object, from_now, extends, entry, reply } = replacing;
        // A statement that was given up before its turn is not executed.
        if reply.is_closed() {
            return;
        }
        if base != self.setup.catalog.version {
            return reply.send(Ok(None));
        }
        let before = match self.setup.catalog.get(&object.name) {
            Ok(before) => before.clone(),
            Err(error) => return reply.send(Err(error)),
        };
        if is_loading(self.durability) {
            return self.replace_without_rows(&object, entry, reply);
        }
        self.clock
            .fix_time(&self.setup.settings, self.durability.is_on() && !self.durability.is_recovering());
        let begun = self
            .durability
            .check_journal()
            .and_then(|()| check_names(self.durability, &self.setup.catalog, &object));
        let begun = begun.and_then(|()| self.successors().successor_of(&object, from_now, extends));
        let Begun { queries, start, notices } = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.clock.end_change(self.durability.is_recovering());
                return reply.send(Err(error));
            }
        };
        let reads = object.reads.iter().filter_map(|name| self.setup.catalog.find(name).cloned()).collect();
        let name: Arc<str> = match start {
            Start::AtOnce | Start::Same => object.name.clone(),
            Start::Anew | Start::FromCopy(_) => format!("\0the next {}", object.name).into(),
        };
        let comparison =
            matches!(start, Start::Same).then(|| Comparison::of_same(self.outputs.logs.end(&name)));
        let (at_once, keeping) = match start {
            Start::AtOnce | Start::Same => (true, None),
            Start::Anew => (false, None),
            Start::FromCopy(keeping) => (false, Some(keeping)),
        };
        let successor = Successor {
            object,
            before,
            reads,
            name,
            notices,
            entry,
            reply,
            comparison,
            keeping,
            memory: None,
        };
        match at_once {
            true => self.take_place(successor, queries),
            false => self.begin_beside(successor, queries),
        }
        self.clock.end_change(self.durability.is_recovering());
    }

    /// Begins a successor that runs beside the old query, with some of its state or anew.
    fn begin_beside(&mut self, successor: Successor, queries: Vec<RunningQuery>) {
        for mut query in queries {
            query.name = successor.name.clone();
            query.role.make_successor();
            // During recovery the journal fixes the time at which it takes over.
            if self.durability.is_recovering() {
                query.status.begin_by(Beginning::AtOnce);
            }
            self.queries.push(query);
        }
        let (new, old, kept) =
            (successor.name.clone(), successor.object.name.clone(), successor.keeping.clone());
        self.outputs.successors.push(successor);
        let place = |name: &Arc<str>| self.queries.iter().position(|query| query.name == *name);
        let begun = match (kept, place(&new), place(&old)) {
            (None, ..) => Ok(()),
            (Some(Keeping { succession, leaving, .. }), Some(place), Some(from)) => {
                self.starts().inherit(place, Inherited { from, leaving, succession })
            }
            _ => Err(Error::bug("the old query or its successor is gone")),
        };
        if let Err(error) = begun {
            if let Some(successor) = self.outputs.successors.pop() {
                self.give_up(successor, error);
            }
            return;
        }
        self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        self.starts().start_queries();
        self.finish_successors();
    }

    /// Lets current successors take over, and gives up those that can't.
    pub(super) fn finish_successors(&mut self) {
        if self.outputs.successors.is_empty() {
            return;
        }
        self.clock
            .fix_time(&self.setup.settings, self.durability.is_on() && !self.durability.is_recovering());
        let mut at = 0;
        // The others stay in the list, so that the logs keep what they need.
        while let Some(readiness) = self
            .outputs
            .successors
            .get(at)
            .map(|successor| readiness(self.queries, self.durability, &self.setup.catalog, successor))
        {
            if matches!(readiness, Readiness::NotYet) {
                at += 1;
                continue;
            }
            let successor = self.outputs.successors.remove(at);
            let waits = match readiness {
                Readiness::Never(error) => {
                    self.give_up(successor, error);
                    None
                }
                _ => self.succeed(successor),
            };
            if let Some(successor) = waits {
                self.outputs.successors.insert(at, successor);
                at += 1;
            }
        }
        self.clock.end_change(self.durability.is_recovering());
    }

    fn give_up(&mut self, successor: Successor, error: Error) {
        self.queries.retain(|query| query.name != successor.name);
        self.outputs.logs.remove(&successor.name);
        self.queries.readers_left();
        self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        successor.reply.send(Err(stays(&successor.object.name, error)));
    }

    /// Lets a successor take over. Returns it if its answer must be compared with the old one first.
    fn succeed(&mut self, mut successor: Successor) -> Option<Successor> {
        let place = self.queries.iter().position(|query| query.name == successor.name)?;
        if let Some(memory) = self.queries[place].status.memory() {
            successor.memory = Some(memory);
        }
        self.successors().come_to_the_present(place);
        let query = &self.queries[place];
        let checked = match &query.status {
            _ if self.durability.is_recovering() => Ok(()),
            Status::Suspended { reason, .. } => Err(reason.clone()),
            _ => self
                .durability
                .check_journal()
                .and_then(|()| check_names(self.durability, &self.setup.catalog, &successor.object))
                .and_then(|()| check_place(self.flow_control(), &successor.object, false, Some(query)))
                .and_then(|()| check_repeatable(self.queries, self.tables, self.sources, &successor, query)),
        };
        match checked.and_then(|()| self.successors().is_compared(&mut successor)) {
            Ok(true) => {
                let mut query = self.queries.remove(place);
                query.name = successor.object.name.clone();
                query.role.take_over();
                self.take_place(successor, vec![query]);
            }
            Ok(false) => return Some(successor),
            Err(error) => self.give_up(successor, error),
        }
        None
    }

    /// Replaces the queries of a relation, or a view's plan.
    fn take_place(&mut self, mut successor: Successor, queries: Vec<RunningQuery>) {
        let fits = unfit(self.queries, &self.setup.catalog, &successor.object, queries.last()).is_none();
        let change = queries.last().filter(|_| fits).and_then(|query| {
            difference_of_answers(self.queries, self.outputs, self.waiters, &mut successor, query)
        });
        if successor.name != successor.object.name {
            self.outputs.logs.remove(&successor.name);
        }
        let added = successor.added_columns();
        let Successor { object, notices, mut entry, reply, .. } = successor;
        let name = object.name.clone();
        if change.is_none() || added.is_some() {
            // Without the difference, nothing connects the old content with the new one. The old content has no values in
            // new columns.
            self.outputs.logs.histories.remove(&name);
        }
        if let Some(added) = added
            && let Err(reason) = added.extend_log(self.outputs, &name)
        {
            tracing::warn!(relation = %name, %reason, "the changes of a relation can't get its new columns");
        }
        if let Entry::Changed { standing, .. } = &mut entry {
            *standing = self.clock.standing(&self.setup.settings);
        }
        let ddl = ddl_of_replacement(self.durability, &self.setup.catalog, &object);
        begin_change(self.clock, self.durability, &self.setup.settings, entry, ddl, true);
        if !self.durability.is_on() {
            self.clock.epoch = self.clock.epoch.next();
        }
        self.redefine(&object, queries.last());
        if !fits {
            self.delivery().end_subscriptions_to(std::slice::from_ref(&name), "has another query");
            self.outputs.logs.remove(&name);
        }
        put_in_place(self.queries, self.clock.epoch, &name, queries, fits);
        if let Some(change) = change {
            self.hand_difference(&name, change);
        }
        self.finish_replacement(notices, reply);
    }

    /// Replaces a definition while the statements of a checkpoint are repeated. No query has rows yet; the checkpoint has
    /// the state of the new one.
    fn replace_without_rows(
        &mut self,
        object: &Arc<Object>,
        entry: Entry,
        reply: Reply<Option<Vec<String>>>,
    ) {
        let scope = Scope::new(self.setup, self.queries);
        let mut queries = match queries_to_be(&self.setup.catalog, &self.setup.settings, scope, object) {
            Ok(queries) => queries,
            Err(error) => return reply.send(Err(error)),
        };
        queries.iter_mut().for_each(|query| query.status.begin_by(Beginning::AtOnce));
        let ddl = ddl_of_replacement(self.durability, &self.setup.catalog, object);
        begin_change(self.clock, self.durability, &self.setup.settings, entry, ddl, true);
        self.redefine(object, queries.last());
        put_in_place(self.queries, self.clock.epoch, &object.name, queries, false);
        self.finish_replacement(Vec::new(), reply);
        self.clock.end_change(self.durability.is_recovering());
    }

    /// Puts the new definition of a relation into the catalog.
    fn redefine(&mut self, object: &Arc<Object>, query: Option<&RunningQuery>) {
        let mut catalog = self.setup.catalog.as_ref().clone();
        catalog.replace(object.clone());
        if let Some(late) = query.and_then(|query| query.result.late.as_ref()) {
            catalog.keep_late(object.name.clone(), late.schema().clone());
        }
        self.setup.publish_catalog(catalog);
    }

    /// Starts queries that wait for a new one, and replies when the replacement is durable.
    fn finish_replacement(&mut self, notices: Vec<String>, reply: Reply<Option<Vec<String>>>) {
        self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        self.starts().start_queries();
        self.queries.readers_left();
        let entry = self.durability.last();
        let reply = Awaits::Change(reply);
        self.waiters.changes.push(Changing { names: Vec::new(), notices, entry, reply, undo: None });
    }

    /// Steps the readers of a relation over the difference, as one epoch.
    fn hand_difference(&mut self, name: &Arc<str>, change: Delta) {
        let Some(place) = self.queries.iter().position(|query| query.name == *name) else { return };
        self.queries.share_or_suspend(
            Bases::new(self.tables, self.sources),
            self.clock.epoch,
            place,
            Arranging::Anew,
        );
        if !change.is_empty() {
            let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
            self.steps().step_queries_from(place + 1, &cut, Deltas::from([(name.clone(), change)]));
        }
    }
}

impl Successors<'_> {
    /// Returns the new queries of a relation.
    fn successor_of(&mut self, object: &Arc<Object>, from_now: bool, extends: bool) -> Result<Begun> {
        if self.waiters.replay.is_some() {
            return Err(Error::external(
                "a recorded epoch is being replayed: try again when it has finished",
            ));
        }
        if self.outputs.successors.iter().any(|other| other.object.name == object.name) {
            return Err(Error::external(format!(
                "\"{}\" is being altered: try again when it is done",
                object.name
            )));
        }
        let mut queries = queries_to_be(
            &self.setup.catalog,
            &self.setup.settings,
            Scope::new(self.setup, self.queries),
            object,
        )?;
        check_place(self.flow_control(), object, extends, queries.last())?;
        // A query FOR EACH BATCH begins with the next batch, and a view has no query.
        let Some(query) = queries.last_mut().filter(|query| !query.is_per_batch()) else {
            return Ok(Begun { queries, start: Start::AtOnce, notices: Vec::new() });
        };
        let mut notices = Vec::new();
        if let Some(succession) = self.flow_control().succession(&object.name, query, from_now) {
            let old = self.queries.query(&object.name);
            let start = match old.and_then(|old| self.flow_control().copied_apart(old, query, &succession)) {
                Some(leaving) => {
                    Start::FromCopy(Keeping { succession: Arc::new(succession), leaving, from_now })
                }
                None => {
                    let done = self.take_over(&object.name, query, &succession);
                    done.map_err(|error| stays(&object.name, error))?;
                    if succession.is_same() { Start::Same } else { Start::AtOnce }
                }
            };
            return Ok(Begun { queries, start, notices });
        }
        match from_now {
            true => notice_missed(self.queries, self.tables, self.sources, query, &mut notices),
            false => check_can_be_read(self.queries, self.tables, self.sources, &object.name, query)?,
        }
        Ok(Begun { queries, start: Start::Anew, notices })
    }

    /// Makes a successor current: it takes in new rows of sources, and then the kept content of its other inputs.
    fn come_to_the_present(&mut self, place: usize) {
        let Status::CatchingUp(catch_up) = &self.queries[place].status else { return };
        let inputs: Vec<Arc<str>> = self.queries[place].reads().cloned().collect();
        let has_content = catch_up.has_content();
        let kept: Vec<bool> = inputs
            .iter()
            .map(|name| !has_content && !self.sources.is_read_again(self.tables, name))
            .collect();
        let ends: Vec<_> = inputs.iter().map(|name| self.outputs.logs.end(name)).collect();
        if let Status::CatchingUp(catch_up) = &mut self.queries[place].status {
            for ((place, end), _) in
                catch_up.places.iter_mut().zip(ends).zip(&kept).filter(|(_, kept)| **kept)
            {
                *place = end;
            }
        }
        // Rows of the past are never late.
        let past = Cut {
            watermarks: Vec::new(),
            now: self.clock.last(),
            ..self.clock.standing_cut(&self.setup.settings, self.watermarks.current())
        };
        let mut rest = Vec::new();
        while let Some((_, inputs)) = next_since(self.queries, self.outputs, place) {
            rest.push(inputs);
        }
        let contents = self.queries[place].feeds.iter().zip(kept);
        let contents = contents.map(|(feed, kept)| match kept {
            true => Bases::new(self.tables, self.sources)
                .contents(self.queries)
                .first_content(feed)?
                .batches_now()
                .map(Delta::from_iter),
            false => Ok(Delta::default()),
        });
        match contents.collect::<Result<Vec<Delta>>>() {
            Ok(contents) => rest.push(contents),
            Err(reason) => self.queries[place].suspend(reason, self.clock.epoch),
        }
        for deltas in &rest {
            let of = |name: &str| inputs.iter().position(|input| input.as_ref() == name);
            step_past(self.queries, self.outputs, self.durability, place, &past, |name| {
                of(name).and_then(|place| deltas.get(place))
            });
        }
        let standing = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        if !self.queries[place].status.is_suspended() && self.queries[place].flow.is_due(&standing) {
            step_past(self.queries, self.outputs, self.durability, place, &standing, |_| None);
        }
        if !self.queries[place].status.is_suspended() {
            self.queries[place].status = Status::Running;
        }
    }
}

/// Compiles the queries of a relation against the catalog with its new definition.
pub(super) fn queries_to_be(
    catalog: &Catalog,
    settings: &Settings,
    scope: Scope<'_>,
    object: &Arc<Object>,
) -> Result<Vec<RunningQuery>> {
    if let Definition::View { .. } = object.definition {
        return Ok(Vec::new());
    }
    let mut catalog = catalog.clone();
    catalog.replace(object.clone());
    let scope = super::compile::Scope { catalog: &catalog, ..scope };
    queries_of(settings, object, &scope)
}

fn readiness(
    queries: &Queries,
    durability: &Durability,
    catalog: &Catalog,
    successor: &Successor,
) -> Readiness {
    let name = &successor.object.name;
    if successor.reply.is_closed() {
        return Readiness::Never(Error::external("the client has disconnected"));
    }
    for before in std::iter::once(&successor.before).chain(&successor.reads) {
        if catalog.find(&before.name).is_none_or(|now| !Arc::ptr_eq(now, before)) {
            let kind = before.definition.kind();
            return Readiness::Never(Error::external(format!(
                "{kind} \"{}\" was changed while \"{name}\" was being altered: nothing was done",
                before.name
            )));
        }
    }
    let Some(query) = queries.query(&successor.name) else {
        return Readiness::Never(Error::bug(format!("the next query of \"{name}\" is gone")));
    };
    let late = |name: Arc<str>| queries.query(&name).is_some_and(|query| query.status.lag().is_some());
    match &query.status {
        // If the journal says that it took over, it does, whatever its state.
        Status::Suspended { .. } if durability.is_recovering() => Readiness::Now,
        Status::Suspended { reason, .. } => Readiness::Never(reason.clone()),
        _ if relations_of_successor(queries, catalog, &successor.object).into_iter().any(late) => {
            Readiness::NotYet
        }
        Status::Running => Readiness::Now,
        Status::CatchingUp(catch_up) if catch_up.has_read() => Readiness::Now,
        _ => Readiness::NotYet,
    }
}

/// Returns the relations that must be current before successors take over.
pub(super) fn needs_of_successors(
    queries: &Queries,
    successors: &[Successor],
    catalog: &Catalog,
) -> Vec<Arc<str>> {
    let waits = |successor: &&Successor| {
        let inherits = queries.query(&successor.name).is_some_and(|query| query.status.inherits());
        !inherits && !successor.comparison.as_ref().is_some_and(Comparison::is_away)
    };
    let needs = |successor: &Successor| {
        let mut needs = relations_of_successor(queries, catalog, &successor.object);
        needs.push(successor.name.clone());
        needs
    };
    successors.iter().filter(waits).flat_map(needs).collect()
}

fn put_in_place(queries: &mut Queries, epoch: Epoch, name: &Arc<str>, new: Vec<RunningQuery>, fits: bool) {
    let (mut old, rest): (Vec<_>, Vec<_>) =
        std::mem::take(&mut queries.all).into_iter().partition(|query| query.belongs_to(name));
    queries.all = rest;
    for mut query in new {
        query.progress.take_over(epoch);
        if fits
            && query.name == *name
            && let Some(old) = old.iter_mut().find(|old| old.name == *name)
        {
            query.result.take_newest(&mut old.result);
        }
        let own = query.name.clone();
        queries.push(query);
        put_newest_before_readers(queries, &own);
    }
}

/// Returns the error for a relation that keeps its query.
fn stays(name: &str, error: Error) -> Error {
    Error { message: format!("\"{name}\" is unchanged: {}", error.message), ..error }
}
