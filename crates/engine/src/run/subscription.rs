//! Durable subscriptions. The engine keeps the content and the changes of a relation until the reader confirms them,
//! also while the reader is away, and across restarts.
//!
//! The engine keeps the relation's log from the subscription's position on; only ADVANCE SUBSCRIPTION or a lost
//! position moves that. A reader has a position of its own in the log (`subscribe.rs`), which may be ahead. It gets
//! only durable epochs, so no crash changes an epoch that it has seen.

mod saving;

use std::sync::Arc;

use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_durable::Entry;
use millstream_sql::{Error, Result};

use super::clock::Clock;
use super::durable::Durability;
use super::initial_content::InitialContent;
use super::log::{Log, Logs, Place, Waiting};
use super::queries::{Queries, content_epoch};
use super::subscriptions::Subscriptions;
use super::system::{Cell, Lines, NULL};
use crate::catalog::{Definition, Holding, Object, WhenFull};
use crate::event::{Event, Followed, Reply};
use crate::run::CatalogChanges;
use crate::run::outputs::Outputs;
use crate::settings::interval_text;

/// Maximum of epochs that wait for a reader, however small they are.
const WAITING_EPOCHS_MAX: usize = 1_000_000;

/// A durable subscription.
#[derive(Debug)]
pub(crate) struct DurableSubscription {
    /// The relation.
    pub(crate) from: Arc<str>,
    /// The number of its first columns that readers get; the relation may have more.
    pub(crate) columns: usize,
    holding: Holding,
    /// The content of the relation when the subscription was created, until the reader has it.
    first: InitialContent,
    /// Its position in the relation's log: the reader doesn't have later entries.
    place: Place,
    /// The epoch up to which the reader has everything.
    position: Epoch,
    /// True if the relation is not yet current, and its content at that time is not wanted.
    awaits: bool,
    /// The epoch up to which changes were dropped that the reader doesn't have.
    lost: Option<Epoch>,
}

impl DurableSubscription {
    /// Creates a subscription at a position of its relation's log; `position` is the epoch before it.
    fn new(
        (from, columns): (Arc<str>, usize),
        holding: Holding,
        place: Place,
        position: Epoch,
    ) -> DurableSubscription {
        DurableSubscription {
            from,
            columns,
            holding,
            first: InitialContent::default(),
            place,
            position,
            awaits: false,
            lost: None,
        }
    }

    /// Hands the reader the content of its relation first, if that is wanted.
    pub(crate) fn begin_with(&mut self, content: InitialContent) {
        let wanted = self.holding.snapshot && !std::mem::take(&mut self.awaits);
        self.first = if wanted { content } else { InitialContent::default() };
    }

    /// Takes the content that a thread has read.
    pub(super) fn take_awaited(&mut self) {
        self.first.take_awaited();
    }

    /// True while a thread reads the content that its reader gets first.
    pub(super) fn is_awaited(&self) -> bool {
        self.first.is_awaited()
    }

    /// Skips what its relation emitted during its backfill, if that isn't wanted.
    pub(crate) fn begin_at(&mut self, end: Place) {
        if std::mem::take(&mut self.awaits) {
            self.place = end;
        }
    }

    /// Returns its position in the log of a relation, if it follows that.
    pub(crate) fn place_in(&self, name: &str) -> Option<Place> {
        (self.from.as_ref() == name).then_some(self.place)
    }

    /// Returns a reader's start: the first content, its position in the log, and the epoch up to which it has all.
    pub(crate) fn begin(&self) -> (Option<(Cut, Delta)>, Place, Epoch) {
        (self.first.rows.clone(), self.place, self.position)
    }

    /// Returns the epoch up to which changes were dropped, if a reader at this position needs some of them.
    pub(crate) fn lost_for(&self, place: Place, has_first: bool) -> Option<Epoch> {
        self.lost.filter(|_| place < self.place || (has_first && self.first.is_taken()))
    }

    fn waiting(&self, logs: &Logs) -> Waiting {
        let waiting = logs.get(&self.from).map(|log| log.waiting(self.place));
        let waiting = waiting.unwrap_or(Waiting { epochs: 0, bytes: 0 });
        Waiting { epochs: waiting.epochs + usize::from(!self.first.is_taken()), ..waiting }
    }

