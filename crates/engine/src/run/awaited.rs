//! Reads of queries that are behind, and what else needs these.
//!
//! A read is as of one epoch. What is at the present is taken when the read begins, and the others are waited for: none
//! of them goes beyond that epoch before the read is answered, so that the wait is for two steps of each at most.
//! Whatever else needs such a query waits until that is at the present.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::Epoch;
use millstream_sql::{OnConflict, Result};

use super::Loop;
use super::behind::Behind;
use super::compile::scans;
use super::query::RunningQuery;
use super::rename::Names;
use super::settling::Settling;
use crate::catalog::{Definition, Object};
use crate::event::{Apart, Asked, Change, Content, Event, Followed, Modification, Reply, Snapshot};

/// A read of something that is behind.
#[derive(Debug)]
pub(crate) struct AwaitedRead {
    asked: Vec<Asked>,
    stamped: bool,
    /// The transaction that reads, where one does.
    transaction: Option<u64>,
    reply: Reply<Snapshot>,
    /// The sinks into tables whose changes it waits for before it begins.
    pub(super) settling: Settling,
    begun: Option<Begun>,
}

/// How far a read has come.
#[derive(Debug)]
struct Begun {
    /// What it reads is as of this epoch.
    epoch: Epoch,
    /// The queries that must have come so far.
    waits_for: Vec<Arc<str>>,
    /// Of each relation that is asked for, what was taken when it began.
    taken: Vec<Option<Result<Content>>>,
}

impl AwaitedRead {
    /// The epoch at which it wants what it reads.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        Some(self.begun.as_ref()?.epoch)
    }

    /// The same, where it waits for a query.
    pub(crate) fn holds_at(&self, query: &Arc<str>) -> Option<Epoch> {
        self.begun.as_ref().filter(|begun| begun.waits_for.contains(query)).map(|begun| begun.epoch)
    }

    /// What it names is called otherwise from now on.
    pub(super) fn rename(&mut self, names: &Names) {
        names.put_all(self.asked.iter_mut().map(|asked| &mut asked.name));
        self.settling.rename(names);
        names.put_all(self.begun.iter_mut().flat_map(|begun| &mut begun.waits_for));
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.asked.iter().map(|asked| asked.name.clone()).collect()
    }
}

/// An event that waits until the queries that it needs are at the present.
pub(crate) struct SetAside {
    pub(crate) needs: Vec<Arc<str>>,
    /// The sinks into tables whose changes it needs as well.
    pub(super) settling: Settling,
    event: Event,
}

impl Loop {
    /// Answers a read, now if nothing that it names is behind.
    pub(super) fn read_soon(
        &mut self,
        asked: Vec<Asked>,
        stamped: bool,
        transaction: Option<u64>,
        reply: Reply<Snapshot>,
    ) {
        let names = || asked.iter().map(|asked| asked.name.clone());
        let mut settling = match transaction {
            // It sees tables as they were when it began.
            Some(_) => Settling::default(),
            None => self.settling_of(names()),
        };
        let is_there = self.is_settled(&mut settling) && self.behind_of(names()).is_empty();
        let read = AwaitedRead { asked, stamped, transaction, reply, settling, begun: None };
        if is_there {
            self.answer_read(read);
        } else {
            self.waiters.reads.push(read);
        }
    }

    fn answer_read(&self, read: AwaitedRead) {
        let AwaitedRead { asked, stamped, transaction, reply, begun, .. } = read;
        if let Some(number) = transaction {
            return reply.send(self.read_at(number, &asked, stamped));
        }
        let mut taken = begun.map_or_else(Vec::new, |begun| begun.taken);
        taken.resize_with(asked.len(), || None);
        let relations = asked.iter().zip(taken);
        let relations =
            relations.map(|(asked, taken)| taken.unwrap_or_else(|| self.content_asked(asked, stamped)));
        reply.send(relations.collect::<Result<_>>().map(|relations| Snapshot { relations }));
    }

    /// Begins the reads that can begin, and answers those for which all is there.
    pub(super) fn answer_reads(&mut self) {
        self.waiters.reads.retain(|read| !read.reply.is_closed());
        for place in 0..self.waiters.reads.len() {
            let mut settling = std::mem::take(&mut self.waiters.reads[place].settling);
            let is_settled = self.is_settled(&mut settling);
            self.waiters.reads[place].settling = settling;
            if !is_settled {
                continue;
            }
            let begun = self.begin_read(place);
            if let Some(read) = self.waiters.reads.get_mut(place) {
                read.begun = begun.or(read.begun.take());
            }
        }
        for read in std::mem::take(&mut self.waiters.reads) {
            if read.begun.as_ref().is_some_and(|begun| self.is_there(begun)) {
                self.answer_read(read);
            } else {
                self.waiters.reads.push(read);
            }
        }
    }

    /// How far a read has come that begins now; none where it goes on as it has begun, or can't begin yet.
    fn begin_read(&self, place: usize) -> Option<Begun> {
        let read = self.waiters.reads.get(place)?;
        let waits_for = self.behind_of(read.names());
        let goes_on = |begun: &Begun| begun.waits_for.iter().all(|name| waits_for.contains(name));
        if read.begun.as_ref().is_some_and(goes_on) {
            return None;
        }
        if let Some(number) = read.transaction {
            let epoch = self.transactions.get(&number).map_or(self.epoch, |open| open.epoch);
            return Some(Begun { epoch, waits_for, taken: Vec::new() });
        }
        // Reads that come while another one waits begin together, so that steps don't become more with them.
        let others = self.waiters.reads.iter().enumerate().filter(|(other, _)| *other != place);
        let others = others.map(|(_, other)| other).filter(|other| other.transaction.is_none());
        let holds = |other: &AwaitedRead| {
            let held = waits_for.iter().find_map(|name| other.holds_at(name));
            held.is_some_and(|epoch| epoch != self.epoch)
        };
        if others.into_iter().any(holds) {
            return None;
        }
        // Late rows come with the query that they were late for.
        let is_behind = |name: &Arc<str>| !self.behind_of([name.clone()]).is_empty();
        let taken = read
            .asked
            .iter()
            .map(|asked| (!is_behind(&asked.name)).then(|| self.content_asked(asked, read.stamped)));
        Some(Begun { epoch: self.epoch, taken: taken.collect(), waits_for })
    }

