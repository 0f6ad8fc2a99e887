//! `ALTER MATERIALIZED VIEW | STREAM name [(columns)] [WITH (start = 'now')] AS SELECT …`, and `CREATE OR
//! REPLACE MATERIALIZED VIEW | STREAM | VIEW name [(columns)] [WITH (start = 'now', …)] AS SELECT …`: replace
//! the query of an existing relation.

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_durable::Plan;
use millstream_sql::functions::quoted_ident;
use millstream_sql::{Error, Result, TokenReader, extends, qualified_ident};

use super::create_view::lasting_planner;
use super::explain_why::two_columns;
use super::sink_into::stems_from;
use super::{create_materialized_view, create_stream, create_view};
use crate::catalog::{Catalog, Definition, Object};
use crate::ddl::{self, PLANS_MAX, busy};
use crate::event::{Change, Event, Question, Replacing};
use crate::plan::Working;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::transaction::say_at_once;

pub(super) static REPLACE_QUERY: Statement = Statement {
    words: &[
        &["ALTER", "VIEW"],
        &["ALTER", "MATERIALIZED", "VIEW"],
        &["ALTER", "STREAM"],
        &["CREATE", "OR", "REPLACE", "VIEW"],
        &["CREATE", "OR", "REPLACE", "MATERIALIZED", "VIEW"],
        &["CREATE", "OR", "REPLACE", "STREAM"],
    ],
    synopsis: concat!(
        "ALTER MATERIALIZED VIEW | STREAM name [(column, …)] [WITH (start = 'now')]\n",
        "  AS query [EMIT ON WINDOW CLOSE | FOR EACH BATCH];\n",
        "CREATE OR REPLACE MATERIALIZED VIEW | STREAM name [(column, …)] [WITH (option = value, …, start = 'now')]\n",
        "  AS query [EMIT ON WINDOW CLOSE | FOR EACH BATCH];\n",
        "CREATE OR REPLACE VIEW name [(column, …)] AS query;\n",
        "EXPLAIN ALTER …;\n",
        "EXPLAIN CREATE OR REPLACE …;",
    ),
    purpose: "replace the query of an object",
    pages: &["alter-as"],
    begins: Some(begins),
    run: Run::AloneOrPlan(
        |session, mut reader| Box::pin(async move { run(session, &mut reader).await }),
        |session, working, mut reader| {
            Box::pin(async move {
                reader.expect_keyword(&["CREATE", "OR", "REPLACE"])?;
                create(session, working, reader)
            })
        },
    ),
    rules: Rules::ALTER,
};

/// The kinds of objects whose query can be replaced.
const KINDS: &[&[&str]] = &[&["MATERIALIZED", "VIEW"], &["STREAM"], &["VIEW"]];

/// Returns true if the statement replaces a query: `ALTER STREAM s AS …`, `CREATE OR REPLACE STREAM s AS …`.
pub(crate) fn begins(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    if ahead.keyword(&["CREATE", "OR", "REPLACE"]) {
        return ahead.one_of(KINDS).is_some();
    }
    ahead.keyword(&["ALTER"])
        && ahead.one_of(KINDS).is_some()
        && ahead.relation_name().is_ok()
        && (ahead.is_keyword(&["AS"]) || ahead.is_keyword(&["WITH"]) || *ahead.peek() == Token::LParen)
}

/// A planned replacement.
pub(super) struct Replacement {
    /// The version of the catalog that it was planned against.
    pub(super) base: u64,
    /// The new definition of the relation. Its DDL creates it where it doesn't exist.
    pub(super) object: Arc<Object>,
    /// True if inputs that cannot be replayed contribute only their kept rows and later ones.
    pub(super) from_now: bool,
    /// True for a plain view whose first columns have the plan of the present ones: its readers have that as a part.
    pub(super) extends: bool,
    /// The response.
    pub(super) tag: Tag,
    /// The stored plan of its query, for the journal.
    plans: Vec<Plan>,
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let text = reader.text();
    for _ in 0..PLANS_MAX {
        let statement = ReplaceStatement::read(&session.catalog(), &mut reader.clone())?;
        let Some(statement) = statement else {
            // The relation doesn't exist yet, so this is a plain CREATE.
            let tags = ddl::change(session, &[text]).await.map_err(|(_, error)| error)?;
            return Ok(tags.into_iter().next_back().unwrap_or_default().into());
        };
        let Replacement { base, object, from_now, extends, tag, plans } = statement.plan(session)?;
        let entry = ddl::entry(session, &[text], plans);
        let replacing = |reply| Replacing { base, object, from_now, extends, entry, reply };
        let replaced = session.shared.ask(|reply| Event::Replace(Box::new(replacing(reply)))).await?;
        if let Some(notices) = replaced {
            let mut tags = [Tag { notices: [tag.notices, notices].concat(), ..tag }];
            say_at_once(session.transaction.as_ref(), &mut tags);
            let [tag] = tags;
            return Ok(tag.into());
        }
    }
    Err(busy())
}

