//! The connector `kafka`: reads and writes topics.
//!
//! **Sources** (`source.rs`): the engine keeps the offsets; nothing depends on a consumer group. Each partition is a split,
//! and an epoch's spans are offsets. A span can be read again as long as the broker keeps its records, so the engine
//! journals no rows.
//!
//! **Sinks** (`sink.rs`): one transaction sends the messages of an epoch and the epoch's number, which `progress.rs` reads
//! after a crash.
//!
//! Deliberately absent: TLS, and new topics of a pattern.

mod consumer;
mod intake;
mod options;
mod partition;
mod producer;
mod progress;
mod replay;
mod rows;
mod sink;
mod sink_options;
mod source;

use async_trait::async_trait;
use millstream_connect::{Connector, Error, OptionDoc, Result, Sink, SinkSpec, Source, SourceSpec};
use tokio::task::spawn_blocking;

use crate::sink_options::SinkSettings;

/// The connector `kafka`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kafka;

#[async_trait]
impl Connector for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn summary(&self) -> &'static str {
        "Reads and writes topics of Kafka. The engine keeps the offsets, so that each record counts exactly once, and a \
         sink sends each epoch in one transaction."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        options::SOURCE_OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(source::KafkaSource::new(spec)?))
    }

    fn sink_options(&self) -> &'static [OptionDoc] {
        sink_options::SINK_OPTIONS
    }

    async fn check_sink(&self, spec: &SinkSpec) -> Result<()> {
        let settings = SinkSettings::of(spec)?;
        progress::check_target(&settings).await?;
        if !settings.exactly_once {
            return Ok(());
        }
        let held = {
            let settings = settings.clone();
            spawn_blocking(move || progress::read(&settings)).await
        };
        match held.map_err(|error| Error::Bug(error.to_string()))?? {
            None => Ok(()),
            Some(held) => Err(progress::is_of_before(&settings, &held)),
        }
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Ok(Box::new(sink::KafkaSink::new(spec)?))
    }
}
