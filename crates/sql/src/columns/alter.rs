//! The actions of ALTER TABLE: they change the columns of a table, and what rows these accept.

mod sources;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{
    checks_of, default_of, generated_of, identity_of, indexes_of, with_check, with_default, with_index,
    without_check, without_identity, without_index,
};

use super::list::{ColumnList, constraint_name, opens_unique};
use crate::checks::{self, constraint_names};
use crate::defaults::constant;
use crate::error::{Error, Result};
use crate::identity;
use crate::indexes::TableIndex;
use crate::planner::Planner;
use crate::reader::TokenReader;
use crate::sqlstate;
use crate::suggestion;
pub use sources::Sources;

/// The effect of an ALTER TABLE on the columns of its table.
#[derive(Clone, Debug, Default)]
pub struct Alteration {
    /// The columns, with those that were added at their end.
    pub schema: Option<SchemaRef>,
    /// The values of the added columns in the rows of the table.
    pub added: Vec<ScalarValue>,
    /// The positions of the defaults of added columns, with their present values.
    pub defaults: Vec<(Range<usize>, Field, ScalarValue)>,
    /// The former places of the columns, if some are dropped or get another type.
    pub sources: Option<Sources>,
    /// True if the rows of the table may violate a new constraint.
    pub restricts: bool,
    /// The columns of a new primary key.
    pub key: Option<Vec<usize>>,
    /// Columns that may be NULL from now on, and new names of columns: queries that read the table depend on these.
    pub affects_readers: Option<&'static str>,
    /// The clauses that have an effect.
    pub clauses: Vec<String>,
    /// Notices for the user.
    pub notices: Vec<String>,
    /// The positions of types that are domains, and the types and constraints that they stand for.
    pub domains: Vec<(Range<usize>, String)>,
}

/// The name by which a column keeps a constraint.
enum Known {
    Check(String),
    Index(String),
}

/// A table whose columns are altered.
struct Altered<'a> {
    planner: &'a Planner,
    table: &'a str,
    key: &'a [usize],
    list: ColumnList,
    /// The columns of before.
    before: &'a Schema,
    /// The former place of each column; none for an added one.
    sources: Vec<Option<usize>>,
    /// The columns that get another type, by their former places: generated columns, which compute the new values.
    converted: BTreeMap<usize, Field>,
    done: Alteration,
}

impl Planner {
    /// Reads the actions of ALTER TABLE, `ADD COLUMN c INT, DROP CONSTRAINT k`, up to the end of the statement.
    ///
    /// # Errors
    /// Fails if a column or a constraint doesn't exist, or exists already, and for actions that aren't there.
    pub fn alter_columns(
        &self,
        reader: &mut TokenReader<'_>,
        table: &str,
        columns: &Schema,
        key: &[usize],
    ) -> Result<Alteration> {
        let fields = columns.fields().iter().map(|field| field.as_ref().clone()).collect();
        let list = ColumnList { fields, ..ColumnList::default() };
        let sources = (0..columns.fields().len()).map(Some).collect();
        let (before, converted, done) = (columns, BTreeMap::new(), Alteration::default());
        let mut altered = Altered { planner: self, table, key, list, before, sources, converted, done };
        loop {
            let start = reader.position().start;
            if altered.action(reader)? {
                altered.done.clauses.push(reader.text()[start..reader.last_position().end].to_string());
            }
            if !reader.symbol(Token::Comma) {
                break;
            }
        }
        reader.expect_end()?;
        if altered.sources.len() < columns.fields().len() + altered.done.added.len()
            || !altered.converted.is_empty()
        {
            altered.note_sources()?;
        }
        let Altered { list, mut done, .. } = altered;
        done.notices.extend(list.notices);
        done.domains = list.domains;
        let schema = Schema::new_with_metadata(list.fields, columns.metadata().clone());
        done.schema = (!done.clauses.is_empty()).then(|| Arc::new(schema));
        Ok(done)
    }
}

