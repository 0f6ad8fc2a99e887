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
//! ([`crate::GeneratedColumns`]) and constraints ([`crate::Checks`]). REFERENCES is read and not enforced. Deliberately
//! absent until it is built, and refused by name: UNIQUE.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{ColumnDef, Ident};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use millstream_delta::{default_of, identity_of};

use crate::checks::{self, WrittenCheck};
use crate::context::Context;
use crate::defaults::{constant, expression};
use crate::error::{Error, Result};
use crate::generated_columns::WrittenColumn;
use crate::identity;
use crate::planner::Planner;
use crate::reader::{TokenReader, is_word};
use crate::relation::{Relation, Relations};
use crate::suggestion;
use crate::tokens::DIALECT;
use crate::type_names::unknown_type;
use crate::watermark::{Watermark, Written};

/// Declared columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Names, types and nullability. Columns of the primary key are NOT NULL.
    pub schema: SchemaRef,
    /// The columns of the primary key in its order; empty without one.
    pub primary_key: Vec<usize>,
    /// The column that has a watermark, and the watermark's delay.
    pub watermark: Option<Watermark>,
    /// Notices for the user.
    pub notices: Vec<String>,
}

/// Words that end the expression of a generated column without parentheses.
const AFTER_EXPRESSION: [&str; 8] =
    ["STORED", "VIRTUAL", "PERSISTED", "PRIMARY", "COMMENT", "CONSTRAINT", "CHECK", "REFERENCES"];

/// Words that end a column's type and begin the next clause.
const AFTER_TYPE: [&str; 13] = [
    "NOT",
    "NULL",
    "PRIMARY",
    "DEFAULT",
    "GENERATED",
    "CHECK",
    "REFERENCES",
    "UNIQUE",
    "CONSTRAINT",
    "COLLATE",
    "AS",
    "COMMENT",
    "OPTIONS",
];

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
        checks::add(self, reader.text(), &list.checks, &mut list.fields)?;
        list.finish(start, others)
    }

    /// Reads the declaration of a column to add: `c TEXT DEFAULT 'x' NOT NULL`.
    pub fn column_to_add(&self, reader: &mut TokenReader) -> Result<Field> {
        let start = reader.position();
        let mut list = ColumnList::default();
        list.column(self, reader)?;
        if !list.generated.is_empty() {
            return Err(Error::unsupported("adding a generated column")
                .at(start.start..reader.last_position().end)
                .hint("A view computes it: SELECT *, expression AS column FROM the table."));
        }
        if !list.checks.is_empty() {
            return Err(
                Error::unsupported("CHECK of a column to add").at(start.start..reader.last_position().end)
            );
        }
        if list.key.is_some() {
            return Err(Error::invalid("an added column can't be part of the primary key")
                .at(start.start..reader.last_position().end)
                .hint("CREATE another table with that key, and INSERT … SELECT into it."));
        }
        let field = list.fields.pop().ok_or_else(|| Error::bug("a column was read"))?;
        if identity_of(&field).is_some() {
            return Err(
                Error::unsupported("adding an identity column").at(start.start..reader.last_position().end)
            );
        }
        if let Some(text) = default_of(&field) {
            // Rows that are there already get it, too.
            constant(self, &field, text, start.start..reader.last_position().end)?;
        }
        Ok(field)
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
        let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
        let parsed = parser.parse_data_type().map_err(|_| unknown())?;
        if parser.peek_token().token != Token::EOF {
            return Err(unknown());
        }
        let column = ColumnDef { name: Ident::new("c"), data_type: parsed, options: Vec::new() };
        let context = Context::new(self.state(), self.type_planner(), &NoRelations, &[]);
        let options = ParserOptions::from(&self.state().config_options().sql_parser);
        let schema = SqlToRel::new_with_options(&context, options).build_schema(vec![column]);
        match schema {
            Ok(schema) => Ok(Arc::clone(&schema.fields()[0])),
            Err(DataFusionError::NotImplemented(_)) => Err(unknown()),
            Err(error) => Err(Error::from(error)),
        }
    }
}

