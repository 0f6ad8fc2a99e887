//! The Source, Sink and Format contracts, and the light connectors.
//!
//! A connector author needs this crate and Arrow only: nothing here names DataFusion.

pub mod connectors;
pub mod formats;

mod by_key;
mod channel;
mod deletes;
mod error;
mod health;
mod numbered;
mod options;
mod pace;
mod receiver;
mod sink;
mod source;

pub use by_key::{ByKey, Paired, Places};
pub use channel::{Sender, channel};
pub use deletes::{Changes, deleted_field};
pub use error::{Error, Result};
pub use health::Health;
pub use options::{OptionDoc, Options};
pub use sink::{Delivery, Sink, SinkSpec};
pub use source::{Arrival, BadRow, HIDDEN, Inlet, Limit, More, Reading, Source, SourceSpec};

use std::fmt::Debug;

use async_trait::async_trait;

/// A kind of system that rows come from or go to; one value serves all objects of that kind.
#[async_trait]
pub trait Connector: Send + Sync + Debug {
    /// What `connector = '…'` says.
    fn name(&self) -> &'static str;
    /// One sentence for the reference page.
    fn summary(&self) -> &'static str;
    /// The options a source of this kind takes; empty where it has no source.
    fn source_options(&self) -> &'static [OptionDoc];
    /// The options a sink of this kind takes; empty where it has no sink.
    fn sink_options(&self) -> &'static [OptionDoc];
    /// Opens a source. Called with options whose names were checked against [`Connector::source_options`].
    /// Also called again, with the same spec, for a second reader of a source that can be read again.
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>>;
    /// Looks at what a sink that is to be made would deliver to, and fails where it can't: a table that isn't there, a
    /// column of another type. Called once, before the sink is part of an engine, with options whose names were checked;
    /// whether the relation only appends and what its key is isn't known yet. It may wait for the outside, which
    /// [`Connector::sink`] may not: that is called also when an engine starts again, whatever is there then.
    async fn check_sink(&self, _spec: &SinkSpec) -> Result<()> {
        Ok(())
    }
    /// Opens a sink. Called with options whose names were checked against [`Connector::sink_options`].
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>>;
}