impl Altered<'_> {
    /// Reads one action; returns true if it has an effect.
    fn action(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        if reader.keyword(&["ADD"]) {
            return self.add(reader);
        }
        if reader.keyword(&["DROP", "CONSTRAINT"]) {
            return self.drop_constraint(reader);
        }
        if let Some(kind) = reader.one_of(&[&["RENAME", "CONSTRAINT"], &["RENAME", "INDEX"]]) {
            return self.rename_constraint(reader, kind == 1);
        }
        if reader.keyword(&["RENAME"]) {
            reader.keyword(&["COLUMN"]);
            return self.rename(reader);
        }
        if reader.keyword(&["ALTER"]) {
            reader.keyword(&["COLUMN"]);
            return self.column(reader);
        }
        if reader.keyword(&["OWNER", "TO"]) {
            reader.identifier()?;
            self.done.notices.push("OWNER TO has no effect: there are no roles".into());
            return Ok(false);
        }
        if reader.keyword(&["DROP"]) {
            reader.keyword(&["COLUMN"]);
            return self.drop_column(reader);
        }
        if let Some(notice) = without_effect(reader)? {
            self.done.notices.push(notice);
            return Ok(false);
        }
        Err(reader.expected("ADD, ALTER COLUMN, DROP COLUMN, DROP CONSTRAINT, RENAME or SET WATERMARK"))
    }

    fn add(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        let at = reader.position();
        let has_word = reader.keyword(&["COLUMN"]);
        if !has_word && opens_constraint(reader) {
            return self.add_constraint(reader);
        }
        if !has_word && reader.is_keyword(&["WATERMARK", "FOR"]) {
            return Err(Error::invalid("a watermark is set, not added").at(at).hint(
                "ALTER TABLE … SET WATERMARK FOR ts AS ts - INTERVAL '5 seconds'; ADD COLUMN adds its column first.",
            ));
        }
        let lenient = reader.keyword(&["IF", "NOT", "EXISTS"]);
        let start = reader.position();
        let name = reader.clone().identifier().map_err(|_| reader.expected("the name of a column"))?;
        if self.list.fields.iter().any(|field| *field.name() == name) {
            let error = format!("column \"{name}\" of table \"{}\" already exists", self.table);
            if !lenient {
                return Err(Error::invalid(error)
                    .at(start)
                    .hint("Choose another name, or use ADD COLUMN IF NOT EXISTS."));
            }
            // The declaration is read, and has no effect.
            ColumnList::default().column(self.planner, reader)?;
            self.done.notices.push(format!("{error}, nothing was done for it"));
            return Ok(false);
        }
        self.list.column(self.planner, reader)?;
        let place = start.start..reader.last_position().end;
        let field = self.list.fields.last().ok_or_else(|| Error::bug("a column was read"))?;
        if !self.list.generated.is_empty() {
            return Err(Error::unsupported("adding a generated column")
                .at(place)
                .hint("A view computes it: SELECT *, expression AS column FROM the table."));
        }
        if self.list.key.is_some() {
            return Err(Error::invalid("an added column can't be part of the primary key")
                .at(place)
                .hint("CREATE another table with that key, and INSERT … SELECT into it."));
        }
        if identity_of(field).is_some() {
            return Err(Error::unsupported("adding an identity column").at(place));
        }
        // Rows that are there already get the default, too.
        self.done.added.push(match default_of(field) {
            Some(text) => {
                let value = constant(self.planner, field, text, place).map_err(|error| {
                    let is_computed = error.message.contains("a constant of type");
                    let hint =
                        "Add the column without it; then ALTER COLUMN … SET DEFAULT, and UPDATE the rows.";
                    if is_computed { error.hint(hint) } else { error }
                })?;
                if let Some(at) = self.list.default.take() {
                    self.done.defaults.push((at, field.clone(), value.clone()));
                }
                value
            }
            None => ScalarValue::try_from(field.data_type())?,
        });
        self.sources.push(None);
        self.constrain(reader)?;
        Ok(true)
    }

    fn add_constraint(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        let mut ahead = reader.clone();
        constraint_name(&mut ahead)?;
        if ahead.is_keyword(&["EXCLUDE"]) {
            return Err(Error::unsupported("ALTER TABLE … ADD EXCLUDE").at(ahead.position()));
        }
        if ahead.is_keyword(&["PRIMARY", "KEY"]) && (!self.key.is_empty() || self.done.key.is_some()) {
            let error = format!("table \"{}\" has a primary key already", self.table);
            return Err(Error::invalid(error).at(ahead.position()));
        }
        let is_reference = ahead.is_keyword(&["FOREIGN", "KEY"]);
        self.list.item(self.planner, reader)?;
        if reader.keyword(&["NOT", "VALID"]) {
            self.done.notices.push("NOT VALID has no effect: the rows of the table are checked, too".into());
        }
        self.constrain(reader)?;
        if self.list.key.is_some() {
            self.done.key = Some(self.list.set_key_columns()?);
            self.done.restricts = true;
        }
        Ok(!is_reference)
    }

    /// Adds the constraints that were read to the columns.
    fn constrain(&mut self, reader: &TokenReader<'_>) -> Result<()> {
        let names = self.list.checks.iter().map(|check| &check.name);
        for (name, at) in names.chain(self.list.indexes.iter().map(|index| &index.name)).flatten() {
            if self.constraint(name).is_some() {
                return Err(
                    Error::invalid(format!("there is a constraint \"{name}\" already")).at(at.clone())
                );
            }
        }
        self.done.restricts |= !self.list.checks.is_empty() || !self.list.indexes.is_empty();
        self.list.constrain(self.planner, reader.text())?;
        self.list.checks.clear();
        self.list.indexes.clear();
        Ok(())
    }

    /// Returns true if a column is in the primary key.
    fn is_key(&self, place: usize) -> bool {
        match &self.done.key {
            Some(key) => key.contains(&place),
            None => self.sources[place].is_some_and(|source| self.key.contains(&source)),
        }
    }

    fn drop_constraint(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        let lenient = reader.keyword(&["IF", "EXISTS"]);
        let at = reader.position();
        let name = reader.identifier()?;
        reader.one_of(&[&["CASCADE"], &["RESTRICT"]]);
        let Some((place, known)) = self.constraint(&name) else {
            if name == checks::constraint_name_in(self.table, ".pkey") && !self.key.is_empty() {
                return Err(Error::unsupported("DROP CONSTRAINT of a primary key").at(at));
            }
            let error = format!("constraint \"{name}\" of table \"{}\" does not exist", self.table);
            if lenient {
                self.done.notices.push(format!("{error}, nothing was done"));
                return Ok(false);
            }
            return Err(self.no_constraint(error, &name).at(at));
        };
        let field = &mut self.list.fields[place];
        *field = match known {
            Known::Check(known) => without_check(field, &known),
            Known::Index(known) => without_index(field, &known),
        };
        Ok(true)
    }

    fn rename_constraint(&mut self, reader: &mut TokenReader<'_>, is_index: bool) -> Result<bool> {
        let at = reader.position();
        let (from, _) = (reader.identifier()?, reader.expect_keyword(&["TO"])?);
        let to_at = reader.position();
        let to = reader.identifier()?;
        let found = if is_index { self.index(&from) } else { self.constraint(&from) };
        let Some((place, known)) = found else {
            let kind = if is_index { "index" } else { "constraint" };
            let error = format!("{kind} \"{from}\" of table \"{}\" does not exist", self.table);
            return Err(self.no_constraint(error, &from).at(at));
        };
        if self.is_taken(&to) {
            return Err(Error::invalid(format!("there is a constraint \"{to}\" already")).at(to_at));
        }
        let field = &mut self.list.fields[place];
        *field = match known {
            Known::Check(known) => {
                let text = checks_of(field).into_iter().find(|(name, _)| *name == known);
                let text = text.map(|(_, text)| text.to_string()).unwrap_or_default();
                with_check(without_check(field, &known), &to, &text)
            }
            Known::Index(known) => {
                let text = indexes_of(field).into_iter().find(|(name, _)| *name == known);
                let text = text.map(|(_, text)| text.to_string()).unwrap_or_default();
                with_index(without_index(field, &known), &to, &text)
            }
        };
        Ok(true)
    }

    /// Returns the column that keeps a constraint of this name, and the name by which it does.
    fn constraint(&self, name: &str) -> Option<(usize, Known)> {
        let is_it = |known: &str| checks::constraint_name_in(self.table, known) == name;
        self.list.fields.iter().enumerate().find_map(|(place, field)| {
            let mut checks = checks_of(field).into_iter().filter(|(known, _)| is_it(known));
            let check = checks.next().map(|(known, _)| Known::Check(known.to_string()));
            let indexes = indexes_of(field).into_iter().filter(|(known, _)| is_it(known));
            let mut constraints = indexes.filter(|(_, text)| text.starts_with("constraint"));
            let index = || constraints.next().map(|(known, _)| Known::Index(known.to_string()));
            check.or_else(index).map(|known| (place, known))
        })
    }

    /// Returns the column that keeps an index of this name, and the name by which it does.
    fn index(&self, name: &str) -> Option<(usize, Known)> {
        self.list.fields.iter().enumerate().find_map(|(place, field)| {
            let mut names = indexes_of(field).into_iter().map(|(known, _)| known);
            let known = names.find(|known| checks::constraint_name_in(self.table, known) == name)?;
            Some((place, Known::Index(known.to_string())))
        })
    }

    /// Returns true if a constraint or an index has this name.
    fn is_taken(&self, name: &str) -> bool {
        let names = constraint_names(&self.list.fields);
        names.iter().any(|known| checks::constraint_name_in(self.table, known) == name)
    }

    fn no_constraint(&self, error: String, name: &str) -> Error {
        let schema = Schema::new(self.list.fields.clone());
        let checks = schema.fields().iter().flat_map(|field| checks_of(field));
        let mut names: Vec<String> =
            checks.map(|(known, _)| checks::constraint_name_in(self.table, known)).collect();
        names.extend(TableIndex::all(&schema).iter().map(|index| index.name_in(self.table)));
        Error::invalid(error).maybe_hint(suggestion::hint(
            name,
            "constraints",
            names.iter().map(String::as_str),
        ))
    }

    /// Reads the rest of `ALTER COLUMN c …`.
    fn column(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        let place = self.place(reader)?;
        let field = self.list.fields[place].clone();
        let (name, at) = (field.name().clone(), reader.position());
        let is_computed = generated_of(&field).is_some() || identity_of(&field).is_some();
        if reader.keyword(&["SET", "NOT", "NULL"]) {
            self.list.fields[place].set_nullable(false);
            self.done.restricts |= field.is_nullable();
            return Ok(field.is_nullable());
        }
        if reader.keyword(&["DROP", "NOT", "NULL"]) {
            if self.is_key(place) || identity_of(&field).is_some() {
                let why = if self.is_key(place) { "is in the primary key" } else { "is an identity" };
                let error =
                    format!("column \"{name}\" of table \"{}\" {why}, so it can't be NULL", self.table);
                return Err(Error::invalid(error).at(at));
            }
            self.list.fields[place].set_nullable(true);
            if !field.is_nullable() {
                self.done.affects_readers = Some("lose NOT NULL in");
            }
            return Ok(!field.is_nullable());
        }
        if reader.keyword(&["SET", "DEFAULT"]) {
            if is_computed {
                let error = format!(
                    "column \"{name}\" of table \"{}\" is generated, so it has no default",
                    self.table
                );
                return Err(Error::invalid(error).at(at));
            }
            self.list.fields[place] = self.planner.default(reader, with_default(field, None), &[])?;
            return Ok(true);
        }
        if reader.keyword(&["DROP", "DEFAULT"]) {
            if is_computed {
                let error = format!(
                    "column \"{name}\" of table \"{}\" is generated, so it has no default",
                    self.table
                );
                return Err(Error::invalid(error).at(at));
            }
            self.list.fields[place] = with_default(field, None);
            return Ok(true);
        }
        if reader.keyword(&["ADD"]) {
            return self.add_identity(reader, place);
        }
        if reader.keyword(&["DROP", "IDENTITY"]) {
            return self.drop_identity(reader, place);
        }
        let without_effect: &[&[&str]] =
            &[&["SET", "STATISTICS"], &["SET", "STORAGE"], &["SET", "COMPRESSION"]];
        if let Some(clause) = reader.one_of(without_effect) {
            reader.next();
            self.done.notices.push(format!("{} has no effect", without_effect[clause].join(" ")));
            return Ok(false);
        }
        if reader.keyword(&["TYPE"]) || reader.keyword(&["SET", "DATA", "TYPE"]) {
            return self.set_type(reader, place, at);
        }
        Err(reader.expected(
            "SET DEFAULT, DROP DEFAULT, SET NOT NULL, DROP NOT NULL, TYPE, ADD GENERATED or DROP IDENTITY",
        ))
    }

    /// Reads the rest of `ADD GENERATED ALWAYS | BY DEFAULT AS IDENTITY [(option …)]`.
    fn add_identity(&mut self, reader: &mut TokenReader<'_>, place: usize) -> Result<bool> {
        let (field, at) = (self.list.fields[place].clone(), reader.position());
        let identity = identity::identity(reader, &field)?;
        let identity = identity.ok_or_else(|| reader.expected("GENERATED ALWAYS AS IDENTITY"))?;
        let why = if identity_of(&field).is_some() {
            "is an identity already"
        } else if default_of(&field).is_some() || generated_of(&field).is_some() {
            "has a default already"
        } else if field.is_nullable() {
            "must be NOT NULL to become an identity"
        } else {
            self.list.fields[place] = identity;
            return Ok(true);
        };
        let error = format!("column \"{}\" of table \"{}\" {why}", field.name(), self.table);
        let hint = field.is_nullable().then(|| format!("ALTER COLUMN {} SET NOT NULL first.", field.name()));
        Err(Error::invalid(error).code(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE).maybe_hint(hint).at(at))
    }

    /// Reads the rest of `DROP IDENTITY [IF EXISTS]`.
    fn drop_identity(&mut self, reader: &mut TokenReader<'_>, place: usize) -> Result<bool> {
        let (field, at) = (self.list.fields[place].clone(), reader.last_position());
        let lenient = reader.keyword(&["IF", "EXISTS"]);
        if identity_of(&field).is_none() {
            let error = format!("column \"{}\" of table \"{}\" is not an identity", field.name(), self.table);
            if lenient {
                self.done.notices.push(format!("{error}, nothing was done"));
                return Ok(false);
            }
            return Err(Error::invalid(error).code(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE).at(at));
        }
        self.list.fields[place] = without_identity(field);
        Ok(true)
    }

    /// Reads the rest of `RENAME [COLUMN] a TO b`.
    fn rename(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        let place = self.place(reader)?;
        reader.expect_keyword(&["TO"])?;
        let at = reader.position();
        let name = reader.identifier()?;
        let from = self.list.fields[place].name().clone();
        if name == from {
            return Ok(false);
        }
        if self.list.fields.iter().any(|field| *field.name() == name) {
            let error = format!("column \"{name}\" of table \"{}\" already exists", self.table);
            return Err(Error::invalid(error).at(at));
        }
        self.done.affects_readers = Some("rename");
        self.list.fields = renamed(&self.list.fields, place, &name)?;
        Ok(true)
    }

    /// Reads the name of a column of the table.
    fn place(&self, reader: &mut TokenReader<'_>) -> Result<usize> {
        let at = reader.position();
        let name = reader.identifier()?;
        let names = || self.list.fields.iter().map(|field| field.name().as_str());
        names().position(|other| other == name).ok_or_else(|| {
            Error::invalid(format!("column \"{name}\" of table \"{}\" does not exist", self.table))
                .maybe_hint(suggestion::hint(&name, "columns", names()))
                .at(at)
        })
    }
}

