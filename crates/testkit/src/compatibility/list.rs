//! A list as text: its parser and its printer.

use std::fmt;

/// Marks a blank at the beginning or the end of a row, which an editor would cut.
const BLANK: char = '␠';
/// Stands for the character 0.
const NUL: char = '␀';

/// A list: a chapter of another system's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Its heading.
    pub title: String,
    /// Its tables, in the order of that documentation.
    pub tables: Vec<Table>,
}

/// A table of forms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// The reason why forms of it are missing, unless a form has its own.
    pub why: Option<String>,
    /// The reason why the figures leave it out, if they do. Its forms have no examples.
    pub not_counted: Option<String>,
    /// Its forms.
    pub entries: Vec<Entry>,
}

/// A form of a function, an operator, a type or a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name or signature.
    pub name: String,
    /// At least one example, if the table counts.
    pub examples: Vec<Example>,
}

/// Statements, and the rows that the other system gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The line of the last statement, from 1 on.
    pub line: usize,
    /// Statements or, the last one, an expression.
    pub statements: Vec<String>,
    /// The rows of the other system, as psql prints them without alignment.
    pub rows: Vec<String>,
    /// Its state in this engine.
    pub state: State,
}

/// The state of an example in this engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The engine gives the same rows.
    There,
    /// The engine gives the same rows for these statements.
    As(Vec<String>),
    /// The engine gives these rows instead, for the reason given, if any.
    Differs(String, Vec<String>),
    /// The engine refuses it, for the reason given, if any.
    Missing(String),
}

impl State {
    /// Returns a rank: the worst state is the greatest.
    pub fn rank(&self) -> usize {
        match self {
            State::There => 0,
            State::As(_) => 1,
            State::Differs(..) => 2,
            State::Missing(_) => 3,
        }
    }

    /// Returns the word of the lists.
    pub fn word(&self) -> &'static str {
        ["there", "as", "differs", "missing"][self.rank()]
    }
}

impl Entry {
    /// Returns the worst state of its examples; the form is as good as that.
    pub fn state(&self) -> &State {
        let worst = self.examples.iter().map(|example| &example.state).max_by_key(|state| state.rank());
        worst.unwrap_or(&State::There)
    }
}

impl List {
    /// Parses a list; an error begins with the line.
    pub fn parse(text: &str) -> Result<List, String> {
        let mut parser = Parser::default();
        for (at, line) in text.lines().enumerate() {
            parser.line(at + 1, line).map_err(|error| format!("{}: {error}", at + 1))?;
        }
        parser.end().map_err(|error| format!("at the end: {error}"))
    }
}

#[derive(Default)]
struct Parser {
    list: List,
    /// Statements before the last one of the next example.
    before: Vec<String>,
    /// True if the next line begins an entry.
    fresh: bool,
}

impl Parser {
    fn line(&mut self, at: usize, line: &str) -> Result<(), String> {
        if line.is_empty() {
            self.complete()?;
            self.fresh = true;
            return Ok(());
        }
        if let Some(title) = line.strip_prefix("# ").filter(|_| at == 1) {
            self.list.title = title.to_string();
            return Ok(());
        }
        if let Some(title) = line.strip_prefix("## ") {
            self.list.tables.push(Table { title: title.to_string(), ..Table::default() });
            self.fresh = false;
            return Ok(());
        }
        let table = self.list.tables.last_mut().ok_or("a table, '## title', was expected")?;
        if self.fresh {
            table.entries.push(Entry { name: line.to_string(), examples: Vec::new() });
            self.fresh = false;
            return Ok(());
        }
        let Some(entry) = table.entries.last_mut() else {
            let (word, rest) = line.split_once(": ").unwrap_or((line, ""));
            match word {
                "why" => table.why = Some(rest.to_string()),
                "not counted" => table.not_counted = Some(rest.to_string()),
                _ => {
                    return Err(format!("'{line}' was found, but 'why: …' or 'not counted: …' was expected"));
                }
            }
            return Ok(());
        };
        if let Some(statement) = line.strip_prefix("$ ") {
            self.before.push(statement.to_string());
            return Ok(());
        }
        if let Some(statement) = line.strip_prefix("> ") {
            let mut statements = std::mem::take(&mut self.before);
            statements.push(statement.to_string());
            let state = State::There;
            entry.examples.push(Example { line: at, statements, rows: Vec::new(), state });
            return Ok(());
        }
        let example = entry.examples.last_mut().ok_or("an example, '> expression', was expected")?;
        example.add(line)
    }

    /// Checks the entry that ends.
    fn complete(&mut self) -> Result<(), String> {
        if let Some(statement) = self.before.first() {
            return Err(format!("after '$ {statement}', a line that begins with '> ' was expected"));
        }
        let Some(table) = self.list.tables.last() else { return Ok(()) };
        match table.entries.last() {
            Some(entry) if entry.examples.is_empty() && table.not_counted.is_none() => {
                Err(format!("'{}' has no example", entry.name))
            }
            _ => Ok(()),
        }
    }

