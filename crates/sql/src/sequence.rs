//! The options of a sequence: `CREATE SEQUENCE s AS INT START WITH 10 INCREMENT BY 5 MAXVALUE 100 CYCLE`.
//!
//! They are those of PostgreSQL, with its defaults and limits.

use std::ops::Range;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{Error, Result};
use crate::reader::{TokenReader, column_name};
use crate::sqlstate;

/// The options of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceOptions {
    /// The type of its numbers: SMALLINT, INTEGER or BIGINT.
    pub data_type: DataType,
    /// The first number.
    pub start: i64,
    /// The difference of two numbers; not zero.
    pub increment: i64,
    /// The least number.
    pub min: i64,
    /// The greatest number.
    pub max: i64,
    /// True if the sequence starts again after its last number.
    pub cycle: bool,
    /// The table and the column that own the sequence. DROP TABLE drops it, too.
    pub owned_by: Option<(String, String)>,
}

/// The options that a statement gives to a sequence.
#[derive(Clone, Debug)]
pub struct SequenceChange {
    /// All options of the sequence.
    pub options: SequenceOptions,
    /// The number of RESTART.
    pub restart: Option<i64>,
    /// True if an option other than RESTART is given.
    pub changes_options: bool,
}

/// A clause with its position, if the statement has it.
type Clause<T> = Option<(T, Range<usize>)>;

/// A table and a column of it.
type Owner = (String, String);

/// The clauses of a statement.
#[derive(Default)]
struct Clauses {
    data_type: Clause<DataType>,
    increment: Clause<i64>,
    /// Inner `None`: NO MINVALUE.
    min: Clause<Option<i64>>,
    max: Clause<Option<i64>>,
    start: Clause<i64>,
    restart: Clause<Option<i64>>,
    cycle: Clause<bool>,
    cache: Clause<i64>,
    owned_by: Clause<Option<Owner>>,
}

const PHRASES: &[&[&str]] = &[
    &["AS"],
    &["INCREMENT", "BY"],
    &["INCREMENT"],
    &["NO", "MINVALUE"],
    &["MINVALUE"],
    &["NO", "MAXVALUE"],
    &["MAXVALUE"],
    &["START", "WITH"],
    &["START"],
    &["RESTART", "WITH"],
    &["RESTART"],
    &["NO", "CYCLE"],
    &["CYCLE"],
    &["CACHE"],
    &["OWNED", "BY"],
];

impl SequenceOptions {
    /// Reads options up to the end of the statement. `before` has those of the sequence that the statement alters.
    pub fn read(reader: &mut TokenReader<'_>, before: Option<&SequenceOptions>) -> Result<SequenceChange> {
        let mut clauses = Clauses::default();
        while !reader.is_end() {
            clauses.read(reader, before.is_some())?;
        }
        clauses.change(before)
    }

    /// Returns the options of an identity column's sequence.
    pub fn of_identity(data_type: &DataType, start: i64, increment: i64) -> SequenceOptions {
        let (least, greatest) = bounds(data_type);
        let (min, max) = if increment > 0 { (1.min(start), greatest) } else { (least, (-1).max(start)) };
        let data_type = data_type.clone();
        SequenceOptions { data_type, start, increment, min, max, cycle: false, owned_by: None }
    }

    /// Returns true if a column of this table owns the sequence.
    pub fn is_owned_by(&self, table: &str) -> bool {
        self.owned_by.as_ref().is_some_and(|(owner, _)| owner == table)
    }
}

impl Clauses {
    fn read(&mut self, reader: &mut TokenReader<'_>, alters: bool) -> Result<()> {
        let start = reader.position().start;
        let phrase =
            reader.one_of(PHRASES).and_then(|place| PHRASES[place].first().zip(PHRASES[place].last()));
        let Some((first, last)) = phrase else {
            return Err(reader.expected("an option of a sequence, such as INCREMENT BY 1"));
        };
        let number = |reader: &mut TokenReader<'_>| signed(reader);
        match (*first, *last) {
            ("AS", _) => set(&mut self.data_type, integer_type(reader)?, reader, start),
            ("INCREMENT", _) => set(&mut self.increment, number(reader)?, reader, start),
            ("NO", "MINVALUE") => set(&mut self.min, None, reader, start),
            ("MINVALUE", _) => set(&mut self.min, Some(number(reader)?), reader, start),
            ("NO", "MAXVALUE") => set(&mut self.max, None, reader, start),
            ("MAXVALUE", _) => set(&mut self.max, Some(number(reader)?), reader, start),
            ("START", _) => set(&mut self.start, number(reader)?, reader, start),
            ("RESTART", _) if !alters => Err(Error::invalid("RESTART is an option of ALTER SEQUENCE")
                .at(start..reader.last_position().end)),
            ("RESTART", last) => {
                let is_number = matches!(reader.peek(), Token::Number(..) | Token::Minus);
                let to = if last == "WITH" || is_number { Some(number(reader)?) } else { None };
                set(&mut self.restart, to, reader, start)
            }
            ("NO", _) => set(&mut self.cycle, false, reader, start),
            ("CYCLE", _) => set(&mut self.cycle, true, reader, start),
            ("CACHE", _) => set(&mut self.cache, number(reader)?, reader, start),
            _ => set(&mut self.owned_by, owner(reader)?, reader, start),
        }
    }

