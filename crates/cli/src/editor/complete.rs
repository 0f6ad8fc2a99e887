//! Completion at the cursor: a pure function of the text and of the names in the catalog.

use std::ops::Range;

use millstream::{Names, ObjectName};

use crate::editor::options;
use crate::editor::words::{OTHERS, SHOWN, after, in_case_of, is_complete, kinds};
use crate::form::MODES;
use crate::meta;
use crate::scan::{self, Kind};
use crate::split::{self, Item};

/// The replacements of the text from `start` up to the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// These texts, sorted.
    Texts {
        /// The start of the text that they replace.
        start: usize,
        /// The texts.
        texts: Vec<String>,
    },
    /// The name of a file; the range is the part already typed.
    File(Range<usize>),
}

/// The word being typed, and its surroundings.
struct Place<'a> {
    /// The words and symbols of the statement before the word.
    before: Vec<&'a str>,
    /// The whole statement, including the part after the cursor.
    statement: &'a str,
    /// The word so far.
    word: &'a str,
    /// True if a quoted name has begun.
    quoted: bool,
}

/// Returns the completions at byte `cursor` of `text`, which continues `pending`.
pub fn complete(pending: &str, text: &str, cursor: usize, names: &Names) -> Completion {
    let inside = !scan::is_blank(pending);
    match split::items(&text[..cursor], inside).pop() {
        Some(Item::Command(name, rest)) => command(text, name, rest, cursor, names),
        // Columns are separated by a tab.
        Some(Item::Rows(..)) => Completion::Texts { start: cursor, texts: vec!["\t".into()] },
        _ => {
            let offset = pending.len();
            let whole = format!("{pending}{text}");
            let completion = sql(&whole, offset + cursor, names);
            shifted(completion, offset)
        }
    }
}

/// Returns the completions of SQL at byte `cursor` of a text without commands of the shell: the start of the text that
/// they replace, and the completions.
pub fn complete_sql(text: &str, cursor: usize, names: &Names) -> (usize, Vec<String>) {
    match sql(text, cursor, names) {
        Completion::Texts { start, texts } => (start, texts),
        Completion::File(_) => (cursor, Vec::new()),
    }
}

fn shifted(completion: Completion, offset: usize) -> Completion {
    match completion {
        Completion::Texts { start, texts } => {
            Completion::Texts { start: start.saturating_sub(offset), texts }
        }
        Completion::File(range) => {
            Completion::File(range.start.saturating_sub(offset)..range.end.saturating_sub(offset))
        }
    }
}

fn texts(start: usize, typed: &str, candidates: impl IntoIterator<Item = String>) -> Completion {
    let typed = typed.to_lowercase();
    let mut texts: Vec<String> =
        candidates.into_iter().filter(|text| text.to_lowercase().starts_with(&typed)).collect();
    texts.sort_unstable();
    texts.dedup();
    Completion::Texts { start, texts }
}

fn command(text: &str, name: Range<usize>, rest: Range<usize>, cursor: usize, names: &Names) -> Completion {
    if rest.is_empty() && name.end == cursor {
        let typed = &text[name.clone()];
        let known = meta::COMMANDS.iter().flat_map(|doc| std::iter::once(&doc.name).chain(doc.aliases));
        return texts_exact(name.start, typed, known.map(|name| (*name).to_owned()));
    }
    let Ok(doc) = meta::find(&text[name]) else {
        return Completion::Texts { start: cursor, texts: Vec::new() };
    };
    let start = rest.start + text[rest.clone()].rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let word = &text[start..cursor];
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let kind = match doc.name {
        "i" | "ir" | "o" | "g" | "gx" | "e" | "s" => return Completion::File(start..cursor),
        "live" if text[rest.clone()].trim_start().contains(' ') => {
            return sql_within(text, rest, cursor, names);
        }
        "mode" => return texts(start, word, MODES.iter().map(|(name, _)| (*name).to_owned())),
        "x" => return texts(start, word, of(&["on", "off", "auto"])),
        "timing" | "pager" => return texts(start, word, of(&["on", "off"])),
        "df" => return texts(start, word, names.functions.clone()),
        "dc" => return texts(start, word, names.settings.iter().map(|setting| setting.name.to_owned())),
        "ds" => "source",
        "dt" | "di" => "table",
        "dv" => "view",
        "dm" => "materialized view",
        "dr" => "stream",
        "dk" => "sink",
        "dS" => "system table",
        "h" => {
            let begun: Vec<&str> = text[rest.start..start].split_whitespace().collect();
            return texts(start, word, after(&begun));
        }
        "d" | "sv" | "live" => "",
        _ => return Completion::Texts { start, texts: Vec::new() },
    };
    texts(start, word, objects(names, kind, word))
}

