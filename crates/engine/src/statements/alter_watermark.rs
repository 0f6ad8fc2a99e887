//! `ALTER SOURCE | TABLE name SET WATERMARK FOR ts AS expr`, `ALTER SOURCE | TABLE name DROP WATERMARK`.

use std::sync::Arc;

use millstream_sql::{Error, Result, TokenReader, statements};

use crate::catalog::{Definition, Object};
use crate::ddl::{self, busy};
use crate::event::{Change, Event};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ALTER_WATERMARK: Statement = Statement {
    words: &[&["ALTER", "SOURCE"], &["ALTER", "TABLE"]],
    synopsis: concat!(
        "ALTER TABLE | SOURCE name SET WATERMARK FOR column AS expression;\n",
        "ALTER TABLE | SOURCE name DROP WATERMARK;",
    ),
    purpose: "set, change or remove a watermark",
    pages: &["alter-watermark"],
    begins: Some(begins),
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ALTER,
};

/// The maximum number of times a statement is planned because the catalog changes meanwhile.
const PLANS_MAX: usize = 10;

/// Returns true if the statement changes a watermark: `ALTER TABLE t SET WATERMARK …`.
pub(super) fn begins(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    let named = ahead.one_of(&[&["ALTER", "SOURCE"], &["ALTER", "TABLE"]]).is_some();
    named
        && ahead.relation_name().is_ok()
        && ahead.one_of(&[&["SET", "WATERMARK"], &["DROP", "WATERMARK"]]).is_some()
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let statement = reader.clone();
    for _ in 0..PLANS_MAX {
        let (base, object, tag) = plan(session, &mut statement.clone())?;
        let changes = vec![Change::Alter { object: Arc::new(object) }];
        let entry = Box::new(ddl::entry(session, &[statement.text()], Vec::new()));
        let changed = session.shared.ask(|reply| Event::Change { base, changes, entry, reply }).await?;
        if let Some(notices) = changed {
            return Ok(Tag { notices, ..tag }.into());
        }
    }
    Err(busy())
}

/// Returns the altered object, and the version of the catalog that it is based on.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<(u64, Object, Tag)> {
    let kind = match reader.one_of(&[&["ALTER", "SOURCE"], &["ALTER", "TABLE"]]) {
        Some(0) => "source",
        _ => "table",
    };
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let catalog = session.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let definition = &object.definition;
    let found = definition.kind();
    let schema = definition
        .schema()
        .filter(|_| found == kind)
        .ok_or_else(|| Error::invalid(format!("\"{name}\" is a {found}, not a {kind}")).at(at.clone()))?;
    let drops = reader.keyword(&["DROP", "WATERMARK"]);
    let watermark = match drops {
        true if definition.watermark().is_none() => {
            return Err(Error::invalid(format!("{kind} \"{name}\" has no watermark")).at(at));
        }
        true => None,
        false => {
            reader.expect_keyword(&["SET", "WATERMARK", "FOR"])?;
            Some(session.shared.planner.watermark_of(reader, schema)?)
        }
    };
    reader.expect_end()?;
    // The object's DDL includes the ALTER, so that it still recreates the object.
    let made = without_watermarks(&object.ddl)?;
    let ddl = format!("{}; {}", made.trim_end().trim_end_matches(';'), reader.text().trim_end_matches(';'));
    let altered = match definition.with_watermark(watermark) {
        Some(definition) => {
            Object { name: object.name.clone(), ddl, reads: object.reads.clone(), definition }
        }
        None => return Err(Error::bug(format!("a {found} has no watermark to be altered"))),
    };
    Ok((catalog.version, altered, Tag::new(format!("ALTER {}", kind.to_uppercase()))))
}

/// Returns a relation's DDL without the statements that altered its watermark.
fn without_watermarks(ddl: &str) -> Result<String> {
    let mut made = String::new();
    for part in statements(ddl)? {
        if !begins(&TokenReader::new(&part.text)?) {
            made = if made.is_empty() { part.text } else { format!("{made}; {}", part.text) };
        }
    }
    Ok(made)
}

impl Definition {
    /// Returns the same source or table with another watermark, or none.
    fn with_watermark(&self, watermark: Option<millstream_sql::Watermark>) -> Option<Definition> {
        match self {
            Definition::Source {
                schema,
                connector,
                spec,
                rate_limit,
                retention,
                idle_timeout,
                idle_action,
                table,
                ..
            } => Some(Definition::Source {
                schema: schema.clone(),
                connector: connector.clone(),
                spec: spec.clone(),
                rate_limit: *rate_limit,
                retention: *retention,
                watermark,
                idle_timeout: *idle_timeout,
                idle_action: *idle_action,
                table: *table,
            }),
            Definition::Table { schema, key, intake, .. } => Some(Definition::Table {
                schema: schema.clone(),
                key: key.clone(),
                intake: *intake,
                watermark,
            }),
            _ => None,
        }
    }
}
