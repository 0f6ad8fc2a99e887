//! Measures of each epoch: the rows of `millstream.epochs`, and the events for listeners.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use millstream_connect::{Arrival, More};
use millstream_delta::{Cut, Delta};
use millstream_sql::{Kind, Result};

use super::activity::Activity;
use super::alerts::Alerts;
use super::backpressure::HeldBack;
use super::checkpoint::Taken;
use super::deltas::Deltas;
use super::problem::FirstSeen;
use super::query_names::{displayed_name, operator_of};
use super::sink::SinkReport;
use super::sources::Sources;
use super::watermarks::Watermarks;
use crate::engine::{Progress, Recorder};
use crate::listener::{
    Batch, BatchWork, CheckpointWritten, Happening, Listeners, OperatorStep, SinkDelivery,
};
use crate::metrics::{History, OperatorWork, Started};
use crate::run::clock::Clock;
use crate::run::outputs::Outputs;
use crate::run::queries::{Queries, QueryGraph};
use crate::settings::Settings;
use crate::settings::{ClockKind, Pace};
use crate::system;

/// The name of the relation of these epochs.
pub(crate) const EPOCHS: &str = "millstream.epochs";

/// The measures of past epochs, and of the next one.
#[derive(Default)]
pub(crate) struct Measures {
    pub(crate) listeners: Listeners,
    /// Receives each decided epoch.
    pub(super) recorder: Option<Recorder>,
    /// The progress as sessions last saw it.
    pub(super) progress: Progress,
    /// The history of epochs, which readers outside of the loop share.
    pub(super) history: History,
    /// The work of operators.
    pub(super) activity: Activity,
    /// Conditions that need attention.
    pub(super) alerts: Alerts,
    /// The begin of each problem.
    pub(super) first_seen: FirstSeen,
    /// The time since which rows wait for an epoch.
    waiting_since: Option<Instant>,
    /// The number of merged intervals already reported.
    merged: u64,
    /// The changed rows in results of lagging queries since the last epoch.
    apart: u64,
}

impl Measures {
    pub(crate) fn new(listeners: Listeners, recorder: Option<Recorder>, history: History) -> Measures {
        Measures { listeners, recorder, history, ..Measures::default() }
    }

    /// Notes that rows have been waiting since `at`.
    pub(crate) fn rows_wait_since(&mut self, at: Instant) {
        self.waiting_since.get_or_insert(at);
    }

    /// Counts changed rows in the result of a lagging query. The next epoch reports them.
    pub(crate) fn count_apart(&mut self, rows: u64) {
        self.apart += rows;
    }
}

impl Measures {
    /// Remembers a finished epoch.
    pub(super) fn batch_completed(
        &mut self,
        outputs: &mut Outputs,
        queries: &mut QueryGraph,
        settings: &Settings,
        cut: &Cut,
        mut batch: Batch,
        output_rows: u64,
    ) {
        batch.output_rows = output_rows + std::mem::take(&mut self.apart);
        queries.report_work(&mut self.activity);
        let work = self.activity.end_epoch(cut.epoch);
        let batch = Arc::new(batch);
        self.history.add(&batch, work);
        let work_told = self.listeners.want_operators.then(|| batch_work(queries, &batch, work));
        if settings.alerts.slow_epochs.is_some_and(|slow| batch.processing_time >= slow) {
            log_slow(queries, &batch, work.first());
        }
        self.activity.clear();
        self.listeners.tell(&Happening::Completed(batch.clone()));
        if let Some(work) = work_told {
            self.listeners.tell(&Happening::Operators(batch.clone(), Arc::new(work)));
        }
        if outputs.is_read(queries, EPOCHS)
            && let Ok(row) = epoch_rows(std::iter::once(batch.as_ref()))
        {
            outputs.log(queries, &EPOCHS.into(), cut, &Delta::insert(row));
        }
    }
}

