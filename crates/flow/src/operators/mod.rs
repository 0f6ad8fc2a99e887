//! The incremental operators, one file or folder each.

pub mod aggregate;
pub mod broadcast;
pub mod constant;
pub mod emit_on_close;
pub mod full_recompute;
pub mod join;
pub mod lookup_join;
pub mod over;
pub mod partition_recompute;
pub mod recursion;
pub mod session;
pub mod state_ttl;
pub mod stateless;
pub mod temporal_filter;
pub mod top_n;
pub mod union;
pub mod update_state;
