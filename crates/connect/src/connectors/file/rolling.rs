//! A file sink that gathers epochs and rolls to a new file by time and size.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};
use tokio::task::spawn_blocking;

use super::sink::Target;
use crate::{Delivery, Error, Options, Result, Sink};

/// Default maximum size of a file if only a time is given.
const ROLL_BYTES: usize = 64 << 20;

/// Default time for gathering epochs at auto pace.
const AUTO_INTERVAL: Duration = Duration::from_secs(10);

/// The condition that completes a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rolling {
    /// Maximum time that a file gathers epochs.
    interval: Option<Duration>,
    /// Maximum size in bytes.
    bytes: usize,
    /// True if the user asked for neither.
    is_default: bool,
}

impl Rolling {
    /// Evaluates the options; returns `None` if each epoch has its own file. If the options are absent,
    /// `gathers` decides.
    pub fn from_options(options: &Options, gathers: bool) -> Result<Option<Rolling>> {
        let (interval, bytes) = (options.duration("roll_interval")?, options.bytes("roll_size")?);
        if interval.is_none() && bytes.is_none() {
            let by_default = Rolling { interval: Some(AUTO_INTERVAL), bytes: ROLL_BYTES, is_default: true };
            return Ok(gathers.then_some(by_default));
        }
        let interval = interval.filter(|interval| !interval.is_zero());
        if interval.is_none() && bytes.is_none() {
            return Ok(None);
        }
        Ok(Some(Rolling { interval, bytes: bytes.unwrap_or(ROLL_BYTES), is_default: false }))
    }
}

/// Writes files that hold the rows of several epochs.
pub(super) struct RollingSink {
    rolling: Rolling,
    /// True if the names of the files contain their last epoch.
    tells_epochs: bool,
    /// The time to write the open file, even if no further epoch arrives.
    due: Option<Instant>,
    gathered: Arc<Mutex<Gathered>>,
}

/// The epochs written to the sink that are in no file yet.
struct Gathered {
    target: Target,
    rolling: Rolling,
    /// Complete files, in order.
    complete: VecDeque<Gathering>,
    /// The file that gathers epochs.
    open: Option<Gathering>,
    /// False if a file was moved into place and its directory isn't synced yet.
    synced: bool,
    /// The newest epoch that is in a file.
    placed: Option<Epoch>,
}

/// The rows of a file that isn't written yet.
struct Gathering {
    batches: Vec<RecordBatch>,
    bytes: usize,
    /// The first and the last epoch in the file.
    first: Cut,
    last: Cut,
    begun: Instant,
}

impl RollingSink {
    /// Creates a sink that has written nothing yet.
    pub fn new(target: Target, rolling: Rolling) -> RollingSink {
        let tells_epochs = target.tells_epochs();
        let gathered =
            Gathered { target, rolling, complete: VecDeque::new(), open: None, synced: true, placed: None };
        RollingSink { rolling, tells_epochs, due: None, gathered: Arc::new(Mutex::new(gathered)) }
    }

