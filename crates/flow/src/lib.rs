//! Compiles a logical plan to incremental operators and steps them one epoch at a time.
//!
//! [`Flow::compile`] plans once; [`Flow::step`] turns the deltas of a query's inputs into the delta of its
//! result and plans nothing. Operators are synchronous, do no IO and read no clock.
//!
//! Deliberately absent: the epoch loop, the catalog and anything that parses SQL; see the crates `engine` and
//! `sql`.

mod arrangement;
mod batch_window;
mod change;
mod common_part;
mod content;
mod dag;
mod driver;
mod error;
mod event_time;
#[cfg(test)]
mod example_operator;
mod explain;
mod expressions;
mod failing_rows;
mod failure;
mod failure_search;
#[cfg(test)]
mod fixture;
mod flow;
mod guard;
mod interrupt;
mod late_rows;
mod leaf;
mod limits;
mod lower;
mod meter;
mod operator;
pub mod operators;
mod order;
mod parallelism;
mod persistence;
mod point_lookup;
mod provenance;
mod recursion;
#[cfg(test)]
mod restarts;
mod row_stages;
mod sharing;
mod sorted;
mod succession;

pub use arrangement::{Arrangement, By};
pub use batch_window::BatchWindow;
pub use change::Change;
pub use common_part::{CommonPart, Divided, Sharer, part_hashes};
pub use content::ResultState;
pub use driver::Driver;
pub use error::{Error, Result};
pub use event_time::{BatchTime, Called, Edge, EventTime};
pub use explain::{Explained, ExplainedState, NodePlace};
pub use failing_rows::{FailingRows, FailingStage, StageOver};
pub use failure::{ERRORS, Failure};
pub use flow::{Flow, Inputs, operator_name};
pub use guard::guarded;
pub use interrupt::Interrupt;
pub use late_rows::{Late, Lateness};
pub use limits::Limits;
pub use lower::{Choice, Relation, Resolve};
pub use meter::Meter;
pub use operator::{
    Abilities, ArrangesSides, ClosesWindows, Content, Cost, Counted, Description, ExpiresKeys, Forgotten,
    Growth, KeepsResult, KeyedBy, KeyedState, Operator, Output, Properties, RetainsClosed, RowByRow, State,
    Timers,
};
pub use operators::update_state::holds_update_state;
pub use order::Order;
pub use parallelism::Threads;
pub use point_lookup::{Wanted, keys_wanted};
pub use recursion::bound_recursion;
pub use row_stages::RowStages;
pub use sharing::{PersistedArrangement, Reader, Shareable, Sharing, needs_content, share_rows};
pub use sorted::Ordering;
pub use succession::{StateCopy, Succession};
