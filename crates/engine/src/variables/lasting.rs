//! The scope of a session's settings: the session or a transaction, with rollback.

use std::collections::BTreeMap;

use millstream_sql::Result;

use super::{Variables, find};

/// The scope of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// Until the session ends or the transaction is rolled back.
    Session,
    /// Until the transaction ends: SET LOCAL.
    Transaction,
}

/// The values that were set, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    pub(super) set: BTreeMap<&'static str, String>,
    /// A client's own settings, with a dot in their names.
    pub(super) own: BTreeMap<String, String>,
}

/// The settings after the open transaction.
#[derive(Clone, Debug)]
pub(crate) struct Within {
    /// The settings after ROLLBACK.
    pub(super) before: Values,
    /// The settings after COMMIT.
    pub(super) after: Values,
}

/// The settings at a savepoint.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(super) values: Values,
    pub(super) after: Values,
}

impl Variables {
    /// Returns true if a transaction is open.
    pub(crate) fn is_within(&self) -> bool {
        self.within.is_some()
    }

    /// Changes the values. With scope `Session`, also changes the values after the transaction.
    fn change(&mut self, lasts: Lasts, change: impl Fn(&mut Values)) {
        change(&mut self.values);
        if let (Lasts::Session, Some(within)) = (lasts, &mut self.within) {
            change(&mut within.after);
        }
    }

    /// Sets a setting. Returns false if there is none of this name.
    pub(crate) fn set(&mut self, name: &str, value: &str, lasts: Lasts) -> Result<bool> {
        let Some(variable) = find(name) else { return Ok(false) };
        let value = variable.read(value)?;
        self.change(lasts, |values| {
            values.set.insert(variable.name, value.clone());
        });
        Ok(true)
    }

    /// Sets a client's own setting, such as `app.user`.
    pub(crate) fn set_own(&mut self, name: &str, value: &str, lasts: Lasts) {
        self.change(lasts, |values| {
            values.own.insert(name.to_lowercase(), value.to_string());
        });
    }

    /// Resets a setting to its default. Returns false if there is none of this name.
    pub(crate) fn reset(&mut self, name: &str, lasts: Lasts) -> bool {
        let (known, own) = (find(name), name.to_lowercase());
        let is_there = known.is_some() || self.values.own.contains_key(&own);
        self.change(lasts, |values| {
            values.own.remove(&own);
            if let Some(variable) = known {
                values.set.remove(variable.name);
            }
        });
        is_there
    }

    /// Returns the settings that affect the meaning of statements and were set.
    pub(crate) fn set_here(&self) -> Vec<(String, String)> {
        let counts = |name: &str| name == "search_path" || name == "TimeZone";
        let set = self.values.set.iter().filter(|(name, _)| counts(name));
        set.map(|(name, value)| ((*name).to_string(), value.clone())).collect()
    }

    /// Resets all settings to their defaults.
    pub(crate) fn reset_all(&mut self) {
        self.change(Lasts::Session, |values| *values = Values::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_for_a_transaction_is_not_left_after_it() {
        let mut variables = Variables::default();
        let now = variables.values.clone();
        variables.within = Some(Within { before: now.clone(), after: now });
        variables.set("lock_timeout", "1s", Lasts::Session).unwrap();
        variables.set("lock_timeout", "2s", Lasts::Transaction).unwrap();
        variables.set_own("app.tenant", "7", Lasts::Transaction);
        assert_eq!(variables.get("lock_timeout").as_deref(), Some("2s"));
        assert_eq!(variables.get("app.tenant").as_deref(), Some("7"));
        let Within { before, after } = variables.within.take().unwrap();
        variables.values = after;
        assert_eq!(variables.get("lock_timeout").as_deref(), Some("1s"));
        assert_eq!(variables.get("app.tenant"), None);
        variables.values = before;
        assert_eq!(variables.get("lock_timeout").as_deref(), Some("0"));
    }
}
