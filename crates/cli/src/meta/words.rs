//! Splits the arguments of a command into words; quoted words may contain spaces.

use std::iter::Peekable;
use std::str::Chars;

use crate::variables::Variables;

type Letters<'a> = Peekable<Chars<'a>>;

/// Splits the rest of a command into words, and substitutes variables for `:name`. Single quotes protect
/// their content; in them, two quotes stand for one, and `\n`, `\t`, `\'` and `\\` are escapes as in psql.
/// Double quotes are kept, since they belong to a name.
pub fn words(text: &str, variables: &Variables) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.peek().copied() {
        if letter.is_whitespace() {
            letters.next();
            continue;
        }
        words.push(word(&mut letters, variables)?);
    }
    Ok(words)
}

fn word(letters: &mut Letters<'_>, variables: &Variables) -> Result<String, String> {
    let mut word = String::new();
    while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace()) {
        match letter {
            '\'' => text(letters, &mut word)?,
            '"' => {
                word.push('"');
                loop {
                    let letter = letters.next().ok_or("a quoted name lacks its closing \"")?;
                    word.push(letter);
                    if letter == '"' {
                        break;
                    }
                }
            }
            ':' => {
                let mut name = String::new();
                while let Some(letter) = letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_')
                {
                    name.push(letter);
                }
                match variables.get(&name) {
                    Some(value) => word.push_str(value),
                    None => word.extend([":", name.as_str()]),
                }
            }
            letter => word.push(letter),
        }
    }
    Ok(word)
}

fn text(letters: &mut Letters<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match letters.next().ok_or("a quoted word lacks its closing '")? {
            '\'' => {
                if letters.next_if_eq(&'\'').is_none() {
                    return Ok(());
                }
                word.push('\'');
            }
            '\\' => match letters.next() {
                Some('n') => word.push('\n'),
                Some('t') => word.push('\t'),
                Some(letter @ ('\'' | '\\')) => word.push(letter),
                Some(letter) => word.extend(['\\', letter]),
                None => word.push('\\'),
            },
            letter => word.push(letter),
        }
    }
}

/// Folds a relation's name to lower case, except for the parts in double quotes.
pub fn folded(name: &str) -> String {
    let mut folded = String::with_capacity(name.len());
    let mut quoted = false;
    for letter in name.chars() {
        match letter {
            '"' => quoted = !quoted,
            letter if quoted => folded.push(letter),
            letter => folded.extend(letter.to_lowercase()),
        }
    }
    folded
}

/// Returns true if a name matches a pattern with `*` for any letters and `?` for any letter.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(letter) if *letter == '?' || *letter == name[n] => {
                p += 1;
                n += 1;
            }
            // Let the last star match one letter more.
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Result<Vec<String>, String> {
        words(text, &Variables::new([("v".to_owned(), "it's b".to_owned())]))
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(cut(" a  'b c'd \"E f\" ").unwrap(), ["a", "b cd", "\"E f\""]);
        assert_eq!(cut("'it''s' 'a\\nb'").unwrap(), ["it's", "a\nb"]);
        assert!(cut("'a").is_err() && cut("\"a").is_err() && cut("").unwrap().is_empty());
    }

    #[test]
    fn variables_are_put_in_whatever_their_values() {
        assert_eq!(cut("x:v ':v' :w a::v").unwrap(), ["xit's b", ":v", ":w", "a:it's b"]);
    }

    #[test]
    fn patterns_fit_names() {
        assert_eq!(folded("Orders.\"My Table\""), "orders.My Table");
        for (pattern, name) in
            [("*", ""), ("or*", "orders"), ("*d*s", "orders"), ("o?ders", "orders"), ("a", "a")]
        {
            assert!(fits(pattern, name), "{pattern}");
        }
        for (pattern, name) in [("or", "orders"), ("*x", "orders"), ("?", ""), ("", "a")] {
            assert!(!fits(pattern, name), "{pattern}");
        }
    }
}
