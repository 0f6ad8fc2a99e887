//! Subscriptions: readers that get the content of a relation, then its changes.
//!
//! A reader delays nobody. The changes that it hasn't taken wait in the relation's log, up to a bound. If it lags
//! further, its subscription ends with an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_sql::{BatchQuery, Error, Result};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

use super::Loop;
use super::change::notice_missed;
use super::compile::Scope;
use super::durable::Durability;
use super::log::{self, Log, Logs, Place, Waiting};
use super::queries::content_epoch;
use super::query::{Keep, Lowered, RunningQuery, Status};
use super::sources::Sources;
use super::subscriptions::Subscriptions;
use super::system::{Cell, Lines, NULL};
use crate::catalog::{Catalog, first_columns};
use crate::changes::{End, Following, Opened, Portion};
use crate::content::Content;
use crate::event::{Followed, Request};
use crate::run::Delivery;
use crate::run::outputs::Outputs;
use crate::run::queries::Queries;
use crate::settings::Settings;
use crate::{error, system};

/// Portions on their way to a reader: one waits while the reader works on another.
const PORTIONS_MAX: usize = 1;

/// Maximum of epochs in one portion, and the bytes after which it takes no further epoch.
const EPOCHS_MAX: usize = 64;
const PORTION_BYTES: usize = 1 << 20;

/// Maximum of epochs that wait for one reader, however small they are.
const WAITING_EPOCHS_MAX: usize = 100_000;

/// A reader that follows a relation.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The relation that it follows.
    from: Arc<str>,
    /// The number of its first columns that the reader gets; the relation may have more.
    columns: usize,
    /// True if that is a query of its own.
    owned: bool,
    /// The durable subscription that it reads.
    durable: Option<Arc<str>>,
    snapshot: bool,
    progress: bool,
    /// The content of the relation at the beginning.
    first: Option<(Cut, Delta)>,
    /// The same, if the reader assembles it.
    content: Option<(Cut, Content)>,
    /// Its position in the relation's log; `None` until its query is current, as earlier changes don't count.
    place: Option<Place>,
    /// The newest epoch that the reader knows of.
    told: Epoch,
    sender: Sender<Portion>,
    end: End,
}

impl Subscription {
    /// Returns the epoch of the relation's content at the beginning, if the reader does not have that yet.
    fn begins_at(&self) -> Option<Epoch> {
        let first = self.first.as_ref().map(|(cut, _)| cut.epoch);
        first.or_else(|| self.content.as_ref().map(|(cut, _)| cut.epoch))
    }

    /// Returns the relation that it follows.
    pub(crate) fn follows(&self) -> &Arc<str> {
        &self.from
    }

    /// Returns the name of that relation for a rename.
    pub(super) fn follows_mut(&mut self) -> &mut Arc<str> {
        &mut self.from
    }

    /// Returns its position in the log of a relation that it follows.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        self.place.filter(|_| self.from.as_ref() == name)
    }
}

impl Loop {
    /// Begins a subscription. Returns `None` if the catalog has changed meanwhile.
    pub(super) fn subscribe(&mut self, base: u64, request: Request) -> Result<Option<Opened>> {
        if base != self.setup.catalog.version {
            return Ok(None);
        }
        let content = match &request.followed {
            Followed::Relation(name) => {
                self.queries.check_readable(name)?;
                Some(self.content_beside(name, None)?)
            }
            _ => None,
        };
        let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        let opened = self.delivery().open(request, content.map(|content| (cut, content)))?;
        self.starts().start_queries();
        Ok(Some(opened))
    }
}

