//! The table of statements: the engine runs the statements that it lists, and no others.
//!
//! A statement is a file in this folder and a line here. The error messages, the rules within a transaction,
//! the shell's completion and its help are made from the entries.

#[cfg(test)]
mod echo;

use millstream_sql::suggestion::did_you_mean;
use millstream_sql::{Error, Result, TokenReader};

use super::not_yet::{NOT_YET, NotYet};
use super::{
    advance, alter_source, alter_table, alter_watermark, analyze, checkpoint, comment, copy,
    create_aggregate, create_function, create_index, create_materialized_view, create_schema, create_sink,
    create_source, create_stream, create_subscription, create_table, create_table_as, create_temporary,
    create_type, create_view, cursor, describe, discard, drop, explain, flush, modify, no_effect, pause,
    prepared, rename, replace, reset, select, sequence, set, show, statement_set, stop, subscribe, swap,
    transaction, truncate, verify,
};
use crate::plan::Working;
use crate::session::{Response, Session, Tag};
use crate::statement::{InTransaction, RowsTag, Run, Statement};

/// Statements, of which at most one begins at any text.
pub(crate) struct Statements {
    pub(super) all: &'static [&'static Statement],
    pub(super) not_yet: &'static [NotYet],
}

/// All statements, in the order in which messages and the help list them.
pub(crate) static STATEMENTS: Statements = Statements {
    all: &[
        &create_source::CREATE_SOURCE,
        &create_table::CREATE_TABLE,
        &create_table::CREATE_UNLOGGED,
        &create_table_as::CREATE_TABLE_AS,
        &create_temporary::CREATE_TEMPORARY,
        &create_view::CREATE_VIEW,
        &create_view::CREATE_RECURSIVE_VIEW,
        &create_materialized_view::CREATE_MATERIALIZED_VIEW,
        &create_stream::CREATE_STREAM,
        &create_sink::CREATE_SINK,
        &create_subscription::CREATE_SUBSCRIPTION,
        &create_function::CREATE_FUNCTION,
        &create_aggregate::CREATE_AGGREGATE,
        &create_schema::CREATE_SCHEMA,
        &sequence::CREATE_SEQUENCE,
        &create_type::CREATE_TYPE,
        &create_type::CREATE_DOMAIN,
        &replace::REPLACE_QUERY,
        &no_effect::OWNER_TO,
        &rename::RENAME,
        &swap::SWAP,
        &alter_table::ALTER_TABLE,
        &create_index::CREATE_INDEX,
        &create_index::DROP_INDEX,
        &create_index::ALTER_INDEX,
        &alter_watermark::ALTER_WATERMARK,
        &alter_source::ALTER_SOURCE,
        &sequence::ALTER_SEQUENCE,
        &comment::COMMENT,
        &drop::DROP,
        &modify::INSERT,
        &modify::UPDATE,
        &modify::DELETE,
        &modify::MERGE,
        &truncate::TRUNCATE,
        &copy::COPY,
        &transaction::BEGIN,
        &transaction::COMMIT,
        &transaction::ROLLBACK,
        &transaction::SAVEPOINT,
        &transaction::RELEASE,
        &transaction::SET_TRANSACTION,
        &transaction::SET_CHARACTERISTICS,
        &select::SELECT,
        &subscribe::SUBSCRIBE,
        &advance::ADVANCE_SUBSCRIPTION,
        &cursor::DECLARE,
        &cursor::FETCH,
        &cursor::MOVE,
        &cursor::CLOSE,
        &prepared::PREPARE,
        &prepared::EXECUTE,
        &prepared::DEALLOCATE,
        &statement_set::STATEMENT_SET,
        &explain::EXPLAIN,
        &verify::VERIFY,
        &describe::DESCRIBE,
        &show::SHOW,
        &set::SET,
        &reset::RESET,
        &discard::DISCARD,
        &discard::UNLISTEN,
        &pause::PAUSE,
        &pause::RESUME,
        &stop::STOP,
        &flush::FLUSH,
        &checkpoint::CHECKPOINT,
        &analyze::ANALYZE,
        &no_effect::GRANT,
        &no_effect::REFRESH,
        &no_effect::EXTENSION,
        &no_effect::LOCK,
        &no_effect::MAINTENANCE,
        &advance::ADVANCE,
    ],
    not_yet: NOT_YET,
};

/// Returns all statements, with the descriptions that the shell completes and shows.
pub fn statements() -> &'static [&'static Statement] {
    STATEMENTS.all
}