    fn end(mut self) -> Result<List, String> {
        self.complete()?;
        Ok(self.list)
    }
}

impl Example {
    /// Adds a line below the example.
    fn add(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, &mut self.state) {
            ("=", _) => self.rows.push(unmarked(rest)),
            ("<", State::Differs(_, ours)) => ours.push(unmarked(rest)),
            ("as:", State::As(statements)) => statements.push(rest.to_string()),
            ("as:", state) => *state = State::As(vec![rest.to_string()]),
            ("differs:" | "differs", state) => *state = State::Differs(rest.to_string(), Vec::new()),
            ("missing:" | "missing", state) => *state = State::Missing(rest.to_string()),
            _ => {
                return Err(format!(
                    "'{line}' was found, but '= row', 'as: …', 'differs: …', '< row' or 'missing: …' was expected"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.title)?;
        for table in &self.tables {
            writeln!(f, "\n## {}", table.title)?;
            if let Some(why) = &table.why {
                writeln!(f, "why: {why}")?;
            }
            if let Some(why) = &table.not_counted {
                writeln!(f, "not counted: {why}")?;
            }
            for entry in &table.entries {
                writeln!(f, "\n{}", entry.name)?;
                for example in &entry.examples {
                    write!(f, "{example}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, statement) in self.statements.iter().enumerate() {
            let mark = if at + 1 < self.statements.len() { '$' } else { '>' };
            writeln!(f, "{mark} {statement}")?;
        }
        lines(f, '=', &self.rows)?;
        match &self.state {
            State::There => Ok(()),
            State::As(statements) => {
                statements.iter().try_for_each(|statement| writeln!(f, "as: {statement}"))
            }
            State::Differs(why, ours) => {
                reason(f, "differs", why)?;
                lines(f, '<', ours)
            }
            State::Missing(why) => reason(f, "missing", why),
        }
    }
}

fn reason(f: &mut fmt::Formatter<'_>, word: &str, why: &str) -> fmt::Result {
    if why.is_empty() { writeln!(f, "{word}") } else { writeln!(f, "{word}: {why}") }
}

fn lines(f: &mut fmt::Formatter<'_>, mark: char, rows: &[String]) -> fmt::Result {
    rows.iter().try_for_each(|row| match row.is_empty() {
        true => writeln!(f, "{mark}"),
        false => writeln!(f, "{mark} {}", marked(row)),
    })
}

/// Makes the blanks at both ends and the character 0 visible.
fn marked(row: &str) -> String {
    let row = row.replace('\0', &NUL.to_string());
    let left = row.len() - row.trim_start_matches(' ').len();
    let inner = row.trim_matches(' ');
    let right = row.len() - left - inner.len();
    let blanks = |count: usize| BLANK.to_string().repeat(count);
    format!("{}{inner}{}", blanks(left), blanks(right))
}

fn unmarked(row: &str) -> String {
    row.replace(BLANK, " ").replace(NUL, "\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# Text\n\n## Functions\nwhy: too rare\n\nupper ( text )\n> upper('a')\n= A\n\n\
        rows\n$ CREATE TABLE t (a INT)\n> SELECT 1\n=\n= ␠x␠␠\ndiffers: blanks\n< x\n> f(1)\n= 1\nas: g(1)\n\n\
        # integer\n> h(1)\nmissing\n";

    #[test]
    fn a_list_is_printed_as_it_was_read() {
        let list = List::parse(LIST).unwrap();
        assert_eq!(list.to_string(), LIST);
        let table = &list.tables[0];
        assert_eq!(table.why.as_deref(), Some("too rare"));
        assert_eq!(table.entries[1].examples[0].rows, ["", " x  "]);
        assert_eq!(marked(" a\0b "), "␠a␀b␠");
        assert_eq!(unmarked("␠a␀b␠"), " a\0b ");
        assert_eq!(*table.entries[1].state(), State::Differs("blanks".into(), vec!["x".into()]));
        assert_eq!(table.entries[2].name, "# integer");
    }

    #[test]
    fn an_error_names_the_line_and_the_remedy() {
        let check = |text: &str, expect: &str| {
            let error = List::parse(text).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check("# A\n\n## B\n\nf\n= 1\n", "6: an example, '> expression', was expected");
        check("# A\n\n## B\n\nf\n\ng\n> 1\n", "6: 'f' has no example");
        check("# A\n\n## B\n\nf\n> 1\nhello\n", "7: 'hello' was found, but");
        check("# A\n\n## B\n\nf\n$ SET a = 1\n", "a line that begins with '> ' was expected");
        check("# A\n\nf\n", "3: a table, '## title', was expected");
    }
}
