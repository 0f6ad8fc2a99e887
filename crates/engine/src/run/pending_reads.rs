//! Reads of lagging queries, and other events that need lagging queries to be current.
//!
//! A read is as of one epoch. When it begins, it takes the content of current relations and waits for the lagging ones.
//! None of these passes that epoch before the answer, so a read waits for at most two steps of each. Other events wait
//! until the queries that they need are current.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::Epoch;
use millstream_sql::{OnConflict, Result};

use super::Loop;
use super::compile::scans;
use super::contents::Results;
use super::lagging::Lag;
use super::lagging::reading::returns_for_event;
use super::queries::{content_epoch, lagging_of, wanted_by_events};
use super::query::{RunningQuery, Status};
use super::rename::Names;
use super::settling::{Settling, is_settled, settling_of};
use crate::catalog::{Catalog, Definition, Object, as_of};
use crate::content::Content;
use crate::event::{Apart, Asked, Change, Event, Followed, Modification, Question, Reply, Snapshot};
use crate::run::Admission;
use crate::run::queries::Queries;
use crate::run::query_replacement::is_wider;

/// A read that waits for a lagging query.
#[derive(Debug)]
pub(crate) struct PendingRead {
    asked: Vec<Asked>,
    stamped: bool,
    /// The transaction that reads, if any.
    transaction: Option<u64>,
    reply: Reply<Snapshot>,
    /// The sinks into tables whose changes must arrive before the read begins.
    pub(super) settling: Settling,
    begun: Option<Begun>,
}

/// The state of a read that has begun.
#[derive(Debug)]
struct Begun {
    /// The epoch of its snapshot.
    epoch: Epoch,
    /// The queries that must reach that epoch.
    waits_for: Vec<Arc<str>>,
    /// The content of each requested relation that was current when the read began.
    taken: Vec<Option<Result<Content>>>,
}

impl PendingRead {
    /// Returns the epoch of its snapshot, if it has begun.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        Some(self.begun.as_ref()?.epoch)
    }

    /// Returns the epoch of its snapshot, if it waits for a query.
    pub(crate) fn holds_at(&self, query: &Arc<str>) -> Option<Epoch> {
        self.begun.as_ref().filter(|begun| begun.waits_for.contains(query)).map(|begun| begun.epoch)
    }

    /// Renames the relations that it reads.
    pub(super) fn rename(&mut self, names: &Names) {
        names.put_all(self.asked.iter_mut().map(|asked| &mut asked.name));
        self.settling.rename(names);
        names.put_all(self.begun.iter_mut().flat_map(|begun| &mut begun.waits_for));
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.asked.iter().map(|asked| asked.name.clone()).collect()
    }

    /// Returns the relations whose content is read when it is answered.
    fn left(&self) -> impl Iterator<Item = &Asked> {
        let is_taken = |place| self.begun.as_ref().is_some_and(|begun: &Begun| begun.has_taken(place));
        self.asked.iter().enumerate().filter(move |(place, _)| !is_taken(*place)).map(|(_, asked)| asked)
    }
}

impl Begun {
    fn has_taken(&self, place: usize) -> bool {
        self.taken.get(place).is_some_and(Option::is_some)
    }
}

/// The result of an attempt to begin a read.
enum Attempt {
    /// It begins; the relations that are current are read at once.
    Begun(Begun, Vec<bool>),
    /// It continues as it has begun.
    Continued,
    /// It can't begin yet, or not continue as it has begun.
    Later,
}

/// An event that waits until the queries that it needs are current.
pub(crate) struct DeferredEvent {
    pub(crate) needs: Vec<Arc<str>>,
    /// The sinks into tables whose changes it also needs.
    pub(super) settling: Settling,
    event: Event,
}

impl Loop {
    /// Answers a read: now if no relation that it names lags.
    pub(super) fn read_soon(
        &mut self,
        asked: Vec<Asked>,
        stamped: bool,
        transaction: Option<u64>,
        reply: Reply<Snapshot>,
    ) {
        let read =
            PendingRead { asked, stamped, transaction, reply, settling: Settling::default(), begun: None };
        if let Some(read) = self.admission().admit_read(read) {
            self.answer_read(read);
        }
    }

