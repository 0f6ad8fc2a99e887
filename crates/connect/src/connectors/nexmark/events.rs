//! Selects and generates the events of one table.

use std::ops::Range;

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

use super::table::Table;

/// The events of one table among all events.
pub(super) struct Events {
    table: Table,
    generator: EventGenerator,
    /// Length of the cycle of event kinds.
    all: u64,
    /// Places in the cycle that belong to this table.
    places: Range<u64>,
}

impl Events {
    /// Creates the events of `table`. Event 0 is at `first_ms` since 1970; each further one is `gap_us`
    /// later.
    pub fn new(table: Table, first_ms: u64, gap_us: u64) -> Events {
        let config = NexmarkConfig {
            base_time: first_ms,
            // One event in a unit of `gap_us` microseconds allows any gap; the crate's default is a rate a
            // second.
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

    /// Returns the table of these events.
    pub fn table(&self) -> Table {
        self.table
    }

    fn places_count(&self) -> u64 {
        self.places.end - self.places.start
    }

    /// Returns the number of rows before event `event`.
    fn rows_before(&self, event: u64) -> u64 {
        let place = (event % self.all).clamp(self.places.start, self.places.end);
        event / self.all * self.places_count() + place - self.places.start
    }

    /// Returns the event of row `row`.
    fn event_of(&self, row: u64) -> u64 {
        let count = self.places_count();
        (row / count).saturating_mul(self.all).saturating_add(self.places.start + row % count)
    }

    /// Returns the event of the next row after `rows` rows from event `from` on.
    pub fn after_rows(&self, from: u64, rows: u64) -> u64 {
        self.event_of(self.rows_before(from).saturating_add(rows))
    }

    /// Returns the number of rows among the events `from..to`.
    pub fn count(&self, from: u64, to: u64) -> usize {
        (self.rows_before(to) - self.rows_before(from)) as usize
    }

    /// Returns the rows among the events `from..to`, in order.
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
