//! The connector `kafka`: reads and writes topics.
//!
//! **Sources** (`source.rs`): the engine keeps the offsets; nothing depends on a consumer group. Each partition is a split,
//! and an epoch's spans are offsets. A span can be read again as long as the broker keeps its records, so the engine
//! journals no rows.
//!
//! **Sinks** (`sink.rs`): one transaction sends the messages of an epoch and the epoch's number, which `progress.rs` reads
//! after a crash.
//!
//! TLS and SASL come with the feature `tls`, see docs/design/tls-for-kafka.md.

mod commits;
mod consumer;
mod ends;
mod intake;
mod lost;
mod options;
mod partition;
mod producer;
mod progress;
mod replay;
mod rows;
mod sample;
mod sink;
mod sink_options;
mod source;
mod tokens;
mod topic_ids;
mod topics;

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use millstream_connect::{
    Connector, Findings, OptionDoc, Options, Result, SchemaRegistry, Sink, SinkSpec, Source, SourceSpec,
};

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

    fn more_columns(&self, options: &Options) -> Result<Vec<FieldRef>> {
        rows::more_columns(options)
    }

    fn findings(&self, spec: &SourceSpec) -> Result<Findings> {
        let columns = if spec.columns.is_none() { sample::columns(spec)? } else { None };
        Ok(Findings { columns, ..Findings::default() })
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(source::KafkaSource::new(spec)?))
    }

    fn sink_options(&self) -> &'static [OptionDoc] {
        sink_options::SINK_OPTIONS
    }

    async fn check_sink(&self, spec: &SinkSpec) -> Result<()> {
        let settings = SinkSettings::of(spec)?;
        producer::check(&settings)?;
        if let Some(registry) = &settings.registry {
            // It must answer; the sink registers its schemas later.
            registry.latest(&format!("{}-value", settings.topic)).await?;
        }
        progress::check_target(&settings).await?;
        match settings.exactly_once {
            true => progress::prepare(&settings).await,
            false => Ok(()),
        }
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Ok(Box::new(sink::KafkaSink::new(spec)?))
    }
}