/// A name and its position in the text.
type Named = (String, Range<usize>);

/// Collects the columns, the key and the watermark of a column list, each at most once.
#[derive(Default)]
struct ColumnList {
    fields: Vec<Field>,
    /// The generated columns by their numbers; their expressions may name columns that come after them.
    generated: Vec<(usize, WrittenColumn)>,
    checks: Vec<WrittenCheck>,
    notices: Vec<String>,
    /// The names in PRIMARY KEY, each with its position.
    key: Option<Vec<Named>>,
    /// The watermark with its position; its column may come after it.
    watermark: Option<(Written, Range<usize>)>,
}

impl ColumnList {
    /// Reads a column, a key or a watermark.
    fn item(&mut self, planner: &Planner, reader: &mut TokenReader) -> Result<()> {
        let start = reader.position();
        if reader.keyword(&["WATERMARK", "FOR"]) {
            let written = planner.watermark(reader)?;
            return match self.watermark.replace((written, start.clone())) {
                None => Ok(()),
                Some(_) => Err(Error::invalid("there is more than one watermark").at(start)),
            };
        }
        let name = constraint_name(reader)?;
        if reader.is_keyword(&["CHECK"]) && *reader.peek_at(1) == Token::LParen {
            return self.check(reader, name, None);
        }
        if reader.keyword(&["FOREIGN", "KEY"]) {
            reader.group()?;
            reader.expect_keyword(&["REFERENCES"])?;
            return self.reference(reader);
        }
        for word in ["UNIQUE", "EXCLUDE", "LIKE"] {
            let next_opens = *reader.peek_at(1) == Token::LParen || word == "LIKE";
            let a_type_follows = word == "LIKE" && reader.peek_at(2) != &Token::RParen;
            if reader.is_keyword(&[word]) && next_opens && !a_type_follows {
                return Err(Error::unsupported(word).at(start));
            }
        }
        match reader.keyword(&["PRIMARY", "KEY"]) {
            true => self.key(reader, start),
            false => self.column(planner, reader),
        }
    }

    fn column(&mut self, planner: &Planner, reader: &mut TokenReader) -> Result<()> {
        let start = reader.position();
        let name = reader.identifier().map_err(|_| reader.expected("the name of a column"))?;
        if self.fields.iter().any(|field| *field.name() == name) {
            return Err(Error::invalid(format!("column \"{name}\" is declared twice")).at(start));
        }
        let has_type = !reader.is_keyword(&["AS"]) && !reader.is_keyword(&["GENERATED"]);
        let mut field = match identity::serial(reader, &name) {
            Some(serial) => serial,
            None if has_type => planner.type_until(reader, &AFTER_TYPE)?.as_ref().clone().with_name(&name),
            None => Field::new(&name, DataType::Null, true),
        };
        let (mut nullable, mut expression) = (true, None);
        loop {
            let place = reader.position();
            let constraint = constraint_name(reader)?;
            if reader.is_keyword(&["CHECK"]) {
                self.check(reader, constraint, Some(self.fields.len()))?;
            } else if reader.keyword(&["REFERENCES"]) {
                self.reference(reader)?;
            } else if reader.keyword(&["NOT", "NULL"]) {
                nullable = false;
            } else if reader.keyword(&["NULL"]) {
            } else if reader.keyword(&["DEFAULT"]) {
                if default_of(&field).is_some() || identity_of(&field).is_some() {
                    let error = format!("column \"{name}\" has more than one default");
                    return Err(Error::invalid(error).at(place));
                }
                field = planner.default(reader, field, &AFTER_TYPE)?;
            } else if reader.keyword(&["PRIMARY", "KEY"]) {
                self.set_key(vec![(name.clone(), start.clone())], place)?;
            } else if let Some(identity) = identity::identity(reader, &field)? {
                if default_of(&field).is_some() || identity_of(&field).is_some() {
                    let error = format!("column \"{name}\" has more than one default");
                    return Err(Error::invalid(error).at(place));
                }
                field = identity;
            } else if reader.is_keyword(&["AS"]) || reader.is_keyword(&["GENERATED"]) {
                if expression.replace(generation(reader)?).is_some() {
                    let error = format!("column \"{name}\" has more than one expression");
                    return Err(Error::invalid(error).at(place));
                }
            } else if matches!(reader.peek(), Token::Comma | Token::RParen) || reader.is_end() {
                break;
            } else if let Some(word) = AFTER_TYPE.iter().find(|word| reader.is_keyword(&[word])) {
                return Err(Error::unsupported(format!("{word} for column \"{name}\"")).at(place));
            } else {
                return Err(reader.expected("\",\", \")\", NOT NULL or PRIMARY KEY"));
            }
        }
        field.set_nullable(nullable && identity_of(&field).is_none());
        if let Some(place) = expression {
            if default_of(&field).is_some() || identity_of(&field).is_some() {
                let error = format!("column \"{name}\" is generated, so it has no default");
                return Err(Error::invalid(error).at(start));
            }
            let written = WrittenColumn { field: field.clone(), has_type, place };
            self.generated.push((self.fields.len(), written));
        }
        self.fields.push(field);
        Ok(())
    }

