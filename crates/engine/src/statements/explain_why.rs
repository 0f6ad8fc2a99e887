//! `EXPLAIN WHY name`: the reasons that hold back the output of a materialized view, a stream or a sink. `EXPLAIN WHY`:
//! the reasons for which the engine is slow, late and large.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Result, TokenReader};

use super::show::rows;
use crate::event::{Event, Question};
use crate::session::{Response, Session};

/// Returns true if this is WHY.
pub(super) fn begins(reader: &TokenReader<'_>) -> bool {
    reader.is_keyword(&["WHY"])
}

/// Runs EXPLAIN WHY.
pub(super) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    reader.expect_keyword(&["WHY"])?;
    if *reader.peek_at(0) == Token::EOF {
        let asked = session.shared.ask(|reply| Event::Ask(Question::ExplainWhy { name: None, reply })).await;
        return two_columns(["about", "why"], asked?);
    }
    if *reader.peek_at(1) != Token::EOF {
        reader.one_of(&[&["MATERIALIZED", "VIEW"], &["SINK"], &["STREAM"]]);
    }
    let name = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    let asked =
        session.shared.ask(|reply| Event::Ask(Question::ExplainWhy { name: Some(name), reply })).await;
    two_columns(["about", "why"], asked.map_err(|error| error.at(at))?)
}

/// Returns pairs of texts as rows.
pub(super) fn two_columns(names: [&str; 2], lines: Vec<(String, String)>) -> Result<Response> {
    let (first, second): (Vec<String>, Vec<String>) = lines.into_iter().unzip();
    let columns = names.map(|name| Field::new(name, DataType::Utf8View, false));
    let texts = |texts: Vec<String>| Arc::new(StringViewArray::from_iter_values(texts));
    let schema = Arc::new(Schema::new(columns.to_vec()));
    rows(RecordBatch::try_new(schema, vec![texts(first), texts(second)]))
}
