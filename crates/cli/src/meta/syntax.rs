//! `\h`: the statements and their syntax, from the engine's table.

use std::fmt::Write;

use millstream::{Statement, statements};

/// Returns the list of all statements, or the syntax of those that begin with some words.
pub fn syntax(words: &[String]) -> Result<String, String> {
    if words.is_empty() {
        return Ok(list());
    }
    let words: Vec<&str> = words.iter().map(|word| word.trim_end_matches(';')).collect();
    let found: Vec<String> =
        statements().iter().filter(|statement| begins(statement, &words)).map(|found| one(found)).collect();
    match found.is_empty() {
        true => Err(format!("there is no statement {}; \\h lists them", words.join(" ").to_uppercase())),
        false => Ok(found.join("\n")),
    }
}

fn list() -> String {
    let mut text = "\\h NAME shows the syntax of a statement.\n\n".to_owned();
    for statement in statements() {
        let _ = writeln!(text, "  {:<27} {}", statement.name(), statement.purpose);
    }
    text
}

fn begins(statement: &Statement, words: &[&str]) -> bool {
    statement.words.iter().any(|form| {
        form.len() >= words.len()
            && form.iter().zip(words).all(|(known, word)| known.eq_ignore_ascii_case(word))
    })
}

fn one(statement: &Statement) -> String {
    let mut text = format!("{}: {}\n", statement.name(), statement.purpose);
    for line in statement.synopsis.lines() {
        let _ = writeln!(text, "  {line}");
    }
    for page in statement.pages {
        let _ = writeln!(text, "More: docs/sql/statements/{page}.md");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Result<String, String> {
        syntax(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn statements_are_listed_on_a_screen_of_its_width() {
        let text = of("").unwrap();
        assert!(text.contains("\n  CREATE TABLE                define a table\n"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn the_syntax_is_that_of_the_page() {
        assert_eq!(
            of("flush;").unwrap(),
            "FLUSH: wait until all earlier input is processed\n  FLUSH;\nMore: docs/sql/statements/flush.md\n"
        );
        assert!(of("start").unwrap().contains("BEGIN [WORK | TRANSACTION]"));
        assert!(of("alter source").unwrap().contains("SET WATERMARK FOR"));
        assert_eq!(of("create nothing").unwrap_err(), "there is no statement CREATE NOTHING; \\h lists them");
    }
}