    /// Reads `CHECK (condition)`.
    fn check(&mut self, reader: &mut TokenReader, name: Option<Named>, place: Option<usize>) -> Result<()> {
        reader.expect_keyword(&["CHECK"])?;
        let condition = reader.group()?;
        reader.keyword(&["NO", "INHERIT"]);
        self.checks.push(WrittenCheck { name, place, condition });
        Ok(())
    }

    /// Reads the rest of `REFERENCES table (column, …) …`, which isn't enforced.
    fn reference(&mut self, reader: &mut TokenReader) -> Result<()> {
        let table = reader.relation_name()?;
        if *reader.peek() == Token::LParen {
            reader.group()?;
        }
        let actions: &[&[&str]] =
            &[&["NO", "ACTION"], &["RESTRICT"], &["CASCADE"], &["SET", "NULL"], &["SET", "DEFAULT"]];
        let rest: &[&[&str]] = &[
            &["ON", "DELETE"],
            &["ON", "UPDATE"],
            &["MATCH", "FULL"],
            &["MATCH", "PARTIAL"],
            &["MATCH", "SIMPLE"],
            &["NOT", "DEFERRABLE"],
            &["DEFERRABLE"],
            &["INITIALLY", "DEFERRED"],
            &["INITIALLY", "IMMEDIATE"],
        ];
        while let Some(clause) = reader.one_of(rest) {
            if clause < 2 && reader.one_of(actions).is_none() {
                return Err(reader.expected("NO ACTION, RESTRICT, CASCADE, SET NULL or SET DEFAULT"));
            }
        }
        let notice = format!(
            "REFERENCES \"{table}\" is not enforced: rows are accepted without a matching row there, and stay if it is deleted"
        );
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
        Ok(())
    }

    /// Plans the expressions of the generated columns.
    fn generate(&mut self, planner: &Planner, statement: &str, others: &[FieldRef]) -> Result<()> {
        if self.generated.is_empty() {
            return Ok(());
        }
        let is_generated = |place: &usize| self.generated.iter().any(|(generated, _)| generated == place);
        let plain = (0..self.fields.len()).filter(|place| !is_generated(place));
        let mut inputs: Vec<FieldRef> = plain.map(|place| Arc::new(self.fields[place].clone())).collect();
        let declared = |other: &&FieldRef| self.fields.iter().any(|field| field.name() == other.name());
        inputs.extend(others.iter().filter(|other| !declared(other)).cloned());
        let inputs = Schema::new(inputs);
        let names: Vec<String> =
            self.generated.iter().map(|(_, written)| written.field.name().clone()).collect();
        for (place, written) in &self.generated {
            self.fields[*place] = written.field(planner, statement, &inputs, &names)?;
        }
        Ok(())
    }