/// Plans the rest of a statement after CREATE.
fn create(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    match reader.one_of(KINDS) {
        Some(0) => create_materialized_view::plan(session, working, reader),
        Some(1) => create_stream::plan(session, working, reader),
        _ => create_view::plan(session, working, reader),
    }
}

/// Runs EXPLAIN of a replacement.
pub(super) async fn explain(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let Some(statement) = ReplaceStatement::read(&session.catalog(), &mut reader.clone())? else {
        return Err(Error::invalid("there is nothing yet that the statement would replace")
            .hint("EXPLAIN CREATE … without OR REPLACE shows how it would run."));
    };
    let Replacement { object, from_now, extends, .. } = statement.plan(session)?;
    let explain = |reply| Question::ExplainReplace { object, from_now, extends, reply };
    let lines = session.shared.ask(|reply| Event::Ask(explain(reply))).await?;
    two_columns(["operator", "change"], lines)
}

/// The parts of such a statement.
pub(super) struct ReplaceStatement<'a> {
    catalog: Arc<Catalog>,
    before: Arc<Object>,
    /// Its whole text.
    text: &'a str,
    tag: String,
    /// The CREATE statement of the new relation.
    making: String,
    from_now: bool,
}

impl<'a> ReplaceStatement<'a> {
    /// Reads a statement. Returns `None` for CREATE OR REPLACE of an object that doesn't exist.
    pub(super) fn read(
        catalog: &Arc<Catalog>,
        reader: &mut TokenReader<'a>,
    ) -> Result<Option<ReplaceStatement<'a>>> {
        let text = reader.text();
        let alters = reader.keyword(&["ALTER"]);
        if !alters {
            reader.expect_keyword(&["CREATE", "OR", "REPLACE"])?;
        }
        let kind = reader.one_of(KINDS).and_then(|kind| KINDS.get(kind));
        let kind = kind.ok_or_else(|| reader.expected("MATERIALIZED VIEW, STREAM or VIEW"))?.join(" ");
        let name_at = reader.position();
        let name = if alters { reader.relation_name()? } else { reader.new_relation_name()? };
        let at = name_at.start..reader.last_position().end;
        let Some(before) = catalog.find(&name).cloned() else {
            return match alters {
                true => {
                    Err(catalog.get(&name).map_or_else(|error| error, |_| Error::bug("found and not")).at(at))
                }
                false => Ok(None),
            };
        };
        let found = before.definition.kind();
        if !found.eq_ignore_ascii_case(&kind) {
            return Err(Error::invalid(format!("\"{name}\" is a {found}, not a {}", kind.to_lowercase()))
                .hint(format!("DROP {} {name} first, or choose another name.", found.to_uppercase()))
                .at(at));
        }
        let columns = match reader.peek() {
            Token::LParen => format!(" ({})", &text[reader.group()?]),
            _ => String::new(),
        };
        let options_at = reader.position();
        let mut options = reader.options()?;
        let from_now = takes_start(&mut options).map_err(|error| error.at(options_at.clone()))?;
        if alters {
            if let Some((option, _)) = options.first() {
                return Err(Error::invalid(format!("ALTER … AS has no option '{option}'"))
                    .hint("Its only option is start; use CREATE OR REPLACE to change others.")
                    .at(options_at));
            }
            options = options_of(&before)?;
        }
        let rest = &text[reader.rest_text()];
        // On a search path, the name as it was written may mean another relation.
        let named = match catalog.search_path() {
            Some(_) => qualified_ident(&before.name),
            None => text[at].to_string(),
        };
        let making = format!("CREATE {kind} {named}{columns}{} {rest}", written(&options));
        let tag = if alters { format!("ALTER {kind}") } else { format!("CREATE {kind}") };
        Ok(Some(ReplaceStatement { catalog: catalog.clone(), before, text, tag, making, from_now }))
    }

    /// Plans the CREATE statement, in a catalog without the relation.
    pub(super) fn plan(&self, session: &Session) -> Result<Replacement> {
        let name = &self.before.name;
        let mut working = Working::again(self.catalog.clone(), &session.plans);
        Arc::make_mut(&mut working.catalog).remove(name);
        let mut reader = TokenReader::new(&self.making)?.on_path(working.catalog.search_path());
        reader.expect_keyword(&["CREATE"])?;
        let planned = create(session, &mut working, reader);
        let tag = planned.map_err(|error| self.placed(error))?;
        let plans = working.plans(session);
        let Some(Change::Create { object, .. }) = working.changes.pop() else {
            return Err(Error::bug("a CREATE makes something"));
        };
        if let Some(through) = object.reads.iter().find(|read| stems_from(&self.catalog, read, name)) {
            return Err(Error::invalid(format!(
                "\"{name}\" would read itself: \"{through}\", which the new query reads, depends on it"
            )));
        }
        let extends = self.extends(session, &object);
        let tag = Tag { text: self.tag.clone(), ..tag };
        Ok(Replacement { base: self.catalog.version, object, from_now: self.from_now, extends, tag, plans })
    }

    /// Returns true if this is a plain view, and its present columns keep their plan.
    fn extends(&self, session: &Session, object: &Object) -> bool {
        match (&object.definition, &self.before.definition) {
            // The statements of a data directory have been accepted.
            (Definition::View { .. }, _) if session.is_recovering => true,
            (Definition::View { raw: new, .. }, Definition::View { raw: old, .. }) => {
                let is_read = !self.catalog.dependants(&object.name).is_empty();
                is_read && extends(&lasting_planner(session), new, old).unwrap_or(false)
            }
            _ => false,
        }
    }

    /// Moves an error's position in the CREATE statement to this statement. The query is at the end of both.
    fn placed(&self, error: Error) -> Error {
        let itself = format!("relation \"{}\" not found", self.before.name);
        let error = match error.message.eq_ignore_ascii_case(&itself) {
            true => {
                Error { message: format!("\"{}\" can't read itself", self.before.name), hint: None, ..error }
            }
            false => error,
        };
        let (text, making) = (self.text.trim_end().len(), self.making.trim_end().len());
        let moved = |at: usize| (at + text).checked_sub(making);
        let span = error.span.clone().and_then(|span| Some(moved(span.start)?..moved(span.end)?));
        Error { span, ..error }
    }
}

