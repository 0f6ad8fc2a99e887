//! Saving a query as tables, and loading it at a start.

use std::sync::Arc;

use millstream_delta::Epoch;
use millstream_flow::{Arrangement, PersistedArrangement};
use millstream_sql::{Error, Kind, Result};
use millstream_state::{Rows, Tables};

use super::{RunningQuery, Status};
use crate::error;
use crate::run::lagging::Lag;
use crate::run::saving::number;

impl RunningQuery {
    /// Returns true if it can't be saved now: it backfills, waits to begin, or runs batches from when it was paused.
    pub(crate) fn is_unsettled(&self) -> bool {
        matches!(self.status, Status::Waiting(_) | Status::CatchingUp(_))
            || self.status.lag().is_some_and(Lag::has_paused_batches)
    }

    /// Saves all its state except these arrangements, which are saved beside it; if it is suspended, only the reason.
    pub(crate) fn save(&self, shared: &[Arc<Arrangement>]) -> Result<Tables> {
        let mut all = Tables::default();
        self.progress.save(&mut all);
        if let Status::Suspended { reason, epoch } = &self.status {
            all.put_number("suspended", epoch.0 as i64);
            all.put_text_if("reason", Some(&reason.message));
            all.put_text_if("hint", reason.hint.as_deref());
            let staged = self.into.as_ref().and_then(|into| into.staged);
            all.put_number_if("into_through", staged.map(|epoch| epoch.0 as i64));
            return Ok(all);
        }
        let flow =
            self.flow.here().ok_or_else(|| Error::bug("a query that a thread steps is to be saved"))?;
        all.put_part("flow", flow.save_changed(shared).map_err(error::flow)?);
        self.result.save(&mut all)?;
        if let Some(batches) = &self.batches {
            all.put_part("batches", batches.save()?);
        }
        for (place, feed) in self.feeds.iter().enumerate() {
            if let Some(window) = &feed.window {
                all.put_part(&format!("input{place}"), window.save()?);
            }
        }
        if let Some(into) = &self.into {
            all.put_number("into_rows", into.rows as i64);
        }
        Ok(all)
    }

    /// Loads the saved state over the present one: a query may have an answer even over no rows.
    pub(crate) fn load(&mut self, all: &mut Tables, shared: &[PersistedArrangement]) -> Result<()> {
        self.progress.load(all)?;
        if let Some(epoch) = all.take_number_if("suspended") {
            let message = all.take_text_if("reason").unwrap_or_default();
            let reason = Error { hint: all.take_text_if("hint"), ..Error::new(Kind::Invalid, message) };
            self.status = Status::Suspended { reason, epoch: Epoch(epoch as u64) };
            let staged = all.take_number_if("into_through").map(|epoch| Epoch(epoch as u64));
            if let Some(into) = &mut self.into {
                into.staged = staged;
            }
            return Ok(());
        }
        if all.tables().any(|(name, _)| name == "result") {
            self.result.keep_beside(&mut self.flow, Vec::new())?;
        }
        let flow =
            self.flow.here_mut().ok_or_else(|| Error::bug("a query that is behind is to be loaded"))?;
        // The saved state may come from another version: that is no bug.
        let unfit = |error: millstream_flow::Error| match error {
            millstream_flow::Error::Bug(message) => Error::new(Kind::Corrupt, message),
            other => error::flow(other),
        };
        let of_flow = all.take_part("flow");
        flow.load(of_flow, shared).map_err(unfit)?;
        self.result.load(all, flow)?;
        if let Some(batches) = &mut self.batches {
            batches.load(&mut all.take_part("batches"))?;
        }
        for (place, feed) in self.feeds.iter_mut().enumerate() {
            if let Some(window) = &mut feed.window {
                window.load(&mut all.take_part(&format!("input{place}")))?;
            }
        }
        if let Some(into) = &mut self.into {
            into.rows = number(all, "into_rows")? as u64;
        }
        Ok(())
    }
}

/// Adds the changes of rows with their weights, for a checkpoint.
pub(crate) fn put_rows(all: &mut Tables, name: &str, rows: &Rows) -> Result<()> {
    rows.save_changed(name, all).map_err(error::state)
}

/// Replaces rows by the saved ones.
pub(crate) fn take_rows(all: &mut Tables, name: &str, rows: &mut Rows) -> Result<()> {
    *rows = Rows::new(rows.schema().clone());
    let delta = all.take_delta(name).map_err(error::state)?;
    rows.apply(&delta).map_err(error::state)
}
