//! Converts a .slt file to cases: states of its tables, each with the queries asked in that state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::RecordBatch;
use millstream_engine::Session;
use sqllogictest::{Condition, Connection, DefaultColumnType, QueryExpect, Record, StatementExpect};

use super::compare;
use super::statement::{self, Effect, Kind};
use crate::{drive, slt};

/// A state of a file's tables, and the queries asked in that state.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file, relative to the folder of all .slt files.
    pub file: String,
    /// The SET statements in effect, in order.
    pub settings: Vec<String>,
    /// The tables and views that the queries need, in order of creation.
    pub objects: Vec<Object>,
    /// The queries.
    pub queries: Vec<Query>,
}

/// A table or view of a [`Case`].
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name in the catalog.
    pub name: String,
    /// The statement that creates it; empty for a table created from the columns of its rows.
    pub ddl: String,
    /// A table's rows; `None` for a view.
    pub table: Option<Table>,
}

/// The content of a table.
#[derive(Clone, Debug)]
pub struct Table {
    /// All its rows.
    pub rows: RecordBatch,
    /// The columns of the primary key; empty if there is none.
    pub key: Vec<usize>,
    /// True if inserted rows can be neither deleted nor replaced.
    pub append_only: bool,
}

/// A query of a [`Case`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its line in the file.
    pub line: u32,
    /// Its text without a semicolon.
    pub sql: String,
}

/// The result of converting a file.
#[derive(Debug, Default)]
pub struct Converted {
    /// The cases in the file's order.
    pub cases: Vec<Case>,
    /// The number of skipped queries, by reason.
    pub left_out: BTreeMap<String, usize>,
}

/// The reason for skipping a query that uses the present time in a way that no view can.
const CLOCK: &str = "the clock: a function of the moment";

/// The reason for skipping a query over a file.
const FILE: &str = "a file is read once, so no view reads it";

/// Names in queries, or in views that they read, that make a comparison impossible, with the reason.
const EXEMPT: &[(&str, &str)] = &[
    ("random", "volatile: random"),
    ("nextval", "volatile: nextval"),
    ("currval", "volatile: currval"),
    ("lastval", "volatile: lastval"),
    ("setval", "volatile: setval"),
    ("is_called", "a sequence has no history"),
    ("uuid", "volatile: uuid"),
    ("uuidv4", "volatile: uuid"),
    ("gen_random_uuid", "volatile: uuid"),
    ("now", CLOCK),
    ("current_timestamp", CLOCK),
    ("current_date", CLOCK),
    ("current_time", CLOCK),
    ("localtimestamp", CLOCK),
    ("today", CLOCK),
    ("approx_distinct", "a sketch: depends on the order of rows"),
    ("approx_median", "a sketch: depends on the order of rows"),
    ("approx_percentile_cont", "a sketch: depends on the order of rows"),
    ("approx_percentile_cont_with_weight", "a sketch: depends on the order of rows"),
    ("bad_rows", "its rows come of sources, which the oracle has not"),
    ("read_csv", FILE),
    ("read_json", FILE),
    ("read_parquet", FILE),
    ("watermark", "system tables are not relations of deltas"),
    ("late_rows", "a function of the cuts by intent: which rows are late"),
    ("update_state", "a function of the batch by intent"),
    ("state_ttl", "it forgets rows by intent"),
    ("proctime", "a function of the cuts by intent: what a row finds when it comes"),
    ("_batch_id", "a function of the batch by intent"),
    ("_batch_time", "a function of the batch by intent"),
    ("_batch_start", "a function of the batch by intent"),
];

/// Functions of the catalog or of the session.
const OF_CATALOG: &[&str] =
    &["version", "current_database", "current_query", "current_schema", "current_setting", "set_config"];

/// Types of OIDs that are written as objects' names.
const OF_NAMES: &[&str] = &[
    "regclass",
    "regtype",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regnamespace",
    "regrole",
    "regcollation",
];

/// Settings that the oracle ignores: it has a clock of its own, and more rows than the file.
const OWN_SETTINGS: &[&str] = &[
    "clock",
    "batch_interval",
    "max_batch_rows",
    "max_batch_bytes",
    "max_queued_batches",
    "memory_limit",
    "state_ttl",
    "whole_rows_max",
];

