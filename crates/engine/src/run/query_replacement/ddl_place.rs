//! The place of a replaced relation among the statements that a start repeats.
//!
//! A relation is moved behind all other objects, since its new query may read any of them, and its readers behind it. If
//! it has more columns than before, it has its new query in its place instead: its readers were planned without these
//! columns, and a start plans some of them again (`run/ddl_log.rs`).

use std::sync::Arc;

use millstream_sql::{Error, Result};

use crate::catalog::{Catalog, Definition, Object};
use crate::run::ddl_log::{DdlChanges, Reader};
use crate::run::durable::{Durability, is_loading};

/// Returns the effect of a relation's new query on the statements that a start repeats.
pub(super) fn ddl_of_replacement(durability: &Durability, catalog: &Catalog, object: &Object) -> DdlChanges {
    // A checkpoint has a statement like this only for a relation that stayed in its place.
    match is_loading(durability) || stays_in_place(durability, catalog, object) {
        true => DdlChanges::extended(object),
        false => DdlChanges::replaced(object, catalog.dependants(&object.name)),
    }
}

/// Returns true if neither the relation nor its readers are moved behind other objects.
pub(super) fn stays_in_place(durability: &Durability, catalog: &Catalog, object: &Object) -> bool {
    let readers = catalog.dependants(&object.name);
    let may_stay = match object.definition {
        // Its readers have its former plan as a part.
        Definition::View { .. } => true,
        Definition::Stream { .. } => false,
        _ => is_wider(catalog, object) || durability.ddl_log().is_extended_behind(&object.name, &readers),
    };
    may_stay && !readers.is_empty()
}

/// Returns true if a new definition of a relation has more columns than the present one.
pub(in crate::run) fn is_wider(catalog: &Catalog, object: &Object) -> bool {
    let columns = |object: &Object| object.definition.schema().map_or(0, |schema| schema.fields().len());
    catalog.find(&object.name).is_some_and(|before| columns(object) > columns(before))
}

/// Fails if a reader of the relation uses a name from before a rename. A start recreates the altered relation after
/// all else, and then its readers, whose statements must find the names that they use.
pub(super) fn check_names(durability: &Durability, catalog: &Catalog, object: &Object) -> Result<()> {
    if durability.is_recovering() || stays_in_place(durability, catalog, object) {
        return Ok(());
    }
    let name: &str = &object.name;
    let dependants = catalog.dependants(name);
    let objects = dependants.iter().filter_map(|name| catalog.find(name));
    let reads = objects.flat_map(|object| object.reads.iter().cloned()).collect();
    let is_there = |name: &str| catalog.find(name).is_some();
    let Some(renamed) = durability.ddl_log().renamed_since(&dependants, &reads, &is_there) else {
        return check_widened(durability, catalog, name, &dependants);
    };
    let readers: Vec<String> = dependants.iter().map(|name| format!("\"{name}\"")).collect();
    let readers = readers.join(", ");
    Err(Error::invalid(format!(
        "\"{name}\" can't have another query: \"{renamed}\" was renamed after what reads \"{name}\" was made, \
         {readers}"
    ))
    .hint(format!("DROP {readers} and create them again with the current names, then retry.")))
}

/// Fails if a start would plan a reader of the relation again, and would find columns that were added after its
/// creation.
fn check_widened(
    durability: &Durability,
    catalog: &Catalog,
    name: &str,
    dependants: &[Arc<str>],
) -> Result<()> {
    let readers = dependants.iter().filter_map(|name| {
        let object = catalog.find(name)?;
        let is_kept = !matches!(object.definition, Definition::View { .. });
        // Without a journal there are no stored plans, and no need for them.
        let counts = !is_kept || durability.is_on();
        counts.then(|| Reader { name: object.name.clone(), reads: object.reads.clone(), is_kept })
    });
    let readers: Vec<Reader> = readers.collect();
    if let Some(reader) = durability.ddl_log().made_on_path(name, &readers) {
        return Err(Error::invalid(format!(
            "\"{name}\" can't have another query: a statement about \"{reader}\" was run with a search_path"
        ))
        .hint(format!("DROP \"{reader}\" and create it again with the schemas in its text, then retry.")));
    }
    let Some((reader, wider)) = durability.ddl_log().columns_added_since(&readers) else { return Ok(()) };
    let kind = catalog.find(wider).map_or("relation", |object| object.definition.kind());
    Err(Error::invalid(format!(
        "\"{name}\" can't have another query: \"{reader}\", which reads it, reads {kind} \"{wider}\", too, and was made \
         before that got a column"
    ))
    .hint(format!("DROP \"{reader}\" and create it again, then retry.")))
}