impl Delivery<'_> {
    /// Opens a subscription, with the content of the relation that it follows, if it follows one.
    fn open(&mut self, request: Request, content: Option<(Cut, Content)>) -> Result<Opened> {
        let Request { followed, following: Following { snapshot, progress } } = request;
        let number = self.outputs.subscriptions.last + 1;
        let (sender, receiver) = channel(PORTIONS_MAX);
        let end = End::default();
        let mut subscription = Subscription {
            from: Arc::default(),
            columns: usize::MAX,
            owned: false,
            durable: None,
            snapshot,
            progress,
            first: None,
            content: None,
            place: None,
            told: self.clock.epoch,
            sender,
            end: end.clone(),
        };
        let mut opened = Opened {
            subscription: number,
            receiver,
            end,
            events: self.tasks.events.clone(),
            schema: Arc::new(arrow::datatypes::Schema::empty()),
            append_only: false,
            key: None,
            durable: None,
            notices: Vec::new(),
        };
        match followed {
            Followed::Relation(name) => {
                self.follow_relation(name, content, &mut subscription, &mut opened)?
            }
            Followed::Durable(name) => self.follow_durable(&name, &mut subscription, &mut opened)?,
            Followed::Query(plan, on_close) => {
                let lowered = Scope::new(self.setup, self.queries).closing(on_close).lower(&plan)?;
                self.follow_query(lowered, &mut subscription, &mut opened)?;
            }
            Followed::Batches(query) => self.follow_batches(&query, &mut subscription, &mut opened)?,
        }
        self.outputs.subscriptions.last = number;
        self.outputs.subscriptions.insert(number, subscription);
        self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        Ok(opened)
    }

    fn follow_relation(
        &mut self,
        name: Arc<str>,
        content: Option<(Cut, Content)>,
        subscription: &mut Subscription,
        opened: &mut Opened,
    ) -> Result<()> {
        subscription.place = Some(self.outputs.logs.end(&name));
        subscription.content = content.filter(|_| subscription.snapshot);
        if let Some(table) = system::table_name(&name).and_then(system::find) {
            opened.schema = table.schema();
            opened.append_only = true;
            subscription.from = name;
            return Ok(());
        }
        open_relation(
            &self.setup.catalog,
            Scope::new(self.setup, self.queries),
            &name,
            usize::MAX,
            subscription,
            opened,
        )
    }

    /// Continues from the position of a durable subscription.
    fn follow_durable(
        &self,
        name: &Arc<str>,
        subscription: &mut Subscription,
        opened: &mut Opened,
    ) -> Result<()> {
        self.outputs.subscriptions.check_position(name)?;
        let durable = self.outputs.subscriptions.durable(name)?;
        let (first, place, position) = durable.begin();
        (subscription.first, subscription.place, subscription.told) = (first, Some(place), position);
        (subscription.durable, opened.durable) = (Some(name.clone()), Some(name.clone()));
        open_relation(
            &self.setup.catalog,
            Scope::new(self.setup, self.queries),
            &durable.from,
            durable.columns,
            subscription,
            opened,
        )
    }

    fn follow_query(
        &mut self,
        lowered: Lowered,
        subscription: &mut Subscription,
        opened: &mut Opened,
    ) -> Result<()> {
        let flow = &lowered.flow;
        opened.schema = flow.schema().map_err(error::flow)?.clone();
        opened.append_only = flow.append_only().map_err(error::flow)?;
        opened.key = flow.key().map(<[usize]>::to_vec);
        let name: Arc<str> = format!("\0subscription {}", opened.subscription).into();
        // Append-only rows are sent while the query backfills; others once their sum is known.
        let piecemeal = opened.append_only && subscription.snapshot;
        let keep = if piecemeal { Keep::Nothing } else { Keep::Result };
        let mut query = RunningQuery::new(name.clone(), lowered, keep, self.setup.settings.on_error)?;
        query.role.make_temporary();
        notice_missed(self.queries, self.tables, self.sources, &query, &mut opened.notices);
        subscription.place = piecemeal.then(|| self.outputs.logs.end(&name));
        subscription.from = name;
        subscription.owned = true;
        self.queries.push(query);
        Ok(())
    }

    /// Follows the rows of each batch from the next one on.
    fn follow_batches(
        &mut self,
        query: &BatchQuery,
        subscription: &mut Subscription,
        opened: &mut Opened,
    ) -> Result<()> {
        let name: Arc<str> = format!("\0subscription {}", opened.subscription).into();
        let mut queries = Vec::new();
        let on_error = self.setup.settings.on_error;
        Scope::new(self.setup, self.queries).batch_queries(
            &name,
            None,
            query,
            Keep::Nothing,
            on_error,
            &mut queries,
        )?;
        queries.iter_mut().for_each(|query| query.role.make_temporary());
        opened.schema = query.query.schema.clone();
        opened.append_only = true;
        subscription.place = Some(self.outputs.logs.end(&name));
        subscription.from = name;
        subscription.owned = true;
        self.queries.append(&mut queries);
        Ok(())
    }

    /// Hands each subscriber its backlog, as far as it has room, and ends subscriptions that are complete or failed.
    pub(super) fn deliver_subscriptions(&mut self) {
        let numbers: Vec<u64> = self.outputs.subscriptions.keys().copied().collect();
        for number in numbers {
            let Some(end) = end_of(
                self.queries,
                self.sources,
                self.outputs,
                &self.setup.settings,
                self.clock.epoch,
                number,
            ) else {
                self.hand_over(number);
                continue;
            };
            if let Some(subscription) = self.outputs.subscriptions.get(&number) {
                subscription.end.set(end);
            }
            self.unsubscribe(number);
        }
    }

    fn hand_over(&mut self, number: u64) {
        let Some(epoch) = self
            .outputs
            .subscriptions
            .get(&number)
            .map(|known| may_hear(self.queries, self.durability, self.clock.epoch, known))
        else {
            return;
        };
        let Some(subscription) = self.outputs.subscriptions.get_mut(&number) else { return };
        let Some(place) = subscription.place else { return };
        let begins_at = subscription.begins_at();
        if begins_at > Some(epoch) {
            return;
        }
        // Without room there, the reader reports when it has some.
        let sender = subscription.sender.clone();
        let room = match sender.try_reserve() {
            Ok(room) => room,
            Err(TrySendError::Full(())) => return,
            Err(TrySendError::Closed(())) => return self.unsubscribe(number),
        };
        let log = self.outputs.logs.get(&subscription.from);
        let mut epochs: Vec<(Cut, Delta)> = log.map(|log| portion(log, place, epoch)).unwrap_or_default();
        let taken = epochs.len();
        let left = log.is_some_and(|log| log.waiting(place).epochs > taken);
        let through = match epochs.last() {
            Some((cut, _)) if left => cut.epoch,
            _ => epoch,
        };
        let told = subscription.progress && through > subscription.told;
        if taken == 0 && begins_at.is_none() && !told {
            return;
        }
        epochs.splice(0..0, subscription.first.take());
        if let Err(error) = log::cut_to_first(&mut epochs, subscription.columns) {
            subscription.end.set(Err(error::arrow(error)));
            return self.unsubscribe(number);
        }
        let told = subscription.progress.then_some((subscription.told, through));
        let content = subscription.content.take();
        room.send(Portion { content, epochs, snapshot: begins_at.is_some(), told });
        subscription.place = Some(place.after(taken));
        subscription.told = through;
    }

    /// Ends a subscription, and drops its own query.
    pub(super) fn unsubscribe(&mut self, number: u64) {
        let Some(subscription) = self.outputs.subscriptions.remove(&number) else { return };
        if subscription.owned {
            self.queries.retain(|query| !query.belongs_to(&subscription.from));
            self.queries.readers_left();
            self.outputs.logs.remove(&subscription.from);
            self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        }
    }

    /// Ends the subscriptions to relations that were dropped or replaced: `why` is the reason.
    pub(super) fn end_subscriptions_to(&mut self, names: &[Arc<str>], why: &str) {
        let reads = |subscription: &Subscription, name: &Arc<str>| {
            let query = self.queries.query(&subscription.from).filter(|_| subscription.owned);
            subscription.durable.as_ref() == Some(name)
                || subscription.from == *name
                || query.is_some_and(|query| query.reads_from(name))
        };
        let mut ended = Vec::new();
        for (number, subscription) in self.outputs.subscriptions.iter() {
            if let Some(name) = names.iter().find(|name| reads(subscription, name)) {
                subscription.end.set(Err(Error::invalid(format!("\"{name}\" {why}"))));
                ended.push(*number);
            }
        }
        ended.into_iter().for_each(|number| self.unsubscribe(number));
    }
}