/// Reads an action of PostgreSQL's that has no effect here. Returns a notice; none if another one begins.
fn without_effect(reader: &mut TokenReader<'_>) -> Result<Option<String>> {
    let at = reader.position();
    if reader.is_keyword(&["ENABLE", "ROW", "LEVEL", "SECURITY"]) || reader.is_keyword(&["FORCE", "ROW"]) {
        return Err(Error::unsupported("row-level security")
            .hint("A view can leave rows out; there are no roles.")
            .at(at));
    }
    let (action, why) = if reader.keyword(&["VALIDATE", "CONSTRAINT"]) {
        ("VALIDATE CONSTRAINT", "constraints are verified when they are added")
    } else if reader.one_of(&[&["CLUSTER", "ON"], &["SET", "WITHOUT", "CLUSTER"]]).is_some() {
        ("CLUSTER", "rows have no order in a table")
    } else if reader.keyword(&["REPLICA", "IDENTITY"]) {
        ("REPLICA IDENTITY", "a subscription has whole rows")
    } else if reader.one_of(&[&["ENABLE", "TRIGGER"], &["DISABLE", "TRIGGER"]]).is_some() {
        ("TRIGGER", "there are no triggers")
    } else if reader.one_of(&[&["SET"], &["RESET"]]).is_some() {
        ("SET", "tables have no storage parameters")
    } else {
        return Ok(None);
    };
    while !reader.is_end() && *reader.peek() != Token::Comma {
        if *reader.peek() == Token::LParen {
            reader.group()?;
        } else {
            reader.next();
        }
    }
    Ok(Some(format!("{action} has no effect: {why}")))
}

