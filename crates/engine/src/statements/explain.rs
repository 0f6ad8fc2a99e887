//! `EXPLAIN SELECT …`: the operators that would maintain the query.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader};

use super::create_view::{check_continuous, named_query};
use super::show::rows;
use super::within;
use crate::catalog::Definition;
use crate::event::Event;
use crate::session::{Response, Session};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if reader.is_keyword(&["ANALYZE"]) || *reader.peek() == Token::LParen {
        return Err(Error::unsupported("EXPLAIN ANALYZE and EXPLAIN (…)").at(reader.position()));
    }
    let catalog = session.shared.catalog();
    let plan = if reader.keyword(&["CREATE", "MATERIALIZED", "VIEW"]) {
        reader.keyword(&["IF", "NOT", "EXISTS"]);
        reader.relation_name()?;
        let (query, _) = named_query(session, &catalog, reader)?;
        check_continuous(session, &query)?;
        query.plan
    } else if reader.keyword(&["MATERIALIZED", "VIEW"]) {
        let name = reader.relation_name()?;
        let at = reader.last_position();
        reader.expect_end()?;
        match &catalog.get(&name).map_err(|error| error.at(at.clone()))?.definition {
            Definition::MaterializedView { plan, .. } => plan.clone(),
            other => return Err(Error::invalid(format!("\"{name}\" is a {}", other.kind())).at(at)),
        }
    } else {
        let (text, offset) = within(reader);
        let planner = &session.shared.planner;
        let query = planner.query(text, catalog.as_ref()).map_err(|error| error.shift(offset))?;
        check_continuous(session, &query)?;
        query.plan
    };
    let lines = session.shared.ask(|reply| Event::Explain { plan: Box::new(plan), reply }).await?;
    let schema = Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8View, false)]));
    rows(RecordBatch::try_new(schema, vec![Arc::new(StringViewArray::from_iter_values(lines))]))
}
