//! `to_char`, `to_date`, `to_timestamp` and `to_number` with PostgreSQL's patterns.
//!
//! The algorithms are those of PostgreSQL 15's `src/backend/utils/adt/formatting.c` (PostgreSQL licence): a pattern is
//! parsed into a list of nodes, which one function writes by and one reads by. Names are English, the decimal point is a
//! point, the thousands separator a comma and the currency symbol a blank, as in PostgreSQL's locale C.
//!
//! A pattern with a `%` is one of strftime, which DataFusion's functions handle.

mod functions;
mod number_pattern;
mod numbers;
mod pattern;
mod read_number;
mod read_time;
mod write_number;
mod write_time;

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::functions::datetime::to_char::ToCharFunc;
use datafusion::functions::datetime::to_date::ToDateFunc;
use datafusion::functions::datetime::to_timestamp::ToTimestampFunc;
use datafusion::logical_expr::ScalarUDF;

use self::functions::{Formatting, Kind};
pub(in crate::functions) use self::functions::{read_in_zone, read_moments, write_moments};
use super::patterns;
use crate::functions::Registry;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let unit = registry.unit;
    let char = |inner| ScalarUDF::from(Formatting::new(inner, Kind::ToChar, unit));
    registry.replace("to_char", |function| function.inner().is::<ToCharFunc>(), char);
    let date = |inner| ScalarUDF::from(Formatting::new(inner, Kind::ToDate, unit));
    registry.replace("to_date", |function| function.inner().is::<ToDateFunc>(), date);
    // The function for microseconds takes the same texts and patterns.
    let name = registry.in_unit("to_timestamp_micros", "to_timestamp");
    if let Some(other) = registry.scalar(name) {
        let time = |_| ScalarUDF::from(Formatting::new(other, Kind::ToTimestamp, unit));
        registry.replace("to_timestamp", |function| function.inner().is::<ToTimestampFunc>(), time);
    }
    registry.add(numbers::to_number());
    registry.add(functions::try_to_timestamp(unit));
    functions::to_time().into_iter().for_each(|function| registry.add(function));
}

/// The functions whose patterns had another meaning in earlier versions.
const CHANGED: [&str; 3] = ["to_char", "to_date", "to_timestamp"];

/// True for a function with today's patterns. Stored plans distinguish it from [`earlier`].
pub(crate) fn is_formatting(function: &ScalarUDF) -> bool {
    function.inner().is::<Formatting>()
}

/// Returns the function of this name that plans of earlier versions mean.
///
/// Its patterns knew fewer words, and took the others for text: `T` in `DDTHH24` was a letter. Views that were created
/// with it keep its results.
pub(crate) fn earlier(name: &str) -> Option<Arc<ScalarUDF>> {
    if !CHANGED.contains(&name) {
        return None;
    }
    let mut all = SessionStateDefaults::default_scalar_functions().into_iter();
    all.find(|function| function.name() == name).map(|inner| Arc::new(patterns::patterned(inner)))
}