    fn answer_read(&mut self, read: PendingRead) {
        let PendingRead { asked, stamped, transaction, reply, begun, .. } = read;
        let since = match transaction {
            Some(number) => self.read_view().changes_since(number, &asked, stamped),
            None => Ok(asked.iter().map(|_| None).collect()),
        };
        let mut taken = begun.map_or_else(Vec::new, |begun| begun.taken);
        taken.resize_with(asked.len(), || None);
        // The loop reads past content. It does so before it lends operators that have that, too.
        for (asked, taken) in asked.iter().zip(&mut taken).filter(|(asked, _)| as_of(&asked.name).is_some()) {
            taken.get_or_insert_with(|| self.content_asked(asked, stamped));
        }
        let relations = since.and_then(|since| {
            let relations = asked.iter().zip(taken).zip(since).map(|((asked, taken), since)| {
                // All later changes are undone, also of rows that aren't wanted: the result may have other rows, too.
                let rows = taken.unwrap_or_else(|| self.content_asked(asked, stamped))?;
                Ok(match since {
                    Some(since) => Content::Before(Box::new(rows), since),
                    None => rows,
                })
            });
            relations.collect::<Result<_>>()
        });
        reply.send(relations.map(|relations| Snapshot { relations }));
    }

    /// Begins the reads that can begin, and answers those that are complete.
    pub(super) fn answer_reads(&mut self) {
        self.waiters.reads.retain(|read| !read.reply.is_closed());
        for place in 0..self.waiters.reads.len() {
            let mut settling = std::mem::take(&mut self.waiters.reads[place].settling);
            let is_settled = is_settled(&self.queries, &self.clock, self.clock.epoch, &mut settling);
            self.waiters.reads[place].settling = settling;
            if !is_settled {
                continue;
            }
            match self.admission().begin_read(place) {
                Attempt::Begun(mut begun, current) => {
                    let read = &self.waiters.reads[place];
                    let (stamped, asked) = (read.stamped, read.asked.clone());
                    let asked = asked.iter().zip(current);
                    let taken = asked
                        .map(|(asked, is_current)| is_current.then(|| self.content_asked(asked, stamped)));
                    begun.taken = taken.collect();
                    self.waiters.reads[place].begun = Some(begun);
                }
                Attempt::Continued => {}
                Attempt::Later => self.waiters.reads[place].begun = None,
            }
        }
        for read in std::mem::take(&mut self.waiters.reads) {
            let is_there = read.begun.as_ref().is_some_and(|begun| self.queries.is_there(begun));
            // Another read may have taken the operators just now.
            let is_away = |asked: &Asked| Results(&self.queries).is_away(&asked.name);
            if is_there
                && !read.left().any(|asked| is_away(asked) || self.flow_control().read_waits(asked, true))
            {
                self.answer_read(read);
            } else {
                self.waiters.reads.push(read);
            }
        }
    }

    /// Resumes the events whose needs are current.
    pub(super) fn retry_deferred(&mut self) {
        for deferred in std::mem::take(&mut self.waiters.deferred) {
            if let Some(event) = self.admission().retry(deferred) {
                self.react(event);
            }
        }
    }
}

