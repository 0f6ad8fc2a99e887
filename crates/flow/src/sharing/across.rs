//! Arrangements that several flows read.

use std::sync::Arc;

use millstream_delta::Delta;

use super::Lookups;
use crate::Result;
use crate::arrangement::Arrangement;
use crate::flow::Flow;

/// A flow that looks rows up by a key, and the place of these rows among those that it may share.
pub type Reader<'a> = (&'a mut Flow, usize);

/// Returns the columns that readers of the same rows read, ascending.
fn columns_of<'a>(readers: impl Iterator<Item = (&'a Lookups, usize)>) -> Vec<usize> {
    let mut columns: Vec<usize> =
        readers.flat_map(|(lookups, place)| lookups.places[place].columns()).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Returns true if no reader of the same rows by the same key keeps all columns that the readers read
/// together.
pub fn needs_content(readers: &[(&Flow, usize)]) -> bool {
    let columns = columns_of(readers.iter().map(|(flow, place)| (&flow.dag.lookups, *place)));
    let has = |(flow, place): &(&Flow, usize)| {
        let lookups = &flow.dag.lookups;
        lookups.shared_with(*place, &columns).is_some()
            || (flow.dag.started && lookups.keeps_all(*place, &columns))
    };
    !readers.iter().any(has)
}

/// Lets readers of the same rows by the same key share one arrangement, between two epochs; the next epoch
/// must not be `version`. All readers have had the same rows, or were not stepped yet and will get them in
/// their first step. `content` has these rows with all columns of the relation; it is required if
/// [`needs_content`].
pub fn share_rows(
    readers: &mut [Reader<'_>],
    version: u64,
    content: Option<&Delta>,
) -> Result<Option<Arc<Arrangement>>> {
    let columns = columns_of(readers.iter().map(|(flow, place)| (&flow.dag.lookups, *place)));
    let shared = readers.iter().find_map(|(flow, place)| flow.dag.lookups.shared_with(*place, &columns));
    let keeps = |(flow, place): &Reader<'_>| flow.dag.started && flow.dag.lookups.keeps_all(*place, &columns);
    let donor = readers.iter().position(keeps);
    let arrangement = match (shared, donor, content) {
        (Some(shared), ..) => shared,
        (None, Some(donor), _) => {
            let (flow, place) = &mut readers[donor];
            flow.sharing().arranged(*place, &columns)?
        }
        (None, None, Some(content)) => {
            let Some((flow, place)) = readers.first_mut() else { return Ok(None) };
            flow.sharing().arrange(*place, columns.clone(), content)?
        }
        (None, None, None) => return Ok(None),
    };
    arrangement.settle(version)?;
    for (flow, place) in readers.iter_mut() {
        let there = flow.dag.lookups.shared_with(*place, &columns);
        if there.is_none_or(|there| !Arc::ptr_eq(&there, &arrangement)) {
            // It contains all rows that the flow was given, or those of its first step.
            flow.sharing().put_into(*place, &arrangement, true)?;
        }
    }
    Ok(Some(arrangement))
}