/// Returns the columns with another name for one of them. Fails if an expression of the table may name it.
fn renamed(fields: &[Field], place: usize, name: &str) -> Result<Vec<Field>> {
    let from = fields[place].name();
    for field in fields {
        let texts = checks_of(field).into_iter().map(|(_, text)| text).chain(generated_of(field));
        for text in texts {
            if names_column(text, from)? {
                return Err(Error::invalid(format!(
                    "column \"{from}\" can't be renamed: ({text}) of the table names it"
                ))
                .hint("Drop the constraint first, and add it again with the new name."));
            }
        }
    }
    let schema = Schema::new(fields.to_vec());
    let indexes: Vec<TableIndex> =
        TableIndex::all(&schema).into_iter().filter(|index| index.columns.contains(&place)).collect();
    let mut fields = fields.to_vec();
    for index in &indexes {
        fields[index.columns[0]] = without_index(&fields[index.columns[0]], &index.name);
    }
    fields[place] = fields[place].clone().with_name(name);
    indexes.iter().for_each(|index| index.add_to(&mut fields));
    Ok(fields)
}

/// Returns true if an expression may name a column.
fn names_column(text: &str, name: &str) -> Result<bool> {
    let mut reader = TokenReader::new(text)?;
    while !reader.is_end() {
        match reader.identifier() {
            Ok(found) if found == name && *reader.peek() != Token::LParen => return Ok(true),
            Ok(_) => {}
            Err(_) => drop(reader.next()),
        }
    }
    Ok(false)
}

/// Returns true if a constraint of the table follows, not a column.
fn opens_constraint(reader: &TokenReader<'_>) -> bool {
    let is_column = !matches!(reader.peek_at(1), Token::LParen);
    reader.is_keyword(&["CONSTRAINT"])
        || reader.is_keyword(&["PRIMARY", "KEY"])
        || reader.is_keyword(&["FOREIGN", "KEY"])
        || opens_unique(reader)
        || ((reader.is_keyword(&["CHECK"]) || reader.is_keyword(&["EXCLUDE"])) && !is_column)
}