    /// Returns true if the backlog exceeds the bound.
    fn is_over(&self, waiting: Waiting) -> bool {
        waiting.bytes > self.holding.buffer_max || waiting.epochs > WAITING_EPOCHS_MAX
    }

    /// Returns true if no more rows may arrive.
    fn is_full(&self, logs: &Logs) -> bool {
        self.holding.when_full == WhenFull::Wait && self.is_over(self.waiting(logs))
    }

    /// Confirms everything up to an epoch. Returns the last confirmed epoch of the log; `None` if all was confirmed
    /// before.
    fn pass(&mut self, logs: &Logs, through: Epoch) -> Option<Epoch> {
        let mut passed = self.first.drop_if(|cut| cut.epoch <= through);
        let log = logs.get(&self.from).into_iter();
        let entries = log.flat_map(|log| log.from(self.place)).take_while(|(cut, _)| cut.epoch <= through);
        let (count, newest) = entries.fold((0, None), |(count, _), (cut, _)| (count + 1, Some(cut.epoch)));
        self.place = self.place.after(count);
        passed = passed.max(newest).max(self.lost.take_if(|lost| *lost <= through));
        self.position = self.position.max(through);
        passed
    }

    /// Drops changes that are older than the retention, or exceed the bound.
    fn expire(&mut self, logs: &Logs, now: Timestamp) {
        if let Some(retention) = self.holding.retention {
            let length = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
            let through = now.0.saturating_sub(length);
            if let Some(epoch) = self.first.drop_if(|cut| cut.now.0 <= through) {
                self.lost = Some(epoch);
            }
            self.lose(logs, |log, place| log.from(place).take_while(|(cut, _)| cut.now.0 <= through).count());
        }
        if self.holding.when_full == WhenFull::Lose && self.is_over(self.waiting(logs)) {
            if let Some(epoch) = self.first.drop_if(|_| true) {
                self.lost = Some(epoch);
            }
            let over = self.waiting(logs).bytes.saturating_sub(self.holding.buffer_max);
            self.lose(logs, |log, place| {
                let mut bytes = 0;
                let many = log.waiting(place).epochs.saturating_sub(WAITING_EPOCHS_MAX);
                let fits = |(_, delta): &&(Cut, Delta)| {
                    let goes = bytes < over;
                    bytes += delta.memory_bytes();
                    goes
                };
                log.from(place).take_while(fits).count().max(many)
            });
        }
    }

    /// Drops the counted number of waiting epochs.
    fn lose(&mut self, logs: &Logs, count: impl FnOnce(&Log, Place) -> usize) {
        let Some(log) = logs.get(&self.from) else { return };
        let count = count(log, self.place);
        if let Some((cut, _)) = log.from(self.place).take(count).last() {
            self.lost = Some(cut.epoch);
            self.place = self.place.after(count);
        }
    }
}

/// Returns the error of a reader that needs dropped changes.
pub(super) fn lost(name: &str, holding: &Holding, lost: Epoch) -> Error {
    let kept = match holding.retention {
        Some(retention) => {
            format!("buffer_max is {} bytes, retention '{}'", holding.buffer_max, interval_text(retention))
        }
        None => format!("buffer_max is {} bytes", holding.buffer_max),
    };
    Error::external(format!(
        "subscription \"{name}\" has lost its position: changes up to epoch {lost} were discarded before its reader \
         confirmed them ({kept})"
    ))
    .hint(format!(
        "ADVANCE SUBSCRIPTION {name} TO {lost} continues with the changes after these; DROP and CREATE it to start with \
         the current content of the relation."
    ))
}

impl CatalogChanges<'_> {
    /// Creates a durable subscription. If its relation isn't current yet, the content follows when it is.
    pub(super) fn install_subscription(&mut self, object: &Object, is_alone: bool) {
        let Definition::Subscription { from, columns, holding } = &object.definition else { return };
        let (cut, place) = (
            self.clock.standing_cut(&self.setup.settings, self.watermarks.current()),
            self.outputs.logs.end(from),
        );
        // The content is of this epoch, so a reader that has the epoch before doesn't have it.
        let before = cut.epoch.previous();
        let mut made = DurableSubscription::new((from.clone(), *columns), *holding, place, before);
        if self.queries.query(from).is_some_and(|query| query.status.is_starting()) {
            made.awaits = !holding.snapshot;
        } else if holding.snapshot {
            made.begin_with(self.initial_content(from, is_alone));
        }
        self.outputs.subscriptions.durable.insert(object.name.clone(), made);
    }
}