    fn is_there(&self, begun: &Begun) -> bool {
        let mut behind =
            begun.waits_for.iter().filter_map(|name| self.query(name).and_then(RunningQuery::behind));
        behind.all(|behind: &Behind| !behind.is_away() && behind.through() >= begun.epoch)
    }

    /// Gives back an event, unless something that it needs must come to the present first.
    pub(super) fn set_aside(&mut self, event: Event) -> Option<Event> {
        let needs = self.needs(&event);
        // What changes rows by what it reads finds in tables what sinks make of all that was there before.
        let mut settling = match event {
            Event::Modify { .. } | Event::Apart(Apart::ReadStaged { .. }) => {
                self.settling_of(needs.iter().cloned())
            }
            _ => Settling::default(),
        };
        let needs = self.behind_of(needs);
        if needs.is_empty() && self.is_settled(&mut settling) {
            return Some(event);
        }
        self.set_aside.push(SetAside { needs, settling, event });
        None
    }

    /// Goes on with the events whose needs are at the present.
    pub(super) fn take_set_aside(&mut self) {
        for mut aside in std::mem::take(&mut self.set_aside) {
            if self.is_settled(&mut aside.settling) && self.behind_of(aside.needs.clone()).is_empty() {
                self.react(aside.event);
            } else {
                self.set_aside.push(aside);
            }
        }
    }

    /// The relations that an object reads, and those that the views among them are made of.
    fn read_through_views(&self, object: &Object) -> BTreeSet<Arc<str>> {
        let (mut all, mut left) = (BTreeSet::new(), object.reads.clone());
        while let Some(name) = left.pop() {
            if let Some(of) = self.catalog.find(&name).filter(|_| all.insert(name.clone()))
                && matches!(of.definition, Definition::View { .. })
            {
                left.extend(of.reads.iter().cloned());
            }
        }
        all
    }

    /// The relations that a successor needs at the present: its own, all that it reads, and sinks into tables, which may be
    /// made of it.
    pub(super) fn of_successor(&self, object: &Object) -> Vec<Arc<str>> {
        let own = std::iter::once(object.name.clone());
        own.chain(self.read_through_views(object)).chain(self.sinks_into_tables()).collect()
    }

    /// The queries of all sinks into tables. What changes between two epochs has no cut that says how far each has come.
    fn sinks_into_tables(&self) -> impl Iterator<Item = Arc<str>> {
        self.queries.iter().filter(|query| query.into.is_some()).map(|query| query.name.clone())
    }

    /// What an event reads in a way that takes the present.
    fn needs(&self, event: &Event) -> Vec<Arc<str>> {
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
            // Each query knows what it reads by name, and keeps rows as they are now while it is behind.
            Event::Change { changes, .. }
                if changes
                    .iter()
                    .any(|change| matches!(change, Change::Rename { .. } | Change::Widen { .. })) =>
            {
                self.queries.iter().map(|query| query.name.clone()).collect()
            }
            Event::Change { changes, .. } => {
                let created = changes.iter().filter_map(|change| match change {
                    Change::Create { object, .. } => Some(object),
                    _ => None,
                });
                // A query begins with the present of what it reads, in the epoch that the journal says.
                let delivered = changes.iter().filter_map(delivered);
                // A table has all changes of a sink from before that is dropped.
                let dropped = changes.iter().flat_map(|change| match change {
                    Change::Drop { names } => names.as_slice(),
                    _ => &[],
                });
                let feeds = |query: &&RunningQuery, sink: &Arc<str>| {
                    query.into.as_ref().is_some_and(|into| into.sink == *sink)
                };
                let dropped = dropped.filter_map(|sink| self.queries.iter().find(|query| feeds(query, sink)));
                let delivered = delivered.chain(dropped.map(|query| query.name.clone()));
                created.flat_map(|object| self.read_through_views(object)).chain(delivered).collect()
            }
            Event::Apart(Apart::Backfill { object, .. }) => {
                self.read_through_views(object).into_iter().collect()
            }
            Event::Replace(replacing) => self.of_successor(&replacing.object),
            Event::ExplainReplace { object, .. } => self.of_successor(object),
            Event::Subscribe { request, .. } => match &request.followed {
                Followed::Relation(name) => vec![name.clone()],
                Followed::Durable(_) | Followed::Query(..) | Followed::Batches(_) => Vec::new(),
            },
            Event::FoundByKey { relations, .. } => relations.iter().map(|asked| asked.name.clone()).collect(),
            Event::Compile { plan, .. } => scanned(plan),
            Event::Pin { view, .. } | Event::PinLate { view, .. } => vec![view.clone()],
            Event::Correct { correction, .. } => vec![correction.view.clone()],
            Event::Pause { name, .. } => {
                let named = |query: &&RunningQuery| {
                    let of_sink = query.into.as_ref().map(|into| into.sink.as_ref());
                    name.as_deref().is_none_or(|name| query.name.as_ref() == name || of_sink == Some(name))
                };
                let named = self.queries.iter().filter(named).map(|query| query.name.clone());
                named.chain(self.sinks_into_tables()).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The relation whose content a new sink or durable subscription begins with.
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