impl Admission<'_> {
    /// Returns a read, unless it must wait until the relations are current and have the output of all input so far.
    fn admit_read(&mut self, mut read: PendingRead) -> Option<PendingRead> {
        // A transaction sees tables as they were when it began.
        if read.transaction.is_none() {
            read.settling = settling_of(self.queries, self.clock.epoch, read.names());
        }
        let put_off = |asked: &Asked| self.flow_control().read_waits(asked, false);
        let is_there = lagging_of(self.queries, read.names()).is_empty() && !read.asked.iter().any(put_off);
        if is_settled(self.queries, self.clock, self.clock.epoch, &mut read.settling) && is_there {
            return Some(read);
        }
        self.waiters.reads.push(read);
        None
    }

    /// Begins a read, if it can begin now, and takes the content of current relations.
    fn begin_read(&self, place: usize) -> Attempt {
        let read = &self.waiters.reads[place];
        let waits_for = lagging_of(self.queries, read.names());
        // A query that has returned, and has left again in a later epoch, no longer has the rows of the read's epoch.
        let is_held = |name: &Arc<str>, at: Epoch| {
            waits_for.contains(name) && content_epoch(self.queries, self.clock.epoch, name) <= at
        };
        let goes_on = |begun: &Begun| begun.waits_for.iter().all(|name| is_held(name, begun.epoch));
        if read.begun.as_ref().is_some_and(goes_on) {
            return Attempt::Continued;
        }
        if let Some(number) = read.transaction {
            let epoch = self.outputs.transactions.get(&number).map_or(self.clock.epoch, |open| open.epoch);
            return Attempt::Begun(Begun { epoch, waits_for, taken: Vec::new() }, Vec::new());
        }
        // Reads that arrive while another one waits begin together, so that they add no steps.
        let others = self.waiters.reads.iter().enumerate().filter(|(other, _)| *other != place);
        let others = others.map(|(_, other)| other).filter(|other| other.transaction.is_none());
        let holds = |other: &PendingRead| {
            let held = waits_for.iter().find_map(|name| other.holds_at(name));
            held.is_some_and(|epoch| epoch != self.clock.epoch)
        };
        if others.into_iter().any(holds)
            || returns_for_event(self.queries, &waits_for, &wanted_by_events(self.queries, self.waiters))
        {
            return Attempt::Later;
        }
        // The late rows of a lagging query lag with it.
        let is_current = |asked: &Asked| lagging_of(self.queries, [asked.name.clone()]).is_empty();
        let current: Vec<bool> = read.asked.iter().map(is_current).collect();
        let mut at_once = read.asked.iter().zip(&current).filter(|(_, current)| **current);
        if at_once.any(|(asked, _)| self.flow_control().read_waits(asked, false)) {
            return Attempt::Later;
        }
        Attempt::Begun(Begun { taken: Vec::new(), epoch: self.clock.epoch, waits_for }, current)
    }

    /// Returns an event, or sets it aside if a query that it needs must become current first.
    pub(super) fn defer(&mut self, event: Event) -> Option<Event> {
        let needs = needs_of_event(self.queries, &self.setup.catalog, &event);
        // A statement that changes rows by what it reads must see the output of sinks into tables for all earlier
        // input.
        let mut settling = match event {
            // These sinks wait for the statement.
            Event::Apart(Apart::ReadStaged { reservation, .. })
                if self.tables.reserved.has_read(reservation) =>
            {
                Settling::default()
            }
            Event::Modify { .. } | Event::Apart(Apart::ReadStaged { .. }) => {
                settling_of(self.queries, self.clock.epoch, needs.iter().cloned())
            }
            _ => Settling::default(),
        };
        let read_by_threads = read_by_threads(self.queries, &event, &needs);
        let needs = lagging_of(self.queries, needs);
        let is_put_off = read_by_threads.iter().any(|asked| self.flow_control().read_waits(asked, false))
            || self.outputs.subscriptions.awaits_content(&event);
        if needs.is_empty()
            && !is_put_off
            && is_settled(self.queries, self.clock, self.clock.epoch, &mut settling)
        {
            return Some(event);
        }
        self.waiters.deferred.push(DeferredEvent { needs, settling, event });
        None
    }

    /// Returns the event if its relations are current by now.
    fn retry(&mut self, mut deferred: DeferredEvent) -> Option<Event> {
        if is_settled(self.queries, self.clock, self.clock.epoch, &mut deferred.settling)
            && lagging_of(self.queries, deferred.needs.clone()).is_empty()
        {
            return Some(deferred.event);
        }
        self.waiters.deferred.push(deferred);
        None
    }
}

impl Catalog {
    /// Returns the relations that an object reads, also through views.
    fn read_through_views(&self, object: &Object) -> BTreeSet<Arc<str>> {
        let (mut all, mut left) = (BTreeSet::new(), object.reads.clone());
        while let Some(name) = left.pop() {
            if let Some(of) = self.find(&name).filter(|_| all.insert(name.clone()))
                && matches!(of.definition, Definition::View { .. })
            {
                left.extend(of.reads.iter().cloned());
            }
        }
        all
    }
}

impl Queries {
    fn is_there(&self, begun: &Begun) -> bool {
        let mut lag =
            begun.waits_for.iter().filter_map(|name| self.query(name).and_then(|query| query.status.lag()));
        lag.all(|lag: &Lag| !lag.is_away() && lag.through() >= begun.epoch)
    }

    /// Returns the queries of all sinks into tables. Changes between epochs have no cut that records their progress.
    fn sinks_into_tables(&self) -> impl Iterator<Item = Arc<str>> {
        self.all.iter().filter(|query| query.into.is_some()).map(|query| query.name.clone())
    }
}