/// Returns the command tag of a statement that returns rows. It looks only at the first word, so it is fast.
pub fn rows_tag(sql: &str) -> RowsTag {
    let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let begins = |statement: &&&Statement| {
        statement
            .words
            .iter()
            .any(|words| words.first().is_some_and(|first| first.eq_ignore_ascii_case(word)))
    };
    let mut with_rows = statements().iter().filter(|statement| statement.rules.rows.is_some());
    with_rows.find(begins).and_then(|statement| statement.rules.rows).unwrap_or(RowsTag::SELECT)
}

/// A statement that begins at a reader.
pub(crate) struct Found {
    pub(crate) statement: &'static Statement,
    /// Its first words; none if [`Statement::begins`] has recognised it.
    pub(crate) words: &'static [&'static str],
}

impl Found {
    /// Returns the first words, or the name of the statement if they are unknown.
    pub(crate) fn name(&self) -> String {
        if self.words.is_empty() { self.statement.name() } else { self.words.join(" ") }
    }
}

impl Statements {
    /// Returns the statement that begins here. If several do, the one with the most first words wins.
    pub(crate) fn find(&self, reader: &TokenReader<'_>) -> Result<Found> {
        let mut found: Option<Found> = None;
        for statement in self.all {
            if let Some(begins) = statement.begins {
                if begins(reader) {
                    return Ok(Found { statement, words: &[] });
                }
                continue;
            }
            for words in statement.words {
                if reader.is_keyword(words)
                    && found.as_ref().is_none_or(|best| best.words.len() < words.len())
                {
                    found = Some(Found { statement, words });
                }
            }
        }
        let words = found.as_ref().map_or(0, |found| found.words.len());
        let is_better = |not_yet: &&NotYet| match not_yet.clause {
            Some(clause) => found.is_none() && clause(reader).is_some(),
            None => not_yet.words.len() > words && reader.is_keyword(not_yet.words),
        };
        let not_yet = self.not_yet.iter().filter(is_better);
        match not_yet.max_by_key(|not_yet| (not_yet.clause.is_some(), not_yet.words.len())) {
            Some(not_yet) => Err(not_yet.error(reader)),
            None => found.ok_or_else(|| self.unknown(reader)),
        }
    }

    /// Runs the statement that begins here, unless it is one of DDL.
    pub(crate) async fn run(&self, session: &mut Session, mut reader: TokenReader<'_>) -> Result<Response> {
        let Found { statement, words } = self.find(&reader)?;
        reader.keyword(words);
        match statement.run {
            Run::Alone(run) | Run::AloneOrPlan(run, _) => run(session, reader).await,
            Run::Plan(_) => Err(Error::bug(format!("{} is planned with others", statement.name()))),
        }
    }

    /// Plans the statement of DDL that begins here.
    pub(crate) async fn plan(
        &self,
        session: &Session,
        working: &mut Working,
        mut reader: TokenReader<'_>,
    ) -> Result<Tag> {
        let Found { statement, words } = self.find(&reader)?;
        reader.keyword(words);
        match statement.run {
            Run::Plan(plan) | Run::AloneOrPlan(_, plan) => plan(session, working, reader).await,
            Run::Alone(_) => Err(Error::bug(format!("{} runs by itself", statement.name()))),
        }
    }

    /// Returns true if a statement changes the catalog together with adjacent ones. So does one that is wrong,
    /// if its first word is theirs: then none of them takes effect.
    pub(crate) fn is_ddl(&self, reader: &TokenReader<'_>) -> bool {
        match self.find(reader) {
            Ok(found) => found.statement.is_ddl(),
            Err(_) => {
                let mut ddl = self.all.iter().filter(|statement| statement.is_ddl());
                ddl.any(|statement| statement.words.iter().any(|words| reader.is_keyword(&words[..1])))
            }
        }
    }

    /// Returns true if the statement ends a transaction or rolls it back to a savepoint.
    pub(crate) fn ends_transaction(&self, reader: &TokenReader<'_>) -> bool {
        let ends = |statement: &&&Statement| statement.rules.transaction == InTransaction::Ends;
        let mut ending = self.all.iter().filter(ends);
        ending.any(|statement| statement.words.iter().any(|words| reader.is_keyword(words)))
    }

