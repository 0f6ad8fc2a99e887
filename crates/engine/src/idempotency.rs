//! Scripts that run again with the same data directory: existing objects stay, and changes are not applied
//! twice.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_sql::{Error, Operation, Result, TokenReader};

use crate::catalog::{Catalog, Definition, Object, schema_key, with_name, with_qualified_name};
use crate::engine::Shared;
use crate::event::{Event, Question};
use crate::secrets::without_secrets;
use crate::sequences::with_full_names;
use crate::session::{Response, Session, Tag};
use crate::statement::InTransaction;
use crate::statements::{STATEMENTS, create_table_as};
use crate::temporary::is_in_temporary;

/// Gives the statements of a script the keys under which they run once, and finds those that ran before.
#[derive(Debug, Default)]
pub(crate) struct IdempotencyKeys {
    /// The number of occurrences of each text, while a script runs.
    counts: Option<HashMap<String, u64>>,
    /// The keys of the next statements, by which the engine remembers them.
    keys: Vec<String>,
}

/// The response to a statement that ran before.
pub(crate) struct DoneBefore {
    pub(crate) response: Response,
    /// True if the response ends the open transaction, whose changes are in the engine already.
    pub(crate) rolls_back: bool,
}

impl IdempotencyKeys {
    /// Removes and returns the key of the next statement.
    pub(crate) fn take(&mut self) -> Option<String> {
        self.keys.pop()
    }

    /// Gives the next statement the key of the statement that it is a part of.
    pub(crate) fn give_back(&mut self, key: Option<String>) {
        self.keys.extend(key);
    }

    /// Returns the keys of the next statements.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    /// Returns the key of the next statement with this text. It is the same each time the script runs. It is
    /// short, since all keys are kept for good.
    fn key(&mut self, text: &str) -> Option<String> {
        let count = self.counts.as_mut()?.entry(text.to_string()).or_default();
        *count += 1;
        Some(format!("{:032x}-{count}", hash(text)))
    }

    /// Returns the response if a statement other than CREATE and DROP ran before. Otherwise keeps its key for
    /// the engine. `transaction`: true if one is open.
    pub(crate) async fn was_done(
        &mut self,
        (shared, catalog): (&Shared, &Arc<Catalog>),
        text: &str,
        transaction: bool,
    ) -> Result<Option<DoneBefore>> {
        // Most statements belong to no script, or to one that isn't remembered: they are not parsed.
        if self.counts.is_none() {
            return Ok(None);
        }
        self.keys.clear();
        let reader = TokenReader::new(text)?;
        if reader.is_keyword(&["CREATE", "OR", "REPLACE"]) {
            let was_made = self.was_made(shared, catalog, text).await?;
            return Ok(was_made.then(|| DoneBefore { response: tag_of(text).into(), rolls_back: false }));
        }
        let Ok(found) = STATEMENTS.find(&reader) else { return Ok(None) };
        let rules = found.statement.rules;
        if !rules.runs_once || concerns_temporary(&reader, catalog) {
            return Ok(None);
        }
        let ends = rules.transaction == InTransaction::Ends;
        // Within a transaction only the COMMIT counts, and what takes effect at once.
        if !ends && transaction && rules.transaction != InTransaction::AtOnce {
            return Ok(None);
        }
        let Some(key) = self.key(text) else { return Ok(None) };
        if !is_done(shared, &key).await? {
            self.keys.push(key);
            return Ok(None);
        }
        let response = done_before(reader.text(), Operation::of(&reader));
        Ok(Some(DoneBefore { response, rolls_back: ends && transaction }))
    }