    fn key(&mut self, reader: &mut TokenReader, start: Range<usize>) -> Result<()> {
        reader.expect_symbol(Token::LParen)?;
        let mut names: Vec<Named> = Vec::new();
        loop {
            let place = reader.position();
            let name = reader.identifier()?;
            if names.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(format!("column \"{name}\" is in the key twice")).at(place));
            }
            names.push((name, place));
            if reader.symbol(Token::RParen) {
                return self.set_key(names, start);
            }
            if !reader.symbol(Token::Comma) {
                return Err(reader.expected("\",\" or \")\""));
            }
        }
    }

    fn set_key(&mut self, names: Vec<Named>, place: Range<usize>) -> Result<()> {
        match self.key.replace(names) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("there is more than one primary key")
                .hint("Name all its columns in one PRIMARY KEY (a, b).")
                .at(place)),
        }
    }

    fn finish(mut self, start: Range<usize>, others: &[FieldRef]) -> Result<Columns> {
        if self.fields.is_empty() {
            return Err(Error::invalid("a column list needs at least one column").at(start));
        }
        let mut primary_key = Vec::new();
        for (name, place) in self.key.take().into_iter().flatten() {
            let names = || self.fields.iter().map(|field| field.name().as_str());
            let index = names().position(|other| other == name).ok_or_else(|| {
                Error::invalid(format!("column \"{name}\" of the primary key not found"))
                    .maybe_hint(suggestion::hint(&name, "columns", names()))
                    .at(place)
            })?;
            primary_key.push(index);
        }
        for index in &primary_key {
            self.fields[*index].set_nullable(false);
        }
        let schema: SchemaRef = Arc::new(Schema::new(self.fields));
        let others = others.iter().filter(|other| schema.field_with_name(other.name()).is_err());
        let all = Schema::new(schema.fields().iter().chain(others).cloned().collect::<Vec<_>>());
        let watermark = self.watermark.take().map(|(written, place)| {
            written.of(&all).map_err(|error| if error.span.is_none() { error.at(place) } else { error })
        });
        let notices = std::mem::take(&mut self.notices);
        Ok(Columns { schema, primary_key, watermark: watermark.transpose()?, notices })
    }
}

/// Reads `[GENERATED ALWAYS] AS expression [STORED | VIRTUAL]`, and returns the expression's position.
fn generation(reader: &mut TokenReader<'_>) -> Result<Range<usize>> {
    if reader.keyword(&["GENERATED"]) {
        reader.expect_keyword(&["ALWAYS"])?;
    }
    reader.expect_keyword(&["AS"])?;
    let place = expression(reader, &AFTER_EXPRESSION)?;
    reader.one_of(&[&["STORED"], &["VIRTUAL"], &["PERSISTED"]]);
    Ok(place)
}

/// Reads `CONSTRAINT name`, if it comes next.
fn constraint_name(reader: &mut TokenReader) -> Result<Option<Named>> {
    if !reader.keyword(&["CONSTRAINT"]) {
        return Ok(None);
    }
    let name = reader.identifier()?;
    Ok(Some((name, reader.last_position())))
}

/// A catalog without relations.
pub(crate) struct NoRelations;

impl Relations for NoRelations {
    fn get(&self, _name: &str) -> Option<Relation> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::TimeUnit;

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
        is("TIMESTAMP", DataType::Timestamp(TimeUnit::Nanosecond, None));
        for text in ["TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"] {
            is(text, DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())));
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
            "type \"INT b INT\" not found\nLINE 1: (a INT b INT)\n           ^^^^^^^^^\nHINT: Did you mean \"int\", \"int2\" or \"int4\"?",
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

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (sql, message) in [
            ("(a INT UNIQUE)", "UNIQUE for column \"a\" is not supported yet"),
            ("(a INT, UNIQUE (a))", "UNIQUE is not supported yet"),
        ] {
            let error = Planner::new().columns(&mut TokenReader::new(sql).unwrap()).unwrap_err();
            assert_eq!(error.message, message);
        }
    }
}
