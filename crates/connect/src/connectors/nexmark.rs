//! The connector `nexmark`: the persons, auctions and bids of an online auction, as in the Nexmark
//! benchmark.
//!
//! The crate `nexmark` generates the events; event n is the same in every run. Of each fifty consecutive
//! events the first is a person, the next three are auctions, and the rest are bids. So sources of all
//! three tables together form one history.
//!
//! Deliberately absent: a seed, since the crate generates each event from its number alone.

mod events;
mod table;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMillisecondType};

use crate::numbered::{Numbered, NumberedSource};
use crate::pace::Pace;
use crate::{Connector, Error, Limit, OptionDoc, Options, Result, Source, SourceSpec};
use events::Events;
use table::{Layout, Table};

/// Default rate of an unbounded source, in events a second; Nexmark's event times have the same rate.
const EVENTS_PER_SECOND: f64 = 10_000.0;

/// Maximum rows in one batch.
const BATCH_ROWS: u64 = 16 * 1024;

/// Default time of event 0, as in the benchmark's first implementation.
const FIRST_EVENT_TIME: &str = "2015-07-15 00:00:00";

/// Default distance of two consecutive events.
const GAP_US: u64 = 100;

/// Maximum `event_gap`: with it, event times take long to overflow.
const GAP_US_MAX: u64 = 3_600_000_000;

/// The connector `nexmark`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nexmark;

const OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "table", default: None, doc: "The events to generate: person, auction or bid." },
    OptionDoc {
        name: "events",
        default: Some("no end"),
        doc: "The number of events of all three tables, after which the source ends.",
    },
    OptionDoc {
        name: "events_per_second",
        default: Some("10000; as fast as possible, where events is given"),
        doc: "The number of events of all three tables a second.",
    },
    OptionDoc { name: "first_event_time", default: Some(FIRST_EVENT_TIME), doc: "The date_time of event 0." },
    OptionDoc {
        name: "event_gap",
        default: Some("100 us"),
        doc: "The time between two consecutive events, before date_time is rounded to milliseconds.",
    },
];

impl Connector for Nexmark {
    fn name(&self) -> &'static str {
        "nexmark"
    }

    fn summary(&self) -> &'static str {
        "Makes up the persons, auctions and bids of the Nexmark benchmark, the same in every run."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(open(spec)?))
    }
}

struct Auctions {
    layout: Layout,
    events: Events,
}

fn open(spec: &SourceSpec) -> Result<NumberedSource<Auctions>> {
    let options = &spec.options;
    options.require("table")?;
    let table = Table::named(options.choice("table", &Table::NAMES)?);
    let layout = Layout::new(table, spec)?;
    let end: Option<u64> = options.parse("events", "a number of events")?;
    let pace = Pace::of(options, "events_per_second", EVENTS_PER_SECOND, end.is_some())?;
    let events = Events::new(table, first_event_ms(options)?, gap_us(options)?);
    Ok(NumberedSource::new(Auctions { layout, events }, end, pace, spec.health.clone()))
}

/// The numbers are those of the events of all tables.
impl Numbered for Auctions {
    fn schema(&self) -> &SchemaRef {
        self.layout.schema()
    }

    fn within(&self, from: u64, limit: Limit) -> u64 {
        let rows = limit.rows.min(limit.bytes.div_ceil(self.events.table().row_bytes())).max(1) as u64;
        self.events.after_rows(from, rows)
    }

    fn rows(&self, from: u64, to: u64) -> Result<Vec<RecordBatch>> {
        let mut rows: Vec<RecordBatch> = Vec::new();
        let mut at = from;
        while at < to {
            let end = to.min(self.events.after_rows(at, BATCH_ROWS));
            let batch = self.layout.batch(&self.events, at, end)?;
            rows.extend(Some(batch).filter(|batch| batch.num_rows() > 0));
            at = end;
        }
        Ok(rows)
    }
}

/// Returns the option `first_event_time` in milliseconds since 1970.
fn first_event_ms(options: &Options) -> Result<u64> {
    let text = options.get("first_event_time").unwrap_or(FIRST_EVENT_TIME);
    let parsed = cast(&StringArray::from(vec![text]), &DataType::Timestamp(TimeUnit::Millisecond, None)).ok();
    let time = parsed
        .as_deref()
        .and_then(|time| time.as_primitive::<TimestampMillisecondType>().iter().next().flatten());
    time.and_then(|time| u64::try_from(time).ok()).ok_or_else(|| {
        Error::Invalid(format!(
            "option 'first_event_time' is '{text}', but a time from 1970 on was expected, such as '{FIRST_EVENT_TIME}'"
        ))
    })
}

/// Returns the option `event_gap` in microseconds.
fn gap_us(options: &Options) -> Result<u64> {
    let Some(gap) = options.duration("event_gap")? else { return Ok(GAP_US) };
    u64::try_from(gap.as_micros()).ok().filter(|gap| (1..=GAP_US_MAX).contains(gap)).ok_or_else(|| {
        let text = options.get("event_gap").unwrap_or_default();
        Error::Invalid(format!("option 'event_gap' is '{text}', but 1 us to 1 hour was expected"))
    })
}

#[cfg(test)]
mod tests;
