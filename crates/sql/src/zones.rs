//! Time zones in Arrow's types.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};

/// The time zone of a session that sets none.
pub(crate) const UTC: &str = "+00:00";

/// Returns the type with the zone in place of UTC. Columns of other zones keep theirs.
pub fn in_zone(data_type: &DataType, zone: &str) -> DataType {
    let inner = |field: &FieldRef| {
        let inner = in_zone(field.data_type(), zone);
        Arc::new(field.as_ref().clone().with_data_type(inner))
    };
    match data_type {
        DataType::Timestamp(unit, Some(of)) if is_utc(of) => DataType::Timestamp(*unit, Some(zone.into())),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// Returns true for the names of UTC in Arrow's types.
pub(crate) fn is_utc(zone: &str) -> bool {
    [UTC, "UTC", "Z", "Etc/UTC", "GMT"].contains(&zone)
}