    /// Returns, for each of some CREATE and DROP statements, true if it must run.
    pub(crate) async fn which_are_new(
        &mut self,
        (shared, catalog): (&Shared, &Arc<Catalog>),
        texts: &[&str],
    ) -> Result<Vec<bool>, (Option<usize>, Error)> {
        self.keys.clear();
        let mut done = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            done.push(!self.was_made(shared, catalog, text).await.map_err(|error| (Some(place), error))?);
        }
        Ok(done)
    }

    /// Returns true if the object of a CREATE exists as defined, or a DROP ran before.
    async fn was_made(&mut self, shared: &Shared, catalog: &Arc<Catalog>, text: &str) -> Result<bool> {
        if self.counts.is_none() {
            return Ok(false);
        }
        let reader = TokenReader::new(text)?;
        if reader.is_keyword(&["DROP"]) {
            if concerns_temporary(&reader, catalog) {
                return Ok(false);
            }
            let Some(key) = self.key(text) else { return Ok(false) };
            let was_done = is_done(shared, &key).await?;
            if !was_done {
                self.keys.push(key);
            }
            return Ok(was_done);
        }
        let Some(name) = made_by(text, catalog)? else { return Ok(false) };
        // Objects that were made on a search path have their schema in their statements.
        let is_on_path = catalog.search_path().is_some() && !name.ends_with(['.', ')']);
        let qualified = if is_on_path { with_qualified_name(text, &name)? } else { text.to_string() };
        // Defaults have the whole names of their sequences. One that isn't there is told when the statement runs.
        let reader = TokenReader::new(&qualified)?.on_path(catalog.search_path());
        let named = with_full_names(&reader, catalog).ok().flatten();
        let text = named.as_deref().unwrap_or(&qualified);
        // The object may have been renamed since.
        for object in catalog.made_as(&name) {
            if is_made_by(object, &with_name(text, &object.name)?) {
                return Ok(true);
            }
        }
        let Some(object) = catalog.find(&name) else { return Ok(false) };
        if is_made_by(object, text) {
            return Ok(true);
        }
        // IF NOT EXISTS and OR REPLACE handle an existing object themselves. One engine may run many scripts.
        if text.to_uppercase().contains("IF NOT EXISTS")
            || TokenReader::new(text)?.is_keyword(&["CREATE", "OR"])
        {
            return Ok(false);
        }
        let kind = object.definition.kind();
        Err(Error::invalid(format!(
            "{kind} \"{name}\" exists with another definition:\n  there:  {}\n  script: {}",
            one_line(&without_secrets(&object.ddl)),
            one_line(&without_secrets(text))
        ))
        .hint(match &object.definition {
            Definition::MaterializedView { .. } | Definition::Stream { .. } | Definition::View { .. } => {
                format!(
                    "CREATE OR REPLACE {} {name} changes its query, DROP has it recreated.",
                    kind.to_uppercase()
                )
            }
            _ => {
                format!("DROP {} {name} to have it recreated, or give it another name.", kind.to_uppercase())
            }
        }))
    }
}

impl Session {
    /// Treats the following statements as a script that may have run before with the same data directory.
    /// Objects that exist as the script defines them are left alone. Changes that were applied are not
    /// applied again. Has no effect in an engine without a data directory.
    pub fn begin_script(&mut self) {
        let is_kept = self.shared.recovery.recovered().is_some();
        self.idempotency = IdempotencyKeys { counts: is_kept.then(HashMap::new), keys: Vec::new() };
    }

    /// Treats the following statements as statements that run each time.
    pub fn end_script(&mut self) {
        self.idempotency = IdempotencyKeys::default();
    }
}

async fn is_done(shared: &Shared, name: &str) -> Result<bool> {
    let name = name.to_string();
    shared.ask(|reply| Event::Ask(Question::WasDone { name, reply })).await
}

