//! Functions of TSQUERY, and the search itself.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

use super::matching::matches;
use super::query::{Node, Query};
use super::query_reader::{Join, distance, of_web_search, of_words, read};
use super::rewrite::rewrite;
use super::vector::{Vector, Words};
use super::{Config, QUERY, VECTOR, config, query_at, text};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Int, Text};
    let mut of_text = |name, kernel| {
        let returns = Returns::Marked(Mark::Tsquery);
        add(MarkedFunction::new(name, &[Text], returns, Kernel::Text(kernel)).or(&[&[Text, Text]]));
    };
    of_text("to_tsquery", |all, row| query_of(all, row, |text, config| read(text, Some(config))));
    of_text("plainto_tsquery", |all, row| {
        query_of(all, row, |text, config| Ok(of_words(text, config, Join::And)))
    });
    of_text("phraseto_tsquery", |all, row| {
        query_of(all, row, |text, config| Ok(of_words(text, config, Join::Phrase)))
    });
    of_text("websearch_to_tsquery", |all, row| query_of(all, row, of_web_search));
    let mut query = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Marked(Mark::Tsquery), Kernel::Text(kernel)));
    };
    query("tsquery_and", &[QUERY, QUERY], |all, row| both(all, row, |one, other| Ok(one.and(other))));
    query("tsquery_or", &[QUERY, QUERY], |all, row| both(all, row, |one, other| Ok(one.or(other))));
    query("tsquery_not", &[QUERY], |all, row| {
        let negated = |query: Query| Query(query.0.map(|node| Node::Not(Box::new(node))));
        Ok(query_at(all, 0, row)?.map(|query| negated(query).to_string()))
    });
    let returns = Returns::Marked(Mark::Tsquery);
    let rewritten =
        MarkedFunction::new("ts_rewrite", &[QUERY, QUERY, QUERY], returns, Kernel::Text(rewritten));
    add(rewritten.or(&[&[QUERY, Text]]));
    let phrase = Kernel::Text(|all, row| {
        let by = all.int(2, row).unwrap_or(1);
        both(all, row, |one, other| Ok(one.then(distance(by)?, other)))
    });
    let returns = Returns::Marked(Mark::Tsquery);
    add(MarkedFunction::new("tsquery_phrase", &[QUERY, QUERY, Int], returns, phrase).optional(1));
    add(MarkedFunction::new("querytree", &[QUERY], text(), Kernel::Text(tree)));
    let count = Kernel::Int(|all, row| {
        let query = query_at(all, 0, row)?;
        let count = |query: Query| query.0.map_or(0, |node| node.count());
        Ok(query.map(|query| i32::try_from(count(query)).unwrap_or(i32::MAX)))
    });
    add(MarkedFunction::new("numnode", &[QUERY], Returns::Type(DataType::Int32), count));
    conditions(add);
}

fn rewritten(all: &Arguments, row: usize) -> Result<Option<String>> {
    if all.columns.len() == 2 {
        return Err(Error::unsupported("ts_rewrite with a query that is given as text")
            .hint("Call ts_rewrite(query, target, substitute) for each row of that query."));
    }
    let queries = (query_at(all, 0, row)?, query_at(all, 1, row)?, query_at(all, 2, row)?);
    let (Some(query), Some(target), Some(substitute)) = queries else { return Ok(None) };
    Ok(Some(rewrite(query, target, substitute)?.to_string()))
}

/// Functions that return BOOLEAN.
fn conditions(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::Text;
    let mut condition = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Type(DataType::Boolean), kernel));
    };
    condition("tsquery_contains", &[QUERY, QUERY], Kernel::Bool(|all, row| has_operands(all, row, 0)));
    condition("tsquery_contained", &[QUERY, QUERY], Kernel::Bool(|all, row| has_operands(all, row, 1)));
    condition("ts_match_vq", &[VECTOR, QUERY], Kernel::Column(|all| search(all, 0, Vector::read)));
    condition("ts_match_qv", &[QUERY, VECTOR], Kernel::Column(|all| search(all, 1, Vector::read)));
    condition("ts_match_tq", &[Text, QUERY], Kernel::Column(|all| search(all, 0, vector_of)));
    // The operands are texts: the rule `marked_types` replaces it for other ones.
    let texts = Kernel::Bool(|all, row| {
        let (Some(document), Some(query)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
        let query = of_words(query, Config::default(), Join::And);
        Ok(Some(matches(&vector_of(document)?, &query)))
    });
    condition("ts_match", &[Text, Text], texts);
}

fn vector_of(document: &str) -> Result<Vector> {
    Vector::of_words(Words::of(Config::default(), document))
}

/// Searches each row. Equal queries of neighbouring rows are read once.
fn search(all: &Arguments, document_at: usize, vector: fn(&str) -> Result<Vector>) -> Result<ArrayRef> {
    let mut last: Option<(&str, Query)> = None;
    let mut found = Vec::with_capacity(all.rows);
    for row in 0..all.rows {
        let (Some(document), Some(written)) = (all.text(document_at, row), all.text(1 - document_at, row))
        else {
            found.push(None);
            continue;
        };
        let query = match last.take() {
            Some((text, query)) if text == written => query,
            _ => read(written, None)?,
        };
        found.push(Some(matches(&vector(document)?, &query)));
        last = Some((written, query));
    }
    Ok(Arc::new(BooleanArray::from(found)))
}

/// Returns true if the query at a place has all lexemes of the other one.
fn has_operands(all: &Arguments, row: usize, outer: usize) -> Result<Option<bool>> {
    let (Some(outer), Some(inner)) = (query_at(all, outer, row)?, query_at(all, 1 - outer, row)?) else {
        return Ok(None);
    };
    let known: HashSet<&str> = outer.operands().iter().map(|operand| operand.text.as_str()).collect();
    Ok(Some(inner.operands().iter().all(|operand| known.contains(operand.text.as_str()))))
}

fn query_of(
    all: &Arguments,
    row: usize,
    query: impl Fn(&str, Config) -> Result<Query>,
) -> Result<Option<String>> {
    let (config, at) = config(all, row, 1)?;
    all.text(at, row).map(|text| Ok(query(text, config)?.to_string())).transpose()
}

/// Joins two queries. An empty one doesn't change the other.
fn both(all: &Arguments, row: usize, join: impl Fn(Node, Node) -> Result<Node>) -> Result<Option<String>> {
    let (Some(one), Some(other)) = (query_at(all, 0, row)?, query_at(all, 1, row)?) else { return Ok(None) };
    let node = match (one.0, other.0) {
        (Some(one), Some(other)) => Some(join(one, other)?),
        (one, other) => one.or(other),
    };
    Ok(Some(Query(node).to_string()))
}

/// Returns what an index can search, or T if it can't search anything.
fn tree(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(query) = query_at(all, 0, row)? else { return Ok(None) };
    let Some(node) = query.0 else { return Ok(Some(String::new())) };
    Ok(Some(node.without_negations().map_or_else(|| "T".into(), |node| Query(Some(node)).to_string())))
}