    /// Returns the kinds of objects that CREATE makes.
    pub(crate) fn kinds(&self) -> Vec<&'static [&'static str]> {
        let changing = self.all.iter().filter(|statement| statement.is_ddl());
        let forms = changing.filter_map(|statement| statement.words.first());
        let mut kinds: Vec<&[&str]> = forms.filter_map(|words| words.strip_prefix(&["CREATE"])).collect();
        // CREATE TABLE and CREATE TABLE … AS are neighbours.
        kinds.dedup();
        kinds
    }

    /// Returns the first words of the statements that PREPARE takes.
    pub(crate) fn prepared(&self) -> String {
        let can = self.all.iter().filter(|statement| statement.rules.can_be_prepared);
        let forms: Vec<String> =
            can.flat_map(|statement| statement.words).map(|words| words.join(" ")).collect();
        or(&forms)
    }

    /// Returns the first words of all statements: `CREATE SOURCE or TABLE, DROP, …`.
    fn names(&self) -> String {
        let mut firsts: Vec<&str> = Vec::new();
        for words in self.all.iter().flat_map(|statement| statement.words) {
            if !firsts.contains(&words[0]) {
                firsts.push(words[0]);
            }
        }
        let name = |first: &&str| match self.after(&[*first]) {
            after if after.iter().any(String::is_empty) => (*first).to_string(),
            after => format!("{first} {}", or(&after)),
        };
        firsts.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// Returns the words that may follow the first words of statements. The optional OR REPLACE is left out.
    fn after(&self, begun: &[&str]) -> Vec<String> {
        let mut after: Vec<String> = Vec::new();
        for words in self.all.iter().flat_map(|statement| statement.words) {
            if let Some(rest) = words.strip_prefix(begun)
                && rest.first() != Some(&"OR")
                && !after.contains(&rest.join(" "))
            {
                after.push(rest.join(" "));
            }
        }
        after
    }

    /// Returns the error of a text that no statement begins with.
    fn unknown(&self, reader: &TokenReader<'_>) -> Error {
        if reader.is_keyword(&["CREATE", "TYPE"]) {
            return Error::unsupported("CREATE TYPE").hint(
                "Use a type that is there: STRUCT<a INT> for fields, TEXT for an enum, NUMRANGE for a range.",
            );
        }
        let forms = || self.all.iter().flat_map(|statement| statement.words);
        let known =
            |words: &&&[&str]| (0..words.len()).take_while(|n| reader.is_keyword(&words[..=*n])).count();
        match forms().max_by_key(known).map(|words| &words[..known(&words)]) {
            Some(begun) if !begun.is_empty() => {
                let mut reader = reader.clone();
                reader.keyword(begun);
                reader.expected(&or(&self.after(begun)))
            }
            _ => {
                let word = reader.peek().to_string();
                let first = forms().filter_map(|words| words.first()).copied();
                let listed = || format!("The statements are {}.", self.names());
                reader.expected("a statement").hint(did_you_mean(&word, first).unwrap_or_else(listed))
            }
        }
    }
}

