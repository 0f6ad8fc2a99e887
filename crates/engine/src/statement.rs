//! A statement's entry: its first words, its description, the function that runs it, and its rules.

use futures::future::BoxFuture;
use millstream_sql::{Operation, Result, TokenReader};

use crate::plan::Working;
use crate::session::{Response, Session, Tag};

/// A statement: its first words and its description. [`statements`](crate::statements()) lists them all.
#[derive(Debug)]
pub struct Statement {
    /// The first words of its forms. The first form names the statement.
    pub words: &'static [&'static [&'static str]],
    /// The syntax, as its page has it.
    pub synopsis: &'static str,
    /// The purpose in a few words.
    pub purpose: &'static str,
    /// The pages of the reference about it: names of files in `docs/sql/statements`, without `.md`.
    pub pages: &'static [&'static str],
    /// Returns true if the statement begins here. `None`: its first words decide.
    pub(crate) begins: Option<Begins>,
    pub(crate) run: Run,
    pub(crate) rules: Rules,
}

/// Returns true if a statement begins at the next token.
pub(crate) type Begins = fn(&TokenReader<'_>) -> bool;

/// The function that runs a statement.
///
/// Its reader stands after the statement's first words, or at the statement's start if [`Statement::begins`]
/// has recognised it.
#[derive(Debug)]
pub(crate) enum Run {
    /// Plans a change of the catalog, which takes effect together with those of adjacent statements.
    Plan(PlanFn),
    /// Runs a statement by itself.
    Alone(RunFn),
    /// Runs a statement by itself, but plans it if it turns out to create an object.
    AloneOrPlan(RunFn, PlanFn),
}

/// Plans a change of the catalog.
pub(crate) type PlanFn =
    for<'a> fn(&'a Session, &'a mut Working, TokenReader<'a>) -> BoxFuture<'a, Result<Tag>>;

/// Runs a statement by itself.
pub(crate) type RunFn = for<'a> fn(&'a mut Session, TokenReader<'a>) -> BoxFuture<'a, Result<Response>>;

/// The rules for a statement, beside those of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) transaction: InTransaction,
    /// The command tag if it returns rows.
    pub(crate) rows: Option<RowsTag>,
    /// True if PREPARE takes it.
    pub(crate) can_be_prepared: bool,
    /// True if a script that runs again with the same data directory skips it. CREATE and DROP have rules of
    /// their own.
    pub(crate) runs_once: bool,
}

impl Rules {
    /// The rules for most statements.
    pub(crate) const DEFAULT: Rules =
        Rules { transaction: InTransaction::Allowed, rows: None, can_be_prepared: false, runs_once: false };
    /// The rules for CREATE and DROP.
    pub(crate) const CATALOG: Rules = Rules { transaction: InTransaction::AtOnce, ..Rules::DEFAULT };
    /// The rules for ALTER.
    pub(crate) const ALTER: Rules = Rules { runs_once: true, ..Rules::CATALOG };
    /// The rules for INSERT, UPDATE and DELETE. The rows of RETURNING bring their tag.
    pub(crate) const MODIFY: Rules = Rules { can_be_prepared: true, runs_once: true, ..Rules::DEFAULT };
    /// The rules for statements that return rows.
    pub(crate) const ROWS: Rules = Rules { rows: Some(RowsTag::SELECT), ..Rules::DEFAULT };

    /// Returns the rules for statements that a transaction refuses, with a hint.
    pub(crate) const fn refused(hint: &'static str) -> Rules {
        Rules { transaction: InTransaction::Refused(hint), ..Rules::DEFAULT }
    }
}

/// The effect of a statement between BEGIN and COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InTransaction {
    /// It runs as a part of the transaction.
    Allowed,
    /// It takes effect at once, even if the transaction is rolled back. It must precede the transaction's
    /// changes.
    AtOnce,
    /// It is refused, with this hint.
    Refused(&'static str),
    /// It ends the transaction or rolls it back to a savepoint.
    Ends,
}

/// The command tag of a statement that returns rows, as PostgreSQL's clients expect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsTag {
    /// Its word.
    pub word: &'static str,
    /// True if the number of rows follows the word.
    pub has_count: bool,
}

impl RowsTag {
    pub(crate) const SELECT: RowsTag = RowsTag { word: "SELECT", has_count: true };

    /// Returns the tag of a change of rows.
    pub(crate) fn of(operation: Operation) -> RowsTag {
        let word = match operation {
            Operation::Insert => "INSERT 0",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Merge => "MERGE",
        };
        RowsTag { word, has_count: true }
    }

    /// Returns the tag after this number of rows.
    pub fn text(self, rows: usize) -> String {
        match self.has_count {
            true => format!("{} {rows}", self.word),
            false => self.word.to_string(),
        }
    }
}

impl Statement {
    /// Returns the statement's name: the first words of its first form.
    pub fn name(&self) -> String {
        self.words.first().copied().unwrap_or_default().join(" ")
    }

    /// Returns true if it changes the catalog together with adjacent statements.
    pub(crate) fn is_ddl(&self) -> bool {
        matches!(self.run, Run::Plan(_))
    }
}