/// Completes the query of a command that takes one after its name.
fn sql_within(text: &str, rest: Range<usize>, cursor: usize, names: &Names) -> Completion {
    shifted_back(sql(&text[rest.start..], cursor - rest.start, names), rest.start)
}

fn shifted_back(completion: Completion, offset: usize) -> Completion {
    match completion {
        Completion::Texts { start, texts } => Completion::Texts { start: start + offset, texts },
        Completion::File(range) => Completion::File(range.start + offset..range.end + offset),
    }
}

/// Completes case-sensitive names.
fn texts_exact(start: usize, typed: &str, candidates: impl IntoIterator<Item = String>) -> Completion {
    let mut texts: Vec<String> = candidates.into_iter().filter(|text| text.starts_with(typed)).collect();
    texts.sort_unstable();
    Completion::Texts { start, texts }
}

fn sql(text: &str, cursor: usize, names: &Names) -> Completion {
    let nothing = Completion::Texts { start: cursor, texts: Vec::new() };
    let pieces = scan::pieces(&text[..cursor]);
    let statement = statement_around(text, cursor);
    let last = pieces.last();
    if let Some(piece) = last.filter(|piece| piece.open) {
        return match piece.kind {
            Kind::Text if text[piece.range.clone()].starts_with('\'') => {
                let before = tokens(&text[statement.start..piece.range.start]);
                options::value(&before, piece.range.start + 1..cursor, text, names).unwrap_or(nothing)
            }
            Kind::Name => at_word(text, piece.range.start, cursor, statement, true, names),
            _ => nothing,
        };
    }
    let start = text[..cursor].bytes().rposition(|byte| !scan::is_name_byte(byte)).map_or(0, |at| at + 1);
    at_word(text, start.max(statement.start), cursor, statement, false, names)
}

fn at_word(
    text: &str,
    start: usize,
    cursor: usize,
    statement: Range<usize>,
    quoted: bool,
    names: &Names,
) -> Completion {
    let place = Place {
        before: tokens(&text[statement.start..start]),
        statement: &text[statement],
        word: &text[start + usize::from(quoted)..cursor],
        quoted,
    };
    texts(start + usize::from(quoted), place.word, place.candidates(names)).closed(quoted)
}

impl Completion {
    /// Adds the closing quote to quoted names.
    fn closed(self, quoted: bool) -> Completion {
        match self {
            Completion::Texts { start, mut texts } if quoted => {
                texts.iter_mut().for_each(|text| text.push('"'));
                Completion::Texts { start, texts }
            }
            other => other,
        }
    }
}

/// Returns the range of the statement at the cursor.
fn statement_around(text: &str, cursor: usize) -> Range<usize> {
    let mut range = 0..text.len();
    for piece in scan::pieces(text).iter().filter(|piece| piece.kind == Kind::Code) {
        for (at, _) in text[piece.range.clone()].match_indices(';') {
            let at = piece.range.start + at;
            if at < cursor {
                range.start = at + 1;
            } else {
                range.end = range.end.min(at);
            }
        }
    }
    range
}