impl Measures {
    /// Begins to measure a decided epoch.
    pub(super) fn batch_started(
        &mut self,
        clock: &Clock,
        settings: &Settings,
        sources: &Sources,
        cut: &Cut,
        begun: Instant,
        deltas: &Deltas,
    ) -> Batch {
        let since = self.waiting_since.take();
        let scheduling_delay = match (settings.clock, settings.pace) {
            (ClockKind::Manual, _) => Duration::ZERO,
            (ClockKind::System, Pace::Auto) => since.map_or(Duration::ZERO, |since| begun - since),
            (ClockKind::System, Pace::Fixed(_)) => {
                Duration::from_micros((clock.system.now().0 - cut.now.0).max(0) as u64)
            }
        };
        if sources.rows_wait(&HeldBack::new()) {
            self.waiting_since = Some(begun);
        }
        let mut inputs: Vec<(Arc<str>, u64)> =
            deltas.iter().map(|(name, delta)| (name.clone(), delta.num_rows() as u64)).collect();
        inputs.sort();
        let merged = std::mem::replace(&mut self.merged, clock.ticks.merged);
        let batch = Batch {
            epoch: cut.epoch,
            time: cut.now,
            inputs,
            scheduling_delay,
            merged_intervals: clock.ticks.merged - merged,
            ..Batch::default()
        };
        let queue = clock.queue(settings);
        self.history.start(Started { batch: batch.clone(), at: begun, queue });
        if !self.listeners.is_empty() {
            if settings.clock == ClockKind::Manual || settings.pace == Pace::Auto {
                self.listeners.tell(&Happening::Submitted(batch.time));
            }
            self.listeners.tell(&Happening::Started(Arc::new(batch.clone())));
        }
        batch
    }
}

impl Measures {
    /// Looks for conditions that need attention. `states`: the bytes of state of each query.
    pub(super) fn look(
        &mut self,
        settings: &Settings,
        sources: &Sources,
        watermarks: &Watermarks,
        states: impl FnOnce() -> Vec<(Arc<str>, usize)>,
    ) {
        self.alerts.look(Instant::now(), settings, sources, watermarks, states, &self.history);
    }

    /// Notifies listeners of a batch that must wait before it can run.
    pub(super) fn batch_is_due(&mut self, time: millstream_delta::Timestamp) {
        self.listeners.tell(&Happening::Submitted(time));
    }

    /// Notifies listeners of an error or the end of a source, according to its answer.
    pub(super) fn hear_answer(&mut self, sources: &Sources, name: &Arc<str>, result: &Result<Arrival>) {
        let open = |source: &super::RunningSource| source.used && !source.has_ended();
        if self.listeners.is_empty() || !sources.get(name).is_some_and(open) {
            return;
        }
        let ended = match result {
            Ok(arrival) => arrival.more == More::Never,
            Err(error) => {
                let happening = Happening::SourceError(name.clone(), error.message.clone());
                self.listeners.tell(&happening);
                error.kind != Kind::External
            }
        };
        if ended {
            self.listeners.tell(&Happening::SourceStopped(name.clone()));
        }
    }

    /// Notifies listeners of the newest checkpoint.
    pub(super) fn hear_checkpoint(&mut self, taken: Option<&Taken>) {
        let Some(taken) = taken.filter(|_| !self.listeners.is_empty()) else { return };
        self.listeners.tell(&Happening::Checkpoint(CheckpointWritten {
            epoch: taken.epoch,
            started: SystemTime::now() - taken.took,
            stopped: taken.stopped,
            took: taken.took,
            bytes: taken.written.as_ref().map_or(0, |size| size.written),
            failure: taken.written.as_ref().err().map(ToString::to_string),
        }));
    }

    /// Notifies listeners of epochs that sinks were handed.
    pub(super) fn hear_deliveries(&mut self, outputs: &mut Outputs) {
        for delivery in outputs.begun.drain(..) {
            self.listeners.tell(&Happening::SinkStarted(delivery));
        }
    }

