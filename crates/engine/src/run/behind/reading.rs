//! Reads of large results that operators keep. A thread reads the operators, and the query lags meanwhile.
//!
//! Reading copies every row, and so would hold up all epochs. The read is as of the epoch that the query has
//! reached. The query returns to the loop as soon as the thread is done, unless much waits for it by then.
//!
//! Deliberately absent: queries that share arrangements, or with a reader that does, which the loop reads.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use millstream_delta::Cut;
use millstream_flow::{Change, Flow};
use millstream_sql::{Error, Result};

use super::{Done, Step, Work};
use crate::error;
use crate::event::{Asked, Content, Reply, Snapshot};
use crate::panics::panicked;
use crate::run::Loop;
use crate::run::own_flow::Told;
use crate::settings::ClockKind;

/// Operators that keep more bytes are read on a thread.
const READ_BYTES: usize = 8 << 20;

/// A query returns to the loop after a read if fewer bytes wait for it.
const RETURN_BYTES: usize = 1 << 20;

/// A read of relations, some of which threads read. The last one answers it.
struct Gathering(Mutex<Gathered>);

struct Gathered {
    relations: Vec<Option<Result<Content>>>,
    reply: Option<Reply<Snapshot>>,
}

impl Gathering {
    fn put(&self, at: usize, content: Result<Content>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.relations[at] = Some(content);
        if all.relations.iter().all(Option::is_some)
            && let Some(reply) = all.reply.take()
        {
            let relations = std::mem::take(&mut all.relations).into_iter().flatten();
            reply.send(relations.collect::<Result<_>>().map(|relations| Snapshot { relations }));
        }
    }
}

impl super::Behind {
    /// True if it lags for a read alone, and little waits for it.
    pub(super) fn returns_after_read(&self) -> bool {
        self.for_read && self.bytes < RETURN_BYTES
    }
}

impl Loop {
    /// Answers a read with the relations that are `taken`, and the others as of now.
    pub(in crate::run) fn answer_with(
        &mut self,
        asked: &[Asked],
        stamped: bool,
        taken: Vec<Option<Result<Content>>>,
        reply: Reply<Snapshot>,
    ) {
        let (mut relations, mut apart) = (taken, Vec::new());
        relations.resize_with(asked.len(), || None);
        for (at, asked) in asked.iter().enumerate() {
            if relations[at].is_some() {
                continue;
            }
            let columns = self.catalog.stamped(&asked.name).filter(|_| stamped);
            if let Some(found) = self.point_read(asked, columns.as_ref()) {
                relations[at] = Some(found.map(Content::Batches));
                continue;
            }
            match self.large_result(&asked.name) {
                Some(place) if apart.iter().all(|(_, other)| *other != place) => apart.push((at, place)),
                _ => relations[at] = Some(self.content_asked(asked, stamped)),
            }
        }
        if apart.is_empty() {
            let relations = relations.into_iter().flatten().collect::<Result<_>>();
            return reply.send(relations.map(|relations| Snapshot { relations }));
        }
        let all = Arc::new(Gathering(Mutex::new(Gathered { relations, reply: Some(reply) })));
        for (at, place) in apart {
            if let Err(reason) = self.lend_for_read(place, at, all.clone()) {
                all.put(at, Err(reason));
            }
        }
    }

    /// Returns the place of a query whose operators keep much, if it may lag.
    fn large_result(&self, name: &str) -> Option<usize> {
        let place = self.queries.iter().position(|query| query.name.as_ref() == name)?;
        let query = &self.queries[place];
        let forced = self.execution.apart.is_some();
        let is_large = forced || query.flow.state_bytes() > READ_BYTES;
        let may = (forced || self.settings.clock == ClockKind::System) && !self.settings.keeps_history();
        // A query that is away would postpone the checkpoint.
        let may = may && self.held_by_checkpoint().is_none();
        if !is_large || !may || !query.is_kept_by_operators() || query.flow.here().is_none() {
            return None;
        }
        let leaving = match query.behind() {
            Some(_) => vec![place],
            None if query.is_running() => self.leaving_within_epoch(place)?,
            None => return None,
        };
        let wanted = self.wanted_at_present();
        let stays = |place: &usize| {
            let query = &self.queries[*place];
            wanted.contains(&query.name) || !query.flow.shared().is_empty()
        };
        (!leaving.iter().any(stays)).then_some(place)
    }

    /// Lends the operators of a query to a thread, which reads its result.
    fn lend_for_read(&mut self, place: usize, at: usize, all: Arc<Gathering>) -> Result<()> {
        self.queries.check_errors(&self.queries[place])?;
        if self.queries[place].is_running() {
            for place in self.leaving_within_epoch(place).unwrap_or_default() {
                let speed = std::mem::take(&mut self.queries[place].speed);
                self.leave(place, self.epoch);
                let query = &mut self.queries[place];
                query.speed = speed;
                query.behind_mut().into_iter().for_each(|behind| behind.for_read = true);
            }
        }
        let lost = || Error::bug("the operators of the query are being stepped elsewhere");
        let query = &mut self.queries[place];
        let through = query.behind().ok_or_else(lost)?.through;
        let flow = query.flow.lend().ok_or_else(lost)?;
        let cut = Cut::new(through, flow.now());
        let done = self.tasks.on_a_thread_for(Arc::default(), move || read(flow, at, &all));
        let done = done.inspect_err(|reason| {
            // The operators went with the thread.
            self.queries[place].suspend(reason.clone(), through);
        })?;
        if let Some(behind) = self.queries[place].behind_mut() {
            behind.step = Some(Step { through, begun: Instant::now(), cut, done, work: Work::Read });
        }
        Ok(())
    }

    /// Takes the operators back after a read.
    pub(super) fn take_read(&mut self, place: usize, done: Result<Done>) {
        let query = &mut self.queries[place];
        match done {
            Ok(done) => query.flow.take_back(done.flow, done.told),
            Err(reason) => query.suspend(reason, query.epoch),
        }
    }
}

/// Reads the result of a flow.
fn read(flow: Flow, at: usize, all: &Gathering) -> Done {
    let begun = Instant::now();
    let content = std::panic::catch_unwind(AssertUnwindSafe(|| flow.content().unwrap_or(Ok(Vec::new()))));
    let content = match content {
        Ok(content) => content.map_err(error::flow).map(Content::Batches),
        Err(said) => Err(panicked("reading the result of the query", said.as_ref())),
    };
    all.put(at, content);
    let told = Told::little_of(&flow);
    let change = Ok(Change::default());
    Done { flow, told, change, batches: None, panic: None, took: begun.elapsed(), rows: 0 }
}