    fn change(self, before: Option<&SequenceOptions>) -> Result<SequenceChange> {
        if let Some((0, at)) = &self.increment {
            return Err(Error::invalid("INCREMENT must not be zero").at(at.clone()));
        }
        if let Some((cache, at)) = self.cache.as_ref().filter(|(cache, _)| *cache < 1) {
            return Err(Error::invalid(format!("CACHE ({cache}) must be greater than zero")).at(at.clone()));
        }
        let changes_options = self.data_type.is_some()
            || self.increment.is_some()
            || self.min.is_some()
            || self.max.is_some()
            || self.start.is_some()
            || self.cycle.is_some()
            || self.owned_by.is_some();
        let given = self.data_type.as_ref().map(|(data_type, _)| data_type.clone());
        let kept = before.map(|before| before.data_type.clone());
        let data_type = given.or_else(|| kept.clone()).unwrap_or(DataType::Int64);
        let (least, greatest) = bounds(&data_type);
        // A bound that was the default of the old type becomes that of the new one.
        let (old_least, old_greatest) = kept.as_ref().map_or((least, greatest), bounds);
        let is_retyped = self.data_type.is_some();
        let kept_min = before.map(|before| before.min).filter(|min| !is_retyped || *min != old_least);
        let kept_max = before.map(|before| before.max).filter(|max| !is_retyped || *max != old_greatest);
        let increment = number_or(&self.increment, before.map_or(1, |before| before.increment));
        let (min_default, max_default) = if increment > 0 { (1, greatest) } else { (least, -1) };
        let bound = |given: &Clause<Option<i64>>, kept: Option<i64>, default: i64| match given {
            Some((value, _)) => value.unwrap_or(default),
            None => kept.unwrap_or(default),
        };
        let min = bound(&self.min, kept_min, min_default);
        let max = bound(&self.max, kept_max, max_default);
        let start = number_or(
            &self.start,
            before.map_or(if increment > 0 { min } else { max }, |before| before.start),
        );
        let options = SequenceOptions {
            data_type,
            start,
            increment,
            min,
            max,
            cycle: self.cycle.as_ref().map_or(before.is_some_and(|before| before.cycle), |(cycle, _)| *cycle),
            owned_by: match &self.owned_by {
                Some((owner, _)) => owner.clone(),
                None => before.and_then(|before| before.owned_by.clone()),
            },
        };
        let at = |clause: Option<&Range<usize>>| clause.cloned();
        options
            .check_bounds(at(self.min.as_ref().map(|(_, at)| at)), at(self.max.as_ref().map(|(_, at)| at)))?;
        options.check("START", start, at(self.start.as_ref().map(|(_, at)| at)))?;
        let restart = self.restart.as_ref().map(|(to, at)| (to.unwrap_or(start), at.clone()));
        if let Some((to, at)) = &restart {
            options.check("RESTART", *to, Some(at.clone()))?;
        }
        Ok(SequenceChange { options, restart: restart.map(|(to, _)| to), changes_options })
    }
}

impl SequenceOptions {
    fn check_bounds(&self, min_at: Option<Range<usize>>, max_at: Option<Range<usize>>) -> Result<()> {
        let (least, greatest) = bounds(&self.data_type);
        let name = millstream_delta::sql_type(&self.data_type);
        for (word, value, at) in [("MINVALUE", self.min, &min_at), ("MAXVALUE", self.max, &max_at)] {
            if value < least || value > greatest {
                let error = format!("{word} ({value}) is out of range for sequence data type {name}");
                return Err(placed(invalid_value(error), at.clone()));
            }
        }
        if self.min >= self.max {
            let error = format!("MINVALUE ({}) must be less than MAXVALUE ({})", self.min, self.max);
            return Err(placed(invalid_value(error), min_at.or(max_at)));
        }
        Ok(())
    }

    fn check(&self, word: &str, value: i64, at: Option<Range<usize>>) -> Result<()> {
        let error = if value < self.min {
            format!("{word} value ({value}) cannot be less than MINVALUE ({})", self.min)
        } else if value > self.max {
            format!("{word} value ({value}) cannot be greater than MAXVALUE ({})", self.max)
        } else {
            return Ok(());
        };
        Err(placed(invalid_value(error), at))
    }
}

fn invalid_value(message: String) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

fn placed(error: Error, at: Option<Range<usize>>) -> Error {
    match at {
        Some(at) => error.at(at),
        None => error,
    }
}

