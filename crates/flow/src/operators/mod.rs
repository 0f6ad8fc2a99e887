//! The incremental operators, one file or folder each.

pub mod aggregate;
pub mod broadcast;
pub mod closing;
pub mod constant;
pub mod join;
pub mod look_up;
pub mod over;
pub mod per_key;
pub mod recursion;
pub mod session;
pub mod state_ttl;
pub mod stateless;
pub mod temporal_filter;
pub mod top_n;
pub mod union;
pub mod update_state;
pub mod whole;
