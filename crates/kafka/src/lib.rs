//! The connector `kafka`: reads topics. The engine keeps the offsets; nothing depends on a consumer group.
//!
//! Each partition is a split, and an epoch's spans are offsets. A span can be read again as long as the broker keeps its
//! records, so the engine journals no rows.
//!
//! Deliberately absent: a sink, TLS, and new topics of a pattern.

mod consumer;
mod intake;
mod options;
mod partition;
mod replay;
mod rows;
mod source;

use async_trait::async_trait;
use millstream_connect::{Connector, OptionDoc, Result, Source, SourceSpec};

/// The connector `kafka`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kafka;

#[async_trait]
impl Connector for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn summary(&self) -> &'static str {
        "Reads topics of Kafka. The engine keeps the offsets, so that each record counts exactly once."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        options::SOURCE_OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(source::KafkaSource::new(spec)?))
    }
}
