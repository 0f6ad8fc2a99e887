//! The traits of connectors, sources and sinks, the formats, and the connectors without heavy dependencies.
//!
//! A connector author needs this crate and Arrow only: nothing here names DataFusion.

pub mod connectors;
pub mod formats;

mod by_key;
mod channel;
mod deletes;
mod error;
mod health;
mod message_encoder;
mod messages;
mod numbered;
mod options;
mod pace;
mod receiver;
mod registry;
mod sink;
mod source;

pub use by_key::{ByKey, Paired, Places, columns_named};
pub use channel::{Sender, channel};
pub use deletes::{Changes, deleted_field};
pub use error::{Error, Result};
pub use formats::AvroEncoder;
pub use health::{Health, Reach};
pub use message_encoder::{
    ENCODER_OPTIONS, EncodedMessages, EpochTime, MessageEncoder, MessageRows, has_text, texts_or_bytes,
};
pub use messages::{DecodedMessages, MESSAGE_OPTIONS, Message, MessageDecoder, MessageFormat, Messages};
pub use options::{OptionDoc, Options};
pub use receiver::FORMAT_OPTIONS;
pub use registry::{RegisteredSchema, SchemaRegistry};
pub use sink::{Delivery, Sink, SinkSpec};
pub use source::{
    Arrival, BadRow, HIDDEN, Inlet, Jump, Limit, More, Reading, Source, SourceProperties, SourceSpec,
};

use std::fmt::Debug;

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;

/// A kind of external system that rows come from or go to. One value serves all objects of that kind.
///
/// A connector implements its name, its summary, and [`Connector::source`], [`Connector::sink`] or both, with the options
/// of each.
#[async_trait]
pub trait Connector: Send + Sync + Debug {
    /// Returns the name for `connector = '…'`.
    fn name(&self) -> &'static str;
    /// Returns one sentence for the reference page.
    fn summary(&self) -> &'static str;
    /// Returns the options of a source; empty if it has none.
    fn source_options(&self) -> &'static [OptionDoc] {
        &[]
    }
    /// Returns the options of a sink; empty if it has none.
    fn sink_options(&self) -> &'static [OptionDoc] {
        &[]
    }
    /// Returns the columns that sources with these options have after the declared ones, unless one of these has the same
    /// name. A watermark may be of one of them. By default there are none.
    fn more_columns(&self, _options: &Options) -> Result<Vec<FieldRef>> {
        Ok(Vec::new())
    }
    /// Returns the parts of a new source's definition that its statement leaves to another system, where they may change:
    /// the engine adds those of now to the statement. May wait for that system. By default there are none.
    fn findings(&self, _spec: &SourceSpec) -> Result<Findings> {
        Ok(Findings::default())
    }
    /// Checks the input of a new source, and fails if there is nothing to read and never will be. Called once, before the
    /// engine adds the source. Unlike [`Connector::source`] it doesn't run when an engine starts again.
    fn check_source(&self, _spec: &SourceSpec) -> Result<()> {
        Ok(())
    }
    /// Opens a source. The names of its options were checked against [`Connector::source_options`]. Called
    /// again with the same spec for a second reader of a replayable source. By default the connector has no source.
    fn source(&self, _spec: &SourceSpec) -> Result<Box<dyn Source>> {
        Err(has_no("source", self.name(), "sink"))
    }
    /// Checks the target of a new sink, and fails if the sink can't deliver there: a missing table, a
    /// column of another type. Called once, before the engine adds the sink, with options whose names were
    /// checked. The spec doesn't yet say if the relation is append-only, or its key. Unlike
    /// [`Connector::sink`], this may wait for external systems; `sink` also runs when an engine starts
    /// again, whatever is reachable then.
    async fn check_sink(&self, _spec: &SinkSpec) -> Result<()> {
        Ok(())
    }
    /// Opens a sink. The names of its options were checked against [`Connector::sink_options`]. By default the connector
    /// has no sink.
    fn sink(&self, _spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Err(has_no("sink", self.name(), "source"))
    }
}

/// Parts of a source's definition that its statement doesn't have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The columns of a source that declares none.
    pub columns: Option<SchemaRef>,
    /// Options, with their values.
    pub options: Vec<(String, String)>,
}

/// Returns the error of a connector that has no source or no sink.
fn has_no(side: &str, connector: &str, other: &str) -> Error {
    Error::Invalid(format!(
        "connector '{connector}' has no {side}: it works in CREATE {} only",
        other.to_uppercase()
    ))
}