impl Outputs {
    /// Returns the rows of `millstream.subscriptions`.
    pub(super) fn subscription_lines(&self) -> Lines {
        let line = |(number, subscription): (&u64, &Subscription)| {
            let waiting = self.logs.waits_for_reader(subscription);
            let relation = if subscription.owned { NULL } else { subscription.from.as_ref().into() };
            vec![
                (*number).into(),
                relation,
                subscription.told.0.into(),
                waiting.epochs.into(),
                waiting.bytes.into(),
                subscription.durable.as_deref().map_or(NULL, Cell::from),
                "reading".into(),
                NULL,
            ]
        };
        let mut lines: Lines = self.subscriptions.iter().map(line).collect();
        lines.extend(self.durable_lines());
        lines
    }

    /// Gives a subscriber the content of its query, which has become current.
    pub(super) fn begin_subscription(
        &mut self,
        queries: &mut Queries,
        name: &Arc<str>,
        cut: Cut,
        content: Delta,
    ) {
        let end = self.logs.end(name);
        let mut own = self.subscriptions.values_mut();
        let Some(subscription) = own.find(|subscription| subscription.owned && subscription.from == *name)
        else {
            return;
        };
        subscription.told = cut.epoch;
        subscription.first = subscription.snapshot.then_some((cut, content));
        subscription.place = Some(end);
        if let Some(query) = queries.iter_mut().find(|query| query.name == *name) {
            query.result.forget_rows();
        }
    }