    /// Runs blocking work on the gathered epochs.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Gathered) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gathered = self.gathered.clone();
        let done = spawn_blocking(move || {
            let mut gathered = lock(&gathered);
            let done = work(&mut gathered);
            (done, gathered.due())
        });
        let (done, due) =
            done.await.map_err(|error| Error::Bug(format!("writing a file stopped: {error}")))?;
        self.due = due;
        done
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gathered {
    /// Adds an epoch to the open file, or to a new one if the open file's interval is over.
    fn add(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let newest = self.open.as_ref().or(self.complete.back()).map(|gathering| gathering.last.epoch);
        if Some(cut.epoch) <= self.placed.max(newest) {
            // The epoch is sent again; its rows are there already.
            return Ok(());
        }
        let batches: Vec<RecordBatch> = self.target.batches(delta)?.into_iter().map(compact).collect();
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        let age = |open: &Gathering| (cut.now.0 - open.first.now.0).max(0) as u128;
        let is_old = |open: &Gathering| {
            self.rolling.interval.is_some_and(|interval| age(open) >= interval.as_micros())
        };
        let (old, open) = (self.open.take_if(|open| is_old(open)), &mut self.open);
        self.complete.extend(old);
        match open {
            Some(open) => {
                open.batches.extend(batches);
                open.bytes += bytes;
                open.last = cut.clone();
            }
            None => {
                let (first, last) = (cut.clone(), cut.clone());
                *open = Some(Gathering { batches, bytes, first, last, begun: Instant::now() });
            }
        }
        Ok(())
    }

    /// Writes the complete files that hold nothing after `through`. A failure loses no rows.
    fn publish(&mut self, through: Epoch, all: bool) -> Result<Epoch> {
        let is_due = |open: &Gathering| all || open.is_complete(&self.rolling);
        let due = self.open.take_if(|open| open.last.epoch <= through && is_due(open));
        self.complete.extend(due);
        while let Some(next) = self.complete.front().filter(|next| next.last.epoch <= through) {
            let staged = self.target.stage(&next.last, &next.batches)?;
            self.target.place(&staged)?;
            self.placed = Some(next.last.epoch);
            self.synced = false;
            self.complete.pop_front();
        }
        if !self.synced {
            self.target.sync()?;
            self.synced = true;
        }
        let held = self.complete.front().or(self.open.as_ref()).map(|held| held.first.epoch.0);
        Ok(held.map_or(through, |held| through.min(Epoch(held.saturating_sub(1)))))
    }

    /// Returns the time of the next write.
    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        if !self.synced || !self.complete.is_empty() {
            return Some(now);
        }
        // A time beyond the clock's range never comes.
        self.open.as_ref().and_then(|open| open.begun.checked_add(self.rolling.interval?))
    }

    fn forget(&mut self) {
        self.complete.clear();
        self.open = None;
    }
}

impl Gathering {
    fn is_complete(&self, rolling: &Rolling) -> bool {
        self.bytes >= rolling.bytes || rolling.interval.is_some_and(|time| self.begun.elapsed() >= time)
    }
}

/// Copies the rows without the bytes of others: short texts may refer to a whole block that was read.
fn compact(rows: RecordBatch) -> RecordBatch {
    let (schema, columns, count) = rows.into_parts();
    let columns = columns.into_iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => column,
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema, columns.collect(), &options)
        .expect("the columns have the types and the length that they had")
}

#[async_trait]
impl Sink for RollingSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let (cut, delta) = (cut.clone(), delta.clone());
        self.work(move |gathered| gathered.add(&cut, &delta)).await
    }

    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        self.work(move |gathered| gathered.publish(through, false)).await
    }

    async fn flush(&mut self, through: Epoch) -> Result<Epoch> {
        self.work(move |gathered| gathered.publish(through, true)).await
    }

    fn commit_due(&self) -> Option<Instant> {
        self.due
    }

    fn delivery(&self) -> Delivery {
        if self.tells_epochs {
            return Delivery::ExactlyOnce;
        }
        Delivery::Unknown(
            "its files hold several epochs, and only {epoch} in option 'filename' says which: add it, or leave roll_interval \
             and roll_size out"
                .into(),
        )
    }

    fn notice(&self) -> Option<String> {
        let interval = self.rolling.interval.filter(|_| self.rolling.is_default)?.as_secs();
        Some(format!(
            "a file is written every {interval} seconds while rows arrive, {} an hour at most, or with {} \
             MiB of rows: option roll_interval sets another time, with '0' each epoch has a file of its own",
            3600 / interval.max(1),
            self.rolling.bytes >> 20
        ))
    }

    async fn recover(&mut self) -> Result<Epoch> {
        self.work(|gathered| {
            gathered.forget();
            gathered.target.recover()
        })
        .await
    }
}

impl Drop for RollingSink {
    fn drop(&mut self) {
        let mut gathered = lock(&self.gathered);
        let Some(last) = gathered.open.as_ref().or(gathered.complete.back()) else { return };
        let last = last.last.epoch;
        if let Err(error) = gathered.publish(last, true) {
            tracing::error!(sink = gathered.target.sink, %error, "the last file could not be written");
        }
    }
}
