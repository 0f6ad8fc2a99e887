//! The column list of CREATE TABLE and CREATE SOURCE: names, types, NOT NULL and the primary key.
//!
//! ```
//! use millstream_sql::{Planner, TokenReader};
//! let mut reader = TokenReader::new("(id BIGINT PRIMARY KEY, v TEXT NOT NULL)").unwrap();
//! let columns = Planner::new().columns(&mut reader).unwrap();
//! assert_eq!(columns.primary_key, [0]);
//! assert!(!columns.schema.field(1).is_nullable());
//! ```
//!
//! The list may contain `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'` ([`crate::Watermark`]) and generated columns
//! ([`crate::GeneratedColumns`]) and constraints ([`crate::Checks`], [`crate::TableIndex`]). REFERENCES is read and not
//! enforced.

mod alter;
mod list;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{ColumnDef, Ident};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::context::Context;
use crate::dialect::postgres_forms;
use crate::error::{Error, Result};
use crate::planner::Planner;
use crate::reader::{TokenReader, is_word};
use crate::relation::{Relation, Relations};
use crate::tokens::DIALECT;
use crate::type_names::{unknown_type, without_string};
use crate::watermark::Watermark;
use list::{AFTER_TYPE, ColumnList};

pub use alter::{Alteration, Sources};

/// Declared columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Names, types and nullability. Columns of the primary key are NOT NULL.
    pub schema: SchemaRef,
    /// The columns of the primary key in its order; empty without one.
    pub primary_key: Vec<usize>,
    /// The column that has a watermark, and the way in which it follows the column.
    pub watermark: Option<Watermark>,
    /// Notices for the user.
    pub notices: Vec<String>,
    /// The positions of types that are domains, and the types and constraints that they stand for.
    pub domains: Vec<(Range<usize>, String)>,
}

impl Columns {
    /// Returns a statement with what its domains stand for; none if it names none.
    pub fn without_domains(domains: &[(Range<usize>, String)], statement: &str) -> Option<String> {
        let mut text = statement.to_string();
        domains.iter().rev().for_each(|(at, meant)| text.replace_range(at.clone(), meant));
        (!domains.is_empty()).then_some(text)
    }
}

impl Planner {
    /// Reads a column list in parentheses.
    pub fn columns(&self, reader: &mut TokenReader) -> Result<Columns> {
        self.columns_beside(reader, &[])
    }

    /// Reads a column list in parentheses. The watermark may be of one of `others`, which come after the declared columns
    /// unless one of these has the same name.
    pub fn columns_beside(&self, reader: &mut TokenReader, others: &[FieldRef]) -> Result<Columns> {
        let start = reader.position();
        reader.expect_symbol(Token::LParen)?;
        let mut list = ColumnList::default();
        if reader.symbol(Token::RParen) {
            return Err(Error::invalid("a column list needs at least one column").at(start));
        }
        loop {
            list.item(self, reader)?;
            if reader.symbol(Token::RParen) {
                break;
            }
            if !reader.symbol(Token::Comma) {
                return Err(reader.expected("\",\" or \")\""));
            }
        }
        list.generate(self, reader.text(), others)?;
        list.constrain(self, reader.text())?;
        list.finish(self, start, others)
    }

    /// Reads one type name: `NUMERIC(10, 2)`, `TIMESTAMP WITH TIME ZONE`, `BIGINT[]`.
    pub fn data_type(&self, text: &str) -> Result<FieldRef> {
        let mut reader = TokenReader::new(text)?;
        let found = self.type_until(&mut reader, &AFTER_TYPE)?;
        reader.expect_end()?;
        Ok(found)
    }

    /// Reads a type up to a comma, a closing parenthesis or one of these words.
    pub fn type_until(&self, reader: &mut TokenReader, ends: &[&str]) -> Result<FieldRef> {
        let start = reader.position();
        let mut tokens: Vec<TokenWithSpan> = Vec::new();
        let mut depth = 0;
        for lexeme in reader.rest() {
            match &lexeme.token.token {
                Token::LParen | Token::LBracket | Token::Lt => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen | Token::RBracket | Token::Gt => depth -= 1,
                Token::ShiftRight => depth -= 2,
                Token::Comma if depth == 0 => break,
                Token::Eq if depth == 0 && ends.contains(&"=") => break,
                token if depth == 0 && ends.iter().any(|word| is_word(token, word)) => break,
                _ => {}
            }
            tokens.push(lexeme.token.clone());
        }
        if tokens.is_empty() {
            return Err(reader.expected("a type"));
        }
        for _ in 0..tokens.len() {
            reader.next();
        }
        let place = start.start..reader.last_position().end;
        let written = reader.text()[place.clone()].to_string();
        self.convert(tokens, &written)
            .map_err(|error| if error.span.is_none() { error.at(place) } else { error })
    }