/// Computes FNV-1a with 128 bits (Fowler, Noll, Vo; RFC 9923). The result is the same in every version of
/// this program. It is long enough that two statements never collide by accident.
fn hash(text: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// The words before the name of the relation that a statement changes.
const BEFORE_NAMES: &[&[&str]] = &[
    &["INSERT", "INTO"],
    &["UPDATE"],
    &["DELETE", "FROM"],
    &["MERGE", "INTO"],
    &["COPY"],
    &["TRUNCATE", "TABLE"],
    &["TRUNCATE"],
    &["ALTER", "TABLE"],
    &["ALTER", "VIEW"],
    &["ALTER", "SEQUENCE"],
    &["DROP", "TABLE"],
    &["DROP", "VIEW"],
    &["DROP", "SEQUENCE"],
];

/// Returns true if a statement changes a temporary object, which a later run of the script begins without.
fn concerns_temporary(reader: &TokenReader<'_>, catalog: &Arc<Catalog>) -> bool {
    let mut reader = reader.clone().on_path(catalog.search_path());
    if reader.one_of(BEFORE_NAMES).is_none() {
        return create_table_as::is_temporary(&reader);
    }
    reader.one_of(&[&["IF", "EXISTS"], &["ONLY"]]);
    reader.relation_name().is_ok_and(|name| is_in_temporary(&name))
}

/// Returns the name of the object that a CREATE statement creates, or `None` for kinds not listed here.
fn made_by(text: &str, catalog: &Arc<Catalog>) -> Result<Option<String>> {
    let mut reader = TokenReader::new(text)?.on_path(catalog.search_path());
    reader.expect_keyword(&["CREATE"])?;
    reader.keyword(&["OR", "REPLACE"]);
    let kinds = STATEMENTS.kinds();
    let Some(kind) = reader.one_of(&kinds).and_then(|place| kinds.get(place)) else { return Ok(None) };
    reader.keyword(&["IF", "NOT", "EXISTS"]);
    Ok(Some(match kind {
        ["FUNCTION" | "AGGREGATE"] => millstream_sql::routines::routine_name(&reader.routine()?),
        ["SCHEMA"] => schema_key(&reader.identifier()?),
        _ => reader.new_relation_name()?,
    }))
}

/// Returns true if an object has the definition of a statement, ignoring later ALTER statements.
fn is_made_by(object: &Object, text: &str) -> bool {
    let pieces = millstream_sql::statements(&object.ddl).unwrap_or_default();
    let made = pieces.first().map_or("", |piece| piece.text.as_str());
    let plain = |text: &str| one_line(text).replacen("CREATE OR REPLACE ", "CREATE ", 1);
    plain(made) == plain(text)
}

/// Returns a statement on one line, without a trailing semicolon.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").trim_end_matches(';').trim_end().to_string()
}

/// Returns the tag of a CREATE or DROP that has nothing to do: `CREATE TABLE`.
pub(crate) fn tag_of(text: &str) -> Tag {
    let words = text.split_whitespace().map(str::to_uppercase);
    let words: Vec<String> = words.filter(|word| word != "OR" && word != "REPLACE").collect();
    let length = if words.get(1).is_some_and(|word| word == "MATERIALIZED") { 3 } else { 2 };
    Tag::new(words.get(..length).unwrap_or_default().join(" "))
}

/// Returns the response to a statement that ran before.
fn done_before(text: &str, operation: Option<Operation>) -> Response {
    let first = match operation {
        Some(Operation::Insert) => "INSERT".to_string(),
        Some(Operation::Update) => "UPDATE".to_string(),
        Some(Operation::Delete) => "DELETE".to_string(),
        Some(Operation::Merge) => "MERGE".to_string(),
        None => text.split_whitespace().next().unwrap_or_default().to_uppercase(),
    };
    let notice = format!("this {first} was run before, and is not run again");
    Tag { text: first, notices: vec![notice] }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_statements_stay_the_same() {
        // The published test vectors.
        assert_eq!(hash(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        let mut all = IdempotencyKeys { counts: Some(HashMap::new()), keys: Vec::new() };
        let keys: Vec<String> = ["a", "b", "a"].iter().filter_map(|text| all.key(text)).collect();
        assert_eq!(keys[0], "d228cb696f1a8caf78912b704e4a8964-1");
        assert_eq!(keys[2], "d228cb696f1a8caf78912b704e4a8964-2");
        assert_ne!(keys[1], keys[0]);
    }
}