/// Runs the file on an engine of its own and collects the queries with the rows that they saw.
pub async fn cases(path: &Path, name: &str) -> drive::Result<Converted> {
    let records = sqllogictest::parse_file::<DefaultColumnType>(path).map_err(|error| format!("{error}"))?;
    let engine = millstream_cli::builder().start().map_err(|error| error.to_string())?;
    let mut runner = slt::runner(&engine, path);
    let mut walk = Walk::new(name, engine.session());
    for record in records {
        match &record {
            Record::Halt { .. } => break,
            Record::Query { sql, expected, conditions, connection, loc, .. } if is_one_query(sql) => {
                if runs(conditions) {
                    let answered = matches!(expected, QueryExpect::Results { .. });
                    walk.query(sql, loc.line(), answered && *connection == Connection::Default).await?;
                }
            }
            _ => {
                let change = match &record {
                    Record::Statement { sql, expected, .. } => {
                        (!matches!(expected, StatementExpect::Error(_))).then(|| sql.clone())
                    }
                    Record::Query { sql, .. } => Some(sql.clone()),
                    _ => None,
                };
                // A step that fails here fails in the plain suite, too, which reports it.
                let done = runner.run_async(record).await.is_ok();
                for piece in change.iter().flat_map(|sql| statement::pieces(sql)) {
                    if done { walk.statement(&piece).await } else { walk.failed(&piece) }
                }
            }
        }
    }
    walk.finish();
    runner.shutdown_async().await;
    engine.stop().await.map_err(|error| error.to_string())?;
    Ok(walk.converted)
}

/// Returns true if a record consists of one query.
fn is_one_query(sql: &str) -> bool {
    statement::is_query(sql) && statement::pieces(sql).len() == 1
}

/// Returns true if a record with these conditions applies to Millstream.
fn runs(conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| match condition {
        Condition::OnlyIf { label } => label == slt::LABEL,
        Condition::SkipIf { label } => label != slt::LABEL,
    })
}

/// The state of a run through a file.
struct Walk {
    file: String,
    session: Session,
    settings: Vec<String>,
    /// Kind, name and DDL of each object, in order of creation.
    catalog: Vec<(Kind, String, String)>,
    altered: bool,
    /// True if names are looked up on a path, of which their texts say nothing.
    has_path: bool,
    /// The names of objects that statements failed to create.
    missing: BTreeSet<String>,
    /// The table contents read since the last statement.
    contents: BTreeMap<String, RecordBatch>,
    queries: Vec<Query>,
    needed: BTreeSet<String>,
    converted: Converted,
}

impl Walk {
    fn new(file: &str, session: Session) -> Walk {
        Walk {
            file: file.to_string(),
            session,
            settings: Vec::new(),
            catalog: Vec::new(),
            altered: false,
            has_path: false,
            missing: BTreeSet::new(),
            contents: BTreeMap::new(),
            queries: Vec::new(),
            needed: BTreeSet::new(),
            converted: Converted::default(),
        }
    }

    /// Records a statement that succeeded.
    async fn statement(&mut self, sql: &str) {
        self.finish();
        match statement::effect(sql) {
            Effect::Create { kind: Kind::Temporary, name, .. } => drop(self.missing.insert(name)),
            Effect::Create { kind, name, if_not_exists } => {
                let exists = self.catalog.iter().any(|(_, known, _)| *known == name);
                if !(exists && if_not_exists) {
                    self.catalog.retain(|(_, known, _)| *known != name);
                    self.catalog.push((kind, name, sql.to_string()));
                }
            }
            Effect::Drop => {
                let mut left = Vec::new();
                for object in std::mem::take(&mut self.catalog) {
                    let is_there = match object.1.strip_suffix('.') {
                        Some(schema) => format!("SELECT '{schema}'::regnamespace"),
                        None => format!("DESCRIBE \"{}\"", object.1),
                    };
                    if drive::rows(&mut self.session, &is_there).await.is_ok() {
                        left.push(object);
                    }
                }
                self.catalog = left;
            }
            Effect::Alter => self.altered = true,
            Effect::Set(name) if OWN_SETTINGS.contains(&name.as_str()) => {}
            Effect::Set(name) if name == "search_path" => {
                self.has_path = !statement::first_words(sql).starts_with(&["RESET".into()]);
            }
            Effect::Set(_) => {
                self.settings.push(sql.to_string());
                if let Err(error) = drive::run(&mut self.session, sql).await {
                    self.leave_out(&format!("a setting that a second session refuses: {error}"));
                }
            }
            Effect::None => {}
        }
    }

    /// Records a statement that should have succeeded.
    fn failed(&mut self, sql: &str) {
        if let Effect::Create { name, .. } = statement::effect(sql) {
            self.missing.insert(name);
        }
    }

