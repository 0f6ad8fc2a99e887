//! The position of a source, as of its arrivals and as of the epochs.

use millstream_delta::{Position, Span};
use millstream_sql::{Error, Result};

/// How far a source was read: by epochs, and, if its sender repeats rows, by arrivals. Drops arrivals that came before.
#[derive(Debug, Default)]
pub(in crate::run) struct SourcePosition {
    /// The position up to which epochs have taken rows.
    taken: Position,
    /// The position up to which rows have arrived, if the sender may repeat them.
    received: Position,
    /// The number of rows that arrived again and were dropped.
    duplicates: u64,
}

impl SourcePosition {
    /// Returns the position up to which epochs have taken rows.
    pub(in crate::run) fn taken(&self) -> &Position {
        &self.taken
    }

    /// Returns true if no epoch has taken a span.
    pub(in crate::run) fn is_start(&self) -> bool {
        self.taken.splits.is_empty()
    }

    /// Returns the number of rows that arrived again and were dropped.
    pub(in crate::run) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Records spans that an epoch took.
    pub(in crate::run) fn take(&mut self, spans: &[Span]) {
        spans.iter().for_each(|span| self.taken.advance(span));
    }

    /// Records an arrival of a sender that may repeat rows. Returns false if all of it had arrived before.
    pub(super) fn receive(&mut self, spans: &[Span], rows: usize) -> Result<bool> {
        if seen_before(&self.received, spans)? {
            self.duplicates += rows as u64;
            return Ok(false);
        }
        spans.iter().for_each(|span| self.received.advance(span));
        Ok(true)
    }

    /// Continues after the rows that epochs had taken before the engine was started.
    pub(super) fn go_on(&mut self) {
        self.received = self.taken.clone();
    }

    /// Loads what a checkpoint saved.
    pub(super) fn load(&mut self, taken: &[Span], duplicates: u64) {
        self.take(taken);
        self.duplicates = duplicates;
    }
}

/// Returns true if a reliable source has delivered all of this before; fails if it has delivered only a part.
fn seen_before(received: &Position, spans: &[Span]) -> Result<bool> {
    let through = |span: &Span| received.splits.get(&span.split).map_or(0, |progress| progress.through);
    let old = spans.iter().filter(|span| span.from < span.to && span.to <= through(span)).count();
    if old > 0 && old == spans.len() {
        return Ok(true);
    }
    match spans.iter().find(|span| span.from < through(span)) {
        None => Ok(false),
        Some(span) => Err(Error::invalid(format!(
            "it delivered {}..{} of split '{}' after it had delivered that up to {}: repeated rows must be delivered \
             separately from new ones",
            span.from,
            span.to,
            span.split,
            through(span)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Vec<Span> {
        vec![Span { split: "a".into(), from, to, done: false }]
    }

    #[test]
    fn arrivals_that_came_before_are_dropped_and_counted() {
        let mut position = SourcePosition::default();
        assert_eq!(position.receive(&span(0, 4), 4), Ok(true));
        assert_eq!(position.receive(&span(1, 3), 2), Ok(false));
        assert_eq!(position.receive(&span(4, 6), 2), Ok(true));
        assert!(position.receive(&span(5, 8), 3).is_err_and(|error| error.message.contains("up to 6")));
        assert_eq!((position.duplicates(), position.is_start()), (2, true));
        // After a start, the rows of epochs count as received.
        let mut again = SourcePosition::default();
        again.load(&span(0, 4), 2);
        again.go_on();
        assert_eq!((again.receive(&span(2, 4), 2), again.duplicates()), (Ok(false), 4));
        assert!(!again.is_start());
    }
}