    /// True if the backlog of the reader of a subscriber's query exceeds half of its bound.
    pub(super) fn own_reader_has_much(&self, settings: &Settings, name: &Arc<str>) -> bool {
        let own = self.subscriptions.values().find(|reader| reader.owned && reader.from == *name);
        own.is_some_and(|own| {
            self.logs.waits_for_reader(own).bytes > settings.readers.subscription_buffer_max / 2
        })
    }
}

impl Subscriptions {
    /// Returns true if a durable subscription has a reader.
    pub(super) fn has_reader(&self, durable: &Arc<str>) -> bool {
        self.values().any(|subscription| subscription.durable.as_ref() == Some(durable))
    }
}

impl Logs {
    /// Returns the backlog of a reader in its relation's log.
    fn waits_for_reader(&self, subscription: &Subscription) -> Waiting {
        match (self.get(&subscription.from), subscription.place) {
            (Some(log), Some(place)) => log.waiting(place),
            _ => Waiting { epochs: 0, bytes: 0 },
        }
    }

    /// Returns the bytes of a reader's backlog after its first epoch. That one may exceed any bound, before the reader
    /// could have taken it.
    fn behind_first(&self, subscription: &Subscription, waiting: Waiting) -> usize {
        let log = self.get(&subscription.from).zip(subscription.place);
        let first = log.and_then(|(log, place)| log.from(place).next());
        waiting.bytes.saturating_sub(first.map_or(0, |(_, delta)| delta.memory_bytes()))
    }
}

impl Queries {
    /// Fails if a reader of a query would meet an error.
    fn check_answer(&self, query: &RunningQuery) -> Result<()> {
        let Some((of, first)) = self.error_of(query, &mut BTreeSet::new()) else { return Ok(()) };
        if of.role.is_temporary() {
            return Err(Error::invalid(first.text())
                .hint("SET on_error = 'keep' first to get the rows without errors."));
        }
        Err(Error::invalid(format!("\"{}\" has errors: {}", of.name, first.text()))
            .hint(format!("SELECT * FROM millstream.errors WHERE query = '{}' shows all.", of.name)))
    }
}

