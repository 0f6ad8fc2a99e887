//! Parses the text of queries and of statements that change rows.

use datafusion::common::config::ConfigOptions;
use datafusion::sql::parser::{DFParserBuilder, Statement as ParsedStatement};
use datafusion::sql::sqlparser::ast::{Query as QueryTree, Statement};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::complexity;
use crate::dialect;
use crate::error::{Error, Result};
use crate::event_time;
use crate::reader::TokenReader;
use crate::row_pattern;
use crate::time_joins;
use crate::unsupported_clauses;

/// Turns the rest of a statement into a syntax tree of standard SQL, with Millstream's own clauses rewritten.
#[derive(Clone)]
pub(crate) struct StatementParser {
    recursion_limit: usize,
    /// True for statements of an earlier version, which are planned again.
    accepts_open_joins: bool,
}

impl StatementParser {
    pub(super) fn new(options: &ConfigOptions) -> StatementParser {
        let recursion_limit = options.sql_parser.recursion_limit.into();
        StatementParser { recursion_limit, accepts_open_joins: false }
    }

    /// Returns a parser that accepts, if `accepts`, `a JOIN b` without a condition.
    pub(super) fn accepting_open_joins(self, accepts: bool) -> StatementParser {
        StatementParser { accepts_open_joins: accepts, ..self }
    }

    /// Parses the rest of a statement as one query.
    pub(crate) fn parse_query(&self, reader: &TokenReader) -> Result<Box<QueryTree>> {
        dialect::refuse_unbuilt(reader)?;
        self.parse_tree(reader)
    }

    /// Parses the rest of a statement as one query, clauses that aren't supported included.
    pub(crate) fn parse_tree(&self, reader: &TokenReader) -> Result<Box<QueryTree>> {
        match self.parse(reader)? {
            Statement::Query(query) => {
                unsupported_clauses::refuse_into(&query)?;
                Ok(query)
            }
            _ => Err(reader.expected("a query (SELECT, WITH or VALUES)")),
        }
    }

    /// Parses the rest of a statement.
    pub(crate) fn parse(&self, reader: &TokenReader) -> Result<Statement> {
        if reader.is_end() {
            return Err(reader.expected("a query (SELECT, WITH or VALUES)"));
        }
        self.parse_tokens(reader, reader.rest_tokens())
    }

    /// Parses these tokens: the rest of a statement, from which the caller may have removed some.
    pub(crate) fn parse_tokens(&self, reader: &TokenReader, tokens: Vec<TokenWithSpan>) -> Result<Statement> {
        complexity::refuse_deep(&tokens)?;
        let tokens = event_time::rewrite(dialect::update_state::rewrite(tokens, reader.text())?)?;
        let tokens = row_pattern::rewrite(time_joins::rewrite(tokens)?);
        let tokens = dialect::postgres_forms::rewrite(tokens);
        let tokens =
            dialect::string_calls::rewrite(dialect::rows_from::rewrite(dialect::table::rewrite(tokens)));
        let tokens = dialect::xml::rewrite(dialect::map_lists::rewrite(dialect::lambdas::rewrite(tokens)));
        let grammar = time_joins::dialect(reader).bounded(tokens.len());
        let mut parsed = DFParserBuilder::new(tokens)
            .with_dialect(&grammar)
            .with_recursion_limit(self.recursion_limit)
            .build()
            .and_then(|mut parser| parser.parse_statements())
            .map_err(|error| {
                let error = Error::from_datafusion(&error, reader.text());
                dialect::foreign_clauses::explain(reader, error)
            })?;
        match (parsed.pop_front(), parsed.pop_front()) {
            (Some(ParsedStatement::Statement(mut statement)), None) => {
                if !self.accepts_open_joins {
                    unsupported_clauses::refuse_open_joins(&statement, reader.text())?;
                }
                event_time::rewrite_statement(&mut statement)?;
                Ok(*statement)
            }
            (Some(_), None) => Err(reader.expected("a query (SELECT, WITH or VALUES)")),
            (_, Some(_)) => Err(Error::invalid("more than one statement where one was expected")),
            (None, None) => Err(reader.expected("a query (SELECT, WITH or VALUES)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_of_an_earlier_version_may_join_without_a_condition() {
        let parser = StatementParser::new(&ConfigOptions::default());
        let reader = TokenReader::new("SELECT 1 FROM a JOIN b").unwrap();
        assert!(parser.parse_query(&reader).is_err());
        assert!(parser.accepting_open_joins(true).parse_query(&reader).is_ok());
    }

    #[test]
    fn a_query_is_one_select() {
        let parser = StatementParser::new(&ConfigOptions::default());
        let parsed = |sql| parser.parse_query(&TokenReader::new(sql).unwrap());
        assert!(parsed("SELECT 1").is_ok());
        assert!(parsed("").is_err());
        assert!(parsed("DELETE FROM t").is_err());
    }
}
