//! The definitions, settings and options of an engine.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use millstream_sql::UserType;

use super::execution::Execution;
use crate::catalog::{Catalog, Definition};
use crate::engine::{Progress, Shared};
use crate::settings::Settings;

/// Keeps the definitions and settings that hold during an epoch, and publishes their changes to sessions.
pub(super) struct Setup {
    pub(super) shared: Weak<Shared>,
    pub(super) execution: Execution,
    pub(super) catalog: Arc<Catalog>,
    pub(super) settings: Settings,
}

impl Setup {
    /// Replaces the catalog, and publishes it to sessions.
    pub(super) fn publish_catalog(&mut self, catalog: Catalog) {
        self.catalog = Arc::new(catalog);
        if let Some(shared) = self.shared.upgrade() {
            // A statement that is planned with the new catalog must not find a type that is gone.
            shared.planner.types().set(types_of(&self.catalog));
            *shared.catalog.write().unwrap_or_else(PoisonError::into_inner) = self.catalog.clone();
        }
    }

    /// Publishes the `shutdown` setting, which the process reads even while the loop is busy, and that settings have
    /// changed.
    pub(super) fn publish_settings(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.settings_version.fetch_add(1, Ordering::Release);
            *shared.shutdown.lock().unwrap_or_else(PoisonError::into_inner) = self.settings.shutdown;
        }
    }

    /// Publishes how far the engine is.
    pub(super) fn publish_progress(&self, progress: &Progress) {
        if let Some(shared) = self.shared.upgrade() {
            *shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress.clone();
        }
    }
}

/// Returns the user-defined types of a catalog by their names.
fn types_of(catalog: &Catalog) -> BTreeMap<String, UserType> {
    let found = catalog.objects().filter_map(|object| match &object.definition {
        Definition::Type(found) => Some((object.name.to_string(), found.clone())),
        _ => None,
    });
    found.collect()
}
