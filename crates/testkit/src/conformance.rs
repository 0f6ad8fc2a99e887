//! Conformance test of a sink: after a kill between any two calls and a restart, it holds every row once, or
//! at least once if it declares that.
//!
//! Deliberately absent: failures of the target itself, which depend on the target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_connect::{Connector, Delivery, Sink, SinkSpec};
use millstream_delta::{Cut, Delta, Epoch, Timestamp};

use crate::drive::Result;

/// Number of rows per epoch.
const ROWS: i64 = 3;

/// Maximum wait for a sink that wants to be called later.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// A call of the contract, as the engine makes them.
#[derive(Clone, Copy, Debug)]
enum Call {
    Write(u64),
    Commit(u64),
    Flush(u64),
    /// Waits until the sink wants `commit` to be called, if it does.
    Due,
}

/// The calls to test, with every kind of call before and after every other: several epochs per commit,
/// repeated commits, a flush, and rows that wait at the end.
const CALLS: &[Call] = &[
    Call::Write(1),
    Call::Commit(1),
    Call::Write(2),
    Call::Write(3),
    Call::Commit(3),
    Call::Commit(3),
    Call::Due,
    Call::Commit(3),
    Call::Write(4),
    Call::Flush(4),
    Call::Write(6),
    Call::Commit(6),
    Call::Write(7),
];

/// The last epoch of the calls.
const LAST: u64 = 7;

/// The target of a sink.
pub trait Place {
    /// Empties the target.
    fn clear(&self) -> impl Future<Output = Result<()>>;
    /// Reads the numbers in the target.
    fn read(&self) -> impl Future<Output = Result<Vec<i64>>>;
}

fn epochs() -> impl Iterator<Item = u64> {
    CALLS.iter().filter_map(|call| if let Call::Write(epoch) = call { Some(*epoch) } else { None })
}

/// Returns the columns of the delivered rows.
pub fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

/// The way in which a sink is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// No destructor runs.
    Crash,
    /// It is dropped, as when its engine ends.
    Drop,
}

/// Kills the sink after each call, in each of these ways, and again after some of the calls that follow the
/// restart.
pub async fn survives_kills(
    connector: &dyn Connector,
    spec: &SinkSpec,
    place: &impl Place,
    kills: &[Kill],
) -> Result<()> {
    for kill in kills {
        for first in 0..=CALLS.len() {
            for second in (0..=CALLS.len()).step_by(5) {
                place.clear().await?;
                let tried = try_kills(connector, spec, (*kill, [first, second])).await;
                tried.map_err(|error| format!("{kill:?} after {first} and {second} calls: {error}"))?;
                check(connector, spec, place, first, second).await?;
            }
        }
    }
    Ok(())
}

async fn check(
    connector: &dyn Connector,
    spec: &SinkSpec,
    place: &impl Place,
    first: usize,
    second: usize,
) -> Result<()> {
    let mut found = place.read().await?;
    found.sort_unstable();
    if open(connector, spec)?.delivery() != Delivery::ExactlyOnce {
        found.dedup();
    }
    let expected: Vec<i64> = epochs().flat_map(numbers).collect();
    if found == expected {
        return Ok(());
    }
    let calls = (&CALLS[..first], &CALLS[..second]);
    Err(format!("after {calls:?} there is {found:?}, but {expected:?} was expected"))
}

/// Plays the engine: resends what the sink hasn't reported as durable. If the sink reports its content,
/// resends what it does not hold.
async fn try_kills(
    connector: &dyn Connector,
    spec: &SinkSpec,
    (kill, kills): (Kill, [usize; 2]),
) -> Result<()> {
    let mut durable = Epoch::default();
    for count in kills.into_iter().map(Some).chain([None]) {
        let mut sink = open(connector, spec)?;
        let tells = sink.delivery() == Delivery::ExactlyOnce;
        let held = sink.recover().await.map_err(|error| error.to_string())?;
        if tells && held < durable {
            return Err(format!("it named epoch {durable} as durable, but holds epoch {held}"));
        }
        let from = if tells { held } else { durable };
        for call in &CALLS[..count.unwrap_or(CALLS.len())] {
            let named = do_call(sink.as_mut(), *call, from).await?.unwrap_or_default();
            // An epoch without rows leaves nothing behind.
            let with_rows = epochs().map(Epoch).filter(|epoch| *epoch <= named).max();
            durable = durable.max(with_rows.unwrap_or_default());
        }
        if count.is_none() {
            let last = sink.flush(Epoch(LAST)).await.map_err(|error| error.to_string())?;
            if last != Epoch(LAST) {
                return Err(format!("a flush of all up to epoch {LAST} named epoch {last}"));
            }
        }
        match kill {
            Kill::Crash => std::mem::forget(sink),
            Kill::Drop => drop(sink),
        }
    }
    Ok(())
}

async fn do_call(sink: &mut dyn Sink, call: Call, from: Epoch) -> Result<Option<Epoch>> {
    let named = match call {
        Call::Write(epoch) if Epoch(epoch) <= from => return Ok(None),
        Call::Write(epoch) => sink.write(&cut(epoch), &delta(epoch)?).await.map(|()| None),
        Call::Commit(epoch) => sink.commit(Epoch(epoch)).await.map(Some),
        Call::Flush(epoch) => sink.flush(Epoch(epoch)).await.map(Some),
        Call::Due => {
            let wait = sink.commit_due().map(|due| due.saturating_duration_since(Instant::now()));
            tokio::time::sleep(wait.filter(|wait| *wait < WAIT_MAX).unwrap_or_default()).await;
            return Ok(None);
        }
    };
    let named = named.map_err(|error| format!("{call:?}: {error}"))?;
    match (named, call) {
        (Some(named), Call::Commit(asked) | Call::Flush(asked)) if named > Epoch(asked) => {
            Err(format!("{call:?} named epoch {named}"))
        }
        _ => Ok(named),
    }
}

fn open(connector: &dyn Connector, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
    connector.sink(spec).map_err(|error| error.to_string())
}

fn cut(epoch: u64) -> Cut {
    Cut::new(Epoch(epoch), Timestamp(epoch as i64 * 1_000_000))
}

fn numbers(epoch: u64) -> impl Iterator<Item = i64> {
    (0..ROWS).map(move |row| epoch as i64 * 10 + row)
}

fn delta(epoch: u64) -> Result<Delta> {
    let numbers = Arc::new(Int64Array::from_iter_values(numbers(epoch)));
    let rows = RecordBatch::try_new(columns(), vec![numbers]).map_err(|error| error.to_string())?;
    Ok(Delta::insert(rows))
}
