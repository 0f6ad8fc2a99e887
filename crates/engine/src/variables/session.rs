//! PostgreSQL's settings of one session, and the default modes of its transactions.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use millstream_sql::functions::quoted_ident;
use millstream_sql::{Error, PUBLIC, Planner, Result, with_xor_for_caret};

use super::lasting::{Lasts, Point, Values, Within};
use super::{CARET, DEFAULT_READ_ONLY, READ_ONLY, STATEMENT_TIMEOUT, Variables, milliseconds};
use crate::advisory_locks::SessionLocks;
use crate::catalog::Catalog;
use crate::sequences::SessionSequences;
use crate::temporary::TempSchema;
use crate::transaction::{Modes, Transaction};

/// Keeps a session's settings, and applies what SET, BEGIN, COMMIT and savepoints do to them. It gets the open
/// transaction as an argument, because SHOW displays its modes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionVariables {
    pub(super) values: Arc<Mutex<Variables>>,
    /// The last version of the catalog in which names are looked up on the search path.
    catalog: Arc<Mutex<Option<Arc<Catalog>>>>,
    /// The last planner for a time zone.
    zoned: Arc<Mutex<Option<Planner>>>,
    /// The default modes of transactions.
    pub(crate) modes: Modes,
    /// The schema of the session's temporary objects, once there are any.
    pub(crate) temporary: Arc<OnceLock<TempSchema>>,
    /// The last numbers that the session took from sequences.
    pub(crate) sequences: Arc<SessionSequences>,
    /// The advisory locks of the session, once it has taken one.
    pub(crate) locks: Arc<OnceLock<SessionLocks>>,
}

impl SessionVariables {
    /// Returns the schemas in which names are looked up; none for `public` alone.
    fn path(&self) -> Option<Arc<[String]>> {
        let path = self.values.lock().unwrap_or_else(PoisonError::into_inner).search_path();
        let Some(temporary) = self.temporary.get() else { return path };
        let rest = path.as_deref().map_or_else(|| vec![PUBLIC.to_string()], <[String]>::to_vec);
        Some(std::iter::once(temporary.name().to_string()).chain(rest).collect())
    }

