//! The incremental operators, one a file.

pub mod aggregate;
pub mod broadcast;
pub mod constant;
pub mod per_key;
pub mod stateless;
pub mod union;
pub mod update_state;
pub mod whole;
