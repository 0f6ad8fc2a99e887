//! The three tables: their columns, and the conversion of events to batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, StringViewBuilder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use millstream_delta::sql_type;
use nexmark::event::{Auction, Bid, Event, EventType, Person};

use super::events::Events;
use crate::{Error, Result, SourceSpec};

/// The table that a source returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Person,
    Auction,
    Bid,
}

/// The kind of values in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Time,
}

use Kind::{Number, Text, Time};

const PERSON: &[(&str, Kind)] = &[
    ("id", Number),
    ("name", Text),
    ("email_address", Text),
    ("credit_card", Text),
    ("city", Text),
    ("state", Text),
    ("date_time", Time),
    ("extra", Text),
];

const AUCTION: &[(&str, Kind)] = &[
    ("id", Number),
    ("item_name", Text),
    ("description", Text),
    ("initial_bid", Number),
    ("reserve", Number),
    ("date_time", Time),
    ("expires", Time),
    ("seller", Number),
    ("category", Number),
    ("extra", Text),
];

const BID: &[(&str, Kind)] = &[
    ("auction", Number),
    ("bidder", Number),
    ("price", Number),
    ("channel", Text),
    ("url", Text),
    ("date_time", Time),
    ("extra", Text),
];

impl Table {
    /// The names of the tables.
    pub const NAMES: [&'static str; 3] = ["person", "auction", "bid"];

    /// Returns the table with this name.
    pub fn named(name: &str) -> Table {
        match name {
            "person" => Table::Person,
            "auction" => Table::Auction,
            _ => Table::Bid,
        }
    }

    /// Returns the kind of the table's events.
    pub fn event_type(self) -> EventType {
        match self {
            Table::Person => EventType::Person,
            Table::Auction => EventType::Auction,
            Table::Bid => EventType::Bid,
        }
    }

    /// Returns the approximate size of a row in bytes.
    pub fn row_bytes(self) -> usize {
        match self {
            Table::Person => 300,
            Table::Auction => 600,
            Table::Bid => 200,
        }
    }

    fn columns(self) -> &'static [(&'static str, Kind)] {
        match self {
            Table::Person => PERSON,
            Table::Auction => AUCTION,
            Table::Bid => BID,
        }
    }
}

impl Kind {
    /// Returns the type of a column that was not declared. Times have the unit.
    fn data_type(self, unit: TimeUnit) -> DataType {
        match self {
            Number => DataType::Int64,
            Text => DataType::Utf8View,
            Time => DataType::Timestamp(unit, None),
        }
    }

    /// Returns true if a column may be declared as `data_type`.
    fn fits(self, data_type: &DataType) -> bool {
        match self {
            Number => *data_type == DataType::Int64,
            Text => matches!(data_type, DataType::Utf8View | DataType::Utf8),
            Time => matches!(data_type, DataType::Timestamp(..)),
        }
    }
}

/// The columns of a source: all of its table, or the declared ones.
pub(super) struct Layout {
    schema: SchemaRef,
    /// The number of each column in the table.
    places: Vec<usize>,
}

impl Layout {
    /// Creates the layout with the columns that `spec` declares, or else all of `table`.
    pub fn new(table: Table, spec: &SourceSpec) -> Result<Layout> {
        let columns = table.columns();
        let Some(schema) = spec.columns.clone().filter(|declared| !declared.fields().is_empty()) else {
            let field =
                |(name, kind): &(&str, Kind)| Field::new(*name, kind.data_type(spec.timestamp_unit), false);
            let fields: Vec<Field> = columns.iter().map(field).collect();
            let places = (0..columns.len()).collect();
            return Ok(Layout { schema: Arc::new(Schema::new(fields)), places });
        };
        let places =
            schema.fields().iter().map(|field| place(columns, field, &spec.name)).collect::<Result<_>>()?;
        Ok(Layout { schema, places })
    }

    /// Returns the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the rows among the events `from..to`.
    pub fn batch(&self, events: &Events, from: u64, to: u64) -> Result<RecordBatch> {
        let count = events.count(from, to);
        let kinds = events.table().columns();
        let mut columns: Vec<Column> = self
            .places
            .iter()
            .zip(self.schema.fields())
            .map(|(place, field)| Column::new(kinds[*place].1, field.data_type(), count))
            .collect();
        for event in events.between(from, to) {
            for (column, place) in columns.iter_mut().zip(&self.places) {
                match &event {
                    Event::Person(person) => add_person(column, *place, person),
                    Event::Auction(auction) => add_auction(column, *place, auction),
                    Event::Bid(bid) => add_bid(column, *place, bid),
                }
            }
        }
        let columns = columns.into_iter().map(Column::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::Bug(format!("nexmark made rows of another schema: {error}")))
    }
}