    /// Notifies listeners of a report of a sink.
    pub(super) fn hear_sink(&mut self, outputs: &mut Outputs, sink: &Arc<str>, report: &SinkReport) {
        self.hear_deliveries(outputs);
        if self.listeners.is_empty() {
            return;
        }
        let sink = sink.clone();
        match report {
            SinkReport::Delivered(published) if published.epochs > 0 => {
                let through = published.through;
                let from = published.digests.first().map_or(through, |(epoch, _)| *epoch);
                let rows = published.rows;
                let delivery = SinkDelivery { sink, from, through, rows, failure: None, is_lasting: false };
                self.listeners.tell(&Happening::SinkCompleted(delivery));
            }
            SinkReport::Failed { reason, lasting, .. } => {
                let Some(running) = outputs.sinks.get(&sink) else { return };
                let (from, through) = running.undelivered(&outputs.logs);
                let failure = Some(reason.clone());
                let delivery = SinkDelivery { sink, from, through, rows: 0, failure, is_lasting: *lasting };
                self.listeners.tell(&Happening::SinkCompleted(delivery));
            }
            SinkReport::Delivered(_) | SinkReport::Recovered { .. } => {}
        }
    }

    /// Notifies listeners of the sources whose use differs from `before`.
    pub(super) fn hear_used(&mut self, sources: &Sources, before: &[(Arc<str>, bool)]) {
        for (name, was) in before {
            let Some(source) = sources.get(name) else { continue };
            if *was == source.used || source.has_ended() {
                continue;
            }
            let happening = if source.used { Happening::SourceStarted } else { Happening::SourceStopped };
            self.listeners.tell(&happening(name.clone()));
        }
    }

    /// Notifies listeners of a source that is dropped while it is read.
    pub(super) fn hear_dropped(&mut self, sources: &Sources, name: &Arc<str>) {
        if sources.get(name).is_some_and(|source| source.used && !source.has_ended()) {
            self.listeners.tell(&Happening::SourceStopped(name.clone()));
        }
    }
}

/// Returns the work of operators for listeners, as a batch completes.
fn batch_work(queries: &Queries, batch: &Batch, work: &[OperatorWork]) -> BatchWork {
    let (now, moment) = (SystemTime::now(), Instant::now());
    let step = |work: &OperatorWork| {
        let running = queries.query(&work.query);
        let name = running.map_or(&*work.query, |running| displayed_name(queries, running));
        let operator = running.and_then(|running| running.flow.operator_name(work.node)).unwrap_or("Input");
        let time = Duration::from_micros(work.time_us);
        let since = work.ended.map_or(Duration::ZERO, |ended| moment.saturating_duration_since(ended));
        OperatorStep {
            query: name.into(),
            node: work.node,
            operator: operator.into(),
            started: now - since - time,
            time,
            rows_in: work.rows_in,
            rows_out: work.rows_out,
        }
    };
    BatchWork { started: now - batch.processing_time, steps: work.iter().map(step).collect() }
}

/// Logs an epoch that took long, with the operator that took most of it.
fn log_slow(queries: &Queries, batch: &Batch, slowest: Option<&OperatorWork>) {
    let (epoch, took_ms, rows) =
        (batch.epoch.0, batch.processing_time.as_millis() as u64, batch.input_rows());
    let Some(OperatorWork { query, node, time_us, .. }) = slowest else {
        tracing::warn!(epoch, took_ms, rows, "slow epoch, in which no operator ran");
        return;
    };
    let running = queries.query(query);
    let name = running.map_or(query.as_ref(), |running| displayed_name(queries, running));
    let operator = running.and_then(|running| operator_of(running, *node));
    let title = operator.as_ref().map_or("", |operator| operator.title.trim());
    let cost = operator.as_ref().and_then(|operator| operator.cost).map_or("", millstream_flow::Cost::name);
    let operator_ms = time_us / 1000;
    tracing::warn!(epoch, took_ms, rows, query = name, operator = title, operator_ms, cost, "slow epoch");
}

/// Returns epochs as rows of the system table.
pub(super) fn epoch_rows<'a>(batches: impl Iterator<Item = &'a Batch>) -> Result<RecordBatch> {
    let micros = |time: Duration| time.as_micros() as u64;
    let lines = batches.map(|batch| {
        vec![
            batch.epoch.0.into(),
            batch.time.into(),
            batch.input_rows().into(),
            batch.output_rows.into(),
            micros(batch.processing_time).into(),
            micros(batch.scheduling_delay).into(),
            (micros(batch.processing_time) + micros(batch.scheduling_delay)).into(),
            batch.merged_intervals.into(),
            batch.inputs_json().into(),
        ]
    });
    super::system::batch(system::find("epochs").unwrap_or(&system::TABLES[0]), lines.collect())
}
