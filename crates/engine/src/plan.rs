//! The catalog as seen by a group of statements during planning.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_connect::Source;
use millstream_durable::Plan;
use millstream_sql::{BatchQuery, Error, Kind, Result, sqlstate};

use crate::catalog::{Catalog, Definition, Object, Runs, schema_of_key, with_qualified_name};
use crate::event::Change;
use crate::session::Session;
use crate::temporary::is_in_temporary;

/// The version of the program, stored with each plan.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A copy of the catalog with the group's own changes, and the list of these.
pub(crate) struct Working {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) changes: Vec<Change>,
    /// The objects that statements with IF NOT EXISTS found.
    pub(crate) existing: Vec<Arc<str>>,
    /// Statements to which parts were added that may differ later, by their text.
    pub(crate) completed: BTreeMap<String, String>,
    /// True for statements that are replayed: a schema may have been dropped since, and the object moved to another one.
    pub(crate) is_replay: bool,
    /// The stored plans of objects that are created again.
    kept: Vec<Plan>,
    /// The stored plans in use, by the index of their change.
    used: BTreeMap<usize, Plan>,
}

impl Working {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Working {
        let (changes, existing) = (Vec::new(), Vec::new());
        let (completed, used) = (BTreeMap::new(), BTreeMap::new());
        Working { catalog, changes, existing, completed, is_replay: false, kept: Vec::new(), used }
    }

    /// Creates the same for statements that are replayed, with their stored plans.
    pub(crate) fn again(catalog: Arc<Catalog>, plans: &[Plan]) -> Working {
        Working { kept: plans.to_vec(), ..Working::new(catalog) }
    }

    /// Adds an object; a source is passed open.
    pub(crate) fn create(&mut self, mut object: Object, source: Option<Box<dyn Source>>) -> Result<()> {
        if !self.is_replay {
            check_reads(&object)?;
        }
        object.reads.extend(self.catalog.schemas().read_of(&object.name));
        // The statement is repeated, and shown, with the schema.
        if self.catalog.search_path().is_some() && object.definition.is_relation() {
            object.ddl = with_qualified_name(&object.ddl, &object.name)?;
        }
        let object = Arc::new(object);
        Arc::make_mut(&mut self.catalog).add(object.clone())?;
        self.changes.push(Change::Create { object, source, backfill: None });
        Ok(())
    }

    /// Removes objects, dependent objects first.
    pub(crate) fn drop(&mut self, names: Vec<Arc<str>>) {
        let catalog = Arc::make_mut(&mut self.catalog);
        names.iter().for_each(|name| catalog.remove(name));
        self.changes.push(Change::Drop { names });
    }

    /// Returns the stored plan of an object that is created again, or `None` if there is none. The query is
    /// never planned again, so its operators match the saved state. An unreadable plan is an error: operators
    /// of another plan might look the same and take over state with another meaning.
    pub(crate) fn planned(&mut self, session: &Session, name: &str) -> Result<Option<BatchQuery>> {
        let Some(place) = self.kept.iter().position(|plan| plan.object == name) else { return Ok(None) };
        let kept = self.kept.remove(place);
        let Ok(bytes) = &kept.plan else { return Ok(None) };
        let restored = session.shared.planner.restore(bytes, self.catalog.as_ref());
        let query = restored.map_err(|reason| {
            let by = &kept.version;
            Error::new(
                Kind::Corrupt,
                format!(
                    "the plan of \"{name}\", which version {by} made, can't be read by version {VERSION}: {reason}"
                ),
            )
            .hint(format!("Start version {by} again, and drop \"{name}\" or change its query there."))
        })?;
        // The object is the next change to be added.
        self.used.insert(self.changes.len(), kept);
        Ok(Some(query))
    }

    /// Returns the plans of the created queries, for the journal. Plans that were restored are returned with
    /// their original version.
    pub(crate) fn plans(&self, session: &Session) -> Vec<Plan> {
        if !session.is_durable() {
            return Vec::new();
        }
        let plan = |(place, change): (usize, &Change)| {
            let Change::Create { object, .. } = change else { return None };
            if let Some(used) = self.used.get(&place) {
                return Some(used.clone());
            }
            let plan = session.shared.planner.store(&query_of(object)?, self.catalog.as_ref());
            Some(Plan { object: object.name.to_string(), version: VERSION.into(), plan })
        };
        self.changes.iter().enumerate().filter_map(plan).collect()
    }
}

/// Returns the query of an object, if it has a continuous one.
fn query_of(object: &Object) -> Option<BatchQuery> {
    let reads = || object.reads.iter().map(ToString::to_string).collect();
    let of = |runs: &Runs, schema: &arrow::datatypes::SchemaRef| match runs {
        Runs::Maintained { plan, .. } => BatchQuery::maintained(plan.clone(), schema.clone(), reads()),
        Runs::EachBatch(query) => query.as_ref().clone(),
    };
    match &object.definition {
        Definition::MaterializedView { plan, schema, .. } => {
            Some(BatchQuery::maintained(plan.clone(), schema.clone(), reads()))
        }
        Definition::Stream { query, schema, .. } => Some(of(query, schema)),
        Definition::Sink { query: Some(query), spec, .. } => Some(of(query, &spec.columns)),
        Definition::SinkInto { query, .. } => {
            let schema = Arc::new(query.schema().as_arrow().clone());
            Some(BatchQuery::maintained(query.clone(), schema, reads()))
        }
        _ => None,
    }
}

/// Fails if an object that stays reads one that is dropped with its session.
pub(crate) fn check_reads(object: &Object) -> Result<()> {
    if is_in_temporary(&object.name) || schema_of_key(&object.name).is_some() {
        return Ok(());
    }
    let Some(read) = object.reads.iter().find(|read| is_in_temporary(read)) else { return Ok(()) };
    let (kind, name) = (object.definition.kind(), &object.name);
    Err(Error::invalid(format!(
        "{kind} \"{name}\" can't read \"{read}\", which is dropped when its session ends"
    ))
    .hint("Read a permanent relation; a view may be temporary, too: CREATE TEMP VIEW.")
    .code(sqlstate::INVALID_TABLE_DEFINITION))
}