impl Outputs {
    /// Moves a subscription's position.
    pub(super) fn pass_subscription(&mut self, name: &str, through: Epoch) -> Option<Epoch> {
        self.subscriptions.durable.get_mut(name)?.pass(&self.logs, through)
    }

    /// Moves subscriptions to a query that has become current behind its backfill's output, if they don't want that.
    pub(super) fn begin_subscriptions_at_end(&mut self, name: &Arc<str>) {
        let end = self.logs.end(name);
        let all = self.subscriptions.durable.values_mut().filter(|subscription| subscription.from == *name);
        all.for_each(|subscription| subscription.begin_at(end));
    }

    /// Returns the full subscriptions, for which no more rows may arrive, with their backlogs.
    pub(super) fn full_subscriptions(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, &DurableSubscription, Waiting)> {
        let full =
            self.subscriptions.durable.iter().filter(|(_, subscription)| subscription.is_full(&self.logs));
        full.map(|(name, subscription)| (name, subscription, subscription.waiting(&self.logs)))
    }

    /// Returns the rows of durable subscriptions in `millstream.subscriptions`.
    pub(super) fn durable_lines(&self) -> Lines {
        let line = |(name, subscription): (&Arc<str>, &DurableSubscription)| {
            let waiting = subscription.waiting(&self.logs);
            let (status, reason) = match subscription.lost {
                Some(epoch) => ("lost", Cell::from(lost(name, &subscription.holding, epoch).message)),
                None if subscription.is_full(&self.logs) => ("full", waiting.refusal(name).message.into()),
                None => ("kept", NULL),
            };
            vec![
                NULL,
                subscription.from.as_ref().into(),
                subscription.position.0.into(),
                waiting.epochs.into(),
                waiting.bytes.into(),
                name.as_ref().into(),
                status.into(),
                reason,
            ]
        };
        self.subscriptions.durable.iter().map(line).collect()
    }

    /// Drops the expired changes of subscriptions.
    pub(super) fn expire_subscriptions(&mut self, clock: &Clock) {
        let now = clock.last();
        self.subscriptions.durable.values_mut().for_each(|subscription| subscription.expire(&self.logs, now));
    }

    fn try_advance(
        &mut self,
        durability: &mut Durability,
        queries: &Queries,
        epoch: Epoch,
        name: &str,
        through: Epoch,
    ) -> Result<()> {
        durability.check_journal()?;
        let newest =
            durability.deliverable(content_epoch(queries, epoch, &self.subscriptions.durable(name)?.from));
        if through > newest {
            return Err(Error::invalid(format!(
                "subscription \"{name}\" can't be advanced to epoch {through}: the newest epoch that its reader received is {newest}"
            ))
            .hint("Use the _batch_id of the last rows that you have received."));
        }
        // After a restart, an epoch without changes may have some, if a lagging query took several in one step. So the
        // journal gets an epoch of the log.
        if let Some(through) = self.pass_subscription(name, through) {
            durability.append(Entry::Advanced { subscription: name.to_string(), through }, epoch);
        }
        Ok(())
    }

    /// ADVANCE SUBSCRIPTION: confirms everything up to an epoch. Answers once that survives a crash.
    pub(super) fn advance(
        &mut self,
        durability: &mut Durability,
        queries: &Queries,
        epoch: Epoch,
        name: &str,
        through: Epoch,
        reply: Reply<()>,
    ) {
        match self.try_advance(durability, queries, epoch, name, through) {
            Ok(()) => durability.when_durable(move |done| reply.send(done)),
            Err(error) => reply.send(Err(error)),
        }
    }
}

impl Subscriptions {
    /// True if an event reads a durable subscription whose first content a thread still reads.
    pub(super) fn awaits_content(&self, event: &Event) -> bool {
        let Event::Subscribe { request, .. } = event else { return false };
        let Followed::Durable(name) = &request.followed else { return false };
        self.durable.get(name).is_some_and(DurableSubscription::is_awaited)
    }

    /// Returns the durable subscription of this name.
    pub(super) fn durable(&self, name: &str) -> Result<&DurableSubscription> {
        self.durable.get(name).ok_or_else(|| Error::invalid(format!("there is no subscription \"{name}\"")))
    }

