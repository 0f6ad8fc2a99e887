//! A source of several splits read side by side, which a test fills: `connector = 'lanes'`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use millstream_connect::{
    Arrival, Connector, Error, Limit, More, OptionDoc, Reading, Result, Source, SourceProperties, SourceSpec,
};
use millstream_delta::{Position, Span};
use tokio::sync::Notify;

const OPTIONS: &[OptionDoc] = &[OptionDoc { name: "label", default: Some("none"), doc: "Means nothing." }];

/// Lanes of rows, each with its time in seconds since 1970, or NULL.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lanes: Mutex<Vec<Lane>>,
    changed: Notify,
}

/// One split.
#[derive(Clone, Debug)]
struct Lane {
    name: Arc<str>,
    rows: Vec<Option<i64>>,
    ended: bool,
    /// True if readers know the lane before its first row.
    known: bool,
}

impl Lanes {
    /// Returns lanes that are known from the start.
    pub fn new(names: &[&str]) -> Lanes {
        let lanes = Lanes::default();
        lanes.lock().extend(names.iter().map(|name| Lane::new(name, true)));
        lanes
    }

    /// Adds rows to an existing or new lane.
    pub fn push(&self, name: &str, rows: &[Option<i64>]) {
        let mut lanes = self.lock();
        match lanes.iter_mut().find(|lane| lane.name.as_ref() == name) {
            Some(lane) => lane.rows.extend(rows),
            None => lanes.push(Lane { rows: rows.to_vec(), ..Lane::new(name, false) }),
        }
        self.0.changed.notify_waiters();
    }

    /// Ends a lane.
    pub fn end(&self, name: &str) {
        self.lock().iter_mut().filter(|lane| lane.name.as_ref() == name).for_each(|lane| lane.ended = true);
        self.0.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn new(name: &str, known: bool) -> Lane {
        Lane { name: name.into(), rows: Vec::new(), ended: false, known }
    }

    /// Returns a range of its rows, as `lane BIGINT, ts TIMESTAMP`; the lane is its index.
    fn batch(&self, place: usize, from: u64, to: u64, schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = &self.rows[from as usize..to as usize];
        let times = rows.iter().map(|second| second.map(|second| second * 1_000_000));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![place as i64; rows.len()])),
            Arc::new(TimestampMicrosecondArray::from_iter(times)),
        ];
        RecordBatch::try_new(schema.clone(), columns).map_err(|error| Error::Bug(error.to_string()))
    }
}

impl Connector for Lanes {
    fn name(&self) -> &'static str {
        "lanes"
    }

    fn summary(&self) -> &'static str {
        "Rows in several splits that the test fills."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let plain: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("lane", DataType::Int64, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]));
        let schema = spec.columns.clone().unwrap_or_else(|| plain.clone());
        if schema != plain {
            return Err(Error::Invalid(format!(
                "source '{}': declare (lane BIGINT, ts TIMESTAMP(6))",
                spec.name
            )));
        }
        Ok(Box::new(LanesSource { lanes: self.clone(), schema, read: Vec::new() }))
    }
}

struct LanesSource {
    lanes: Lanes,
    schema: SchemaRef,
    /// For each lane, the number of rows read, and true if its end was read.
    read: Vec<(u64, bool)>,
}

#[async_trait]
impl Source for LanesSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn properties(&self) -> SourceProperties {
        let known =
            self.lanes.lock().iter().filter(|lane| lane.known).map(|lane| lane.name.clone()).collect();
        let reading = Reading::SideBySide(known);
        SourceProperties { replayable: true, reading, ..SourceProperties::default() }
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        let read = |lane: &Lane| after.splits.get(&lane.name).map_or((0, false), |at| (at.through, at.done));
        self.read = self.lanes.lock().iter().map(read).collect();
        Ok(())
    }

    /// Takes all rows of each lane and ignores the limit: tests are small.
    async fn next(&mut self, _limit: Limit) -> Result<Arrival> {
        let lanes = self.lanes.lock();
        let mut arrival = Arrival::nothing(More::Later);
        self.read.resize(lanes.len(), (0, false));
        for (place, (lane, read)) in lanes.iter().zip(&mut self.read).enumerate() {
            let now = (lane.rows.len() as u64, lane.ended);
            let (from, _) = *read;
            if now != *read {
                arrival.spans.push(Span { split: lane.name.clone(), from, to: now.0, done: now.1 });
            }
            if now.0 > from {
                arrival.rows.push(lane.batch(place, from, now.0, &self.schema)?);
                arrival.splits.push(lane.name.clone());
            }
            *read = now;
        }
        Ok(arrival)
    }

    async fn ready(&mut self) -> Result<()> {
        loop {
            let changed = self.lanes.0.changed.notified();
            let there = {
                let lanes = self.lanes.lock();
                let read = |place: usize| self.read.get(place).copied().unwrap_or_default();
                lanes
                    .iter()
                    .enumerate()
                    .any(|(place, lane)| (lane.rows.len() as u64, lane.ended) != read(place))
            };
            if there {
                return Ok(());
            }
            // The next look sees rows pushed between this look and the wait.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(5), changed).await;
        }
    }

    async fn replay(&mut self, span: &Span, _limit: Limit) -> Result<Arrival> {
        let lanes = self.lanes.lock();
        let mut arrival = Arrival::nothing(More::Never);
        let found = lanes.iter().enumerate().find(|(_, lane)| lane.name == span.split);
        if let Some((place, lane)) = found.filter(|_| span.to > span.from) {
            arrival.rows.push(lane.batch(place, span.from, span.to, &self.schema)?);
        }
        arrival.spans.push(span.clone());
        Ok(arrival)
    }
}
