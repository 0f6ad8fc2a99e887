//! Which events are rows of a table, and the events themselves.

use std::ops::Range;

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

use super::table::Table;

/// The events of one table among all events.
pub(super) struct Events {
    table: Table,
    generator: EventGenerator,
    /// Of so many events in a row ...
    all: u64,
    /// ... those at these places are of this table.
    places: Range<u64>,
}

impl Events {
    /// The events of `table`, where event 0 is at `first_ms` since 1970 and the others follow by `gap_us` each.
    pub fn new(table: Table, first_ms: u64, gap_us: u64) -> Events {
        let config = NexmarkConfig {
            base_time: first_ms,
            // One event in a unit of so many microseconds is any gap; the default is a rate in a second.
            us_per_unit: gap_us as usize,
            first_rate: 1,
            next_rate: 1,
            ..NexmarkConfig::default()
        };
        let counts = [config.person_proportion, config.auction_proportion, config.bid_proportion];
        let [persons, auctions, bids] = counts.map(|count| count as u64);
        let all = persons + auctions + bids;
        let places = match table {
            Table::Person => 0..persons,
            Table::Auction => persons..persons + auctions,
            Table::Bid => persons + auctions..all,
        };
        let generator = EventGenerator::new(config).with_type_filter(table.event_type());
        Events { table, generator, all, places }
    }

    /// The table whose rows they are.
    pub fn table(&self) -> Table {
        self.table
    }

    fn places_count(&self) -> u64 {
        self.places.end - self.places.start
    }

    /// How many rows come before event `event`.
    fn rows_before(&self, event: u64) -> u64 {
        let place = (event % self.all).clamp(self.places.start, self.places.end);
        event / self.all * self.places_count() + place - self.places.start
    }

    /// The event which is the row `row`.
    fn event_of(&self, row: u64) -> u64 {
        let count = self.places_count();
        (row / count).saturating_mul(self.all).saturating_add(self.places.start + row % count)
    }

    /// The event after the last one of `rows` rows from event `from` on: the next row.
    pub fn after_rows(&self, from: u64, rows: u64) -> u64 {
        self.event_of(self.rows_before(from).saturating_add(rows))
    }

    /// How many rows there are among the events `from..to`.
    pub fn count(&self, from: u64, to: u64) -> usize {
        (self.rows_before(to) - self.rows_before(from)) as usize
    }

    /// The rows among the events `from..to`, in order.
    pub fn between(&self, from: u64, to: u64) -> impl Iterator<Item = Event> {
        self.generator.clone().with_offset(self.rows_before(from)).take(self.count(from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_events_are_counted_alike() {
        for table in [Table::Person, Table::Auction, Table::Bid] {
            let events = Events::new(table, 0, 100);
            let mut rows = 0;
            for event in 0..200 {
                assert_eq!(events.rows_before(event), rows, "{table:?} before {event}");
                if events.places.contains(&(event % 50)) {
                    assert_eq!(events.event_of(rows), event, "{table:?}");
                    rows += 1;
                }
            }
        }
    }

    #[test]
    fn fifty_events_are_one_person_three_auctions_and_bids() {
        let counts = [Table::Person, Table::Auction, Table::Bid]
            .map(|table| Events::new(table, 0, 100).between(0, 1000).count());
        assert_eq!(counts, [20, 60, 920]);
    }
}