/// Returns the relations that must be current for an event.
fn needs_of_event(queries: &Queries, catalog: &Catalog, event: &Event) -> Vec<Arc<str>> {
    let scanned = |plan| scans(plan).map_or_else(|_| Vec::new(), |scans| names_of(&scans));
    match event {
        Event::Apart(Apart::ReadStaged { relations, .. }) => {
            relations.iter().map(|asked| asked.name.clone()).collect()
        }
        Event::Modify { modification: Modification::Statement(dml), .. } => {
            let mut names = scanned(&dml.query.plan);
            if let Some(OnConflict::DoUpdate(query)) = &dml.on_conflict {
                names.extend(scanned(&query.plan));
            }
            names
        }
        // Each query knows its inputs by name, and a lagging query keeps rows with their present columns.
        Event::Change { changes, .. }
            if changes
                .iter()
                .any(|change| matches!(change, Change::Rename { .. } | Change::AlterTable(_))) =>
        {
            queries.iter().map(|query| query.name.clone()).collect()
        }
        Event::Change { changes, .. } => {
            let created = changes.iter().filter_map(|change| match change {
                Change::Create { object, .. } => Some(object),
                _ => None,
            });
            // A query begins with the current content of its inputs, in the epoch that the journal records.
            let delivered = changes.iter().filter_map(delivered);
            // A table receives all changes of a sink before the sink is dropped.
            let dropped = changes.iter().flat_map(|change| match change {
                Change::Drop { names } => names.as_slice(),
                _ => &[],
            });
            let feeds = |query: &&RunningQuery, sink: &Arc<str>| {
                query.into.as_ref().is_some_and(|into| into.sink == *sink)
            };
            let dropped = dropped.filter_map(|sink| queries.iter().find(|query| feeds(query, sink)));
            let delivered = delivered.chain(dropped.map(|query| query.name.clone()));
            created.flat_map(|object| catalog.read_through_views(object)).chain(delivered).collect()
        }
        Event::Apart(Apart::Backfill { object, .. }) => {
            catalog.read_through_views(object).into_iter().collect()
        }
        Event::Replace(replacing) => relations_of_successor(queries, catalog, &replacing.object),
        Event::Ask(question) => needs_of_question(queries, catalog, question),
        Event::Subscribe { request, .. } => match &request.followed {
            Followed::Relation(name) => vec![name.clone()],
            Followed::Durable(_) | Followed::Query(..) | Followed::Batches(_) => Vec::new(),
        },
        Event::Compile { plan, .. } => scanned(plan),
        Event::Pin { view, .. } | Event::PinLate { view, .. } => vec![view.clone()],
        Event::Correct { correction, .. } => vec![correction.view.clone()],
        Event::Pause { name, pause, .. } => {
            let named = |query: &&RunningQuery| {
                let of_sink = query.into.as_ref().map(|into| into.sink.as_ref());
                match name.as_deref() {
                    Some(name) => query.name.as_ref() == name || of_sink == Some(name),
                    None => *pause || matches!(query.status, Status::Paused(_)),
                }
            };
            let named = queries.iter().filter(named).map(|query| query.name.clone());
            named.chain(queries.sinks_into_tables()).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the relations that must be current for a question.
fn needs_of_question(queries: &Queries, catalog: &Catalog, question: &Question) -> Vec<Arc<str>> {
    match question {
        Question::ExplainReplace { object, .. } => relations_of_successor(queries, catalog, object),
        Question::FoundByKey { relations, .. } => relations.iter().map(|asked| asked.name.clone()).collect(),
        _ => Vec::new(),
    }
}

/// Returns the relations that must be current for a successor: its own, all that it reads, and sinks into tables,
/// which may read it. If it gets more columns, also its readers: changes that wait for a query have the same columns.
pub(super) fn relations_of_successor(queries: &Queries, catalog: &Catalog, object: &Object) -> Vec<Arc<str>> {
    let own = std::iter::once(object.name.clone());
    let readers = queries.iter().filter(|query| is_wider(catalog, object) && query.reads_from(&object.name));
    let readers = readers.map(|query| query.name.clone());
    own.chain(catalog.read_through_views(object)).chain(queries.sinks_into_tables()).chain(readers).collect()
}

/// Returns the relations that threads may read for an event.
fn read_by_threads(queries: &Queries, event: &Event, needs: &[Arc<str>]) -> Vec<Asked> {
    let whole = |name: Arc<str>| Asked { name, wanted: Vec::new() };
    match event {
        Event::Apart(Apart::ReadStaged { relations, .. }) => relations.clone(),
        // The inputs of a view are read beside it.
        Event::Pin { view, .. } | Event::PinLate { view, .. } => {
            let inputs = queries.query(view).into_iter().flat_map(RunningQuery::reads);
            std::iter::once(view).chain(inputs).cloned().map(whole).collect()
        }
        Event::Apart(Apart::Backfill { .. }) | Event::Subscribe { .. } | Event::Compile { .. } => {
            needs.iter().cloned().map(whole).collect()
        }
        Event::Change { changes, .. } => changes.iter().filter_map(delivered).map(whole).collect(),
        _ => Vec::new(),
    }
}

/// Returns the relation whose content a new sink or durable subscription begins with.
fn delivered(change: &Change) -> Option<Arc<str>> {
    let Change::Create { object, .. } = change else { return None };
    match &object.definition {
        Definition::Sink { from, query: None, .. } | Definition::Subscription { from, .. } => {
            Some(from.clone())
        }
        _ => None,
    }
}

fn names_of<T>(scans: &[(String, T)]) -> Vec<Arc<str>> {
    scans.iter().map(|(name, _)| name.as_str().into()).collect()
}
