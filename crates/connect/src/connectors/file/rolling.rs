//! A file sink that gathers epochs, and rolls to another file by time and size.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};
use tokio::task::spawn_blocking;

use super::sink::Target;
use crate::{Delivery, Error, Options, Result, Sink};

/// Bytes that are gathered at most where only a time is given.
const ROLL_BYTES: usize = 64 << 20;

/// How often a file that could not be written in its time is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// When a file is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rolling {
    /// After such a time.
    interval: Option<Duration>,
    /// With so many bytes.
    bytes: usize,
}

impl Rolling {
    /// What the options say; `None` where each epoch has its own file.
    pub fn from_options(options: &Options) -> Result<Option<Rolling>> {
        let (interval, bytes) = (options.duration("roll_interval")?, options.bytes("roll_size")?);
        if interval.is_none() && bytes.is_none() {
            return Ok(None);
        }
        Ok(Some(Rolling { interval, bytes: bytes.unwrap_or(ROLL_BYTES) }))
    }
}

/// Writes a file of several epochs' rows.
pub(super) struct RollingSink {
    rolling: Rolling,
    /// Whether the names of the files say up to which epoch they go.
    tells_epochs: bool,
    gathered: Arc<Mutex<Gathered>>,
}

/// What was written to the sink and is in no file yet.
struct Gathered {
    target: Target,
    batches: Vec<RecordBatch>,
    bytes: usize,
    /// The first and the last epoch in it.
    first: Option<Cut>,
    last: Option<Cut>,
    /// How many files were written, and whether the last one is sure to stay.
    files: u64,
    synced: bool,
    /// The newest epoch that is in a file.
    placed: Option<Epoch>,
}

impl RollingSink {
    /// A sink that has written nothing yet.
    pub fn new(target: Target, rolling: Rolling) -> RollingSink {
        let tells_epochs = target.tells_epochs();
        let gathered = Gathered {
            target,
            batches: Vec::new(),
            bytes: 0,
            first: None,
            last: None,
            files: 0,
            synced: true,
            placed: None,
        };
        RollingSink { rolling, tells_epochs, gathered: Arc::new(Mutex::new(gathered)) }
    }

    /// Does blocking work with what is gathered.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Gathered) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gathered = self.gathered.clone();
        let done = spawn_blocking(move || work(&mut lock(&gathered))).await;
        done.map_err(|error| Error::Bug(format!("writing a file stopped: {error}")))?
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gathered {
    /// Writes what is gathered to a file of the last epoch's name. After a failure all is still there.
    fn roll(&mut self) -> Result<()> {
        if let Some(last) = &self.last {
            let staged = self.target.stage(last, &self.batches)?;
            self.target.place(&staged)?;
            self.placed = Some(last.epoch);
            self.files += 1;
            (self.batches, self.bytes, self.first, self.last) = (Vec::new(), 0, None, None);
            self.synced = false;
        }
        if !self.synced {
            self.target.sync()?;
            self.synced = true;
        }
        Ok(())
    }

    /// Adds an epoch; says whether it is the first of a file.
    fn add(&mut self, cut: &Cut, delta: &Delta, interval: Option<Duration>) -> Result<bool> {
        if Some(cut.epoch) <= self.placed.max(self.last.as_ref().map(|last| last.epoch)) {
            // It is sent again, and is there.
            return Ok(false);
        }
        let age_us = self.first.as_ref().map_or(0, |first| (cut.now.0 - first.now.0).max(0) as u128);
        if interval.is_some_and(|interval| age_us >= interval.as_micros()) {
            self.roll()?;
        }
        let batches: Vec<RecordBatch> = self.target.batches(delta)?.into_iter().map(compact).collect();
        self.bytes += batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        self.batches.extend(batches);
        self.last = Some(cut.clone());
        let is_first = self.first.is_none();
        self.first.get_or_insert_with(|| cut.clone());
        Ok(is_first)
    }
}

/// The same rows without the bytes of others: short texts may hold on to a whole block that was read.
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

/// Writes a file in its time also if nothing comes that would cause it.
async fn roll_later(gathered: Weak<Mutex<Gathered>>, file: u64, interval: Duration) {
    let mut wait = interval;
    loop {
        tokio::time::sleep(wait).await;
        let Some(gathered) = gathered.upgrade() else { return };
        let rolled = spawn_blocking(move || {
            let mut gathered = lock(&gathered);
            let due = gathered.files == file;
            let rolled = if due { gathered.roll() } else { Ok(()) };
            rolled.map_err(|error| (gathered.target.sink.clone(), error))
        });
        match rolled.await {
            Ok(Err((sink, error))) => tracing::warn!(sink, %error, "a file is written later"),
            _ => return,
        }
        wait = RETRY_INTERVAL;
    }
}

#[async_trait]
impl Sink for RollingSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let interval = self.rolling.interval;
        let (cut, delta) = (cut.clone(), delta.clone());
        let (is_first, file) =
            self.work(move |gathered| Ok((gathered.add(&cut, &delta, interval)?, gathered.files))).await?;
        if is_first && let Some(interval) = interval {
            tokio::spawn(roll_later(Arc::downgrade(&self.gathered), file, interval));
        }
        Ok(())
    }

    async fn commit(&mut self, _through: Epoch) -> Result<()> {
        let bytes = self.rolling.bytes;
        self.work(
            move |gathered| {
                if gathered.bytes >= bytes || !gathered.synced { gathered.roll() } else { Ok(()) }
            },
        )
        .await
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

    async fn recover(&mut self) -> Result<Epoch> {
        self.work(|gathered| {
            (gathered.batches, gathered.bytes, gathered.first, gathered.last) = (Vec::new(), 0, None, None);
            gathered.target.recover()
        })
        .await
    }
}

impl Drop for RollingSink {
    fn drop(&mut self) {
        let mut gathered = lock(&self.gathered);
        if let Err(error) = gathered.roll() {
            tracing::error!(sink = gathered.target.sink, %error, "the last file could not be written");
        }
    }
}