    /// Fails if a reader of a durable subscription, at this position, needs dropped changes.
    pub(super) fn check_kept(&self, name: &str, place: Place, has_first: bool) -> Result<()> {
        let subscription = self.durable(name)?;
        match subscription.lost_for(place, has_first) {
            Some(epoch) => Err(lost(name, &subscription.holding, epoch)),
            None => Ok(()),
        }
    }

    /// Fails if changes that a new reader of a durable subscription needs were dropped.
    pub(super) fn check_position(&self, name: &str) -> Result<()> {
        let subscription = self.durable(name)?;
        match subscription.lost {
            Some(epoch) => Err(lost(name, &subscription.holding, epoch)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    /// A log of relation `t` with an epoch each 10 microseconds.
    fn logs(epochs: &[u64]) -> Logs {
        let mut logs = Logs::default();
        for epoch in epochs {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![*epoch as i64; 10]));
            let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
            let cut = Cut::new(Epoch(*epoch), Timestamp(*epoch as i64 * 10));
            logs.entry("t".into()).or_default().push(cut, Delta::insert(rows));
        }
        logs
    }

    fn held(holding: Holding) -> DurableSubscription {
        DurableSubscription::new(("t".into(), 1), holding, Place::default(), Epoch(0))
    }

    const ALL: Holding =
        Holding { snapshot: true, retention: None, buffer_max: usize::MAX, when_full: WhenFull::Lose };

    fn next(subscription: &DurableSubscription, logs: &Logs) -> Option<u64> {
        logs.get("t")?.from(subscription.place).next().map(|(cut, _)| cut.epoch.0)
    }

    /// A lagging query has emitted epochs 3 and 5; epoch 5 includes the changes of 4. After a restart the log has 4 by
    /// itself: if a reader confirms 4, the journal must get 3.
    #[test]
    fn the_position_is_an_epoch_of_the_log() {
        let logs = logs(&[3, 5, 8]);
        let mut subscription = held(ALL);
        assert_eq!(
            (subscription.pass(&logs, Epoch(4)), next(&subscription, &logs)),
            (Some(Epoch(3)), Some(5))
        );
        assert_eq!((subscription.pass(&logs, Epoch(4)), next(&subscription, &logs)), (None, Some(5)));
        assert_eq!((subscription.pass(&logs, Epoch(9)), next(&subscription, &logs)), (Some(Epoch(8)), None));
        assert_eq!(subscription.position, Epoch(9));
    }

    #[test]
    fn what_is_too_old_is_lost_until_the_reader_goes_on_behind_it() {
        let logs = logs(&[3, 5, 8]);
        let mut subscription = held(Holding { retention: Some(Duration::from_micros(30)), ..ALL });
        subscription.expire(&logs, Timestamp(59));
        assert_eq!((subscription.lost, next(&subscription, &logs)), (None, Some(3)));
        subscription.expire(&logs, Timestamp(80));
        assert_eq!((subscription.lost, next(&subscription, &logs)), (Some(Epoch(5)), Some(8)));
        assert_eq!(subscription.lost_for(Place::default(), false), Some(Epoch(5)));
        assert_eq!(subscription.lost_for(subscription.place, false), None);
        assert_eq!((subscription.pass(&logs, Epoch(4)), subscription.lost), (None, Some(Epoch(5))));
        assert_eq!((subscription.pass(&logs, Epoch(5)), subscription.lost), (Some(Epoch(5)), None));
    }

    #[test]
    fn what_there_is_no_room_for_is_lost_or_waits_outside() {
        let logs = logs(&[3, 5, 8]);
        let two = logs.get("t").map(|log| log.waiting(Place::default()).bytes / 3 * 2).unwrap();
        let mut loses = held(Holding { buffer_max: two, ..ALL });
        let mut waits = held(Holding { buffer_max: two, when_full: WhenFull::Wait, ..ALL });
        for subscription in [&mut loses, &mut waits] {
            subscription.expire(&logs, Timestamp(80));
        }
        assert_eq!((loses.lost, next(&loses, &logs), loses.is_full(&logs)), (Some(Epoch(3)), Some(5), false));
        assert_eq!((waits.lost, next(&waits, &logs), waits.is_full(&logs)), (None, Some(3), true));
        waits.pass(&logs, Epoch(3));
        assert!(!waits.is_full(&logs));
    }
}