    /// Returns the session's time zone; none for UTC.
    pub(crate) fn time_zone(&self) -> Option<Arc<str>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).time_zone()
    }

    /// Returns a text with the operators that the session means by it. No later reader of the text needs to know the
    /// session's settings.
    pub(crate) fn spelled_out<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        let caret = self.values.lock().unwrap_or_else(PoisonError::into_inner).get(CARET);
        let is_xor = caret.as_deref() == Some("xor") && sql.contains('^');
        // A text that can't be read fails when it runs.
        let text = is_xor.then(|| with_xor_for_caret(sql).ok()).flatten();
        text.map_or(Cow::Borrowed(sql), Cow::Owned)
    }

    /// Returns the engine's planner for the session's time zone. The last one is kept.
    pub(crate) fn zoned(&self, planner: &Planner) -> Planner {
        let Some(zone) = self.time_zone() else { return planner.clone() };
        let mut last = self.zoned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_zone = |last: &&Planner| {
            last.state().config_options().execution.time_zone.as_deref() == Some(zone.as_ref())
        };
        match last.as_ref().filter(is_of_zone) {
            Some(last) => last.clone(),
            None => last.insert(planner.in_zone(&zone)).clone(),
        }
    }

    /// Returns them as a value of `search_path`, if there are temporary objects.
    pub(crate) fn path_with_temporary(&self) -> Option<String> {
        self.temporary.get()?;
        let path = self.path()?;
        Some(path.iter().map(|schema| quoted_ident(schema)).collect::<Vec<_>>().join(", "))
    }

    /// Returns a version of the catalog in which names are looked up on the search path. The last one is kept.
    pub(crate) fn on_path(&self, catalog: Arc<Catalog>) -> Arc<Catalog> {
        let Some(path) = self.path() else { return catalog };
        let mut last = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last =
            |last: &&Arc<Catalog>| last.version == catalog.version && *last.schemas().path() == path;
        if let Some(last) = last.as_ref().filter(is_last) {
            return last.clone();
        }
        last.insert(Arc::new(catalog.with_path(path))).clone()
    }

    /// Returns the settings. The modes of the open transaction are copied into them, so that SHOW displays them.
    pub(crate) fn lock(&self, transaction: Option<&Transaction>) -> MutexGuard<'_, Variables> {
        let mut variables = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let on_off = |read_only: bool| if read_only { "on" } else { "off" }.to_string();
        let now = transaction.map_or(self.modes, |transaction| transaction.modes);
        variables.values.set.insert(READ_ONLY, on_off(now.read_only));
        variables.values.set.insert(DEFAULT_READ_ONLY, on_off(self.modes.read_only));
        variables
    }

    /// Sets one of PostgreSQL's settings. Returns false if there is none of this name.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: &str,
        lasts: Lasts,
        transaction: Option<&mut Transaction>,
    ) -> Result<bool> {
        let known = self.lock(transaction.as_deref()).set(name, value, lasts)?;
        if name.eq_ignore_ascii_case(DEFAULT_READ_ONLY) {
            self.modes.read_only = self.is_on(DEFAULT_READ_ONLY);
        } else if name.eq_ignore_ascii_case(READ_ONLY) {
            let read_only = self.is_on(READ_ONLY);
            if let Some(transaction) = transaction {
                if transaction.modes.read_only && !read_only && transaction.has_begun() {
                    return Err(Error::invalid("a transaction that only reads can't begin to write")
                        .hint("COMMIT or ROLLBACK it, and BEGIN another."));
                }
                transaction.modes.read_only = read_only;
            }
        }
        Ok(known)
    }

    fn is_on(&self, name: &'static str) -> bool {
        let variables = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        variables.values.set.get(name).is_some_and(|value| value == "on")
    }

    /// Returns the timeout of the statement that begins now.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        let variables = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = milliseconds(variables.values.set.get(STATEMENT_TIMEOUT)?)?;
        (timeout > 0).then(|| Duration::from_millis(timeout))
    }

    /// Resets one of PostgreSQL's settings. Returns false if there is none of this name.
    pub(crate) fn reset(&mut self, name: &str, lasts: Lasts, transaction: Option<&Transaction>) -> bool {
        if name.eq_ignore_ascii_case(DEFAULT_READ_ONLY) {
            self.modes.read_only = false;
        }
        self.lock(transaction).reset(name, lasts)
    }

    /// Resets all settings to their defaults.
    pub(crate) fn reset_all(&mut self, transaction: Option<&Transaction>) {
        self.lock(transaction).reset_all();
        self.modes = Modes::default();
    }

    /// Saves the settings at the beginning of a transaction.
    pub(crate) fn begin(&mut self, transaction: Option<&Transaction>) {
        let mut variables = self.lock(transaction);
        let now = variables.values.clone();
        variables.within = Some(Within { before: now.clone(), after: now });
    }

    /// Applies the settings for after COMMIT or ROLLBACK. Returns those from before the transaction.
    pub(crate) fn end(&mut self, committed: bool) -> Option<Values> {
        let Within { before, after } =
            self.values.lock().unwrap_or_else(PoisonError::into_inner).within.take()?;
        self.restore(if committed { after } else { before.clone() });
        Some(before)
    }

    /// Replaces the settings.
    pub(crate) fn restore(&mut self, values: Values) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).values = values;
        self.modes.read_only = self.is_on(DEFAULT_READ_ONLY);
    }

    /// Returns the settings for a savepoint.
    pub(crate) fn save(&self, transaction: Option<&Transaction>) -> Option<Point> {
        let variables = self.lock(transaction);
        let after = variables.within.as_ref()?.after.clone();
        Some(Point { values: variables.values.clone(), after })
    }

    /// Restores the settings of a savepoint.
    pub(crate) fn back_to(&mut self, point: Option<Point>) {
        let Some(Point { values, after }) = point else { return };
        if let Some(within) = &mut self.values.lock().unwrap_or_else(PoisonError::into_inner).within {
            within.after = after;
        }
        self.restore(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(variables: &SessionVariables, transaction: Option<&Transaction>) -> (String, String) {
        let variables = variables.lock(transaction);
        let show = |name| variables.get(name).unwrap();
        (show(READ_ONLY), show(DEFAULT_READ_ONLY))
    }

    #[test]
    fn the_modes_of_the_open_transaction_are_shown() {
        let mut variables = SessionVariables::default();
        variables.set(DEFAULT_READ_ONLY, "on", Lasts::Session, None).unwrap();
        assert_eq!(shown(&variables, None), ("on".into(), "on".into()));
        let mut transaction = Transaction::new(Modes { read_only: false });
        assert_eq!(shown(&variables, Some(&transaction)), ("off".into(), "on".into()));
        variables.set(READ_ONLY, "on", Lasts::Transaction, Some(&mut transaction)).unwrap();
        assert!(transaction.modes.read_only);
        variables.reset_all(Some(&transaction));
        assert_eq!(shown(&variables, Some(&transaction)), ("on".into(), "off".into()));
    }

    #[test]
    fn a_rollback_restores_the_settings() {
        let mut variables = SessionVariables::default();
        variables.begin(None);
        variables.set(STATEMENT_TIMEOUT, "2s", Lasts::Session, None).unwrap();
        assert_eq!(variables.statement_timeout(), Some(Duration::from_secs(2)));
        variables.end(false);
        assert_eq!(variables.statement_timeout(), None);
    }
}