    fn convert(&self, tokens: Vec<TokenWithSpan>, written: &str) -> Result<FieldRef> {
        let unknown = || unknown_type(written);
        let tokens = postgres_forms::rewrite(tokens);
        let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
        let parsed = parser.parse_data_type().map_err(|_| unknown())?;
        if parser.peek_token().token != Token::EOF {
            return Err(unknown());
        }
        let parsed = self.types.resolved(&parsed)?.unwrap_or(parsed);
        let column = ColumnDef { name: Ident::new("c"), data_type: parsed, options: Vec::new() };
        let context = Context::new(self.state(), self.type_planner(), &NoRelations, &[]);
        let options = ParserOptions::from(&self.state().config_options().sql_parser);
        let schema = SqlToRel::new_with_options(&context, options).build_schema(vec![column]);
        match schema {
            Ok(schema) => Ok(without_string(Arc::clone(&schema.fields()[0]))),
            Err(DataFusionError::NotImplemented(_)) => Err(unknown()),
            Err(error) => Err(Error::from(error)),
        }
    }
}

/// A catalog without relations.
pub(crate) struct NoRelations;

impl Relations for NoRelations {
    fn get(&self, _name: &str) -> Option<Relation> {
        None
    }

    fn names(&self, _schema: Option<&str>) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, TimeUnit};
    use millstream_delta::default_of;

    use super::*;
    use crate::defaults::ColumnDefault;

    fn columns(sql: &str) -> Columns {
        Planner::new().columns(&mut TokenReader::new(sql).unwrap()).unwrap()
    }

    fn fails(sql: &str, expected: &str) {
        let error = Planner::new().columns(&mut TokenReader::new(sql).unwrap()).unwrap_err();
        assert_eq!(error.render(sql), expected);
    }

    fn is(written: &str, expected: DataType) {
        assert_eq!(*Planner::new().data_type(written).unwrap().data_type(), expected, "{written}");
    }

    #[test]
    fn types_are_the_query_engines_under_the_spellings_of_postgresql() {
        for text in ["VARCHAR", "TEXT", "text", "CHARACTER VARYING", "VARCHAR(10)"] {
            is(text, DataType::Utf8View);
        }
        is("NUMERIC(10,2)", DataType::Decimal128(10, 2));
        is("decimal", DataType::Decimal128(38, 10));
        for text in ["int8", "BIGINT"] {
            is(text, DataType::Int64);
        }
        for text in ["INT", "integer", "int4"] {
            is(text, DataType::Int32);
        }
        is("smallint", DataType::Int16);
        is("double precision", DataType::Float64);
        is("float8", DataType::Float64);
        is("real", DataType::Float32);
        is("bool", DataType::Boolean);
        is("date", DataType::Date32);
        is("bytea", DataType::Binary);
        is("TIMESTAMP", DataType::Timestamp(TimeUnit::Microsecond, None));
        is("TIMESTAMP(9)", DataType::Timestamp(TimeUnit::Nanosecond, None));
        for text in ["TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"] {
            is(text, DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())));
        }
        is("BIGINT[]", DataType::new_list(DataType::Int64, true));
    }

    #[test]
    fn keys_and_nulls_are_read_inline_and_apart() {
        let found = columns("(id BIGINT PRIMARY KEY, v TEXT NULL, n INT NOT NULL)");
        assert_eq!(found.primary_key, [0]);
        let nullable: Vec<bool> = found.schema.fields().iter().map(|field| field.is_nullable()).collect();
        assert_eq!(nullable, [false, true, false]);
        let found = columns("(a INT, b NUMERIC(3, 1), \"C\" TEXT, CONSTRAINT k PRIMARY KEY (\"C\", a))");
        assert_eq!(found.primary_key, [2, 0]);
        assert_eq!(found.schema.field(2).name(), "C");
        assert!(!found.schema.field(2).is_nullable() && found.schema.field(1).is_nullable());
    }

    #[test]
    fn what_is_wrong_is_shown() {
        fails(
            "(id BIGNIT)",
            "type \"BIGNIT\" not found\nLINE 1: (id BIGNIT)\n            ^^^^^^\nHINT: Did you mean \"bigint\"?",
        );
        fails("(id)", "syntax error: expected a type, found )\nLINE 1: (id)\n           ^");
        fails("()", "a column list needs at least one column\nLINE 1: ()\n        ^");
        fails("(a INT, A INT)", "column \"a\" is declared twice\nLINE 1: (a INT, A INT)\n                ^");
        fails(
            "(abc INT, PRIMARY KEY (abd))",
            "column \"abd\" of the primary key not found\nLINE 1: (abc INT, PRIMARY KEY (abd))\n                               ^^^\nHINT: Did you mean \"abc\"?",
        );
        fails(
            "(a INT PRIMARY KEY, b INT PRIMARY KEY)",
            "there is more than one primary key\nLINE 1: (a INT PRIMARY KEY, b INT PRIMARY KEY)\n                                  ^^^^^^^\nHINT: Name all its columns in one PRIMARY KEY (a, b).",
        );
        fails(
            "(a INT b INT)",
            "type \"INT b INT\" not found\nLINE 1: (a INT b INT)\n           ^^^^^^^^^\nHINT: Did you mean \"int\", \"inet\" or \"int2\"?",
        );
    }

    #[test]
    fn a_default_is_a_constant_of_the_columns_type() {
        let of = |sql: &str| {
            let columns = columns(sql);
            let fields = columns.schema.fields().iter().map(AsRef::as_ref);
            let values = Planner::new().default_values(fields).unwrap();
            let texts = columns.schema.fields().iter().map(|field| default_of(field).map(str::to_string));
            texts.zip(values.iter().map(ToString::to_string)).collect::<Vec<_>>()
        };
        let check = |sql: &str, text: &str, value: &str| {
            assert_eq!(of(sql), [(Some(text.to_string()), value.to_string())], "{sql}");
        };
        check("(a INT DEFAULT 1 + 2 NOT NULL)", "1 + 2", "3");
        check("(a INT NOT NULL DEFAULT (1))", "(1)", "1");
        check("(a SMALLINT DEFAULT '7'::int)", "'7'::int", "7");
        check("(a TEXT DEFAULT NULL NULL)", "NULL", "NULL");
        check("(a BOOLEAN DEFAULT NOT true)", "NOT true", "false");
        check("(a NUMERIC(5, 2) DEFAULT -1.5)", "-1.5", "-1.50");
        check(
            "(a UUID DEFAULT 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11')",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        );
        assert_eq!(of("(a INT)"), [(None, "NULL".to_string())]);
        fails(
            "(a INT, b INT DEFAULT 'x' NOT NULL)",
            "the default of column \"b\": cannot cast 'x' to INT\nLINE 1: (a INT, b INT DEFAULT 'x' NOT NULL)\n                              ^^^",
        );
        fails(
            "(a INT, b INT DEFAULT 1 + a)",
            "the default of column \"b\": column \"a\" not found\nLINE 1: (a INT, b INT DEFAULT 1 + a)\n                                  ^",
        );
        fails(
            "(a BIGINT DEFAULT count(*))",
            "the default of column \"a\" is count(*), but an expression of type BIGINT without columns was expected\nLINE 1: (a BIGINT DEFAULT count(*))\n                          ^^^^^^^^\nHINT: Write a literal, such as 0, 'new' or DATE '2026-01-31', or a function, such as now().",
        );
        let columns = columns("(a TIMESTAMP DEFAULT now(), u TEXT DEFAULT gen_random_uuid()::text)");
        let planner = Planner::new().at(1_000_000_000);
        let of = |place: usize| ColumnDefault::of(&planner, columns.schema.field(place)).unwrap();
        assert_eq!(of(0).column(2).unwrap().len(), 2);
        let ids = of(1).column(2).unwrap();
        assert_ne!(ids.as_string_view().value(0), ids.as_string_view().value(1));
        let error =
            Planner::new().default_values(columns.schema.fields().iter().map(AsRef::as_ref)).unwrap_err();
        assert!(error.message.contains("a constant of type TIMESTAMP was expected"), "{}", error.message);
    }
}