    /// Adds a query to the case of the present state, or skips it.
    async fn query(&mut self, sql: &str, line: u32, answered: bool) -> drive::Result<()> {
        let sql = sql.trim().trim_end_matches(';').trim();
        if !answered {
            self.leave_out("the file expects an error or asks another session");
            return Ok(());
        }
        let (needed, asks) = match self.reads(sql) {
            Ok(found) => found,
            Err(reason) => {
                self.leave_out(&reason);
                return Ok(());
            }
        };
        // The query may compare rows with the present time.
        if asks && drive::rows(&mut self.session, &format!("EXPLAIN {sql}")).await.is_err() {
            self.leave_out(CLOCK);
            return Ok(());
        }
        for (kind, name, _) in &self.catalog {
            if *kind == Kind::Table && needed.contains(name) && !self.contents.contains_key(name) {
                let content = drive::rows(&mut self.session, &format!("SELECT * FROM \"{name}\"")).await?;
                self.contents.insert(name.clone(), content);
            }
        }
        self.needed.extend(needed);
        self.queries.push(Query { line, sql: sql.to_string() });
        Ok(())
    }

    fn leave_out(&mut self, reason: &str) {
        *self.converted.left_out.entry(reason.to_string()).or_default() += 1;
    }

    /// Returns the tables and views that `sql` needs, and true if it uses the present time. Fails with the
    /// reason if `sql` can't be compared.
    fn reads(&self, sql: &str) -> Result<(BTreeSet<String>, bool), String> {
        if self.altered {
            return Err("after ALTER, whose effect the DDL doesn't show".into());
        }
        if self.has_path {
            return Err("names are looked up on a search path".into());
        }
        let (mut needed, mut texts, mut asks) = (BTreeSet::new(), vec![sql.to_string()], false);
        while let Some(text) = texts.pop() {
            match exempt(&text) {
                Some(CLOCK) => asks = true,
                Some(reason) => return Err(reason.into()),
                None => {}
            }
            self.functions_in(&text, &mut needed, &mut texts);
            if matches!(statement::effect(&text), Effect::Create { kind: Kind::Function, .. }) {
                continue;
            }
            self.types_in(&text, &mut needed);
            for relation in statement::relations(&text) {
                let known = self.catalog.iter().find(|(_, name, _)| *name == relation);
                let Some((kind, name, ddl)) = known else {
                    if self.missing.contains(&relation) {
                        return Err("reads what could not be made, which fails in the plain suite".into());
                    }
                    let schemas = ["millstream.", "information_schema.", "pg_catalog.", "pg_"];
                    if schemas.iter().any(|schema| relation.starts_with(schema)) {
                        return Err("system tables are not relations of deltas".into());
                    }
                    continue;
                };
                if !needed.insert(name.clone()) {
                    continue;
                }
                needed.extend(name.split_once('.').map(|(schema, _)| format!("{schema}.")));
                let words = statement::names(ddl);
                match kind {
                    Kind::Source | Kind::Function | Kind::Type | Kind::Temporary | Kind::Other => {
                        return Err("reads a source, which keeps no rows".into());
                    }
                    Kind::Table if words.contains("connector") => {
                        return Err("reads a table that a connector fills".into());
                    }
                    Kind::Table if words.contains("generated") => {
                        return Err("reads a table with generated columns, which can't be put in".into());
                    }
                    Kind::Table if words.contains("conflict") && words.contains("update") => {
                        return Err("reads a table whose rows keep values of the rows before them".into());
                    }
                    Kind::Table if words.contains("like") => {
                        return Err(
                            "reads a table with columns of another one, which its text doesn't show".into()
                        );
                    }
                    Kind::Table if words.contains("check") || self.types_in(ddl, &mut needed) => {
                        return Err(
                            "reads a table with constraints, which rows of the oracle may violate".into()
                        );
                    }
                    Kind::Table | Kind::Schema => {}
                    Kind::View => texts.push(ddl.clone()),
                }
            }
        }
        Ok((needed, asks))
    }

    /// Adds the functions and aggregates that a text calls, and their statements to `texts`.
    fn functions_in(&self, text: &str, needed: &mut BTreeSet<String>, texts: &mut Vec<String>) {
        for name in statement::names(text) {
            let name = format!("{name}()");
            let mut functions = self.catalog.iter().filter(|(kind, ..)| *kind == Kind::Function);
            if let Some((_, _, ddl)) = functions.find(|(_, known, _)| *known == name)
                && needed.insert(name)
            {
                texts.push(ddl.clone());
            }
        }
    }

    /// Adds the user-defined types that a text names, with their schemas. Returns true if one of them is a domain.
    fn types_in(&self, text: &str, needed: &mut BTreeSet<String>) -> bool {
        let (names, mut has_domain) = (statement::names(text), false);
        for (_, name, ddl) in self.catalog.iter().filter(|(kind, ..)| *kind == Kind::Type) {
            let (schema, word) = name.split_once('.').unwrap_or(("", name));
            if !names.contains(word) {
                continue;
            }
            has_domain |= statement::names(ddl).contains("domain");
            needed.extend((!schema.is_empty()).then(|| format!("{schema}.")));
            // A domain may be over another one.
            if needed.insert(name.clone()) {
                self.types_in(ddl, needed);
            }
        }
        has_domain
    }