/// Returns the number of a declared column in the table.
fn place(columns: &[(&str, Kind)], field: &Field, source: &str) -> Result<usize> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let Some(place) = names.iter().position(|name| name.eq_ignore_ascii_case(field.name())) else {
        let distance = |name: &&&str| strsim::damerau_levenshtein(name, field.name());
        let near = names.iter().min_by_key(distance).filter(|name| distance(name) <= 3);
        let near = near.map_or_else(String::new, |near| format!(" Did you mean '{near}'?"));
        return Err(Error::Invalid(format!(
            "source '{source}' declares column '{}', which the table doesn't have.{near} Its columns are: {}.",
            field.name(),
            names.join(", ")
        )));
    };
    let kind = columns[place].1;
    if !kind.fits(field.data_type()) {
        return Err(Error::Invalid(format!(
            "column '{}' of source '{source}' is declared as {}, but {} was expected",
            field.name(),
            sql_type(field.data_type()),
            sql_type(&kind.data_type(TimeUnit::Microsecond))
        )));
    }
    Ok(place)
}

/// A builder of one column.
enum Column {
    Numbers(Vec<i64>),
    Texts(StringViewBuilder, DataType),
    /// In milliseconds since 1970.
    Times(Vec<i64>, DataType),
}

impl Column {
    fn new(kind: Kind, data_type: &DataType, count: usize) -> Column {
        match kind {
            Number => Column::Numbers(Vec::with_capacity(count)),
            Text => Column::Texts(StringViewBuilder::with_capacity(count), data_type.clone()),
            Time => Column::Times(Vec::with_capacity(count), data_type.clone()),
        }
    }

    /// Adds a number; event numbers are far below the maximum of an i64.
    fn number(&mut self, number: usize) {
        if let Column::Numbers(numbers) = self {
            numbers.push(number as i64);
        }
    }

    fn text(&mut self, text: &str) {
        if let Column::Texts(texts, _) = self {
            texts.append_value(text);
        }
    }

    fn time(&mut self, time_ms: u64) {
        if let Column::Times(times, _) = self {
            times.push(i64::try_from(time_ms).unwrap_or(i64::MAX));
        }
    }

    fn finish(self) -> Result<ArrayRef> {
        match self {
            Column::Numbers(numbers) => Ok(Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(numbers))),
            Column::Texts(mut texts, DataType::Utf8) => {
                Ok(Arc::new(texts.finish().iter().collect::<StringArray>()))
            }
            Column::Texts(mut texts, _) => Ok(Arc::new(texts.finish())),
            Column::Times(times, data_type) => match &data_type {
                DataType::Timestamp(TimeUnit::Second, _) => {
                    let seconds = times.into_iter().map(|time| time.div_euclid(1000)).collect();
                    Ok(in_units::<TimestampSecondType>(seconds, data_type))
                }
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    Ok(in_units::<TimestampMicrosecondType>(finer(times, 1000)?, data_type))
                }
                DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                    Ok(in_units::<TimestampNanosecondType>(finer(times, 1_000_000)?, data_type))
                }
                _ => Ok(in_units::<TimestampMillisecondType>(times, data_type)),
            },
        }
    }
}

fn in_units<T: ArrowPrimitiveType<Native = i64>>(times: Vec<i64>, data_type: DataType) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(times.into(), None).with_data_type(data_type))
}

/// Converts times to a finer unit.
fn finer(mut times: Vec<i64>, factor: i64) -> Result<Vec<i64>> {
    for time in &mut times {
        *time = time.checked_mul(factor).ok_or_else(|| {
            Error::Invalid(format!(
                "an event is {time} ms after 1970, which is beyond its column's type: declare the column as \
                 TIMESTAMP(3), or make 'event_gap' shorter"
            ))
        })?;
    }
    Ok(times)
}

/// Adds one value of a person, by the column's number in the table.
fn add_person(column: &mut Column, place: usize, person: &Person) {
    match place {
        0 => column.number(person.id),
        1 => column.text(&person.name),
        2 => column.text(&person.email_address),
        3 => column.text(&person.credit_card),
        4 => column.text(&person.city),
        5 => column.text(&person.state),
        6 => column.time(person.date_time),
        _ => column.text(&person.extra),
    }
}

/// Adds one value of an auction, by the column's number in the table.
fn add_auction(column: &mut Column, place: usize, auction: &Auction) {
    match place {
        0 => column.number(auction.id),
        1 => column.text(&auction.item_name),
        2 => column.text(&auction.description),
        3 => column.number(auction.initial_bid),
        4 => column.number(auction.reserve),
        5 => column.time(auction.date_time),
        6 => column.time(auction.expires),
        7 => column.number(auction.seller),
        8 => column.number(auction.category),
        _ => column.text(&auction.extra),
    }
}

/// Adds one value of a bid, by the column's number in the table.
fn add_bid(column: &mut Column, place: usize, bid: &Bid) {
    match place {
        0 => column.number(bid.auction),
        1 => column.number(bid.bidder),
        2 => column.number(bid.price),
        3 => column.text(&bid.channel),
        4 => column.text(&bid.url),
        5 => column.time(bid.date_time),
        _ => column.text(&bid.extra),
    }
}
