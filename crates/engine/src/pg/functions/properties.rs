//! Functions over the properties of indexes.

use millstream_sql::Result;

use super::{Gives, Known, int, text};
use crate::pg::facts::Facts;
use crate::pg::rows::Value;

pub(super) const FUNCTIONS: &[Known] = &[
    ("pg_indexam_has_property", Gives::Bool, |_, arguments| Ok(property(arguments, 1, &OF_METHODS))),
    ("pg_index_has_property", Gives::Bool, pg_index_has_property),
    ("pg_index_column_has_property", Gives::Bool, pg_index_column_has_property),
];

/// All indexes are ordered, and unique if they belong to a key.
const OF_METHODS: [(&str, bool); 5] = [
    ("can_order", true),
    ("can_unique", true),
    ("can_multi_col", true),
    ("can_exclude", false),
    ("can_include", false),
];

const OF_INDEXES: [(&str, bool); 4] =
    [("clusterable", false), ("index_scan", true), ("bitmap_scan", false), ("backward_scan", false)];

/// Columns of indexes are ascending, with NULL last.
const OF_COLUMNS: [(&str, bool); 9] = [
    ("asc", true),
    ("desc", false),
    ("nulls_first", false),
    ("nulls_last", true),
    ("orderable", true),
    ("distance_orderable", false),
    ("returnable", false),
    ("search_array", true),
    ("search_nulls", false),
];

/// Returns the property that an argument names, or NULL for another name.
fn property(arguments: &[Value], place: usize, known: &[(&str, bool)]) -> Value {
    let name = int(arguments, 0).and(text(arguments, place));
    let found = name.and_then(|name| known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)));
    found.map(|(_, has)| *has).into()
}

fn pg_index_has_property(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    Ok(match int(arguments, 0).and_then(|oid| facts.index(oid)) {
        Some(_) => property(arguments, 1, &OF_INDEXES),
        None => Value::Null,
    })
}

fn pg_index_column_has_property(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let index = int(arguments, 0).and_then(|oid| facts.index(oid));
    let place = int(arguments, 1).and_then(|number| usize::try_from(number - 1).ok());
    Ok(match index.zip(place) {
        Some(((_, index), place)) if place < index.columns.len() => property(arguments, 2, &OF_COLUMNS),
        _ => Value::Null,
    })
}