/// Joins words: `a, b or c`.
pub(super) fn or(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    /// The table with the statement that CONTRIBUTING.md adds.
    static WITH_ECHO: Statements =
        Statements { all: &[&create_table::CREATE_TABLE, &flush::FLUSH, &echo::ECHO], not_yet: NOT_YET };

    fn reader(sql: &str) -> TokenReader<'_> {
        TokenReader::new(sql).unwrap()
    }

    fn name(sql: &str) -> String {
        match STATEMENTS.find(&reader(sql)) {
            Ok(found) => found.statement.name(),
            Err(error) => error.message,
        }
    }

    #[test]
    fn contributing_shows_the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CONTRIBUTING.md");
        let contributing = std::fs::read_to_string(path).unwrap();
        let example = format!("```rust\n{}```", include_str!("table/echo.rs"));
        assert!(contributing.contains(&example), "CONTRIBUTING.md lacks the text of echo.rs");
    }

    #[test]
    fn a_file_and_a_line_add_a_statement() {
        let engine = Engine::start().unwrap();
        let mut session = engine.session();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut run = |sql| runtime.block_on(WITH_ECHO.run(&mut session, reader(sql)));
        assert_eq!(run("ECHO 'hello'").unwrap().notices(), ["hello"]);
        assert!(matches!(run("flush"), Ok(Response::Done(tag)) if tag.text == "FLUSH"));
        let mut hint = |sql| run(sql).unwrap_err().hint;
        assert_eq!(hint("ECO 'hello'").as_deref(), Some("Did you mean \"ECHO\"?"));
        assert_eq!(hint("SING 'hello'").as_deref(), Some("The statements are CREATE TABLE, FLUSH, ECHO."));
    }

    #[test]
    fn no_two_statements_begin_alike() {
        let mut begun: Vec<&[&str]> = Vec::new();
        for statement in STATEMENTS.all.iter().filter(|statement| statement.begins.is_none()) {
            for words in statement.words {
                assert!(!begun.contains(words), "{words:?}");
                begun.push(words);
                assert_eq!(name(&words.join(" ")), statement.name());
            }
        }
    }

    #[test]
    fn the_longest_beginning_wins() {
        assert_eq!(name("ADVANCE BATCH"), "ADVANCE");
        assert_eq!(name("ADVANCE SUBSCRIPTION s"), "ADVANCE SUBSCRIPTION");
        assert_eq!(name("SET TRANSACTION READ ONLY"), "SET TRANSACTION");
        assert_eq!(name("CREATE OR REPLACE FUNCTION f"), "CREATE FUNCTION");
        assert_eq!(name("CREATE OR REPLACE SINK k"), "CREATE SINK");
        assert_eq!(name("CREATE OR REPLACE TABLE t"), "CREATE OR REPLACE is not supported yet");
        assert_eq!(name("PREPARE p AS SELECT 1"), "PREPARE");
        assert!(name("PREPARE TRANSACTION 'p'").contains("two phases"));
    }

    #[test]
    fn conditions_tell_apart_statements_of_the_same_beginning() {
        assert_eq!(name("WITH x AS (SELECT 1) SELECT * FROM x"), "SELECT");
        assert_eq!(name("WITH x AS (SELECT 1) DELETE FROM t"), "DELETE");
        assert_eq!(name("(SELECT 1) UNION SELECT 2"), "SELECT");
        assert_eq!(name("ALTER SOURCE s REPLAY 'x'"), "ALTER SOURCE");
        for (sql, statement) in [
            ("ALTER SOURCE s RENAME TO r", &rename::RENAME),
            ("ALTER VIEW v SWAP WITH w", &swap::SWAP),
            ("ALTER TABLE t ADD c INT", &alter_table::ALTER_TABLE),
            ("ALTER TABLE t DROP WATERMARK", &alter_watermark::ALTER_WATERMARK),
            ("ALTER VIEW v AS SELECT 1", &replace::REPLACE_QUERY),
            ("CREATE OR REPLACE STREAM v AS SELECT 1", &replace::REPLACE_QUERY),
        ] {
            assert!(std::ptr::eq(STATEMENTS.find(&reader(sql)).unwrap().statement, statement), "{sql}");
        }
        assert_eq!(name("ALTER VIEW t SET c"), "ALTER is not supported yet");
        assert_eq!(name("CREATE UNIQUE INDEX ON t (a)"), "CREATE INDEX");
        assert_eq!(name("DROP INDEX i"), "DROP INDEX");
    }

    #[test]
    fn messages_list_what_is_expected() {
        let kinds = "SOURCE, TABLE, UNLOGGED, TEMP, VIEW, RECURSIVE, MATERIALIZED VIEW, STREAM, SINK, SUBSCRIPTION, FUNCTION, \
                     AGGREGATE, SCHEMA, SEQUENCE, TYPE, DOMAIN, INDEX, UNIQUE INDEX, EXTENSION or STATISTICS";
        assert_eq!(name("CREATE TABEL t"), format!("syntax error: expected {kinds}, found TABEL"));
        assert_eq!(name("CREATE TRIGGER t BEFORE INSERT ON u"), "CREATE TRIGGER is not supported yet");
        assert_eq!(name("START"), "syntax error: expected TRANSACTION, found the end of the statement");
        assert_eq!(STATEMENTS.prepared(), "INSERT, UPDATE, DELETE, MERGE, SELECT, WITH, VALUES or TABLE");
        let names = STATEMENTS.names();
        assert!(names.starts_with(&format!("CREATE {kinds}, ALTER VIEW, ")), "{names}");
        assert!(names.contains(", COPY, BEGIN, START TRANSACTION, COMMIT, "), "{names}");
    }

    #[test]
    fn ddl_that_is_wrong_is_planned_with_its_neighbours() {
        let is_ddl = |sql| STATEMENTS.is_ddl(&reader(sql));
        assert!(is_ddl("CREATE TABLE t") && is_ddl("CREATE NOTHING") && !is_ddl("CREATE INDEX i"));
        assert!(is_ddl("DROP x") && !is_ddl("CREATE OR REPLACE VIEW v AS SELECT 1") && !is_ddl("ALTER x"));
    }

    #[test]
    fn tags_of_rows_are_those_of_postgres() {
        assert_eq!(rows_tag(" explain SELECT 1").text(3), "EXPLAIN");
        assert_eq!(rows_tag("SHOW ALL").text(3), "SHOW");
        assert_eq!(rows_tag("FETCH 3 FROM c").text(3), "FETCH 3");
        assert_eq!(rows_tag("DESCRIBE t").text(3), "SELECT 3");
        assert_eq!(rows_tag("(SELECT 1)").text(1), "SELECT 1");
    }
}