/// Removes the option `start`. Returns true if it is `now`.
fn takes_start(options: &mut Vec<(String, String)>) -> Result<bool> {
    let Some(place) = options.iter().position(|(name, _)| name == "start") else { return Ok(false) };
    match options.remove(place).1.as_str() {
        "now" => Ok(true),
        other => Err(Error::invalid(format!("start is 'now', but '{other}' is given"))
            .hint("Without it, the new query starts with all rows that the old one could have read.")),
    }
}

/// Returns the options that an object was created with.
fn options_of(object: &Object) -> Result<Vec<(String, String)>> {
    let mut reader = TokenReader::new(&object.ddl)?;
    reader.keyword(&["CREATE"]);
    reader.one_of(KINDS);
    reader.keyword(&["IF", "NOT", "EXISTS"]);
    reader.relation_name()?;
    if *reader.peek() == Token::LParen {
        reader.group()?;
    }
    reader.options()
}

/// Returns options in SQL syntax.
fn written(options: &[(String, String)]) -> String {
    if options.is_empty() {
        return String::new();
    }
    let option = |(name, value): &(String, String)| {
        format!("{} = '{}'", quoted_ident(name), value.replace('\'', "''"))
    };
    format!(" WITH ({})", options.iter().map(option).collect::<Vec<_>>().join(", "))
}
