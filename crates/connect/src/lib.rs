//! The Source, Sink and Format contracts, and the light connectors.
//!
//! A connector author needs this crate and Arrow only: nothing here names DataFusion.

pub mod connectors;
pub mod formats;

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

pub use channel::{Sender, channel};
pub use deletes::{Changes, deleted_field};
pub use error::{Error, Result};
pub use health::Health;
pub use options::{OptionDoc, Options};
pub use sink::{Delivery, Sink, SinkSpec};
pub use source::{Arrival, BadRow, HIDDEN, Inlet, Limit, More, Reading, Source, SourceSpec};

use std::fmt::Debug;

/// A kind of system that rows come from or go to; one value serves all objects of that kind.
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
    /// Opens a sink. Called with options whose names were checked against [`Connector::sink_options`].
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>>;
}
