//! The change of a relation, and the epoch in which it happened.
//!
//! A relation is a log of [`Delta`]s, one per [`Epoch`]. A delta holds [`Chunk`]s: Arrow record batches with
//! an optional weight per row. Each epoch is determined by its [`Cut`], a plain value that can be recorded
//! and replayed.
//!
//! Deliberately absent: anything that stores, indexes or evaluates rows; see the crates `state` and `flow`.

mod bit_type;
mod canonical;
mod chunk;
mod cut;
mod digest;
mod dyadic;
mod encode;
mod expansion;
mod fitted;
mod interval_total;
mod moments;
mod pool;
mod sql_type;
mod stack;
mod threads;
mod total_order;

pub use bit_type::BitType;
pub use canonical::{
    canonical, canonical_f16, canonical_f32, canonical_f64, contains_floats, has_equal_forms, one_form,
};
pub use chunk::{Chunk, Delta, under_schema};
pub use cut::{Closes, Cut, Epoch, Mark, Position, Progress, Span, Standing, Timestamp};
pub use digest::{Digest, NoDigest};
pub use encode::{RowEncoder, consolidate};
pub use expansion::Expansion;
pub use fitted::fitted;
pub use interval_total::IntervalTotal;
pub use moments::{Moments, Statistic};
pub use pool::Pool;
pub use sql_type::{
    checks_of, declared, declared_type, default_of, enum_parts, enum_type, exact_sql_type, exact_sql_type_of,
    generated_of, identity_of, indexes_of, sql_type, sql_type_of, type_alone, undeclared, with_check,
    with_default, with_generated, with_identity, with_index, without_check, without_identity, without_index,
};
pub use stack::{STACK_BYTES, on_large_stack};
pub use threads::{drop_on_thread, spawn_detached};
pub use total_order::{OrderedType, TotalOrder, interval_length};
