//! The connector `blackhole`: a sink that counts rows and keeps none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};

use crate::{Connector, Result, Sink, SinkSpec};

/// Accepts all rows and discards them.
#[derive(Clone, Debug, Default)]
pub struct Blackhole {
    rows: Arc<AtomicU64>,
}

impl Blackhole {
    /// Returns the number of changed rows that all sinks of this connector received, counting each copy.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

impl Connector for Blackhole {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn summary(&self) -> &'static str {
        "Discards all rows, to measure the query that feeds it."
    }

    fn sink(&self, _spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Ok(Box::new(BlackholeSink { rows: self.rows.clone(), last: Epoch(0) }))
    }
}

struct BlackholeSink {
    rows: Arc<AtomicU64>,
    last: Epoch,
}

#[async_trait]
impl Sink for BlackholeSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        for chunk in &delta.chunks {
            let rows = match &chunk.weights {
                None => chunk.rows.num_rows() as u64,
                Some(weights) => weights.values().iter().map(|weight| weight.unsigned_abs()).sum(),
            };
            self.rows.fetch_add(rows, Ordering::Relaxed);
        }
        self.last = cut.epoch;
        Ok(())
    }

    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        Ok(through)
    }

    async fn recover(&mut self) -> Result<Epoch> {
        Ok(self.last)
    }
}
