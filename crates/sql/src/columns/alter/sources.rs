//! Dropped columns, and columns that get another type: the rows of the table are made anew from the former ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_delta::{
    checks_of, exact_sql_type, generated_of, identity_of, type_alone, with_check, with_generated,
    without_check, without_index,
};

use super::{Altered, names_column};
use crate::checks;
use crate::defaults::{default_expr, expression};
use crate::error::{Error, Result};
use crate::functions::quoted_ident;
use crate::generated_columns::{GeneratedColumns, row_expression};
use crate::hidden_columns::is_hidden;
use crate::indexes::TableIndex;
use crate::reader::TokenReader;
use crate::sqlstate;

/// The columns of a table from which its new ones are made.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The place of each new column among the former ones, behind which the computed ones follow; none for an added column.
    pub places: Vec<Option<usize>>,
    /// The former place of each column; none for an added one.
    pub former: Vec<Option<usize>>,
    computed: Option<Arc<GeneratedColumns>>,
}

impl Sources {
    /// Returns rows of the former columns, with the computed ones behind these.
    pub fn with_computed(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let Some(computed) = &self.computed else { return Ok(rows.clone()) };
        let fields = rows.schema_ref().fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let plain = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(plain, rows.columns().to_vec(), &options);
        computed.add(&rows.map_err(|error| Error::bug(error.to_string()))?).map_err(of_conversion)
    }
}

/// Returns the cast of a column to Arrow's type alone: values that don't fit a declared length are refused, not cut.
fn cast_text(column: &str, to: &Field) -> String {
    format!("{}::{}", quoted_ident(column), exact_sql_type(to.data_type()))
}

/// The end of the names of computed columns. No statement can write it.
const CONVERTED: &str = "\u{1f}converted";

fn converted_name(column: &str) -> String {
    format!("{column}{CONVERTED}")
}

/// Returns the error of a conversion, which names a column.
fn of_conversion(error: Error) -> Error {
    let message = error.message.replace(CONVERTED, "").replace("generated column", "column");
    Error { message, span: None, ..error }
}