    /// Closes the case of the present state.
    fn finish(&mut self) {
        let (queries, needed) = (std::mem::take(&mut self.queries), std::mem::take(&mut self.needed));
        let contents = std::mem::take(&mut self.contents);
        if queries.is_empty() {
            return;
        }
        let objects = self
            .catalog
            .iter()
            .filter(|(_, name, _)| needed.contains(name))
            .map(|(_, name, ddl)| object(name, ddl, contents.get(name)))
            .collect();
        let case = Case { file: self.file.clone(), settings: self.settings.clone(), objects, queries };
        match self.converted.cases.last_mut() {
            Some(last) if same_state(last, &case) => absorb(last, case),
            _ => self.converted.cases.push(case),
        }
    }
}

/// Returns the reason why a text can't be compared, if there is one.
pub fn exempt(sql: &str) -> Option<&'static str> {
    let words = statement::tokens(sql);
    let words: Vec<String> = words.iter().map(|token| token.to_string().to_lowercase()).collect();
    let followed_by = |at: usize, next: &str| words.get(at + 1).is_some_and(|word| word == next);
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            "emit" if followed_by(at, "changes") => return Some("EMIT CHANGES never ends"),
            "emit" if followed_by(at, "on") || followed_by(at, "final") => {
                return Some("EMIT ON WINDOW CLOSE depends on the split by intent");
            }
            "system_time" if words.get(at + 3).is_some_and(|moment| is_literal(moment)) => {
                return Some("FOR SYSTEM_TIME AS OF one moment: a view has none");
            }
            "from" | "join" if words.get(at + 1).is_some_and(|path| path.starts_with("'sql-tests/")) => {
                return Some(FILE);
            }
            "for" if followed_by(at, "each") => return Some("FOR EACH BATCH depends on the split by intent"),
            _ => {}
        }
        // A qualified name belongs to a column.
        let qualified = at > 1 && words[at - 1] == "." && words[at - 2] != "pg_catalog";
        if let Some((_, reason)) = EXEMPT.iter().find(|(name, _)| !qualified && name == word) {
            return Some(reason);
        }
        let is_name = OF_NAMES.contains(&word.trim_start_matches("to_"));
        let of_catalog = OF_CATALOG.contains(&word.as_str())
            || word.starts_with("inet_")
            || word.starts_with("pg_") && !["pg_catalog", "pg_typeof"].contains(&word.as_str());
        if !qualified && (is_name || of_catalog && followed_by(at, "(")) {
            return Some("a function of the catalog or the session");
        }
    }
    None
}

/// Returns true if a timestamp begins like a literal, which belongs to no row.
fn is_literal(word: &str) -> bool {
    word == "timestamp" || word.starts_with(|c: char| c == '\'' || c.is_ascii_digit())
}

fn object(name: &str, ddl: &str, content: Option<&RecordBatch>) -> Object {
    // The columns of the rows make the table.
    let ddl = if statement::has_rows_of_query(ddl) { "" } else { ddl };
    let table = content.map(|rows| {
        let columns = rows.schema();
        let key = statement::primary_key(ddl);
        let words = ddl.to_uppercase();
        Table {
            rows: rows.clone(),
            key: key.iter().filter_map(|column| columns.index_of(column).ok()).collect(),
            // Random rows of a table with a UNIQUE constraint would violate it.
            append_only: ["APPEND ONLY", "DO NOTHING", "UNIQUE"].iter().any(|word| words.contains(word)),
        }
    });
    Object { name: name.to_string(), ddl: statement::patient(ddl), table }
}

/// Returns true if one state can answer the queries of both cases.
fn same_state(first: &Case, second: &Case) -> bool {
    let equal = |a: &Object, b: &Object| {
        a.ddl == b.ddl
            && match (&a.table, &b.table) {
                (Some(a), Some(b)) => matches!(compare::difference(&a.rows, &b.rows), Ok(None)),
                (None, None) => true,
                _ => false,
            }
    };
    first.settings == second.settings
        && second.objects.iter().all(|object| {
            first
                .objects
                .iter()
                .find(|known| known.name == object.name)
                .is_none_or(|known| equal(known, object))
        })
}

fn absorb(case: &mut Case, more: Case) {
    for object in more.objects {
        if !case.objects.iter().any(|known| known.name == object.name) {
            case.objects.push(object);
        }
    }
    case.queries.extend(more.queries);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exempt_is_named() {
        assert_eq!(exempt("SELECT random()"), Some("volatile: random"));
        assert_eq!(exempt("SELECT t.now FROM t"), None);
        assert_eq!(exempt("SELECT * FROM t EMIT CHANGES"), Some("EMIT CHANGES never ends"));
        assert_eq!(exempt("SELECT 'random' FROM t"), None);
    }
}
