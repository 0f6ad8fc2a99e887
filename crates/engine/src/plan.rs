//! The catalog as a group of statements sees it while it is planned.

use std::sync::Arc;

use millstream_connect::Source;
use millstream_sql::Result;

use crate::catalog::{Catalog, Object};
use crate::event::Change;

/// A copy of the catalog with the group's own changes, and the list of these.
pub(crate) struct Working {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) changes: Vec<Change>,
}

impl Working {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Working {
        Working { catalog, changes: Vec::new() }
    }

    /// Adds an object; a source comes opened.
    pub(crate) fn create(&mut self, object: Object, source: Option<Box<dyn Source>>) -> Result<()> {
        let object = Arc::new(object);
        Arc::make_mut(&mut self.catalog).add(object.clone())?;
        self.changes.push(Change::Create { object, source });
        Ok(())
    }

    /// Removes objects, those that read others first.
    pub(crate) fn drop(&mut self, names: Vec<Arc<str>>) {
        let catalog = Arc::make_mut(&mut self.catalog);
        names.iter().for_each(|name| catalog.remove(name));
        self.changes.push(Change::Drop { names });
    }
}
