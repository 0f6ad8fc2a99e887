//! `CREATE SUBSCRIPTION [IF NOT EXISTS] name FROM relation [WITH (snapshot = true, retention = '…', …)]`

use std::sync::Arc;

use millstream_connect::{OptionDoc, Options};
use millstream_sql::{Error, Result, TokenReader};

use super::{existed, new_name};
use crate::catalog::{Definition, Holding, Object, WhenFull};
use crate::error;
use crate::plan::Working;
use crate::session::Tag;
use crate::settings::{interval, size};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_SUBSCRIPTION: Statement = Statement {
    words: &[&["CREATE", "SUBSCRIPTION"]],
    synopsis: "CREATE SUBSCRIPTION [IF NOT EXISTS] name FROM relation [WITH (option = value, …)];",
    purpose: "keep changes for a reader that may disconnect",
    pages: &["create-subscription"],
    begins: None,
    run: Run::Plan(|_, working, reader| Box::pin(async move { plan(working, reader) })),
    rules: Rules::CATALOG,
};

/// The default size of a subscription's buffer in bytes.
const BUFFER_MAX: usize = 1 << 30;

/// The options of a subscription.
const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "buffer_max",
        default: Some("1 GiB"),
        doc: "bytes of changes that may wait for its reader, about",
    },
    OptionDoc {
        name: "retention",
        default: Some("none"),
        doc: "none: changes wait until the reader has them; or an interval: for so long at most, by batch time",
    },
    OptionDoc {
        name: "snapshot",
        default: Some("true"),
        doc: "whether the first rows are the content of the relation when the subscription is created",
    },
    OptionDoc {
        name: "when_full",
        default: Some("lose"),
        doc: "lose: beyond buffer_max the oldest changes are discarded, and the reader gets an error that says so; wait: no \
              more rows are accepted for the relation until there is room",
    },
];

pub(crate) fn plan(working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("SUBSCRIPTION", &name));
    }
    reader.expect_keyword(&["FROM"])?;
    let from: Arc<str> = reader.relation_name()?.into();
    let at = reader.last_position();
    let options_at = reader.position();
    let options = Options(reader.options()?.into_iter().collect());
    reader.expect_end()?;
    let holding = holding(&options).map_err(|error| error.at(options_at))?;
    let object = working.catalog.get(&from).map_err(|error| error.at(at.clone()))?;
    let columns = match &object.definition {
        Definition::Table { schema, .. }
        | Definition::MaterializedView { schema, .. }
        | Definition::Stream { schema, .. } => schema.fields().len(),
        other => {
            let kind = match other.is_source() {
                true => "source",
                false => other.kind(),
            };
            return Err(Error::invalid(format!(
                "\"{from}\" is a {kind}: a subscription is from a table, a materialized view or a stream"
            ))
            .hint(format!(
                "For the rows of a source or a view: CREATE STREAM s AS SELECT * FROM {from}, and subscribe to that."
            ))
            .at(at));
        }
    };
    let definition = Definition::Subscription { from: from.clone(), columns, holding };
    working.create(Object { name, ddl: reader.text().to_string(), reads: vec![from], definition }, None)?;
    Ok(Tag::new("CREATE SUBSCRIPTION"))
}

/// Checks and parses the options.
fn holding(options: &Options) -> Result<Holding> {
    options.check(OPTIONS).map_err(error::connect)?;
    let snapshot = options.parse("snapshot", "true or false").map_err(error::connect)?.unwrap_or(true);
    let retention = match options.get("retention") {
        None => None,
        Some(value) if value.eq_ignore_ascii_case("none") => None,
        Some(value) => Some(interval("retention", value, "none or ")?),
    };
    let buffer_max = match options.get("buffer_max") {
        None => BUFFER_MAX,
        Some(value) => size("buffer_max", value)?,
    };
    let when_full = match options.get("when_full").map(str::to_ascii_lowercase).as_deref() {
        None | Some("lose") => WhenFull::Lose,
        Some("wait") => WhenFull::Wait,
        Some(other) => {
            return Err(Error::invalid(format!("when_full is '{other}', but 'lose' or 'wait' was expected")));
        }
    };
    if let (Some(_), WhenFull::Wait) = (retention, when_full) {
        return Err(Error::invalid("when_full = 'wait' keeps all changes, but retention discards old ones")
            .hint("Leave one of them out."));
    }
    Ok(Holding { snapshot, retention, buffer_max, when_full })
}