impl Altered<'_> {
    /// Reads the rest of `DROP [COLUMN] [IF EXISTS] c`. Constraints and indexes over the column go with it.
    pub(super) fn drop_column(&mut self, reader: &mut TokenReader<'_>) -> Result<bool> {
        let lenient = reader.keyword(&["IF", "EXISTS"]);
        let at = reader.position();
        let place = match self.place(&mut reader.clone()) {
            Err(error) if lenient => {
                reader.identifier()?;
                self.done.notices.push(format!("{}, nothing was done for it", error.message));
                return Ok(false);
            }
            found => found?,
        };
        let name = reader.identifier()?;
        reader.one_of(&[&["CASCADE"], &["RESTRICT"]]);
        let table = self.table;
        if self.is_key(place) {
            return Err(Error::unsupported(format!(
                "dropping column \"{name}\", which is in the primary key,"
            ))
            .at(at)
            .hint("CREATE another table with another key, and INSERT … SELECT into it."));
        }
        if self.sources[place].is_none() || self.done.key.is_some() {
            return Err(Error::unsupported(
                "DROP COLUMN together with a new key or with ADD of the same column",
            )
            .at(at)
            .hint("Use a statement for each."));
        }
        self.check_not_computed_from(&name, "be dropped", at.clone())?;
        if !self.list.fields.iter().filter(|field| !is_hidden(field)).any(|field| field.name() != &name) {
            let error = format!("column \"{name}\" is the only one of table \"{table}\"");
            return Err(Error::invalid(error).at(at).hint("DROP TABLE drops the table."));
        }
        self.drop_constraints_of(place, &name)?;
        self.list.fields.remove(place);
        self.sources.remove(place);
        self.done.affects_readers = Some("drop");
        Ok(true)
    }

    /// Fails if a generated column is computed from a column.
    fn check_not_computed_from(&self, name: &str, what: &str, at: Range<usize>) -> Result<()> {
        let is_computed_from = |field: &&Field| {
            field.name() != name && generated_of(field).is_some_and(|text| self.names(text, name))
        };
        let Some(field) = self.list.fields.iter().find(is_computed_from) else { return Ok(()) };
        let error = format!(
            "column \"{name}\" of table \"{}\" can't {what}: the generated column \"{}\" is computed from it",
            self.table,
            field.name()
        );
        Err(Error::invalid(error)
            .at(at)
            .hint("Drop that column first.")
            .code(sqlstate::DEPENDENT_OBJECTS_STILL_EXIST))
    }

    /// Returns true if an expression of the table names a column.
    fn names(&self, text: &str, name: &str) -> bool {
        let fields: Vec<Field> = self.list.fields.iter().map(type_alone).collect();
        match row_expression(self.planner, "an expression", text, &Schema::new(fields)) {
            Ok((expression, _)) => expression.column_refs().iter().any(|column| column.name() == name),
            Err(_) => names_column(text, name).unwrap_or(true),
        }
    }

    /// Drops the constraints and the indexes over a column that is to be dropped. It passes on others that it keeps.
    fn drop_constraints_of(&mut self, place: usize, name: &str) -> Result<()> {
        let schema = Schema::new(self.list.fields.clone());
        for index in TableIndex::all(&schema).into_iter().filter(|index| index.columns.contains(&place)) {
            let first = &mut self.list.fields[index.columns[0]];
            *first = without_index(first, &index.name);
            self.done.notices.push(format!("{} was dropped too", index.name_in(self.table)));
        }
        let checks = self.list.fields.iter().enumerate().flat_map(|(at, field)| {
            checks_of(field).into_iter().map(move |(known, text)| (at, known.to_string(), text.to_string()))
        });
        for (at, known, text) in checks.collect::<Vec<_>>() {
            let names_it = self.names(&text, name);
            if !names_it && at != place {
                continue;
            }
            self.list.fields[at] = without_check(&self.list.fields[at], &known);
            if names_it {
                let shown = checks::constraint_name_in(self.table, &known);
                self.done.notices.push(format!("{shown} was dropped too"));
            } else {
                let other = usize::from(place == 0);
                self.list.fields[other] = with_check(self.list.fields[other].clone(), &known, &text);
            }
        }
        Ok(())
    }

    /// Notes the former places of the columns, and the places of the key's.
    pub(super) fn note_sources(&mut self) -> Result<()> {
        let now = |before: &usize| self.sources.iter().position(|source| *source == Some(*before));
        if !self.key.is_empty() {
            self.done.key = Some(self.key.iter().filter_map(now).collect());
        }
        let plain = self.before.fields().iter().map(|field| type_alone(field));
        let fields: Vec<Field> = plain.chain(self.converted.values().cloned()).collect();
        let computed = GeneratedColumns::of(self.planner, &Arc::new(Schema::new(fields)))?.map(Arc::new);
        let places: BTreeMap<usize, usize> =
            self.converted.keys().copied().zip(self.before.fields().len()..).collect();
        let source = |source: &Option<usize>| source.map(|from| places.get(&from).copied().unwrap_or(from));
        let places = self.sources.iter().map(source).collect();
        self.done.sources = Some(Sources { places, former: self.sources.clone(), computed });
        self.done.restricts = true;
        Ok(())
    }

    /// Reads `type [USING expression]`.
    pub(super) fn set_type(
        &mut self,
        reader: &mut TokenReader<'_>,
        place: usize,
        at: Range<usize>,
    ) -> Result<bool> {
        let field = self.list.fields[place].clone();
        let name = field.name().clone();
        let from = reader.position().start;
        let found = self.planner.type_until(reader, &["USING", "COLLATE"])?;
        let type_place = from..reader.last_position().end;
        if self.planner.types.domain(&reader.text()[type_place.clone()]).is_some() {
            return Err(Error::unsupported("a domain as the new type of a column")
                .hint("Use its type, and ADD CHECK.")
                .at(type_place));
        }
        let using = match reader.keyword(&["USING"]) {
            true => Some(reader.text()[expression(reader, &[])?].to_string()),
            false => None,
        };
        if type_of(&found) == type_of(&field) && using.is_none() {
            return Ok(false);
        }
        let (Some(from), None) = (self.sources[place], &self.done.key) else {
            return Err(Error::unsupported("a type together with a new key or with ADD of the same column")
                .at(at)
                .hint("Use a statement for each."));
        };
        if generated_of(&field).is_some() {
            let error = format!("column \"{name}\" of table \"{}\" is generated", self.table);
            return Err(Error::unsupported(format!("the type of a generated column: {error}")).at(at));
        }
        if identity_of(&field).is_some() && !found.data_type().is_signed_integer() {
            let error = format!("identity column \"{name}\" must be of type SMALLINT, INT or BIGINT");
            return Err(Error::invalid(error).at(at));
        }
        self.check_not_computed_from(&name, "get another type", at.clone())?;
        let text = using.unwrap_or_else(|| cast_text(self.before.field(from).name(), &found));
        let computed = type_alone(&found).with_name(converted_name(&name)).with_nullable(true);
        let computed = with_generated(computed, &text);
        // It is planned once now, so that an error has its place.
        let fields = self.before.fields().iter().map(|field| type_alone(field)).chain([computed.clone()]);
        GeneratedColumns::of(self.planner, &Arc::new(Schema::new(fields.collect::<Vec<_>>())))
            .map_err(|error| of_conversion(error).at(at.clone()))?;
        self.converted.insert(from, computed);
        let mut metadata = type_alone(&found).metadata().clone();
        let of_type = type_alone(&field);
        let others = field.metadata().iter().filter(|(key, _)| !of_type.metadata().contains_key(*key));
        metadata.extend(others.map(|(key, value)| (key.clone(), value.clone())));
        let altered =
            Field::new(&name, found.data_type().clone(), field.is_nullable()).with_metadata(metadata);
        if identity_of(&altered).is_none() {
            default_expr(self.planner, &altered).map_err(|error| {
                let hint = format!("ALTER COLUMN {name} DROP DEFAULT first, and SET DEFAULT afterwards.");
                Error { span: None, ..error }.at(at).hint(hint)
            })?;
        }
        self.list.fields[place] = altered;
        self.done.affects_readers = Some("change the type of");
        Ok(true)
    }
}

/// Returns the type of a column with everything that tells it from others.
fn type_of(field: &Field) -> (DataType, Option<String>) {
    (field.data_type().clone(), millstream_delta::declared_type(field).map(str::to_string))
}