/// Returns the end of a subscription, if it ends now.
fn end_of(
    queries: &Queries,
    sources: &Sources,
    outputs: &Outputs,
    settings: &Settings,
    epoch: Epoch,
    number: u64,
) -> Option<Result<()>> {
    let subscription = outputs.subscriptions.get(&number)?;
    if let Some(query) = queries.query(&subscription.from) {
        if let Status::Suspended { reason, .. } = &query.status {
            return Some(Err(reason.clone()));
        }
        if let Err(error) = queries.check_answer(query) {
            return Some(Err(error));
        }
        if query.status.is_starting() && subscription.place.is_none() {
            return None;
        }
    }
    let waiting = outputs.logs.waits_for_reader(subscription);
    let bytes_max = settings.readers.subscription_buffer_max;
    if let (Some(name), Some(place)) = (&subscription.durable, subscription.place) {
        // Its backlog has a bound of its own.
        if let Err(error) = outputs.subscriptions.check_kept(name, place, subscription.begins_at().is_some())
        {
            return Some(Err(error));
        }
    } else if outputs.logs.behind_first(subscription, waiting) > bytes_max
        || waiting.epochs > WAITING_EPOCHS_MAX
    {
        return Some(Err(Error::external(format!(
            "the reader fell behind: {} epochs of {} bytes wait for it, more than are kept",
            waiting.epochs, waiting.bytes
        ))
        .hint("Read faster, read less, or raise subscription_buffer_max.")));
    }
    let done = subscription.begins_at().is_none() && waiting.epochs == 0;
    (done && !can_change(queries, sources, settings, epoch, &subscription.from, &mut BTreeSet::new()))
        .then_some(Ok(()))
}

/// Returns true if a relation may still change: not if everything that it reads has ended.
fn can_change<'a>(
    queries: &'a Queries,
    sources: &Sources,
    settings: &Settings,
    epoch: Epoch,
    name: &'a str,
    seen: &mut BTreeSet<&'a str>,
) -> bool {
    if !seen.insert(name) {
        return false;
    }
    if let Some(source) = sources.get(name) {
        return !source.has_ended() || source.has_rows();
    }
    match queries.query(name) {
        None => true,
        // A query FOR EACH BATCH answers for empty batches too, if it runs them.
        Some(query) => {
            query.status.is_starting()
                || query.status.lag().is_some_and(|lag| lag.through() < epoch)
                || (query.is_per_batch() && settings.runs_empty_batches(query))
                || query.reads().any(|input| can_change(queries, sources, settings, epoch, input, seen))
        }
    }
}

/// Opens a relation for a reader that gets its first columns, or all present ones.
fn open_relation(
    catalog: &Catalog,
    scope: Scope<'_>,
    name: &str,
    columns: usize,
    subscription: &mut Subscription,
    opened: &mut Opened,
) -> Result<()> {
    let object = catalog.get(name)?;
    let schema = object.definition.schema().ok_or_else(|| Error::bug("what has rows has columns"))?;
    subscription.columns = columns.min(schema.fields().len());
    opened.schema = first_columns(schema, subscription.columns);
    (opened.append_only, opened.key) = (scope.append_only(name), scope.key(name));
    subscription.from = object.name.clone();
    Ok(())
}

/// Returns the newest epoch that a reader may get now.
fn may_hear(queries: &Queries, durability: &Durability, epoch: Epoch, subscription: &Subscription) -> Epoch {
    let through = content_epoch(queries, epoch, &subscription.from);
    match subscription.durable {
        None => through,
        Some(_) => durability.deliverable(through),
    }
}

/// Returns the next portion for a reader at a position of a log, up to an epoch.
fn portion(log: &Log, place: Place, through: Epoch) -> Vec<(Cut, Delta)> {
    let mut bytes = 0;
    let fits = |(cut, delta): &&(Cut, Delta)| {
        let fits = bytes < PORTION_BYTES && cut.epoch <= through;
        bytes += delta.memory_bytes();
        fits
    };
    log.from(place).take(EPOCHS_MAX).take_while(fits).cloned().collect()
}
