//! Reads of large results that operators keep. A thread reads the operators, and the query lags meanwhile.
//!
//! Reading copies every row, and so would hold up all epochs. The read is as of the epoch that the query has
//! reached. The query returns to the loop as soon as the thread is done, unless much waits for it by then.
//!
//! Deliberately absent: queries that share arrangements, or with a reader that does, which the loop reads.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use millstream_delta::Cut;
use millstream_flow::{Change, Flow};
use millstream_sql::Result;

use super::{Behind, Done, Step, Work};
use crate::content::AwaitedRows;
use crate::event::Reply;
use crate::run::Loop;
use crate::run::own_flow::{self, Told};
use crate::run::query::Kept;
use crate::settings::ClockKind;

/// Operators that keep more bytes are read on a thread.
const READ_BYTES: usize = 8 << 20;

/// A query returns to the loop after a read if fewer bytes wait for it.
const RETURN_BYTES: usize = 1 << 20;

impl Behind {
    /// True if it lags for a read alone, and little waits for it.
    pub(super) fn returns_after_read(&self) -> bool {
        self.for_read && self.bytes < RETURN_BYTES
    }
}

impl Loop {
    /// Lets a thread read the result of a query whose operators keep much, as of the epoch that it has reached. None
    /// for other relations, and for queries that may not lag.
    pub(in crate::run) fn read_apart(&mut self, name: &str) -> Result<Option<AwaitedRows>> {
        let Some(place) = self.large_result(name) else { return Ok(None) };
        let leaving = self.leaving_within_epoch(place).unwrap_or_default();
        let (reply, rows) = Reply::new();
        let lent = self.lend_to_read(place, leaving, move |flow| reply.send(result_of(flow)))?;
        Ok(lent.then_some(rows))
    }

    /// Lends the operators of a query to a thread that reads them. It lags until then, together with `leaving`, if it
    /// doesn't yet. Returns false if its operators are elsewhere.
    pub(in crate::run) fn lend_to_read(
        &mut self,
        place: usize,
        leaving: Vec<usize>,
        read: impl FnOnce(&Flow) + Send + 'static,
    ) -> Result<bool> {
        let is_running = self.queries[place].is_running();
        for place in leaving.into_iter().filter(|_| is_running) {
            if !self.queries[place].is_running() {
                continue;
            }
            let speed = std::mem::take(&mut self.queries[place].speed);
            self.leave(place, self.epoch);
            let query = &mut self.queries[place];
            query.speed = speed;
            query.behind_mut().into_iter().for_each(|behind| behind.for_read = true);
        }
        let query = &mut self.queries[place];
        let Some(through) = query.behind().map(Behind::through) else { return Ok(false) };
        let Some(flow) = query.flow.lend() else { return Ok(false) };
        let cut = Cut::new(through, flow.now());
        let done = self.tasks.on_a_thread_for(Arc::default(), move || {
            let begun = Instant::now();
            read(&flow);
            let (told, change) = (Told::little_of(&flow), Ok(Change::default()));
            let took = begun.elapsed();
            Done { flow, told, change, result: None, batches: None, panic: None, took, rows: 0 }
        });
        let done = done.inspect_err(|reason| {
            // The operators went with the thread.
            self.queries[place].suspend(reason.clone(), through);
        })?;
        if let Some(behind) = self.queries[place].behind_mut() {
            behind.step = Some(Step { through, begun: Instant::now(), cut, done, work: Work::Read });
        }
        Ok(true)
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
        let by_operators = matches!(query.kept, Kept::Operators) && !query.is_per_batch();
        if !is_large || !may || !by_operators || query.flow.here().is_none() {
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
}

/// Reads the result of a flow.
pub(in crate::run) fn result_of(flow: &Flow) -> Result<Vec<RecordBatch>> {
    own_flow::read("reading the result of the query", flow, |flow| flow.content().unwrap_or(Ok(Vec::new())))
}