fn number_or(given: &Clause<i64>, default: i64) -> i64 {
    given.as_ref().map_or(default, |(number, _)| *number)
}

/// Stores the value of a clause that began at `start`. Fails if the statement has the clause twice.
fn set<T>(
    clause: &mut Option<(T, Range<usize>)>,
    value: T,
    reader: &TokenReader<'_>,
    start: usize,
) -> Result<()> {
    let at = start..reader.last_position().end;
    if clause.is_some() {
        let error = "the option is given twice, or together with its opposite";
        return Err(Error::invalid(error).at(at).code(sqlstate::SYNTAX_ERROR));
    }
    *clause = Some((value, at));
    Ok(())
}

/// Returns the least and the greatest number of a type.
fn bounds(data_type: &DataType) -> (i64, i64) {
    match data_type {
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

fn integer_type(reader: &mut TokenReader<'_>) -> Result<DataType> {
    let names: &[&[&str]] =
        &[&["SMALLINT"], &["INT2"], &["INTEGER"], &["INT"], &["INT4"], &["BIGINT"], &["INT8"]];
    match reader.one_of(names) {
        Some(0 | 1) => Ok(DataType::Int16),
        Some(2..=4) => Ok(DataType::Int32),
        Some(_) => Ok(DataType::Int64),
        None => Err(reader.expected("SMALLINT, INTEGER or BIGINT, the types that a sequence can have")),
    }
}

/// Reads `table.column` or `NONE`.
fn owner(reader: &mut TokenReader<'_>) -> Result<Option<Owner>> {
    if reader.keyword(&["NONE"]) {
        return Ok(None);
    }
    column_name(reader).map(Some)
}

/// Reads a number that may have a sign.
pub(crate) fn signed(reader: &mut TokenReader<'_>) -> Result<i64> {
    let start = reader.position().start;
    let is_negative = reader.symbol(Token::Minus);
    if !is_negative {
        reader.symbol(Token::Plus);
    }
    let number = i128::from(reader.number()?);
    let number = if is_negative { -number } else { number };
    i64::try_from(number)
        .map_err(|_| Error::invalid("the number is too large").at(start..reader.last_position().end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, before: Option<&SequenceOptions>) -> Result<SequenceChange> {
        SequenceOptions::read(&mut TokenReader::new(text)?, before)
    }

    fn numbers(options: &SequenceOptions) -> [i64; 4] {
        [options.start, options.increment, options.min, options.max]
    }

    #[test]
    fn defaults_depend_on_the_type_and_the_direction() {
        let of = |text: &str| numbers(&read(text, None).unwrap().options);
        assert_eq!(of(""), [1, 1, 1, i64::MAX]);
        assert_eq!(of("AS INT INCREMENT -2"), [-1, -2, i64::from(i32::MIN), -1]);
        assert_eq!(of("AS smallint MINVALUE 5 NO MAXVALUE"), [5, 1, 5, 32_767]);
        assert_eq!(of("START WITH 7 MINVALUE -9223372036854775808"), [7, 1, i64::MIN, i64::MAX]);
    }

    #[test]
    fn altered_options_keep_the_others() {
        let before = read("AS INT START 10 INCREMENT BY 5 CYCLE OWNED BY t.id", None).unwrap().options;
        assert_eq!(before.owned_by, Some(("t".into(), "id".into())));
        let altered = read("AS BIGINT RESTART", Some(&before)).unwrap();
        assert_eq!(numbers(&altered.options), [10, 5, 1, i64::MAX]);
        assert_eq!((altered.restart, altered.changes_options, altered.options.cycle), (Some(10), true, true));
        let restarted = read("RESTART WITH 12", Some(&before)).unwrap();
        assert_eq!((restarted.restart, restarted.changes_options), (Some(12), false));
        assert_eq!(read("OWNED BY NONE", Some(&before)).unwrap().options.owned_by, None);
    }

    #[test]
    fn wrong_options_are_refused() {
        let error = |text: &str| read(text, None).unwrap_err().message;
        assert_eq!(error("INCREMENT 0"), "INCREMENT must not be zero");
        assert_eq!(error("MINVALUE 5 MAXVALUE 5"), "MINVALUE (5) must be less than MAXVALUE (5)");
        assert_eq!(error("START 0"), "START value (0) cannot be less than MINVALUE (1)");
        assert_eq!(error("MAXVALUE 9 START 10"), "START value (10) cannot be greater than MAXVALUE (9)");
        assert!(error("CYCLE NO CYCLE").contains("given twice"));
        assert!(error("AS SMALLINT MAXVALUE 40000").contains("out of range for sequence data type SMALLINT"));
        assert!(error("RESTART").contains("ALTER SEQUENCE"));
        assert!(error("AS TEXT").contains("SMALLINT, INTEGER or BIGINT"));
        assert!(error("CACHE 0").contains("greater than zero"));
        assert!(error("START 9223372036854775808").contains("too large"));
    }
}