/// Returns words, quoted names, strings and symbols, without comments.
pub fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for piece in scan::pieces(text) {
        match piece.kind {
            Kind::Comment => {}
            Kind::Text | Kind::Name => found.push(&text[piece.range]),
            Kind::Code => {
                let code = &text[piece.range];
                let mut at = 0;
                while let Some(letter) = code[at..].chars().next() {
                    let length = code[at..].bytes().take_while(|byte| scan::is_name_byte(*byte)).count();
                    let end = at + length.max(letter.len_utf8());
                    if !letter.is_whitespace() {
                        found.push(&code[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
    found
}

impl Place<'_> {
    fn candidates(&self, names: &Names) -> Vec<String> {
        let back = |place: usize| self.before.len().checked_sub(place).map(|at| self.before[at]);
        let is = |word: Option<&str>, known: &[&str]| {
            word.is_some_and(|word| known.iter().any(|known| known.eq_ignore_ascii_case(word)))
        };
        let (last, second) = (back(1), back(2));
        if last == Some(".") {
            return second.map_or_else(Vec::new, |qualifier| self.columns_of(qualifier, names));
        }
        if !self.quoted
            && let Some(options) = options::names(&self.before, names)
        {
            return options;
        }
        let next = self.words(&after(&self.before));
        if !next.is_empty() && !is_complete(&self.before) {
            return next;
        }
        if is(last, &["SHOW"]) {
            return self.with_settings(self.words(SHOWN), names);
        }
        if is(last, &["SET"]) && self.before.len() == 1 {
            return self.with_settings(next, names);
        }
        if is(last, &["CREATE"]) && is(second, &["SHOW"]) {
            return [self.words(&kinds()), self.objects(names, "")].concat();
        }
        if is(last, &["DROP"]) {
            return self.words(&kinds());
        }
        if is(last, &["EXPLAIN", "ANALYZE"]) {
            return self.words(&["ANALYZE", "SELECT", "CREATE", "WITH"]);
        }
        if let Some(kind) = self.kind_before() {
            return self.objects(names, kind);
        }
        if is(last, &["FROM", "JOIN", "INTO", "UPDATE", "DESCRIBE", "SUBSCRIBE", "VERIFY", "PAUSE", "RESUME"])
            || (last == Some(",") && self.is_in_from())
        {
            return [self.objects(names, ""), self.words(&["LAST", "LATERAL", "SELECT", "UNNEST"])].concat();
        }
        [next, self.expression(names)].concat()
    }

    /// Returns the columns of the relations in the statement, functions, and keywords.
    fn expression(&self, names: &Names) -> Vec<String> {
        let all = tokens(self.statement);
        let is_there = |object: &&ObjectName| {
            let short = object.name.rsplit('.').next().unwrap_or_default();
            all.iter().any(|token| is_named(token, &object.name) || is_named(token, short))
        };
        let mut objects: Vec<&ObjectName> = names.objects.iter().filter(is_there).collect();
        let mut found: Vec<String> = objects.iter().map(|object| self.name(&object.name)).collect();
        if objects.is_empty() {
            // SELECT comes before FROM, so any column is possible.
            objects.extend(names.objects.iter().filter(|object| object.kind != "system table"));
        }
        let columns = objects.iter().flat_map(|object| &object.columns);
        found.extend(columns.map(|(column, _)| self.name(column)));
        if self.quoted {
            return found;
        }
        found.extend(names.functions.iter().map(|name| format!("{}(", in_case_of(self.word, name))));
        found.extend(self.words(OTHERS));
        found.extend(self.words(&["SELECT"]));
        found
    }

    /// Returns the columns of a relation or an alias, or the tables of the engine's schema.
    fn columns_of(&self, qualifier: &str, names: &Names) -> Vec<String> {
        if qualifier.eq_ignore_ascii_case("millstream") {
            let own = names.objects.iter().filter_map(|object| object.name.strip_prefix("millstream."));
            return own.map(|name| self.name(name)).collect();
        }
        let all = tokens(self.statement);
        let mut wanted = vec![qualifier];
        for at in 1..all.len() {
            // `FROM orders o` and `FROM orders AS o`.
            if all[at].eq_ignore_ascii_case(qualifier) {
                let before =
                    if all[at - 1].eq_ignore_ascii_case("AS") { at.checked_sub(2) } else { Some(at - 1) };
                wanted.extend(before.map(|at| all[at]));
            }
        }
        let named = names.objects.iter().filter(|object| {
            let short = object.name.rsplit('.').next().unwrap_or_default();
            wanted.iter().any(|token| is_named(token, short))
        });
        named.flat_map(|object| object.columns.iter().map(|(column, _)| self.name(column))).collect()
    }

    /// Returns the kind of object that the statement expects: after `DROP TABLE` only tables.
    fn kind_before(&self) -> Option<&'static str> {
        let verb = self.before.first()?;
        let drops = verb.eq_ignore_ascii_case("DROP") || verb.eq_ignore_ascii_case("ALTER");
        let shows = verb.eq_ignore_ascii_case("SHOW");
        let kind = self.before.get(if shows { 2 } else { 1 })?;
        let kinds = [
            ("SOURCE", "source"),
            ("TABLE", "table"),
            ("STREAM", "stream"),
            ("SINK", "sink"),
            ("VIEW", "view"),
            ("MATERIALIZED", "materialized view"),
        ];
        let (_, kind) = kinds.iter().find(|(word, _)| word.eq_ignore_ascii_case(kind))?;
        ((drops || shows) && self.before.len() > 1).then_some(kind)
    }

    /// Returns true if a comma here separates relations: the last clause that has begun is FROM.
    fn is_in_from(&self) -> bool {
        let clauses = ["SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "ON", "SET", "VALUES", "WITH"];
        let mut words = self.before.iter().rev();
        let clause = words.find(|word| clauses.iter().any(|clause| clause.eq_ignore_ascii_case(word)));
        clause.is_some_and(|clause| clause.eq_ignore_ascii_case("FROM"))
    }

    fn words(&self, words: &[impl AsRef<str>]) -> Vec<String> {
        if self.quoted {
            return Vec::new();
        }
        words.iter().map(|word| in_case_of(self.word, word.as_ref())).collect()
    }

    fn with_settings(&self, mut words: Vec<String>, names: &Names) -> Vec<String> {
        words.extend(names.settings.iter().map(|setting| in_case_of(self.word, setting.name)));
        words
    }

    fn objects(&self, names: &Names, kind: &str) -> Vec<String> {
        let word = if self.quoted { "\"" } else { self.word };
        objects(names, kind, word)
    }

    /// Returns a name as it must be typed.
    fn name(&self, name: &str) -> String {
        if self.quoted { name.replace('"', "\"\"") } else { written(name, self.word) }
    }
}

/// Returns the names of objects of this kind; of all kinds if it is empty.
fn objects(names: &Names, kind: &str, word: &str) -> Vec<String> {
    let fitting = names.objects.iter().filter(|object| kind.is_empty() || object.kind == kind);
    // The engine's own tables are offered only after the start of their schema's name.
    let fitting = fitting.filter(|object| {
        object.kind != "system table" || kind == object.kind || word.to_lowercase().starts_with("mill")
    });
    fitting
        .map(|object| match word {
            "\"" => object.name.replace('"', "\"\""),
            word => object.name.split_inclusive('.').map(|part| written(part, word)).collect(),
        })
        .collect()
}

/// Quotes a name for SQL if it would be folded or split.
fn written(name: &str, word: &str) -> String {
    let plain =
        |letter: char| letter.is_lowercase() || letter.is_ascii_digit() || letter == '_' || letter == '.';
    if name.chars().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit()) {
        return in_case_of(word, name);
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns true if a token of a statement is this name.
fn is_named(token: &str, name: &str) -> bool {
    match token.strip_prefix('"').and_then(|token| token.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\"") == name,
        None => token.to_lowercase() == name,
    }
}

#[cfg(test)]
mod tests {

    use millstream::connect::connectors::builtin;

    use super::*;

    fn names() -> Names {
        let object = |name: &str, kind, columns: &[&str]| ObjectName {
            name: name.to_owned(),
            kind,
            columns: columns.iter().map(|column| ((*column).to_owned(), "TEXT".to_owned())).collect(),
        };
        Names {
            objects: vec![
                object("My Table", "table", &["Odd"]),
                object("orders", "table", &["amount", "customer", "order"]),
                object("owners", "source", &["customer", "team"]),
                object("totals", "materialized view", &["total"]),
                object("millstream.epochs", "system table", &["epoch", "batch_time"]),
            ],
            functions: vec!["sum".to_owned(), "upper".to_owned()],
            settings: SETTINGS,
            connectors: builtin(),
        }
    }

    const SETTINGS: &[millstream::SettingDoc] =
        &[millstream::SettingDoc { name: "batch_interval", default: "auto", doc: "" }];

    /// Completes at the `|`.
    fn completed(text: &str) -> (usize, Vec<String>) {
        let cursor = text.find('|').unwrap();
        match complete("", &text.replace('|', ""), cursor, &names()) {
            Completion::Texts { start, texts } => (start, texts),
            Completion::File(range) => (range.start, vec!["(file)".to_owned()]),
        }
    }

    fn check(text: &str, expect: &[&str]) {
        assert_eq!(completed(text).1, expect, "{text}");
    }

    fn has(text: &str, expect: &[&str]) {
        let found = completed(text).1;
        for word in expect {
            assert!(found.iter().any(|text| text == word), "{text}: {word} in {found:?}");
        }
    }

    #[test]
    fn statements_begin_with_their_verbs() {
        check("sel|", &["select"]);
        check("SEL|", &["SELECT"]);
        check("SELECT 1; cre|", &["create"]);
        has("|", &["CREATE", "SELECT", "WITH"]);
        check("CREATE mat|", &["materialized view"]);
        check("ALTER MATERIALIZED |", &["VIEW"]);
        check("START |", &["TRANSACTION"]);
        check("\\h pre|", &["PREPARE"]);
        check("\\h start |", &["TRANSACTION"]);
    }

    #[test]
    fn every_statement_is_offered() {
        for statement in millstream::statements() {
            for words in statement.words {
                has("|", &words[..1]);
                if let [first, rest @ ..] = *words
                    && !rest.is_empty()
                {
                    has(&format!("{first} |"), &[&rest.join(" ")]);
                }
            }
        }
    }

    #[test]
    fn relations_come_after_from() {
        check("SELECT * FROM o|", &["orders", "owners"]);
        check("SELECT * FROM orders, ow|", &["owners"]);
        check("SELECT * FROM orders JOIN T|", &["TOTALS"]);
        check("SELECT * FROM \"My|", &["My Table\""]);
        check("SELECT * FROM millstream.|", &["epochs"]);
        check("SELECT * FROM mill|", &["millstream.epochs"]);
        check("DROP TABLE o|", &["orders"]);
        check("DROP SOURCE o|", &["owners"]);
        check("SHOW CREATE TABLE |", &["\"My Table\"", "orders"]);
    }

    #[test]
    fn columns_are_those_of_the_relations_named() {
        check("SELECT cu| FROM orders", &["cube", "current row", "customer"]);
        check("SELECT o.|  FROM orders o", &["amount", "customer", "order"]);
        check("SELECT x.c| FROM orders AS x JOIN owners USING (customer)", &["customer"]);
        check("SELECT orders.am|", &["amount"]);
        check("SELECT * FROM totals WHERE to|", &["to", "total", "totals"]);
        has("SELECT sum(am|", &["amount"]);
        has("SELECT su|", &["sum("]);
        has("SELECT SU|", &["SUM("]);
        has("SELECT 1 FROM millstream.epochs WHERE ba|", &["batch_time"]);
    }

    #[test]
    fn options_are_those_of_the_connector() {
        has("CREATE SOURCE s WITH (|", &["connector"]);
        check("CREATE SOURCE s WITH (connector = 'fi|", &["file'"]);
        has("CREATE SOURCE s WITH (connector = 'file', |", &["path", "match_pattern", "recursive"]);
        check("CREATE SOURCE s WITH (connector = 'file', path = 'x', pa|", &[]);
        check("CREATE SOURCE s WITH (connector = 'file', path = 'a/b|", &["(file)"]);
        assert_eq!(completed("CREATE SOURCE s WITH (connector = 'file', path = 'a|").0, 50);
        check(
            "CREATE SOURCE s WITH (connector = 'file', format = '|",
            &["csv'", "json'", "parquet'", "text'"],
        );
        check("CREATE SOURCE s WITH (connector = 'file', bounded = 't|", &["true'"]);
        check("SELECT * FROM t WHERE x = 'fi|", &[]);
    }

    #[test]
    fn settings_and_commands() {
        check("SET ba|", &["batch_interval"]);
        has("SHOW |", &["batch_interval", "MATERIALIZED VIEWS"]);
        check("\\tim|", &["timer", "timing"]);
        check("\\i da|", &["(file)"]);
        check("\\d o|", &["orders", "owners"]);
        check("\\dt o|", &["orders"]);
        check("\\mode c|", &["csv"]);
        check(".mode j|", &["json"]);
        check("\\live SELECT * FROM tot|", &["totals"]);
        assert_eq!(completed("\\live SELECT * FROM tot|").0, 20);
    }

    #[test]
    fn strings_and_comments_are_left_alone() {
        check("SELECT 'sel|", &[]);
        check("SELECT 1 -- sel|", &[]);
        check("SELECT $$ sel|", &[]);
    }
}
