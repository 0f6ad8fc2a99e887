//! `SUBSCRIBE [TO] relation | (SELECT …) [WITH (SNAPSHOT = true, PROGRESS = false)]`

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_connect::{OptionDoc, Options};
use millstream_sql::{Error, Result, TokenReader, qualified_ident};

use super::create_view::make_continuous;
use crate::catalog::Definition;
use crate::changes::{self, Following, Opened, Shape};
use crate::ddl::{PLANS_MAX, busy};
use crate::error;
use crate::event::{Event, Followed, Request};
use crate::run::EPOCHS;
use crate::session::{Response, Session};
use crate::statement::{Rules, Run, Statement};
use crate::system;

pub(super) static SUBSCRIBE: Statement = Statement {
    words: &[&["SUBSCRIBE"]],
    synopsis: concat!(
        "SUBSCRIBE [TO] relation [WITH (SNAPSHOT = true, PROGRESS = false)]\n",
        "SUBSCRIBE [TO] (SELECT …) [WITH (…)]",
    ),
    purpose: "return a relation, then its changes, with epochs and operations",
    pages: &["subscribe"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ROWS,
};

/// The options of SUBSCRIBE.
const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "snapshot",
        default: Some("true"),
        doc: "whether the first rows are the current content of the relation",
    },
    OptionDoc {
        name: "progress",
        default: Some("false"),
        doc: "whether each epoch ends with a row that says so, also where nothing changed",
    },
];

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    reader.keyword(&["TO"]);
    let query = (*reader.peek() == Token::LParen).then(|| reader.group()).transpose()?;
    let name = match query {
        Some(_) => None,
        None => Some((reader.relation_name()?, reader.last_position())),
    };
    let at = reader.position();
    let following = options(reader).map_err(|error| error.at(at))?;
    reader.expect_end()?;
    let opened = match (query, name) {
        (Some(range), _) => {
            let text = &reader.text()[range.clone()];
            follow(session, text, range.start, following, false).await?
        }
        (None, Some((name, at))) => {
            follow_named(session, &name, following).await.map_err(|error| error.at(at))?
        }
        (None, None) => return Err(reader.expected("a relation or a query in parentheses")),
    };
    Ok(changes::response(opened, Shape::Subscribe, None))
}

/// Runs SUBSCRIBE for a durable subscription, and fails for other relations.
pub(super) async fn run_durable(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let name = reader.clone().relation_name()?;
    let object = session.catalog().get(&name).map(Clone::clone);
    let object = object.map_err(|error| error.at(reader.position()))?;
    match &object.definition {
        Definition::Subscription { .. } => run(session, reader).await,
        other => Err(Error::invalid(format!("\"{name}\" is a {}, not a subscription", other.kind()))
            .hint(format!("DECLARE … CURSOR FOR SUBSCRIBE {name} follows it from now on."))
            .at(reader.position())),
    }
}

fn options(reader: &mut TokenReader<'_>) -> Result<Following> {
    let options = Options(reader.options()?.into_iter().collect());
    options.check(OPTIONS).map_err(error::connect)?;
    let flag = |name: &str| options.parse(name, "true or false").map_err(error::connect);
    let default = Following::default();
    Ok(Following {
        snapshot: flag("snapshot")?.unwrap_or(default.snapshot),
        progress: flag("progress")?.unwrap_or(default.progress),
    })
}

/// Subscribes to the reader's own query; `offset` is its position in the statement. Under `on_close` windows
/// emit when they close.
pub(super) async fn follow(
    session: &Session,
    text: &str,
    offset: usize,
    following: Following,
    on_close: bool,
) -> Result<Opened> {
    for _ in 0..PLANS_MAX {
        let catalog = session.catalog();
        let planned = session.parametrised().query(text, catalog.as_ref());
        let mut query = planned.map_err(|error| error.shift(offset))?;
        make_continuous(session, &mut query)?;
        let ordered = query.is_ordered();
        let followed = Followed::Query(Box::new(query.plan), on_close);
        let request = Request { followed, following };
        let base = catalog.version;
        let opened = session.shared.ask(|reply| Event::Subscribe { base, request, reply }).await?;
        if let Some(mut opened) = opened {
            if ordered {
                opened.notices.push("ORDER BY without LIMIT has no effect on changes".into());
            }
            return Ok(opened);
        }
    }
    Err(busy())
}

/// Subscribes to an object by name. A relation that keeps no rows is read through a query.
pub(crate) async fn follow_named(session: &Session, name: &str, following: Following) -> Result<Opened> {
    for _ in 0..PLANS_MAX {
        let catalog = session.catalog();
        if system::is_name(name) && name != EPOCHS {
            return Err(Error::unsupported(format!("SUBSCRIBE {name}")).hint("SELECT from it instead."));
        }
        if name == EPOCHS {
            let request = Request { followed: Followed::Relation(name.into()), following };
            let base = catalog.version;
            match session.shared.ask(|reply| Event::Subscribe { base, request, reply }).await? {
                Some(opened) => return Ok(opened),
                None => continue,
            }
        }
        let object = catalog.get(name)?;
        let followed = match &object.definition {
            Definition::Table { .. } | Definition::MaterializedView { .. } | Definition::Stream { .. } => {
                Followed::Relation(object.name.clone())
            }
            Definition::Subscription { .. } if !following.snapshot => {
                return Err(Error::invalid(format!(
                    "subscription \"{name}\" continues at its position: snapshot is an option of CREATE SUBSCRIPTION"
                ))
                .hint("Leave SNAPSHOT out."));
            }
            Definition::Subscription { .. } => Followed::Durable(object.name.clone()),
            Definition::Sink { .. }
            | Definition::SinkInto { .. }
            | Definition::Function(_)
            | Definition::Aggregate(_)
            | Definition::Schema
            | Definition::Type(_)
            | Definition::Sequence(_) => {
                let kind = object.definition.kind();
                return Err(Error::invalid(format!("\"{name}\" is a {kind}: it has no rows to follow"))
                    .hint("Follow the relation that it delivers."));
            }
            Definition::Source { .. } | Definition::View { .. } => {
                let text = format!("SELECT * FROM {}", qualified_ident(name));
                return follow(session, &text, 0, following, false).await;
            }
        };
        let request = Request { followed, following };
        let base = catalog.version;
        let opened = session.shared.ask(|reply| Event::Subscribe { base, request, reply }).await?;
        if let Some(opened) = opened {
            return Ok(opened);
        }
    }
    Err(busy())
}
